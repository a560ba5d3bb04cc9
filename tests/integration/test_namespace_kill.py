"""Namespaces on a real server that is killed while it seals and merges, its files damaged between.

Each client keeps a ledger of what was acknowledged. After each restart everything acknowledged is
found: by id, by vector (with and without an index), by word and by filter; what was deleted is not.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import attrs
import numpy as np
import trio

import treestore
from tests.integration.servers import Server
from treestore.errors import TreeStoreError

KILLS = int(os.environ.get("TREESTORE_KILLS", "4"))
CLIENTS = 3
DIM = 8
SEAL_ROWS = 25

SCHEMA = {
    "vector": {"dim": DIM, "metric": "l2"},
    "attributes": {
        "client": {"type": "int"},
        "word": {"type": "string", "full_text": {"language": "none"}},
    },
}


def vector_of(id: int, version: int) -> list[float]:
    rng = np.random.default_rng([id, version])
    return [float(number) for number in rng.normal(size=DIM).astype(np.float32)]


def word_of(id: int, version: int) -> str:
    return f"word{id}x{version}"


@attrs.define
class Ledger:
    """What one client knows of its documents: id → version, None for a deleted one. Of those in
    ``unsure`` a call went unanswered: they may be as they were, or as that call makes them."""

    number: int
    stored: dict[int, int | None] = attrs.field(factory=dict)
    unsure: dict[int, set[int | None]] = attrs.field(factory=dict)
    next_version: int = 0

    async def work(self, db: Any, rng: Random) -> None:
        """Write until the server is gone."""
        while True:
            changes: dict[int, int | None] = {}
            for _ in range(rng.randrange(1, 8)):
                id = self.number + CLIENTS * rng.randrange(40)
                self.next_version += 1
                changes[id] = None if rng.random() < 0.2 else self.next_version
            for id, version in changes.items():
                self.unsure.setdefault(id, {self.stored.get(id)}).add(version)
            try:
                await self._write(db, changes, rng)
            except TreeStoreError:
                return  # The server is gone.
            for id, version in changes.items():
                self.stored[id] = version
                self.unsure.pop(id, None)

    async def _write(self, db: Any, changes: dict[int, int | None], rng: Random) -> None:
        gone = [id for id, version in changes.items() if version is None]
        documents = [
            {
                "id": id,
                "vector": vector_of(id, version),
                "attributes": {"client": self.number, "word": word_of(id, version)},
            }
            for id, version in changes.items()
            if version is not None
        ]

        async def body(txn: Any) -> None:
            if documents:
                await txn.namespaces.upsert("n", documents)
            if gone:
                await txn.namespaces.delete("n", gone)
            await txn.kv.put(b"client%d" % self.number, b"%d" % rng.randrange(100))

        # Nobody else writes these documents, but a seal moves their rows.
        await db.run_transaction(body)

    async def verify(self, db: Any) -> None:
        """Everything is as it was acknowledged."""
        for id in sorted({*self.stored, *self.unsure}):
            wanted = self.unsure.get(id, {self.stored.get(id)})
            (found,) = await db.namespaces.get("n", [id]) or [None]
            version = None
            if found is not None:
                version = int(found.attributes["word"].rpartition("x")[2])
            assert version in wanted, (id, version, wanted)
            self.stored[id] = version
        self.unsure.clear()
        there = {id: version for id, version in self.stored.items() if version is not None}
        filter = {"client": self.number}
        assert await db.namespaces.count("n", filter) == len(there)
        for id, version in there.items():
            vector = vector_of(id, version)
            for exact in (False, True):
                (hit,) = await db.namespaces.query("n", vector=vector, top_k=1, exact=exact)
                assert (hit.id, hit.distance) == (id, 0.0)
            (hit,) = await db.namespaces.query("n", text=word_of(id, version), filter=filter)
            assert hit.id == id
        hits = await db.namespaces.query("n", vector=[0.0] * DIM, filter=filter, top_k=1000)
        assert {hit.id for hit in hits} == there.keys()


def damage(folder: Path, rng: Random) -> str:
    """Spoil one file of the folder, as long as there is any."""
    files = [path for path in folder.rglob("*") if path.is_file() and "lock" not in path.name]
    if not files:
        return "nothing"
    path = rng.choice(sorted(files))
    kind = rng.choice(["remove", "cut", "flip"])
    if kind == "remove":
        path.unlink()
    elif kind == "cut":
        os.truncate(path, rng.randrange(path.stat().st_size + 1))
    elif path.stat().st_size:
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    return f"{kind} {path.name}"


async def test_what_was_acknowledged_is_found_after_kills_and_damage(tmp_path: Path) -> None:
    rng = Random(11)
    data = tmp_path / "data"
    ledgers = [Ledger(number) for number in range(CLIENTS)]
    start = partial(Server.start, data, "--namespace-seal-rows", str(SEAL_ROWS))
    done: list[str] = []
    sealed = 0
    with trio.fail_after(60 + 60 * KILLS):
        for round in range(KILLS + 1):
            server = await trio.to_thread.run_sync(start)
            try:
                async with treestore.connect(server.tcp, timeout=30) as db:
                    if round == 0:
                        await db.namespaces.create("n", SCHEMA)
                    for ledger in ledgers:
                        await ledger.verify(db)
                    assert (await db.admin.check()).ok, done
                    if round < KILLS:
                        async with trio.open_nursery() as nursery:
                            for ledger in ledgers:
                                nursery.start_soon(ledger.work, db, Random(rng.random()))
                            await trio.sleep(1.5 + 2 * rng.random())
                            sealed += (await db.admin.stats()).namespace_seals
                            await trio.to_thread.run_sync(server.kill)
                            # What they were at is unsure; they need not wait to learn that.
                            nursery.cancel_scope.cancel()
            finally:
                server.kill()
            done.append(damage(data / "search" / "namespaces", rng))
    assert sealed, "nothing was ever sealed: the test does not test what it says"
