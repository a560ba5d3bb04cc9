"""Money that moves between accounts: what several documents together must come to.

A transfer takes an amount from one account and gives it to another, and enters both as postings,
one negative, one positive. Over TCP all of that is one interactive transaction. Over HTTP, where
there is none, the two postings are one call and the accounts are left alone. Either way

1. postings come in pairs, so in every state all of them add up to 0;
2. all accounts together hold what they held at the beginning;
3. each account holds what the acknowledged transfers left in it;
4. the postings are exactly those of the transfers that were acknowledged and not cleared.

A user keeps the postings of its newest transfers only and clears the older ones, so that the
collection does not grow.
"""

from __future__ import annotations

from typing import Any

import attrs

from treestore.loadtest.content import Json

BALANCE = 1_000
"""What each account holds in the beginning."""

TRANSFERS_KEPT = 20
"""For each user."""

POSTING_INDEXES: tuple[Any, ...] = ("transfer", "user")


@attrs.frozen
class Transfer:
    """One transfer."""

    id: str
    user: int
    giver: str
    taker: str
    amount: int

    def postings(self) -> list[Json]:
        """Its two documents."""
        common = {"transfer": self.id, "user": self.user}
        return [
            {"_id": f"{self.id}-out", **common, "account": self.giver, "amount": -self.amount},
            {"_id": f"{self.id}-in", **common, "account": self.taker, "amount": self.amount},
        ]


def account_id(number: int) -> str:
    """The id of an account."""
    return f"a{number:05d}"


@attrs.define
class Books:
    """What was acknowledged of all transfers.

    Attributes:
        balances: account → what it should hold.
        posted: id → transfers whose postings should be there.
        unsure: those whose outcome is unknown: their postings may be there, both, or not.
        unsure_balances: whether the accounts may have moved for one of these.
        done: how many transfers were acknowledged.
    """

    balances: dict[str, int] = attrs.Factory(dict)
    posted: dict[str, Transfer] = attrs.Factory(dict)
    unsure: dict[str, Transfer] = attrs.Factory(dict)
    unsure_balances: bool = False
    done: int = 0

    def open_accounts(self, count: int) -> list[Json]:
        """The documents of so many accounts."""
        self.balances = {account_id(number): BALANCE for number in range(count)}
        return [{"_id": id, "balance": BALANCE} for id in self.balances]

    @property
    def total(self) -> int:
        """What all accounts hold together, at any time."""
        return BALANCE * len(self.balances)

    def move(self, transfer: Transfer) -> None:
        """The accounts have moved."""
        self.balances[transfer.giver] -= transfer.amount
        self.balances[transfer.taker] += transfer.amount
