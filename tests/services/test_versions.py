"""``versions`` through every face."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
import trio

from treestore.errors import InvalidArgument, NotFound

POLICY = "leave"


async def ids(listing: Any) -> list[str]:
    return [version.version_id for version in await listing]


async def test_periods_include_both_end_days(db: Any) -> None:
    with trio.fail_after(30):
        create = db.versions.create
        await create(POLICY, "a", effective_from="2024-01-01", effective_to=date(2024, 3, 31))
        made = await create(
            POLICY,
            "b",
            effective_from=datetime(2024, 6, 1, 12),
            description="The second",
            tags=["summer", "draft", "draft"],
            created_by="me",
            metadata={"pages": 3},
        )
        assert (made.effective_from, made.effective_to) == (date(2024, 6, 1), None)
        assert (made.tags, made.change, made.revision) == (("draft", "summer"), "created", 2)
        assert made == await db.versions.get(POLICY, "b")
        as_of = db.versions.as_of
        assert (await as_of(POLICY, "2024-01-01")).version_id == "a"
        assert (await as_of(POLICY, date(2024, 3, 31))).version_id == "a"
        assert await as_of(POLICY, "2999-12-31") == made
        # An aware datetime is its day in UTC; a naive one is its own day.
        east = datetime(2024, 6, 1, 1, tzinfo=timezone(timedelta(hours=2)))
        with pytest.raises(NotFound):
            await as_of(POLICY, east)
        assert (await as_of(POLICY, east.replace(tzinfo=None))).version_id == "b"
        with pytest.raises(
            NotFound, match=r"2024-04-01.*'a' \(2024-01-01 to 2024-03-31\).*'b'"
        ) as e:
            await as_of(POLICY, "2024-04-01")
        assert [near["version_id"] for near in e.value.details["nearest"]] == ["a", "b"]


async def test_superseding_retiring_and_earlier_beliefs(db: Any) -> None:
    with trio.fail_after(30):
        versions = db.versions
        first = await versions.create(POLICY, "1", effective_from="2024-01-01")
        second = await versions.create(POLICY, "2", effective_from="2024-07-01", supersedes="1")
        ended = await versions.get(POLICY, "1")
        assert (ended.effective_to, ended.superseded_by) == (date(2024, 6, 30), "2")
        assert ended.recorded_at == second.recorded_at > first.recorded_at
        retired = await versions.retire(POLICY, "2", "2024-12-31")
        with pytest.raises(NotFound):
            await versions.as_of(POLICY, "2025-01-01")

        async def believed(day: str, at: datetime) -> str:
            return (await versions.as_of(POLICY, day, known_at=at)).version_id

        assert await believed("2025-01-01", second.recorded_at) == "2"
        assert await believed("2025-01-01", first.recorded_at) == "1"
        was = await versions.as_of(POLICY, "2024-02-01", known_at=first.recorded_at.isoformat())
        assert was == first
        assert (await versions.as_of(POLICY, "2024-02-01")).superseded_by == "2"
        with pytest.raises(NotFound, match="Nothing was recorded"):
            await believed("2024-02-01", first.recorded_at - timedelta(microseconds=1))
        # A day means its end.
        today = retired.recorded_at.astimezone(UTC).date()
        assert (await versions.as_of(POLICY, "2024-12-31", known_at=today)).version_id == "2"
        states = (await versions.history(POLICY, "2")).items
        assert [state.change for state in states] == ["created", "retired"]
        assert states == [second, retired]


async def test_same_start_and_corrections(db: Any) -> None:
    with trio.fail_after(30):
        versions = db.versions
        await versions.create(POLICY, "a", effective_from="2024-01-01")
        await versions.create(POLICY, "b", effective_from="2024-01-01", effective_to="2024-01-01")
        assert (await versions.as_of(POLICY, "2024-01-01")).version_id == "b"
        assert (await versions.as_of(POLICY, "2024-01-02")).version_id == "a"
        # An update leaves the order alone; recording anew does not.
        await versions.update(POLICY, "a", description="x")
        assert (await versions.as_of(POLICY, "2024-01-01")).version_id == "b"
        again = await versions.create(POLICY, "a", effective_from="2024-01-01")
        assert (again.change, again.description) == ("corrected", "")
        assert (await versions.as_of(POLICY, "2024-01-01")).version_id == "a"
        same = await versions.update(POLICY, "a", effective_to=None)
        assert same == again
        assert await versions.delete(POLICY, "a")
        assert not await versions.delete(POLICY, "a")
        assert (await versions.as_of(POLICY, "2024-01-01")).version_id == "b"
        assert (await versions.history(POLICY, "a")).items[-1].change == "withdrawn"
        with pytest.raises(NotFound):
            await versions.get(POLICY, "a")


async def test_listings(db: Any) -> None:
    with trio.fail_after(30):
        versions = db.versions
        for number in (3, 1, 2):
            tags = ["odd"] if number % 2 else []
            await versions.create(
                POLICY, f"v{number}", effective_from=f"202{number}-01-01", tags=tags
            )
        await db.documents.store(POLICY, "undated", [{"title": "t"}])
        assert await ids(versions.list(POLICY)) == ["undated", "v1", "v2", "v3"]
        page = await versions.list(POLICY, limit=2, reverse=True)
        assert [v.version_id for v in page] == ["v3", "v2"]
        await versions.create(POLICY, "v4", effective_from="2029-01-01")
        rest = await versions.list(POLICY, limit=2, reverse=True, cursor=page.next_cursor)
        assert [v.version_id for v in rest] == ["v1", "undated"]
        assert await ids(versions.by_tag(POLICY, "odd")) == ["v1", "v3"]
        await versions.set_tags(POLICY, "v1", ["even"])
        assert await ids(versions.by_tag(POLICY, "odd")) == ["v3"]
        assert await ids(versions.by_tag(POLICY, "nobody's")) == []
        assert (await versions.latest(POLICY)).version_id == "v4"
        for listing in (
            versions.list(POLICY, cursor=page.next_cursor),
            versions.by_tag(POLICY, "odd", reverse=True, cursor=page.next_cursor),
            versions.list("other", reverse=True, cursor=page.next_cursor),
            versions.history(POLICY, "v1", cursor="?"),
            versions.list(POLICY, limit=0),
        ):
            with pytest.raises(InvalidArgument):
                await listing


async def test_a_document_and_its_version_in_one_transaction(db: Any) -> None:
    with trio.fail_after(30):
        store, versions = db.documents.store, db.versions
        await store(POLICY, "1", [{"title": "one"}], effective_from="2020-01-01", tags=["x"])
        await store(POLICY, "2", [{"title": "two"}], effective_from="2021-01-01", supersedes="1")
        assert (await db.documents.get(POLICY)).version_id == "2"
        assert (await db.documents.get(POLICY, "1")).effective_to == date(2020, 12, 31)
        assert (await versions.get(POLICY, "1")).tags == ("x",)
        with pytest.raises(InvalidArgument, match="cannot end before"):
            await store(POLICY, "3", [{"title": "x"}], effective_from="2021-01-01", supersedes="2")
        with pytest.raises(NotFound):
            await db.documents.get(POLICY, "3")
        stored = await versions.as_of(POLICY, "2022-01-01")
        assert stored.has_document
        assert await db.documents.delete(POLICY, "2")
        # Its days came with the document and went with it; version 1 was ended by a declaration.
        with pytest.raises(NotFound):
            await versions.as_of(POLICY, "2022-01-01")
        before = await versions.as_of(POLICY, "2022-01-01", known_at=stored.recorded_at)
        assert before.version_id == "2"
        with pytest.raises(InvalidArgument, match="delete them first"):
            await versions.erase(POLICY)
        await db.documents.delete_policy(POLICY)
        assert await ids(versions.list(POLICY)) == ["1"]
        assert await versions.erase(POLICY)
        with pytest.raises(NotFound, match="no policy"):
            await versions.list(POLICY)


async def test_bad_input_is_answered(db: Any) -> None:
    with trio.fail_after(30):
        versions = db.versions
        await versions.create(POLICY, "a", effective_from="2024-01-01")
        before = (await versions.history(POLICY, "a")).items
        bad: list[Any] = [
            versions.create(POLICY, "b", effective_from="2024-02-30"),
            versions.create(POLICY, "b", effective_from=None),
            versions.create(POLICY, "b", effective_from="2024-02-01", effective_to="2024-01-01"),
            versions.create(POLICY, "b", effective_from="2024-02-01", supersedes="b"),
            versions.create(POLICY, "b", effective_from="2023-02-01", supersedes="a"),
            versions.create(
                POLICY, "b", effective_from=None, effective_to="2024-02-01", supersedes="a"
            ),
            versions.create("", "b", effective_from="2024-02-01"),
            versions.create(POLICY, "x" * 201, effective_from="2024-02-01"),
            versions.create(POLICY, "\ud800", effective_from="2024-02-01"),
            versions.create(POLICY, "b", effective_from="2024-02-01", description="\ud800"),
            versions.create(POLICY, "b", effective_from="2024-02-01", tags=[""]),
            versions.create(POLICY, "b", effective_from="2024-02-01", tags=map(str, range(101))),
            versions.create(POLICY, "b", effective_from="2024-02-01", tags="draft"),
            versions.create(POLICY, "b", effective_from="2024-02-01", metadata={"a": object}),
            versions.create(POLICY, 7, effective_from="2024-02-01"),
            versions.retire(POLICY, "a", "2023-12-31"),
            versions.update(POLICY, "a", effective_from=None),
            versions.update(POLICY, "a", effective_to="2023-12-31"),
            versions.as_of(POLICY, "yesterday"),
            versions.as_of(POLICY, "2024-01-01", known_at="just now"),
            versions.set_tags(POLICY, "a", [3]),
        ]
        for call in bad:
            with pytest.raises(InvalidArgument):
                await call
        missing: list[Any] = [
            versions.create(POLICY, "b", effective_from="2024-02-01", supersedes="nobody"),
            versions.retire(POLICY, "nobody", "2024-12-31"),
            versions.update(POLICY, "nobody", description=""),
            versions.get(POLICY, "nobody"),
            versions.get("nobody", "a"),
            versions.as_of("nobody", "2024-01-01"),
            versions.as_of("nobody", "2024-01-01", known_at="2024-01-01"),
            versions.latest("nobody"),
            versions.history(POLICY, "nobody"),
            versions.diff(POLICY, "a", "nobody"),
        ]
        for call in missing:
            with pytest.raises(NotFound):
                await call
        assert await ids(versions.list(POLICY)) == ["a"]
        assert (await versions.history(POLICY, "a")).items == before


async def test_diff(db: Any) -> None:
    with trio.fail_after(30):
        old = [
            {"node_id": "1", "title": "One", "nodes": [{"node_id": "1a"}, {"node_id": "1b"}]},
            {"node_id": "2", "title": "Two", "text": "before", "start_index": 1, "x": 1},
            {"node_id": "3", "title": "Three"},
        ]
        new = [
            {"node_id": "0", "title": "Nought", "text": "new"},
            {"node_id": "1", "title": "One", "nodes": [{"node_id": "1b"}]},
            {"node_id": "3", "title": "Three", "nodes": [{"node_id": "1a", "summary": "s"}]},
            {"node_id": "2", "title": "Two", "text": "after", "start_index": 2, "x": True},
        ]
        await db.documents.store(POLICY, "old", old)
        await db.documents.store(POLICY, "new", new)
        changes = await db.versions.diff(POLICY, "old", "new")
        kinds = [(change.kind, change.node_id) for change in changes]
        # What an insertion shifts did not move; of two that changed places one did.
        assert kinds[:1] == [("added", "0")]
        assert kinds[1] in [("moved", "3"), ("moved", "1a")]
        assert ("moved", "1a") in kinds
        assert ("changed", "1a") in kinds
        assert [kind for kind in kinds if kind[1] in "23" and kind[0] == "moved"]
        assert len(kinds) == 5
        changed = next(c for c in changes if (c.kind, c.node_id) == ("changed", "2"))
        assert [(f.name, f.old, f.new) for f in changed.fields] == [
            ("page_start", 1, 2),
            ("text", "before", "after"),
            ("metadata", {"x": 1}, {"x": True}),
        ]
        back = await db.versions.diff(POLICY, "new", "old", include_text=False)
        assert back[-1].kind == "removed"
        assert back[-1].node.text == ""
        text = [f for c in back for f in c.fields if f.name == "text"]
        assert [(f.old, f.new) for f in text] == [(None, None)]
        assert await db.versions.diff(POLICY, "new", "new") == []


async def test_a_snapshot_keeps_its_versions(db: Any) -> None:
    with trio.fail_after(30):
        await db.versions.create(POLICY, "a", effective_from="2024-01-01")
        async with db.snapshot() as snapshot:
            await db.versions.create(POLICY, "b", effective_from="2024-02-01")
            assert (await snapshot.versions.as_of(POLICY, "2024-03-01")).version_id == "a"
        assert (await db.versions.as_of(POLICY, "2024-03-01")).version_id == "b"
