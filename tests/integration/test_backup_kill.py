"""Backups of a real server under load, and SIGKILL in the middle of one.

A restored backup holds everything that was acknowledged before it was asked for, and for each
writer a prefix of what it wrote.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

import treestore
from tests.integration.servers import Server
from treestore.cli.program import guarded
from treestore.cli.restore import restore
from treestore.cli.verify import verify
from treestore.engine.check import check_engine
from treestore.errors import TreeStoreError

WRITERS = 8
KEYS = 20


@attrs.define
class Writer:
    """What one client wrote: number n goes to key n modulo `KEYS`, one after the other."""

    name: int
    tried: int = 0
    acknowledged: int = 0

    async def run(self, db: treestore.RemoteDatabase) -> None:
        while True:
            self.tried += 1
            key = b"%d/%d" % (self.name, self.tried % KEYS)
            await db.kv.put(key, b"%d" % self.tried)
            self.acknowledged = self.tried

    async def verify(self, db: treestore.Database, low: int) -> None:
        """What is there is what was there after some number, not below ``low``."""
        found = [await db.kv.get(b"%d/%d" % (self.name, slot)) for slot in range(KEYS)]
        numbers = [0 if value is None else int(value) for value in found]
        last = max(numbers)
        assert low <= last <= self.tried, (self.name, low, last, self.tried)
        for slot, number in enumerate(numbers):
            expected = last - (last - slot) % KEYS
            assert number == max(0, expected), (self.name, slot, number, last)


async def guard(work: object, *args: object) -> None:
    try:
        await work(*args)  # type: ignore[operator]
    except TreeStoreError:
        return


def restored(backup: Path, data: Path, *more: str) -> int:
    """The exit code of ``treestore restore``."""
    arguments = ["--from", str(backup), "--data", str(data), *more]
    return guarded(lambda: restore.main(arguments, standalone_mode=False) or 0)


async def check(data: Path, writers: list[Writer], low: dict[int, int]) -> None:
    """Everything about a restored store."""
    async with treestore.open(data, create=False) as db:
        for writer in writers:
            await writer.verify(db, low[writer.name])
        assert (await db.admin.check()).errors == ()
        assert check_engine(db.engine).ok


async def test_sigkill_in_the_middle_of_a_backup(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    server = await trio.to_thread.run_sync(
        Server.start,
        *(tmp_path / "data", "--archive-dir", str(archive), "--archive-interval-s", "0.2"),
        *("--checkpoint-wal-mb", "1"),
    )
    writers = [Writer(name) for name in range(WRITERS)]
    low: dict[str, dict[int, int]] = {}
    results: dict[str, object] = {}

    async def back_up(db: treestore.RemoteDatabase, name: str, parent: str | None) -> None:
        low[name] = {writer.name: writer.acknowledged for writer in writers}
        results[name] = await db.admin.backup(
            str(tmp_path / name),
            incremental_from=None if parent is None else str(tmp_path / parent),
            # The last one is still under way when the server is killed.
            rate_limit_mb=0.01 if name == "killed" else None,
        )

    try:
        async with (
            # A short timeout does not end a backup, which takes as long as it takes.
            treestore.connect(server.tcp, timeout=1.0) as db,
            trio.open_nursery() as nursery,
        ):
            await db.kv.batch(puts=[(b"fill/%d" % n, bytes(1000)) for n in range(5000)])
            for writer in writers:
                nursery.start_soon(guard, writer.run, db)
            await trio.sleep(0.3)
            await back_up(db, "full", None)
            await trio.sleep(0.2)
            await back_up(db, "next", "full")
            nursery.start_soon(guard, back_up, db, "killed", None)
            with trio.fail_after(20):
                while True:
                    progress = await db.admin.backup_progress()
                    if progress is not None and progress.size_bytes:
                        break
                    await trio.sleep(0.01)
            at_kill = {writer.name: writer.acknowledged for writer in writers}
            await trio.to_thread.run_sync(server.kill)
            nursery.cancel_scope.cancel()
    finally:
        if server.process.poll() is None:
            server.kill()
    assert min(at_kill.values()) > 0
    assert "killed" not in results
    assert not (tmp_path / "killed").exists()
    for left in ("killed", "killed.unfinished"):
        assert guarded(lambda: verify.main([str(tmp_path / left)], standalone_mode=False)) == 1  # noqa: B023
    assert restored(tmp_path / "killed.unfinished", tmp_path / "no") == 1
    for name in ("full", "next"):
        assert restored(tmp_path / name, tmp_path / f"from-{name}") == 0
        await check(tmp_path / f"from-{name}", writers, low[name])
    # The store itself has everything, and hands what was not archived on when it is opened.
    await check(tmp_path / "data", writers, at_kill)
    more = ("--archive", str(archive))
    assert restored(tmp_path / "full", tmp_path / "rolled", *more) == 0
    await check(tmp_path / "rolled", writers, at_kill)
