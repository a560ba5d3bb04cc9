"""Feeds as the actors run them: what they hold, when they look, how they end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from actors.database import Database
from actors.feeds import INLINE_SIZE_BYTES, PROGRESS_S, EncodedFeed
from tests.actors.databases import Gate, database
from tests.crash.simdisk import SimDisk
from treestore.errors import FeedExpired, Unavailable
from treestore.stores.changes.reader import begin
from treestore.stores.changes.services import Selection


async def test_nothing_is_shown_before_it_is_durable() -> None:
    with trio.fail_after(30):
        async with database(SimDisk()) as db, db.watch() as feed:
            gate = Gate(db)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(db.kv.put, b"a", b"1")
                await gate.reached()
                with trio.move_on_after(0.05):
                    pytest.fail(f"{await anext(feed)} is not durable")
                gate.open()
                assert (await anext(feed)).key == b"a"
                # Who sees a change reads it.
                assert await db.kv.get(b"a") == b"1"


async def test_the_log_may_be_ahead_of_what_is_published() -> None:
    """The log thread is done before the event loop has heard of it."""
    with trio.fail_after(30):
        async with database(SimDisk()) as db:
            await db.kv.put(b"a", b"1")
            feed = begin(db.engine, 0, Selection())
            durable = db.engine.durable
            await db.kv.put(b"b", b"2")
            assert [change.key for change in feed.read(durable.position.lsn)] == [b"a"]


async def test_closing_the_store_ends_a_feed_that_waits() -> None:
    ended = []

    async def watch(db: Database, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        feed = db.watch()
        task_status.started()
        with pytest.raises(Unavailable, match="closed"):
            await anext(feed)
        ended.append(True)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, database(SimDisk()) as db:
            await nursery.start(watch, db)  # noqa: ASYNC111 - that it is closed is what is tested
            await trio.testing.wait_all_tasks_blocked()
        assert ended == [True]
        with pytest.raises(Unavailable):
            db.watch()


async def test_a_feed_holds_no_segment_and_no_snapshot() -> None:
    with trio.fail_after(60):
        async with database(SimDisk()) as db, db.watch() as feed:
            for number in range(40):
                await db.kv.put(b"%d" % number, bytes(20_000))
                await db.admin.checkpoint()
            assert db.engine.snapshots() == []
            assert not any(segment.readers for segment in db.engine.log._segments)
            with pytest.raises(FeedExpired):
                await anext(feed)


async def test_a_long_backlog_is_read_on_a_thread_and_a_short_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = 0
    with trio.fail_after(60):
        async with database(SimDisk()) as db:
            run = db.threads.run

            async def counted(job: Any, **rest: Any) -> Any:
                nonlocal jobs
                jobs += 1
                return await run(job, **rest)

            monkeypatch.setattr(db.threads, "run", counted)
            async with db.watch(from_lsn=db.engine.durable.position.lsn) as feed:
                await db.kv.put(b"a", b"1")
                await anext(feed)
                jobs = 0
                for _ in range(5):
                    await db.kv.put(b"b", b"2")
                    await anext(feed)
                assert jobs == 0
                await db.kv.put(b"c", bytes(2 * INLINE_SIZE_BYTES))
                jobs = 0
                await anext(feed)
                assert jobs == 1


async def test_a_client_is_told_how_far_a_quiet_feed_has_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with database(SimDisk()) as db:
        feed = EncodedFeed(db, begin(db.engine, None, Selection(prefix=b"x")))
        [first] = await feed.next_batch(1000, 10) or []
        start = msgspec.msgpack.decode(first)
        began = trio.current_time()
        await db.kv.put(b"a", b"1")
        [second] = await feed.next_batch(1000, 10) or []
        assert msgspec.msgpack.decode(second) == begin(db.engine, None, Selection()).position
        assert msgspec.msgpack.decode(second) != start
        assert trio.current_time() - began >= PROGRESS_S
        with trio.move_on_after(10 * PROGRESS_S) as scope:
            pytest.fail(f"Nothing came, but {await feed.next_batch(1000, 10)}")
        assert scope.cancelled_caught


async def test_a_batch_keeps_to_its_limits() -> None:
    with trio.fail_after(30):
        async with database(SimDisk()) as db:
            feed = EncodedFeed(db, begin(db.engine, None, Selection(values=True)))
            await feed.next_batch(1000, 10)
            await db.kv.batch(puts=[(b"%03d" % number, bytes(100)) for number in range(100)])
            sizes = []
            count = 0
            while count < 100:
                batch = await feed.next_batch(1000, 10)
                assert batch is not None
                sizes.append(sum(map(len, batch)))
                count += len(batch)
            assert count == 100
            assert max(sizes) < 1000 + 400


async def test_the_hub_counts_who_waits() -> None:
    with trio.fail_after(30):
        async with database(SimDisk()) as db:
            assert db.feeds.feeds == 0
            async with trio.open_nursery() as nursery, db.watch() as feed:
                nursery.start_soon(anext, feed)  # noqa: ASYNC111 - likewise
                await trio.testing.wait_all_tasks_blocked()
                assert db.feeds.feeds == 1
                await db.kv.put(b"a", b"1")
            assert db.feeds.feeds == 0
