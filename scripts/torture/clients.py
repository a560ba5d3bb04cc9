"""Clients that write, read and check while the server is being tortured."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import attrs
import trio

from scripts.torture.ledger import Ledger, Value
from treestore.errors import (
    AlreadyExists,
    InvalidArgument,
    ResourceExhausted,
    TreeStoreError,
    Unavailable,
)

if TYPE_CHECKING:
    from actors.database import Database
    from treestore.client.remote import RemoteDatabase

    AnyDatabase = RemoteDatabase | Database

KEYS_EACH = 20
BATCH_KEYS = 10
DOCUMENT_NODES = 12
POLICY = "torture"


@attrs.define
class Clients:
    """Tasks over one or more databases (clients of the same server).

    Attributes:
        ledger: what they know.
        errors: errors by code, of calls that failed.
        running: cleared to let every task come to rest between two calls.
        resting: how many tasks rest.
    """

    random: Random
    ledger: Ledger = attrs.Factory(Ledger)
    errors: dict[str, int] = attrs.Factory(dict)
    calls: int = 0
    tasks: int = 0
    resting: int = 0
    batches: dict[int, bool] = attrs.Factory(dict)
    """Number -> whether it was acknowledged; its keys stand or fall together."""
    nodes: dict[str, bool] = attrs.Factory(dict)
    """Id of a node that was inserted once -> whether that was acknowledged."""
    document: int = 0
    """Number of the last acknowledged content of the document that is replaced whole ..."""
    documents_unsure: set[int] = attrs.Factory(set)
    """... and of contents that may have come after it."""
    _gate: trio.Event = attrs.Factory(trio.Event)
    _all_rest: trio.Event = attrs.Factory(trio.Event)
    _numbers: itertools.count[int] = attrs.Factory(itertools.count)

    def go(self) -> None:
        """Let the tasks work."""
        self._gate.set()

    async def rest(self) -> None:
        """Return once every task rests; calls under way end first, however they end."""
        self._gate = trio.Event()
        self._all_rest = trio.Event()
        await self._all_rest.wait()

    async def run(self, databases: Sequence[AnyDatabase], keys: int) -> None:
        """Work until cancelled: ``keys`` tasks on single keys, and one of each other kind."""
        async with trio.open_nursery() as nursery:
            for task in range(keys):
                database = databases[task % len(databases)]
                nursery.start_soon(self._work, self._single_keys, database, task)
            for work in (self._batches, self._documents, self._insertions):
                nursery.start_soon(self._work, work, databases[0], 0)

    async def _work(
        self, step: Callable[[AnyDatabase, int], Awaitable[None]], db: AnyDatabase, task: int
    ) -> None:
        self.tasks += 1
        while True:
            if not self._gate.is_set():
                self.resting += 1
                if self.resting == self.tasks:
                    self._all_rest.set()
                await self._gate.wait()
                self.resting -= 1
            try:
                await step(db, task)
            except TreeStoreError as error:
                self.count(error)
                await trio.sleep(0.02)
            self.calls += 1

    def count(self, error: TreeStoreError) -> None:
        """A call failed."""
        self.errors[error.code] = self.errors.get(error.code, 0) + 1

    async def _single_keys(self, db: AnyDatabase, task: int) -> None:
        """Put, delete and read keys that are this task's alone."""
        key = b"key/%d/%d" % (task, self.random.randrange(KEYS_EACH))
        dice = self.random.random()
        if dice < 0.3:
            value = await db.kv.get(key)
            if value not in self.ledger.possible(key):
                expected = ", ".join(sorted(map(repr, self.ledger.possible(key))))
                self.ledger.lose(f"read of key {key!r}", repr(value), expected)
        elif dice < 0.4:
            await self.write(key, None, lambda: db.kv.delete(key))
        else:
            fresh = b"%d " % next(self._numbers) + bytes(self.random.choice([0, 50, 3000]))
            await self.write(key, fresh, lambda: db.kv.put(key, fresh))

    async def write(self, key: bytes, value: Value, call: Callable[[], Awaitable[Any]]) -> None:
        """One write with what is known of it before and after."""
        self.ledger.attempt(key, value)
        try:
            await call()
        except TreeStoreError as error:
            if nothing_changed(error):
                self.ledger.refuse(key, value)
            else:
                self.ledger.unknown += 1
            raise
        self.ledger.succeed(key, value)

    async def _batches(self, db: AnyDatabase, _task: int) -> None:
        number = next(self._numbers)
        self.batches[number] = False
        puts = [(batch_key(number, n), b"%d" % number) for n in range(BATCH_KEYS)]
        await db.kv.batch(puts=puts)
        self.batches[number] = True
        self.ledger.acknowledged += 1

    async def _documents(self, db: AnyDatabase, _task: int) -> None:
        """The same version of a policy, replaced whole each time."""
        number = next(self._numbers)
        self.documents_unsure.add(number)
        await db.documents.store(POLICY, "v1", {"structure": tree(number)})
        self.document = number
        # Those before it came before it, or never: their calls ended, in this one task. What has
        # no answer may still come after it, so it stays.
        self.documents_unsure.discard(number)
        self.ledger.acknowledged += 1

    async def _insertions(self, db: AnyDatabase, _task: int) -> None:
        """A node that is inserted once: running the call a second time would be an error."""
        node_id = f"once-{next(self._numbers)}"
        self.nodes[node_id] = False
        try:
            await db.documents.insert_nodes(
                POLICY + "-once", [{"node_id": node_id, "title": node_id}], version_id="v1"
            )
        except (AlreadyExists, InvalidArgument) as error:
            self.ledger.lose(f"insertion of {node_id}", f"{error.code}: {error}", "applied once")
            raise
        self.nodes[node_id] = True
        self.ledger.acknowledged += 1


