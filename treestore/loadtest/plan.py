"""What a load test is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from treestore.errors import InvalidArgument

Protocol = Literal["tcp", "http"]

KINDS = ("reads", "writes", "queries", "transactions", "deletes")

MIX: Mapping[str, int] = {
    "reads": 50,
    "writes": 25,
    "queries": 15,
    "transactions": 5,
    "deletes": 5,
}
"""Shares of the kinds of calls where nobody says: two thirds read, as with most applications."""


@attrs.frozen(kw_only=True)
class Plan:
    """One load test.

    Attributes:
        users: how many there are at a time, each with one connection and one call at a time.
        duration_s: how long they work.
        mix: kind of call → its share; those left out are 0.
        protocol: which edge they use.
        seed: of what they choose. (The order in which users come to their turn is not seeded.)
        think_s: mean pause between two calls of a user; 0: the next call follows at once.
        documents_each: how many documents a user owns at most.
        timeout_s: how long a call may take.
    """

    users: int = 100
    duration_s: float = 60.0
    mix: Mapping[str, int] = MIX
    protocol: Protocol = "tcp"
    seed: int = 1
    think_s: float = 0.0
    documents_each: int = 20
    timeout_s: float = 30.0


def parse_mix(text: str) -> dict[str, int]:
    """``reads=80,writes=20`` as shares.

    Raises:
        InvalidArgument: it is not of that form, or there would be nothing to do.
    """
    mix: dict[str, int] = dict.fromkeys(KINDS, 0)
    for part in text.split(","):
        kind, equals, share = part.strip().partition("=")
        if kind not in mix or not equals or not share.isdecimal() or int(share) > 1_000_000:
            raise InvalidArgument(
                f"A mix is shares such as reads=50,writes=50, not {text!r:.80}; "
                f"there are {', '.join(KINDS)}."
            )
        mix[kind] = int(share)
    if not any(mix.values()):
        raise InvalidArgument("A mix in which every share is 0 has nothing to do.")
    return mix
