"""One user: a connection, documents of its own, and one call after the other."""

from __future__ import annotations

from random import Random

import trio

from treestore.errors import AlreadyExists, NotFound, RateLimited, TreeStoreError
from treestore.loadtest.content import patch_to
from treestore.loadtest.faces import Face, patiently
from treestore.loadtest.ledger import Entry
from treestore.loadtest.money import Money
from treestore.loadtest.queries import Queries
from treestore.loadtest.world import World, nothing_changed

PAUSE_AFTER_ERROR_S = 0.05
PAUSE_LIMITED_S_MAX = 5.0
AUDITS = 0.2
"""Share of the queries that add up money."""


class User:
    """Works until the world's end.

    Attributes:
        number: from 0; names its documents.
    """

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self._world = world
        self._random = Random(f"{world.plan.seed} user {number}")
        self._mine = [world.ledger.add(number, slot) for slot in range(world.plan.documents_each)]

    async def prepare(self, face: Face) -> None:
        """Store half of the documents, before the load is on."""
        ledger = self._world.ledger
        entries = self._mine[: (len(self._mine) + 1) // 2]
        revisions = [ledger.begin(entry) for entry in entries]
        documents = [ledger.content(*pair) for pair in zip(entries, revisions, strict=True)]
        names = self._world.names
        await patiently(lambda: face.collections.insert_many(names.documents, documents))
        for entry, revision in zip(entries, revisions, strict=True):
            ledger.acknowledge(entry, revision)

    async def work(self, face: Face) -> None:
        """One call after the other, until the end."""
        world, random = self._world, self._random
        queries = Queries(world, face, self.number, random, self._mine)
        money = Money(world, face, self.number, random)
        kinds = list(world.plan.mix)
        shares = list(world.plan.mix.values())
        while not world.end.is_set():
            if world.plan.think_s:
                await self._pause(random.expovariate(1 / world.plan.think_s))
            (kind,) = random.choices(kinds, shares)
            try:
                if kind == "reads":
                    await self.read(face)
                elif kind == "writes":
                    await self.write(face)
                elif kind == "queries":
                    await (money.audit() if random.random() < AUDITS else queries.query())
                elif kind == "transactions":
                    await money.transfer()
                else:
                    await self.delete(face)
            except RateLimited as limited:
                await self._pause(min(limited.retry_after_s or 0.1, PAUSE_LIMITED_S_MAX))
            except TreeStoreError:
                await self._pause(PAUSE_AFTER_ERROR_S)  # Counted where it was met.

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._world.end.wait()

    async def read(self, face: Face) -> None:
        """Anybody's document."""
        world = self._world
        id, since = self._random.choice(world.ledger.ids), world.ledger.tick
        call = face.collections.get(world.names.documents, id)
        try:
            found = await world.statistics.call("get", call, wanted=NotFound)
        except NotFound:
            found = None
        world.ledger.hold("get", id, found, since)

    async def write(self, face: Face) -> None:
        """A new revision of one of one's own documents."""
        entry, dice = self._random.choice(self._mine), self._random.random()
        if not entry.certain:
            await self._replace(face, entry, upsert=True)
        elif not entry.present:
            await self._insert(face, entry)
        elif dice < 0.05:
            await self._insert_again(face, entry)
        elif dice < 0.4:
            await self._replace(face, entry)
        else:
            await self._update(face, entry)

    async def _insert(self, face: Face, entry: Entry) -> None:
        ledger, revision = self._world.ledger, self._world.ledger.begin(entry)
        document = ledger.content(entry, revision)
        call = face.collections.insert(self._world.names.documents, document)
        try:
            id = await self._world.statistics.call("insert", call)
        except TreeStoreError as error:
            self._failed(entry, revision, error)
            raise
        ledger.acknowledge(entry, revision)
        if id != entry.id:
            ledger.complain(f"insert of {entry.id} gave the id {id!r:.80}")

    async def _insert_again(self, face: Face, entry: Entry) -> None:
        """What is there already must be refused, and stay as it is."""
        ledger = self._world.ledger
        document = ledger.content(entry, entry.settled)
        call = face.collections.insert(self._world.names.documents, {**document, "text": "twice"})
        try:
            await self._world.statistics.call("insert again", call, wanted=AlreadyExists)
        except AlreadyExists:
            return
        ledger.complain(f"{entry.id} was inserted although it was there")

    async def _replace(self, face: Face, entry: Entry, *, upsert: bool = False) -> None:
        ledger, there = self._world.ledger, entry.present
        revision = ledger.begin(entry)
        call = face.collections.replace(
            self._world.names.documents, entry.id, ledger.content(entry, revision), upsert=upsert
        )
        try:
            new = await self._world.statistics.call("replace", call)
        except TreeStoreError as error:
            self._failed(entry, revision, error)
            raise
        ledger.acknowledge(entry, revision)
        if new and there and not upsert:
            ledger.complain(f"replace of {entry.id} found it gone")

    async def _update(self, face: Face, entry: Entry) -> None:
        ledger, revision = self._world.ledger, self._world.ledger.begin(entry)
        wanted = ledger.content(entry, revision)
        call = face.collections.update(self._world.names.documents, entry.id, patch_to(wanted))
        try:
            found = await self._world.statistics.call("update", call)
        except TreeStoreError as error:
            self._failed(entry, revision, error)
            raise
        ledger.acknowledge(entry, revision)
        if found != wanted:
            ledger.complain(f"update of {entry.id} answered something else than was written")

    async def delete(self, face: Face) -> None:
        """One of one's own documents, be it there or not."""
        ledger, entry = self._world.ledger, self._random.choice(self._mine)
        certain, there = entry.certain, entry.present
        revision = ledger.begin(entry, deletes=True)
        call = face.collections.delete(self._world.names.documents, entry.id)
        try:
            found = await self._world.statistics.call("delete", call)
        except TreeStoreError as error:
            self._failed(entry, revision, error)
            raise
        ledger.acknowledge(entry, revision)
        if certain and found != there:
            what = "there" if found else "gone"
            ledger.complain(f"delete of {entry.id} found it {what}, against what was acknowledged")

    def _failed(self, entry: Entry, revision: int, error: TreeStoreError) -> None:
        if not nothing_changed(error):
            return
        self._world.ledger.refuse(entry, revision)
        if isinstance(error, NotFound | AlreadyExists):
            # No other user touches these: the server says that what it acknowledged is not so.
            self._world.ledger.complain(f"write of {entry.id}: {error.message}")
