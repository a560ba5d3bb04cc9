"""Interactive transactions of the simulated clients: some reads and writes that belong together.

A transaction is one call of the history: what it read before it wrote there itself, and what it
left. That it sees its own writes is checked on the spot.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import attrs
import trio

from scripts.simulation.history import Call, History, Value
from scripts.simulation.values import decoded, encoded


@attrs.define(eq=False)
class Body:
    """What one transaction does; run again from the start after a conflict.

    Attributes:
        registers: keys of one family.
        lists: documents that are appended to, of one version.
    """

    registers: Sequence[str]
    prefix: bytes
    lists: Sequence[str]
    version: str
    call: Call
    history: History
    random: Random
    mine: dict[str, Value] = attrs.field(factory=dict)
    """What it wrote."""

    async def run(self, txn: Any) -> None:
        """One attempt."""
        call, random = self.call, self.random
        # Of an attempt that failed nothing is left: the values of this one are new.
        self.mine = call.writes = {}
        call.reads, call.present, call.listed = {}, {}, {}
        call.append = call.position = None
        for _ in range(random.randint(1, 6)):
            step = random.choices(
                (self._get, self._scan, self._put, self._delete, self._append, self._read_ends),
                (6, 3, 6, 2, 1, 3),
            )[0]
            await step(txn)
            await trio.sleep(random.choice((0.0, 0.0, 0.002, 0.02, 0.1)) * random.random())

    def _saw(self, name: str, value: Value) -> None:
        if name in self.mine:
            if self.mine[name] != value:
                self.history.fault(f"A transaction read {value} where it wrote: {self.call}")
        elif self.call.reads.setdefault(name, value) != value:
            self.history.fault(f"A transaction's state changed: {name} is {value}: {self.call}")

    async def _get(self, txn: Any) -> None:
        name = self.random.choice(self.registers)
        self._saw(name, decoded(await txn.kv.get(name.encode())))

    async def _scan(self, txn: Any) -> None:
        found: dict[str, Value] = {}
        reverse = self.random.random() < 0.5
        async with txn.kv.scan(prefix=self.prefix, reverse=reverse) as items:
            async for key, value in items:
                found[key.decode()] = decoded(value)
        for name in self.registers:
            self._saw(name, found.get(name))

    async def _read_ends(self, txn: Any) -> None:
        """The first or last key, and so that there is none before or after it."""
        reverse = self.random.random() < 0.5
        items = [i async for i in txn.kv.scan(prefix=self.prefix, limit=1, reverse=reverse)]
        for name in sorted(self.registers, reverse=reverse):
            if items and items[0][0].decode() == name:
                self._saw(name, decoded(items[0][1]))
                break
            self._saw(name, None)

    async def _put(self, txn: Any) -> None:
        name, value = self.random.choice(self.registers), self.history.fresh()
        await txn.kv.put(name.encode(), encoded(value, self.random))
        self.mine[name] = value

    async def _delete(self, txn: Any) -> None:
        name = self.random.choice(self.registers)
        there = await txn.kv.delete(name.encode())
        if name in self.mine:
            if there != (self.mine[name] is not None):
                self.history.fault(f"A transaction found {there} where it wrote: {self.call}")
        elif name not in self.call.reads:
            self.call.present[name] = there
        elif there != (self.call.reads[name] is not None):
            self.history.fault(f"A transaction's state changed: {name}: {self.call}")
        if there:
            self.mine[name] = None

    async def _append(self, txn: Any) -> None:
        call = self.call
        if call.append is not None:
            return
        name, value = self.random.choice(self.lists), self.history.fresh()
        documents = txn.documents
        if self.random.random() < 0.5:
            nodes = await documents.get_children(name, version_id=self.version, include_text=False)
            call.listed = {name: tuple(int(node.title) for node in nodes)}
        nodes = [{"title": str(value)}]
        [node] = await documents.insert_nodes(name, nodes, version_id=self.version)
        call.append, call.position = (name, value), int(node.section_path) - 1