async def prepare(db: AnyDatabase) -> None:
    """What has to be there before the torture begins."""
    await db.documents.store(POLICY + "-once", "v1", {"structure": tree(0)})


def nothing_changed(error: TreeStoreError) -> bool:
    """Whether a refused write is known to have changed nothing."""
    return isinstance(error, ResourceExhausted) or (
        isinstance(error, Unavailable) and bool(error.details.get("not_begun"))
    )


def batch_key(number: int, n: int) -> bytes:
    """One key of a batch."""
    return b"batch/%d/%d" % (number, n)


def tree(number: int) -> list[dict[str, Any]]:
    """A small tree in which every node says which content it is of."""
    leaf = {"title": f"leaf {number}", "text": f"{number} " * 100}
    inside = [dict(leaf) for _ in range(DOCUMENT_NODES - 1)]
    return [{"title": f"root {number}", "nodes": inside}]


async def verify(db: AnyDatabase, clients: Clients) -> None:
    """Hold the store against what the clients know, while they rest. What is unsure is not any
    more afterwards."""
    ledger = clients.ledger
    # Commands are run in order: what the server has received before is done when this is.
    await db.kv.put(b"barrier", b"")
    for key in sorted(ledger.certain.keys() | ledger.unsure.keys()):
        ledger.found(key, await db.kv.get(key))
    ledger.unsure.clear()
    for number, acknowledged in list(clients.batches.items()):
        found = [await db.kv.get(batch_key(number, n)) for n in range(BATCH_KEYS)]
        whole = found == [b"%d" % number] * BATCH_KEYS
        if not whole and (acknowledged or found != [None] * BATCH_KEYS):
            ledger.lose(f"batch {number}", repr(found), "whole" if acknowledged else "all or none")
        if acknowledged or not whole:
            # Looked at once after it was settled; the store keeps it, our list does not.
            del clients.batches[number]
        else:
            clients.batches[number] = True
    await _verify_documents(db, clients)
    report = await db.admin.check()
    for problem in report.errors:
        ledger.lose("check", problem, "no errors")


async def _verify_documents(db: AnyDatabase, clients: Clients) -> None:
    ledger = clients.ledger
    if clients.document or clients.documents_unsure:
        stored = {document.policy_id for document in (await db.documents.list()).items}
        nodes = await db.documents.get_subtree(POLICY) if POLICY in stored else []
        numbers = {int(node.title.split()[1]) for node in nodes}
        allowed = {clients.document, *clients.documents_unsure}
        if not nodes:
            if clients.document:
                ledger.lose("document", "nothing", f"content {clients.document}")
        elif len(numbers) > 1 or not numbers <= allowed or len(nodes) != DOCUMENT_NODES:
            what = f"{len(nodes)} nodes of contents {sorted(numbers)}"
            ledger.lose("document", what, f"{DOCUMENT_NODES} of one of {sorted(allowed)}")
        else:
            clients.document = numbers.pop()
            clients.documents_unsure.clear()
    if any(clients.nodes.values()):
        roots = await db.documents.get_children(POLICY + "-once", version_id="v1")
        present = [node.node_id for node in roots]
        if len(set(present)) != len(present):
            ledger.lose("inserted nodes", "one twice", "each once")
        for node_id, acknowledged in list(clients.nodes.items()):
            if acknowledged and node_id not in present:
                ledger.lose(f"node {node_id}", "absent", "present")
            clients.nodes[node_id] = node_id in present
            if node_id not in present:
                del clients.nodes[node_id]
