"""A feed over a real network to a real server, both of which fail again and again.

``TREESTORE_WATCH_KILLS`` sets how often the server is killed (default 3).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from random import Random

import pytest
import trio

import treestore
from scripts.torture.proxy import Proxy
from tests.integration.servers import Server
from treestore.errors import OutcomeUnknown, Unavailable
from treestore.model.changes import Change

KILLS = int(os.environ.get("TREESTORE_WATCH_KILLS", "3"))
RETENTION = ("--watch-retention-mb", "64")


class Story:
    """What was written and what was seen of it."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.seen: list[Change] = []
        self.done = False
        self.number = 0


async def write(address: str, story: Story) -> None:
    """Count up, two keys at a time, over a connection of its own."""
    async with treestore.connect(address, timeout=20) as db:
        while not story.done:
            story.number += 1
            data = b"%d" % story.number
            with contextlib.suppress(OutcomeUnknown, Unavailable):
                await db.kv.batch(puts=[(b"a%07d" % story.number, data), (b"b", data)])
                story.acknowledged.append(story.number)
        await db.kv.put(b"end", b"")  # By now nothing fails any more.


async def watch(address: str, story: Story, task_status: trio.TaskStatus[None]) -> None:
    async with treestore.connect(address, timeout=20) as db, db.watch(values=True) as feed:
        task_status.started()
        while not story.seen or story.seen[-1].key != b"end":
            with contextlib.suppress(Unavailable):  # The server may take its time to come back.
                story.seen.append(await anext(feed))


async def disturb(
    proxy: Proxy, data: Path, servers: list[Server], story: Story, random: Random
) -> None:
    for _ in range(KILLS):
        for _ in range(4):
            await trio.sleep(random.uniform(0.05, 0.2))
            if random.random() < 0.5:
                proxy.reset(0.7)
            else:
                proxy.doom(0.7)
        await trio.to_thread.run_sync(servers.pop().kill)
        servers.append(await trio.to_thread.run_sync(lambda: Server.start(data, *RETENTION)))
        proxy.target = _parsed(servers[0].tcp)
    await trio.sleep(0.2)
    story.done = True


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def check(story: Story) -> None:
    """Every acknowledged write once and in order, transactions whole."""
    changes = story.seen
    order = [(change.lsn, change.position) for change in changes]
    assert len(set(order)) == len(order)
    assert [lsn for lsn, _ in order] == sorted(lsn for lsn, _ in order)
    assert changes[-1].key == b"end"
    seen = []
    for first, second in zip(changes[:-1:2], changes[1:-1:2], strict=True):
        assert first.key is not None
        assert (first.lsn, first.last, second.last) == (second.lsn, False, True)
        assert first.key.startswith(b"a")
        assert (second.key, second.value) == (b"b", first.value)
        seen.append(int(first.key[1:]))
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen)
    assert set(story.acknowledged) <= set(seen)


@pytest.mark.slow
async def test_nothing_is_missed_or_repeated_while_all_fails(tmp_path: Path) -> None:
    data, random, story = tmp_path / "data", Random(20240701), Story()
    servers = [await trio.to_thread.run_sync(lambda: Server.start(data, *RETENTION))]
    proxy = Proxy(random, _parsed(servers[0].tcp))
    try:
        with trio.fail_after(60 + 30 * KILLS):
            async with trio.open_nursery() as nursery:
                await nursery.start(proxy.run_proxy)
                address = f"127.0.0.1:{proxy.port}"
                async with trio.open_nursery() as clients:
                    await clients.start(watch, address, story)
                    clients.start_soon(write, address, story)
                    await disturb(proxy, data, servers, story, random)
                nursery.cancel_scope.cancel()
            check(story)
            assert proxy.resets > KILLS
            assert len(story.acknowledged) > 20 * KILLS
            # What was seen is what is there, also from the beginning.
            async with treestore.connect(servers[0].tcp) as db, db.watch(0, values=True) as feed:
                again = [await anext(feed) for _ in story.seen]
            assert again == story.seen
    finally:
        servers[0].kill()


async def test_a_feed_goes_on_when_the_server_is_back(tmp_path: Path) -> None:
    """The client's own timeout passes meanwhile: the feed says so, and may be asked again."""
    data, found = tmp_path / "data", []
    servers = [await trio.to_thread.run_sync(Server.start, data)]
    port = servers[0].tcp.rpartition(":")[2]
    try:
        with trio.fail_after(60):
            async with (
                treestore.connect(servers[0].tcp, timeout=1.0) as db,
                db.watch(prefix=b"k") as feed,
            ):
                await db.kv.put(b"k1", b"")
                await db.kv.put(b"k2", b"")
                found.append((await anext(feed)).key)
                assert await trio.to_thread.run_sync(servers.pop().stop) == 0
                with pytest.raises(Unavailable):
                    while True:
                        found.append((await anext(feed)).key)
                servers.append(
                    await trio.to_thread.run_sync(lambda: Server.start(data, "--port", port))
                )
                async with treestore.connect(servers[0].tcp) as other:
                    await other.kv.put(b"k3", b"")
                while len(found) < 3:
                    # Its pool may still be waiting before its next attempt to connect.
                    with contextlib.suppress(Unavailable):
                        found.append((await anext(feed)).key)
        assert found == [b"k1", b"k2", b"k3"]
    finally:
        for server in servers:
            server.kill()
