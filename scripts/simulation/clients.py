"""The clients: real ones, on a simulated network, that write down what they do and see.

Each client is one `RemoteDatabase` that a few processes share. A process makes one call at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any

import attrs
import trio

from scripts.simulation.history import Call, History, Outcome, Value
from scripts.simulation.network import Network
from scripts.simulation.transactions import Body
from scripts.simulation.values import decoded, encoded
from treestore.client.connection import Target
from treestore.client.remote import RemoteDatabase, connect_to
from treestore.errors import (
    CorruptionError,
    InternalError,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    ProtocolError,
    SnapshotExpired,
    TreeStoreError,
)

FAMILIES = ("a", "b")
KEYS = 4
LISTS = ("list-a", "list-b")
VERSION = "v"

NEVER = (CorruptionError, InternalError, InvalidArgument, ProtocolError)
"""Errors that no fault that is played here excuses."""


def registers(family: str) -> list[str]:
    """The keys of a family, as the history names them."""
    return [f"{family}{number}" for number in range(KEYS)]


@attrs.define(eq=False)
class Process:
    """One caller. Its calls are `History`'s."""

    number: int
    db: RemoteDatabase
    history: History
    random: Random
    operations: int = 0

    async def work(self, until_s: float) -> None:
        """Make calls until that time."""
        random = self.random
        while trio.current_time() < until_s:
            await trio.sleep(random.choice((0.0, 0.0, 0.001, 0.02, 0.2)) * random.random())
            choice = random.choices(_CALLS, _WEIGHTS)[0]
            await choice(self)

    async def call(
        self,
        name: str,
        make: Callable[[Call], Awaitable[None]],
        *,
        writes: dict[str, Value] | None = None,
        append: tuple[str, int] | None = None,
    ) -> Call:
        """Make one call and write down what came of it.

        ``make`` fills in what the answer says; ``writes`` and ``append`` hold whether or not an
        answer comes.
        """
        call = self.history.begin(self.number, name, trio.current_time())
        call.writes, call.append = dict(writes or {}), append
        self.operations += 1
        patience = self.random.choice((0.002, 0.05, 1.0)) if self.random.random() < 0.1 else 60.0
        outcome: Outcome = "unknown"
        note = "cancelled"
        try:
            with trio.move_on_after(patience) as scope:
                await make(call)
            if not scope.cancelled_caught:
                outcome, note = "ok", ""
        except OutcomeUnknown as error:
            note = error.message
        except NEVER as error:
            outcome, note = "failed", repr(error)
            self.history.fault(f"{call}: {error!r}")
        except TreeStoreError as error:
            outcome, note = "failed", error.code
        finally:
            if call.outcome == "open":
                self.history.end(call, outcome, trio.current_time(), note)
        return call

    async def look_at_everything(self) -> None:
        """Every register and every list, each as often as it takes to get an answer."""
        looks: list[tuple[str, Callable[[Call], Awaitable[None]]]] = []
        for family in FAMILIES:
            looks.append(("scan", partial(self._scan_all, family)))
            looks.append(("read", partial(self._read_one, f"doc-{family}")))
            looks.append(("list", partial(self._list_one, f"list-{family}")))
        for name, look in looks:
            outcome: Outcome = "open"
            while outcome != "ok":
                await trio.sleep(0.5)
                outcome = (await self.call(name, look)).outcome
        await self.check()

    # -- kv -------------------------------------------------------------------------------------

    def _register(self) -> str:
        return self.random.choice(registers(self.random.choice(FAMILIES)))

    async def get(self) -> None:
        """One key."""
        name = self._register()

        async def make(call: Call) -> None:
            call.reads = {name: decoded(await self.db.kv.get(name.encode()))}

        await self.call("get", make)

    async def put(self) -> None:
        """One key."""
        name, value = self._register(), self.history.fresh()
        data = encoded(value, self.random)

        async def make(_call: Call) -> None:
            await self.db.kv.put(name.encode(), data)

        await self.call("put", make, writes={name: value})

    async def delete(self) -> None:
        """One key; the answer says whether it was there."""
        name = self._register()

        async def make(call: Call) -> None:
            there = await self.db.kv.delete(name.encode())
            call.present = {name: there}
            if not there:
                call.writes = {}

        await self.call("delete", make, writes={name: None})

    async def batch(self) -> None:
        """Several keys, at once."""
        random = self.random
        family = registers(random.choice(FAMILIES))
        writes: dict[str, Value] = {
            name: self.history.fresh() if random.random() < 0.7 else None
            for name in random.sample(family, random.randint(2, KEYS))
        }
        puts = [(k.encode(), encoded(v, random)) for k, v in writes.items() if v is not None]
        deletes = [k.encode() for k, v in writes.items() if v is None]

        async def make(_call: Call) -> None:
            await self.db.kv.batch(puts, deletes)

        await self.call("batch", make, writes=writes)

    async def scan(self) -> None:
        """All keys of a family, in a stream."""
        family = self.random.choice(FAMILIES)

        await self.call("scan", partial(self._scan_all, family))

    async def _scan_all(self, family: str, call: Call) -> None:
        call.reads = dict.fromkeys(registers(family), None) | await self._scan(self.db, family)

    async def _scan(self, source: Any, family: str) -> dict[str, Value]:
        found: dict[str, Value] = {}
        async with source.kv.scan(
            prefix=family.encode(), reverse=self.random.random() < 0.3
        ) as items:
            async for key, value in items:
                if key.decode() in found:
                    self.history.fault(f"A scan gave {key!r} twice.")
                found[key.decode()] = decoded(value)
                if self.random.random() < 0.1:
                    await trio.sleep(0.05 * self.random.random())
        return found

    # -- snapshots ------------------------------------------------------------------------------

    async def snapshot(self) -> None:
        """Read one state again and again, while others write."""
        random = self.random
        family = random.choice(FAMILIES)

        async def make(call: Call) -> None:
            async with self.db.snapshot() as snapshot:
                call.snapshot = snapshot.number
                # What it shows was the newest state at some time until now, not later.
                self.history.opened(call)
                for _ in range(random.randint(1, 5)):
                    try:
                        await self._look(snapshot, family, call)
                    except SnapshotExpired:
                        return
                    await trio.sleep(random.choice((0.0, 0.01, 0.5, 2.0, 4.0)) * random.random())

        await self.call("snapshot", make)

    async def _look(self, snapshot: Any, family: str, call: Call) -> None:
        kind = self.random.randrange(4)
        if kind == 0:
            name = self.random.choice(registers(family))
            self._seen(call, name, decoded(await snapshot.kv.get(name.encode())))
        elif kind == 1:
            found = dict.fromkeys(registers(family), None) | await self._scan(snapshot, family)
            for name, value in found.items():
                self._seen(call, name, value)
        elif kind == 2:
            name = f"doc-{family}"
            self._seen(call, name, await self._document(snapshot, name))
        else:
            name = f"list-{family}"
            listed = await self._titles(snapshot, name)
            if call.listed.setdefault(name, listed) != listed:
                self.history.fault(f"A snapshot changed: {name} is {listed} now: {call}")

    def _seen(self, call: Call, name: str, value: Value) -> None:
        if call.reads.setdefault(name, value) != value:
            self.history.fault(f"A snapshot changed: {name} is {value} now: {call}")

    # -- transactions ---------------------------------------------------------------------------

    async def transact(self) -> None:
        """Several calls in one transaction, begun anew after a conflict or not."""
        random = self.random
        family = random.choice(FAMILIES)
        names = registers(family)

        async def make(call: Call) -> None:
            version = VERSION
            body = Body(names, family.encode(), LISTS, version, call, self.history, random)
            timeout = random.choice((0.1, 30.0)) if random.random() < 0.2 else 30.0
            if random.random() < 0.5:
                await self.db.run_transaction(body.run, attempts=5, timeout=timeout)
                return
            async with self.db.transaction(timeout=timeout) as txn:
                await body.run(txn)

        await self.call("transact", make)

    # -- documents ------------------------------------------------------------------------------

    async def append(self) -> None:
        """One node at the end of a list."""
        name, value = self.random.choice(LISTS), self.history.fresh()

        async def make(call: Call) -> None:
            nodes = [{"title": str(value)}]
            [node] = await self.db.documents.insert_nodes(name, nodes, version_id=VERSION)
            call.position = int(node.section_path) - 1

        await self.call("append", make, append=(name, value))

    async def listing(self) -> None:
        """All of a list."""
        await self.call("list", partial(self._list_one, self.random.choice(LISTS)))

    async def _list_one(self, name: str, call: Call) -> None:
        call.listed = {name: await self._titles(self.db, name)}

    async def _titles(self, source: Any, name: str) -> tuple[int, ...]:
        nodes = await source.documents.get_children(name, version_id=VERSION, include_text=False)
        return tuple(int(node.title) for node in nodes)

    async def store(self) -> None:
        """A whole document; every node of it carries the value."""
        name, value = f"doc-{self.random.choice(FAMILIES)}", self.history.fresh()
        structure = [
            {"title": str(value), "nodes": [{"title": str(value), "text": "." * 300}] * leaves}
            for leaves in (self.random.randint(0, 5) for _ in range(self.random.randint(1, 4)))
        ]

        async def make(_call: Call) -> None:
            await self.db.documents.store(name, VERSION, structure)

        await self.call("store", make, writes={name: value})

    async def remove(self) -> None:
        """A whole document; the answer says whether it was there."""
        name = f"doc-{self.random.choice(FAMILIES)}"

        async def make(call: Call) -> None:
            there = await self.db.documents.delete(name, VERSION)
            call.present = {name: there}
            if not there:
                call.writes = {}

        await self.call("remove", make, writes={name: None})

    async def read(self) -> None:
        """A whole document."""
        await self.call("read", partial(self._read_one, f"doc-{self.random.choice(FAMILIES)}"))

    async def _read_one(self, name: str, call: Call) -> None:
        call.reads = {name: await self._document(self.db, name)}

    async def _document(self, source: Any, name: str) -> Value:
        try:
            nodes = await source.documents.get_subtree(name, version_id=VERSION)
        except NotFound:
            return None
        values = {int(node.title): None for node in nodes}
        if len(values) != 1:
            self.history.fault(f"{name} is a mixture of {list(values)}.")
        return next(iter(values))

    # -- upkeep ---------------------------------------------------------------------------------

    async def checkpoint(self) -> None:
        """Ask for a checkpoint."""

        async def make(_call: Call) -> None:
            await self.db.admin.checkpoint()

        await self.call("checkpoint", make)

    async def check(self) -> None:
        """Ask for the integrity check."""

        async def make(call: Call) -> None:
            found = await self.db.admin.check()
            if not found.ok:
                self.history.fault(f"The check found {found.errors}: {call}")

        await self.call("check", make)


