"""A real server on a real file system that is full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import treestore
from tests.integration.servers import Server
from treestore.client.remote import RemoteDatabase
from treestore.errors import ResourceExhausted

SIZE_MIB = 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(mount)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"this user may not mount a tmpfs: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


async def fill(db: RemoteDatabase, prefix: bytes, known: dict[bytes, bytes]) -> int:
    """Put until it is refused for good; how many. What is refused once may have come while the
    checkpoint was under way that makes room for it."""
    done = refused = 0
    while refused < 10:
        key, value = prefix + b"%04d" % done, os.urandom(50_000)
        try:
            await db.kv.put(key, value)
        except ResourceExhausted:
            refused += 1
            await trio.sleep(0.05)
            continue
        known[key] = value
        done += 1
        refused = 0
    return done


async def verify(db: RemoteDatabase, known: dict[bytes, bytes]) -> None:
    for key, value in known.items():
        assert await db.kv.get(key) == value


async def remove(db: RemoteDatabase, known: dict[bytes, bytes], keys: list[bytes]) -> None:
    for key in keys:
        assert await db.kv.delete(key)
        del known[key]


async def test_a_full_disk(small_disk: Path) -> None:
    data = small_disk / "data"
    known: dict[bytes, bytes] = {}
    server = Server.start(data)
    try:
        with trio.fail_after(60):
            async with treestore.connect(server.tcp) as db:
                first = await fill(db, b"a", known)
                assert first > 20
                await verify(db, known)
                await remove(db, known, sorted(known)[: first // 2])
                await db.admin.checkpoint()
                assert await fill(db, b"b", known) >= first // 4
        # Somebody else takes the last byte, and the server dies.
        with (small_disk / "junk").open("wb", buffering=0) as junk, pytest.raises(OSError):
            while True:
                junk.write(bytes(4096))
        server.kill()
        server = Server.start(data)
        with trio.fail_after(60):
            async with treestore.connect(server.tcp) as db:
                await verify(db, known)
                await remove(db, known, sorted(known)[: len(known) // 2])
                await db.admin.checkpoint()
                await db.kv.put(b"after", b"x" * 50_000)
                known[b"after"] = b"x" * 50_000
                await verify(db, known)
                assert (await db.admin.check()).ok
    finally:
        server.kill()
