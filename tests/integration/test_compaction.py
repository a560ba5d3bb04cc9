"""A real server gives space back: killed at it, asked over TCP, and by the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import trio

import treestore
from tests.integration.servers import Server
from treestore.client.remote import RemoteDatabase
from treestore.errors import OutcomeUnknown, TreeStoreError, Unavailable

pytestmark = pytest.mark.slow

COUNT = 16_000
SIZE = 1000


async def fill(db: RemoteDatabase, known: dict[bytes, bytes]) -> None:
    random = Random(1)
    for first in range(0, COUNT, 1000):
        items = [(b"%06d" % n, random.randbytes(SIZE)) for n in range(first, first + 1000)]
        await db.kv.batch(puts=items)
        known.update(items)
    await db.admin.checkpoint()
    doomed = random.sample(sorted(known), COUNT * 9 // 10)
    for first in range(0, len(doomed), 1000):
        await db.kv.batch(deletes=doomed[first : first + 1000])
    for key in doomed:
        del known[key]
    await db.admin.checkpoint()


async def contents(db: RemoteDatabase) -> dict[bytes, bytes]:
    return {key: value async for key, value in db.kv.scan()}


async def killed_at_it(server: Server, after_s: float, known: dict[bytes, bytes]) -> None:
    """Compact and write; kill the server meanwhile. ``known`` gets what was acknowledged."""

    async def compact(db: RemoteDatabase) -> None:
        try:
            while True:
                await db.admin.compact()
                await db.kv.put(b"turn", known.setdefault(b"turn", b"x"))
        except (TreeStoreError, OSError):
            pass

    async def write(db: RemoteDatabase) -> None:
        number = 0
        try:
            while True:
                key = b"w%d" % (number % 20)
                known.pop(key, None)
                await db.kv.put(key, b"%d" % number)
                known[key] = b"%d" % number
                number += 1
        except (OutcomeUnknown, Unavailable):
            pass

    async with treestore.connect(server.tcp, timeout=1.0) as db, trio.open_nursery() as nursery:
        nursery.start_soon(compact, db)
        nursery.start_soon(write, db)
        await trio.sleep(after_s)
        await trio.to_thread.run_sync(server.kill)


async def test_a_server_that_is_killed_while_it_compacts_loses_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    known: dict[bytes, bytes] = {}
    server = await trio.to_thread.run_sync(Server.start, data)
    async with treestore.connect(server.tcp) as db:
        await fill(db, known)
    before = (data / "pages").stat().st_size
    for turn in range(4):
        await killed_at_it(server, 0.05 + 0.15 * turn, known)
        server = await trio.to_thread.run_sync(Server.start, data)
        async with treestore.connect(server.tcp) as db:
            found = await contents(db)
            assert known.items() <= found.items()
            # What was on its way may be there as well; from now on it counts.
            assert all(key.startswith((b"w", b"turn")) for key in found.keys() - known.keys())
            known.update(found)
            assert (await db.admin.check()).ok
    async with treestore.connect(server.tcp) as db:
        await db.admin.compact()
        assert await contents(db) == known
        with trio.fail_after(30):  # Keepers of indexes may be reading at the moment.
            while await db.admin.snapshots():  # noqa: ASYNC110 - it is another process's
                await trio.sleep(0.05)
    assert (data / "pages").stat().st_size < before / 3
    assert await trio.to_thread.run_sync(server.stop) == 0


def treestore_json(*arguments: object) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "treestore.cli", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


async def test_the_command_on_a_directory_and_on_a_server(tmp_path: Path) -> None:
    data = tmp_path / "data"
    known: dict[bytes, bytes] = {}
    async with treestore.open(data) as db:
        await fill(db, known)  # type: ignore[arg-type]
    before = (data / "pages").stat().st_size
    run = trio.to_thread.run_sync
    first = await run(treestore_json, "compact", "--data", data)
    size = (data / "pages").stat().st_size
    assert size == first["page_file_size_bytes"]
    assert size < before / 3
    server = await run(Server.start, data)
    async with treestore.connect(server.tcp) as remote, remote.snapshot():
        again = await run(treestore_json, "compact", "--connect", server.tcp)
        assert isinstance(again["page_file_size_bytes"], int)
        listed = (await run(treestore_json, "stats", "--connect", server.tcp))["open_snapshots"]
        assert isinstance(listed, list)
        (one,) = listed
        assert one["owner"].startswith("session")
        assert await contents(remote) == known
    assert await run(server.stop) == 0
    assert (await run(treestore_json, "check", "--data", data))["ok"]
