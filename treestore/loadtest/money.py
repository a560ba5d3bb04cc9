"""What a user does with accounts: transfers, and audits of them."""

from __future__ import annotations

import time
from collections import deque
from random import Random
from typing import TYPE_CHECKING

from treestore.errors import TreeStoreError
from treestore.loadtest.accounts import TRANSFERS_KEPT, Transfer
from treestore.loadtest.content import Json
from treestore.loadtest.faces import Collections, Face, Transact
from treestore.loadtest.world import World, nothing_changed

if TYPE_CHECKING:
    from typing import Any

SUM: Json = {"sum": {"$sum": "amount"}, "count": {"$count": {}}}


class Money:
    """One user's transfers."""

    def __init__(self, world: World, face: Face, user: int, random: Random) -> None:
        self._world = world
        self._face = face
        self._user = user
        self._random = random
        self._mine: deque[Transfer] = deque()
        self._number = 0

    async def transfer(self) -> None:
        """Move some money, and clear the oldest transfer where there are many."""
        transfer = self._next()
        clears = self._mine[0] if len(self._mine) >= TRANSFERS_KEPT else None
        if self._face.transact is not None:
            await self._in_one(self._face.transact, transfer, clears)
        else:
            await self._post(transfer)
            if clears is not None:
                await self._clear(clears)

    def _next(self) -> Transfer:
        giver, taker = self._random.sample(list(self._world.books.balances), 2)
        self._number += 1
        id = f"t{self._user:05d}-{self._number}"
        return Transfer(id, self._user, giver, taker, self._random.randint(1, 300))

    async def _in_one(
        self, transact: Transact[Any], transfer: Transfer, clears: Transfer | None
    ) -> None:
        books, statistics, attempts = self._world.books, self._world.statistics, 0
        names = self._world.names

        async def work(collections: Collections) -> bool:
            nonlocal attempts
            attempts += 1
            giver = await collections.get(names.accounts, transfer.giver)
            if giver["balance"] < transfer.amount:
                return False
            taker = await collections.get(names.accounts, transfer.taker)
            # Set, not $inc: what was read must still be so when this is committed.
            for account, amount in ((giver, -transfer.amount), (taker, transfer.amount)):
                patch = {"$set": {"balance": account["balance"] + amount}}
                await collections.update(names.accounts, account["_id"], patch)
            await collections.insert_many(names.postings, transfer.postings())
            if clears is not None:
                await collections.delete_many(names.postings, {"transfer": clears.id})
            return True

        self._doubt(transfer, clears)
        began = time.perf_counter()
        try:
            done = await transact(work)
        except TreeStoreError as error:
            statistics.count("transfer", began, error)
            statistics.conflicts += attempts - 1
            if nothing_changed(error):
                self._settle(transfer, posted=False)
                self._settle(clears, posted=True)
            else:
                books.unsure_balances = True
                self._forget(clears)
            raise
        statistics.count("transfer", began, None)
        statistics.conflicts += attempts - 1
        self._settle(transfer, posted=done)
        self._settle(clears, posted=not done)
        if done:
            books.move(transfer)
            books.done += 1
            self._mine.append(transfer)
            self._forget(clears)

    async def _post(self, transfer: Transfer) -> None:
        """Both postings, or none."""
        call = self._face.collections.insert_many(self._world.names.postings, transfer.postings())
        self._doubt(transfer)
        try:
            await self._world.statistics.call("transfer", call)
        except TreeStoreError as error:
            if nothing_changed(error):
                self._settle(transfer, posted=False)
            raise
        self._settle(transfer, posted=True)
        self._world.books.done += 1
        self._mine.append(transfer)

    async def _clear(self, transfer: Transfer) -> None:
        """Remove both postings in one call."""
        filter = {"transfer": transfer.id}
        call = self._face.collections.delete_many(self._world.names.postings, filter)
        self._doubt(transfer)
        try:
            count = await self._world.statistics.call("delete_many", call)
        except TreeStoreError as error:
            if nothing_changed(error):
                self._settle(transfer, posted=True)
            else:
                self._forget(transfer)
            raise
        if count != 2:
            self._world.ledger.complain(f"{transfer.id} had {count} postings to clear, not 2")
        self._settle(transfer, posted=False)
        self._forget(transfer)

    def _doubt(self, *transfers: Transfer | None) -> None:
        books = self._world.books
        for transfer in transfers:
            if transfer is not None:
                books.posted.pop(transfer.id, None)
                books.unsure[transfer.id] = transfer

    def _settle(self, transfer: Transfer | None, *, posted: bool) -> None:
        books = self._world.books
        if transfer is not None:
            books.unsure.pop(transfer.id, None)
            if posted:
                books.posted[transfer.id] = transfer

    def _forget(self, transfer: Transfer | None) -> None:
        if transfer is not None:
            self._mine.remove(transfer)

    # -- audits -----------------------------------------------------------------------------

    async def audit(self) -> None:
        """Add up: all accounts where they move, and one's own postings."""
        world = self._world
        if self._face.transact is not None and self._random.random() < 0.5:
            call = self._face.aggregate(world.names.accounts, {"sum": {"$sum": "balance"}}, {})
            found = await world.statistics.call("sum accounts", call)
            if found.get("sum") != world.books.total:
                world.ledger.complain(
                    f"all accounts came to {found.get('sum')!r:.40}, not {world.books.total}"
                )
            return
        # Nobody else changes one's own postings, so their number is known.
        call = self._face.aggregate(world.names.postings, SUM, {"user": self._user})
        found = await world.statistics.call("sum postings", call)
        if found.get("sum", 0) != 0:
            world.ledger.complain(
                f"postings of user {self._user} came to {found['sum']!r:.40}, not 0"
            )
        unsure = sum(transfer.user == self._user for transfer in world.books.unsure.values())
        count, known = found.get("count", 0), 2 * len(self._mine)
        if not known <= count <= known + 2 * unsure:
            world.ledger.complain(f"user {self._user} found {count} postings, not {known}")
