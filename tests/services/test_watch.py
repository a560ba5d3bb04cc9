"""``db.watch`` through every face."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from treestore.errors import FeedExpired, InvalidArgument
from treestore.model.changes import Change

TREE = [{"title": "one", "nodes": [{"title": "two", "text": "long " * 500}]}]


async def take(feed: Any, count: int) -> list[Change]:
    """The next changes."""
    found: list[Change] = []
    while len(found) < count:
        found.append(await anext(feed))
    return found


def told(changes: list[Change]) -> list[tuple[Any, ...]]:
    return [(c.entity, c.kind, c.key or c.node_id or c.version_id, c.last) for c in changes]


async def test_changes_come_as_they_are_committed(db: Any) -> None:
    with trio.fail_after(30):
        await db.kv.put(b"before", b"")
        async with db.watch() as feed:
            await db.kv.put(b"a", b"1")
            await db.kv.batch(puts=[(b"b", b"2"), (b"c", b"3")], deletes=[b"a"])
            await db.documents.store("p", "v", TREE)
            await db.documents.insert_nodes("p", [{"title": "three", "node_id": "n"}])
            changes = await take(feed, 8)
            assert told(changes) == [
                *(("key", "put", b"a", True), ("key", "put", b"b", False)),
                *(("key", "put", b"c", False), ("key", "delete", b"a", True)),
                *(("version", "put", "v", False), ("document", "stored", "v", True)),
                *(("node", "put", "n", False), ("document", "edited", "v", True)),
            ]
            assert [c.lsn for c in changes] == sorted(c.lsn for c in changes)
            assert len({c.lsn for c in changes}) == 4
            assert {c.value for c in changes} == {None}
            assert feed.position == changes[-1].position
            with trio.move_on_after(0.05):
                pytest.fail(f"There is no change left, but {await anext(feed)}")


async def test_a_bare_loop_and_values(db: Any) -> None:
    async def write() -> None:
        for number in range(50):
            await db.kv.put(b"%d" % (number % 7), b"%d" % number)

    with trio.fail_after(30):
        async with db.snapshot() as snapshot:
            position = snapshot.position
        found = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            async for change in db.watch(position, values=True):
                found.append(change.value)
                if len(found) == 50:
                    break
        assert found == [b"%d" % number for number in range(50)]


async def test_from_a_snapshot_comes_exactly_what_it_does_not_have(db: Any) -> None:
    with trio.fail_after(30):
        await db.kv.put(b"a", b"1")
        async with db.snapshot() as snapshot:
            await db.kv.put(b"b", b"2")
            assert await snapshot.kv.get(b"b") is None
            for start in (snapshot.position, snapshot.lsn):
                async with db.watch(start) as feed:
                    assert [c.key for c in await take(feed, 1)] == [b"b"]
            assert snapshot.number > 0


async def test_a_feed_resumes_from_any_change(db: Any) -> None:
    with trio.fail_after(30):
        async with db.watch() as feed:
            start = feed.position
            for number in range(6):
                await db.kv.batch(puts=[(b"%d%d" % (number, n), b"") for n in range(3)])
            everything = await take(feed, 18)
        for index, change in enumerate(everything):
            async with db.watch(change.position) as feed:
                assert await take(feed, 17 - index) == everything[index + 1 :]
        async with db.watch(start) as feed:
            assert await take(feed, 18) == everything


async def test_filters(db: Any) -> None:
    with trio.fail_after(30):
        async with db.snapshot() as snapshot:
            start = snapshot.position
        await db.kv.batch(puts=[(b"a1", b""), (b"b1", b""), (b"a2", b"")])
        await db.documents.store("p", "v", TREE)
        await db.documents.store("q", "v", TREE)
        async with db.watch(start, service="documents") as feed:
            assert [c.policy_id for c in await take(feed, 2)] == ["p", "q"]
        async with db.watch(start, policy_id="q") as feed:
            assert [c.policy_id for c in await take(feed, 1)] == ["q"]
        async with db.watch(start, prefix=b"a") as feed:
            first, second = await take(feed, 2)
            assert (first.key, first.last, second.key, second.last) == (b"a1", False, b"a2", True)


async def test_many_watchers_see_the_same(db: Any) -> None:
    seen: dict[int, list[Change]] = {number: [] for number in range(20)}

    async def watch(
        number: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with db.watch() as feed:
            task_status.started()
            async for change in feed:
                seen[number].append(change)
                if number % 5 == 0:
                    await trio.sleep(0.002)
                if len(seen[number]) == 100:
                    return

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in seen:
                await nursery.start(watch, number)
            for number in range(50):
                await db.kv.batch(puts=[(b"x%d" % number, b""), (b"y%d" % number, b"")])
        assert all(changes == seen[0] for changes in seen.values())
        assert [c.key for c in seen[0][::2]] == [b"x%d" % number for number in range(50)]


async def test_a_slow_watcher_loses_nothing(db: Any) -> None:
    with trio.fail_after(60):
        async with db.watch(values=True) as feed:
            for number in range(40):
                await db.kv.put(b"%d" % number, bytes([number]) * 200_000)
            await db.admin.checkpoint()
            changes = await take(feed, 40)
        assert [c.value[:1] for c in changes if c.value] == [bytes([n]) for n in range(40)]
        assert all(c.value is not None and len(c.value) == 200_000 for c in changes)


async def test_a_feed_that_fell_behind_is_told(db: Any) -> None:
    with trio.fail_after(60):
        async with db.watch(values=True) as feed:
            start = feed.position
            for number in range(12):
                await db.kv.put(b"%d" % number, bytes(3_000_000))
                await db.admin.checkpoint()
            with pytest.raises(FeedExpired, match="from a snapshot") as raised:
                await take(feed, 12)
            details = raised.value.details
            assert 0 < details["first_lsn"] <= details["last_lsn"]
            assert raised.value.code == "feed_expired"
            with pytest.raises((FeedExpired, StopAsyncIteration)):
                await anext(feed)
        with pytest.raises(FeedExpired):
            await take(db.watch(start), 1)
        async with db.snapshot() as snapshot, db.watch(snapshot.position) as feed:
            await db.kv.put(b"new", b"")
            assert [c.key for c in await take(feed, 1)] == [b"new"]
        async with db.watch(details["first_lsn"]) as feed:
            await take(feed, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonsense",), "from_lsn"),
        ((-1,), "from_lsn"),
        ((10**9,), "in the future"),
    ],
)
async def test_bad_positions_are_answered(db: Any, arguments: tuple[Any, ...], words: str) -> None:
    with trio.fail_after(30), pytest.raises(InvalidArgument, match=words):
        async with db.watch(*arguments) as feed:
            await anext(feed)


@pytest.mark.parametrize(
    "filters",
    [{"service": "none"}, {"policy_id": ""}, {"prefix": 5}, {"service": "kv", "policy_id": "p"}],
)
async def test_bad_filters_are_answered(db: Any, filters: dict[str, Any]) -> None:
    with trio.fail_after(30), pytest.raises(InvalidArgument):
        async with db.watch(**filters) as feed:
            await anext(feed)


async def test_a_position_of_another_database_is_refused(db: Any) -> None:
    with trio.fail_after(30), pytest.raises(FeedExpired, match="another history"):
        async with db.watch("00000000-1-0") as feed:
            await anext(feed)


async def test_a_feed_that_was_left_gives_nothing_more(db: Any) -> None:
    with trio.fail_after(30):
        async with db.watch() as feed:
            await db.kv.batch(puts=[(b"a", b""), (b"b", b"")])
            await anext(feed)
        assert [change async for change in feed] == []


async def test_a_wait_that_is_cancelled_loses_nothing(db: Any) -> None:
    with trio.fail_after(30):
        async with db.watch() as feed:
            for number in range(30):
                with trio.move_on_after(0.001 * (number % 4)):
                    await anext(feed)
                    pytest.fail("nothing was changed")
                await db.kv.put(b"%d" % number, b"")
                assert (await anext(feed)).key == b"%d" % number