_MIX: dict[Callable[[Process], Awaitable[None]], int] = {
    Process.get: 20,
    Process.put: 20,
    Process.delete: 10,
    Process.batch: 10,
    Process.scan: 6,
    Process.snapshot: 6,
    Process.transact: 14,
    Process.append: 10,
    Process.listing: 5,
    Process.store: 3,
    Process.remove: 2,
    Process.read: 4,
    Process.checkpoint: 1,
    Process.check: 1,
}
_CALLS, _WEIGHTS = list(_MIX), list(_MIX.values())


async def run_client(
    client: int,
    network: Network,
    history: History,
    random: Random,
    processes: int,
    until_s: float,
) -> int:
    """One client with its processes; how many calls they made. It comes back when it fails."""
    made = 0
    target = Target(
        host="simulated",
        port=1,
        random=Random(random.getrandbits(64)),
        open_stream=network.open_stream,
        keep_alive_interval_s=1.0,
        keep_alive_timeout_s=3.0,
    )
    while trio.current_time() < until_s:
        try:
            timeout = random.choice((0.5, 3.0, 30.0))
            async with connect_to(target, random.choice((1, 2)), timeout) as db:
                # It leaves now and then, and takes another name with it.
                leaves = min(until_s, trio.current_time() + random.choice((2.0, 100.0)))
                workers = [
                    Process(client * 100 + n, db, history, Random(random.getrandbits(64)))
                    for n in range(processes)
                ]
                async with trio.open_nursery() as nursery:
                    for worker in workers:
                        nursery.start_soon(worker.work, leaves)
                made += sum(worker.operations for worker in workers)
        except TreeStoreError:
            await trio.sleep(0.1)
    return made
