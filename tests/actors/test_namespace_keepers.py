"""The keepers of namespaces' segments and texts: what they do, seen from outside."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import trio

from actors import namespace_texts
from actors.database import Database, open_database
from actors.namespace_segments import SegmentKeeper
from treestore.errors import Unavailable
from treestore.search.folder import IndexFailed
from treestore.search.fulltext.searching import Search
from treestore.stores.namespaces.upkeep import (
    FANOUT,
    SegmentSize,
    UpkeepOptions,
    choose_merge,
)

OPTIONS = UpkeepOptions(seal_rows=50)
DIM = 4


def schema(language: str = "english", *, stemming: bool = True) -> dict[str, Any]:
    text = {"language": language, "stemming": stemming}
    return {
        "vector": {"dim": DIM, "metric": "l2"},
        "attributes": {
            "n": {"type": "int"},
            "text": {"type": "string", "full_text": text},
        },
    }


def documents(first: int, count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(first)
    return [
        {
            "id": first + n,
            "vector": rng.normal(size=DIM).astype("f4"),
            "attributes": {"n": (first + n) % 10, "text": f"taxes number{first + n}"},
        }
        for n in range(count)
    ]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the keepers tell nobody
        await trio.sleep(0.02)


def keeper(db: Database) -> Any:
    assert db.segment_keeper is not None
    return db.segment_keeper


def files(data: Path) -> set[str]:
    folder = data / "search" / "namespaces" / "segments"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_segments_of_a_tier_are_joined() -> None:
    sizes = [SegmentSize(n, 50, 0) for n in range(FANOUT - 1)]
    assert choose_merge(sizes, OPTIONS) == []
    assert choose_merge([*sizes, SegmentSize(9, 40, 0)], OPTIONS) == [9, 0, 1, 2]
    # Another tier, another matter.
    assert choose_merge([*sizes, SegmentSize(9, 51, 0)], OPTIONS) == []
    assert choose_merge([*sizes, SegmentSize(9, 100, 31)], OPTIONS) == [9]
    small = UpkeepOptions(seal_rows=50, segment_rows_max=180)
    assert choose_merge([*sizes, SegmentSize(9, 40, 0)], small) == []


async def test_a_held_snapshot_answers_alike_before_and_after(tmp_path: Path) -> None:
    queries = np.random.default_rng(1).normal(size=(20, DIM)).astype("f4")

    async def ask(services: Any) -> list[Any]:
        found: list[Any] = []
        for query in queries:
            for filter in (None, {"n": {"$lt": 3}}):
                hits = await services.namespaces.query("n", vector=query, filter=filter, top_k=5)
                found.append([(hit.id, hit.distance, hit.score) for hit in hits])
        return found

    with trio.fail_after(120):
        async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
            await db.namespaces.create("n", schema())
            for first in range(0, 300, 60):
                await db.namespaces.upsert("n", documents(first, 60))
                await until(lambda first=first: keeper(db).counters.rows >= first + 50)  # type: ignore[misc]
            async with db.snapshot() as snapshot:
                before = await ask(snapshot)
                merges = keeper(db).counters.merges
                await db.namespaces.delete("n", list(range(0, 300, 2)))
                await db.namespaces.upsert("n", documents(1000, 60))
                await until(lambda: keeper(db).counters.merges > merges)
                assert await ask(snapshot) == before
                assert len(await snapshot.namespaces.query("n", text="number4")) == 1
            assert await db.namespaces.query("n", text="number4") == []
            assert (await db.admin.check()).ok


def after_first(monkeypatch: pytest.MonkeyPatch, step: str, race: Callable[[], None]) -> list[Any]:
    """Have ``race`` called on the keeper's thread, after its first step of that name that gave
    something: the list has that then."""
    given: list[Any] = []
    original = getattr(SegmentKeeper, step)

    def stepped(self: SegmentKeeper, *arguments: Any) -> Any:
        found = original(self, *arguments)
        if found is not None and not given:
            given.append(found)
            race()
        return found

    monkeypatch.setattr(SegmentKeeper, step, stepped)
    return given


async def test_a_query_may_load_the_view_from_a_later_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the keeper's look at what is to be sealed and the sealing: it does that later."""

    def race() -> None:
        trio.from_thread.run(db.namespaces.upsert, "n", documents(500, 1))
        assert trio.from_thread.run(partial(db.namespaces.query, "n", vector=[0.0] * DIM))

    raced = after_first(monkeypatch, "_look", race)
    with trio.fail_after(120):
        async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
            await db.namespaces.create("n", schema())
            await db.namespaces.upsert("n", documents(0, 60))
            await until(lambda: keeper(db).counters.rows >= 50)
            assert [what for what, *_ in raced] == ["a seal"]
            assert db.supervisor is not None
            assert not any(status.restarts for status in db.supervisor.actors.values())
            assert await db.namespaces.count("n") == 61


async def test_a_snapshot_finds_words_of_rows_that_died_before_they_were_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespace_texts, "COMMIT_S", 1e9)
    with trio.fail_after(120):
        async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
            await db.namespaces.create("n", schema())
            # Nobody has asked for anything yet: these rows are found missing when somebody does.
            await db.namespaces.upsert("n", documents(0, 10))
            async with db.snapshot() as snapshot:
                assert len(await snapshot.namespaces.query("n", text="number4")) == 1
                await db.namespaces.delete("n", [4, 5])
                assert await db.namespaces.query("n", text="number4") == []
                texts = db.text_keeper
                assert texts is not None
                commits = texts.counters.commits
                monkeypatch.setattr(namespace_texts, "COMMIT_S", 0.0)
                await until(lambda: texts.counters.commits > commits)
                assert len(await snapshot.namespaces.query("n", text="number4")) == 1
                assert len(await snapshot.namespaces.query("n", text="tax", top_k=99)) == 10
                assert len(await db.namespaces.query("n", text="tax", top_k=99)) == 8
            assert db.namespace_views is not None
            known = db.namespace_views.views().texts(1)
            await until(lambda: len(known) == 0)
            assert len(await db.namespaces.query("n", text="tax", top_k=99)) == 8


async def test_short_queries_for_words_need_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
        with trio.fail_after(60):
            await db.namespaces.create("n", schema())
            await db.namespaces.upsert("n", documents(0, 30))
            await db.namespaces.query("n", text="taxes")  # Loads the view.
            await until(lambda: db.text_keeper is not None and not db.text_keeper.counters.lag_rows)
            expected = await db.namespaces.query("n", text="number7", filter={"n": {"$gte": 0}})
            threads: list[str] = []
            run = db.threads.run

            async def noted(job: Any, **options: Any) -> Any:
                threads.append(getattr(job, "__module__", ""))
                return await run(job, **options)

            monkeypatch.setattr(type(db.threads), "run", staticmethod(noted))
            views = db.namespace_views
            assert views is not None
            answered = views.statistics().queries
            for _ in range(20):
                assert await db.namespaces.query("n", text="number7") == expected
            assert "actors.namespace_reader" not in threads
            assert views.statistics().queries == answered + 20
            async with db.snapshot() as snapshot:
                assert await snapshot.namespaces.query("n", text="number7") == expected
                assert "actors.namespace_reader" not in threads
            # What takes longer has a thread: a filter, a prefix, a page of many.
            others: list[dict[str, Any]] = [
                {"text": "number7", "filter": {"n": {"$gte": 0}}},
                {"text": "number7*"},
                {"text": "number7", "top_k": 500},
                {"text": "number7", "vector": [0.0] * DIM},
            ]
            for asked in others:
                threads.clear()
                assert await db.namespaces.query("n", **asked)
                assert "actors.namespace_reader" in threads, asked


@pytest.mark.slow
async def test_an_index_that_a_search_finds_damaged_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can wait for it does, and is answered; nobody sees an internal error."""
    fetch, damaged = Search._fetch, True

    def fetch_or_fail(self: Search, *args: Any) -> Any:
        if damaged:
            raise IndexFailed("its postings make no sense")
        return fetch(self, *args)

    monkeypatch.setattr(namespace_texts, "RETRY_S_MIN", 0.05)
    async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
        with trio.fail_after(60):
            await db.namespaces.create("n", schema())
            await db.namespaces.upsert("n", documents(0, 30))
            query = partial(db.namespaces.query, "n", top_k=3)
            expected = await query(text="number7")
            assert db.namespace_views is not None
            texts = db.namespace_views.views().texts(1)

            def indexed() -> bool:
                basis = texts.basis()
                return basis is not None and not basis.new

            await until(indexed)
            before = texts.basis()
            assert before is not None
            monkeypatch.setattr(Search, "_fetch", fetch_or_fail)
            others: list[dict[str, Any]] = [{}, {"vector": [0.0] * DIM}, {"filter": {"n": 7}}]
            for asked in others:
                await until(indexed)
                with pytest.raises(Unavailable, match="full-text index"):
                    await query(text="number7", consistency="eventual", **asked)
                assert texts.basis() is None

            await until(indexed)

            async def mend() -> None:
                nonlocal damaged
                await trio.sleep(0.5)
                damaged = False

            async with trio.open_nursery() as nursery:
                nursery.start_soon(mend)
                assert await query(text="number7") == expected
            after = texts.basis()
            assert after is not None
            assert after.index is not before.index
            keeper = db.text_keeper
            assert keeper is not None
            await until(lambda: not keeper.problems)


async def test_files_that_nobody_names_go(tmp_path: Path) -> None:
    with trio.fail_after(120):
        async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
            await db.namespaces.create("n", schema())
            await db.namespaces.upsert("n", documents(0, 60))
            await until(lambda: keeper(db).counters.seals == 1)
            await db.namespaces.copy("n", "copy")
            (name,) = files(tmp_path / "data")
        (tmp_path / "data" / "search" / "namespaces" / "segments" / "orphan.segment").write_text("")
        async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
            await until(lambda: files(tmp_path / "data") == {name})
            await db.namespaces.drop("n")
            # The copy shares the file.
            assert len(await db.namespaces.query("copy", vector=[0] * DIM, top_k=99)) == 60
            await db.namespaces.delete("copy", list(range(30)))
            await until(lambda: keeper(db).counters.merges == 1)
            await until(lambda: name not in files(tmp_path / "data"))
            assert len(await db.namespaces.query("copy", vector=[0] * DIM, top_k=99)) == 30
            assert (await db.admin.check()).ok


async def test_another_analyzer_is_a_new_index_in_the_background(tmp_path: Path) -> None:
    with trio.fail_after(120):
        async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
            await db.namespaces.create("n", schema())
            await db.namespaces.upsert("n", documents(0, 300))
            assert len(await db.namespaces.query("n", text="tax", top_k=1000)) == 300
            await db.namespaces.update_schema("n", schema(stemming=False))
            while await db.namespaces.query("n", text="tax"):  # noqa: ASYNC110
                await trio.sleep(0.05)
            assert len(await db.namespaces.query("n", text="taxes", top_k=1000)) == 300
            assert (await db.admin.stats()).namespace_text_rebuilds


async def test_what_is_asked_for_often_stays_loaded(tmp_path: Path) -> None:
    """Of twenty namespaces half fit; most queries are for few of them."""
    rng = Random(3)
    with trio.fail_after(120):
        options = UpkeepOptions(seal_rows=50, cache_size_bytes=1)
        async with open_database(tmp_path / "data", namespaces=options) as db:
            for number in range(20):
                await db.namespaces.create(f"n{number}", schema())
                await db.namespaces.upsert(f"n{number}", documents(0, 60))
            await until(lambda: keeper(db).counters.seals == 20)
            assert db.namespace_views is not None
            # Sealing loaded all of them; those beyond the budget go a moment later.
            await until(lambda: db.namespace_views.statistics().loaded <= 1)  # type: ignore[union-attr]
            assert await db.namespaces.warm("n7")
            one = db.namespace_views.statistics().size_bytes
        options = UpkeepOptions(seal_rows=50, cache_size_bytes=10 * one)
        async with open_database(tmp_path / "data", namespaces=options) as db:
            views = db.namespace_views
            assert views is not None
            for _ in range(600):
                number = min(int(rng.paretovariate(1.6)) - 1, 19)
                await db.namespaces.query(f"n{number}", vector=[0] * DIM)
                # At each moment, not only once the keeper has looked.
                assert views.statistics().size_bytes <= 10 * one
            stats = await db.admin.stats()
            assert stats.namespace_cache_hit_rate > 0.8
            assert views.statistics().evicted
            assert not await db.namespaces.warm("n0")


async def test_a_view_that_is_loaded_during_a_seal_has_its_index_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries for other namespaces may take its place in the cache while the segment is made."""

    def race() -> None:
        (made,) = raced
        db.namespace_views.views().follower.forget(made.number)  # type: ignore[union-attr]
        assert trio.from_thread.run(partial(db.namespaces.query, "n", vector=[0.0] * DIM))

    raced = after_first(monkeypatch, "_make", race)
    with trio.fail_after(120):
        async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
            await db.namespaces.create("n", schema())
            await db.namespaces.upsert("n", documents(0, 60))
            await until(lambda: keeper(db).counters.seals == 1)

            async def has_its_index() -> bool:
                await db.namespaces.query("n", vector=[0.0] * DIM)
                (view,) = db.namespace_views.views().follower.views()  # type: ignore[union-attr]
                return not view.missing() and len(view.sealed_parts()) == 1

            while not await has_its_index():  # noqa: ASYNC110
                await trio.sleep(0.05)
            assert raced


async def test_staged_imports_are_sealed_and_seen_at_once(tmp_path: Path) -> None:
    with trio.fail_after(120):
        async with open_database(tmp_path / "data", namespaces=OPTIONS) as db:
            await db.namespaces.create("n", schema())
            await db.namespaces.bulk_begin("n", "one", mode="all_or_nothing")
            given = [{**one, "vector": one["vector"].tolist()} for one in documents(0, 120)]
            await db.namespaces.bulk_write("n", documents=given, import_id="one")
            await until(lambda: keeper(db).counters.seals == 1)
            assert await db.namespaces.query("n", vector=[0] * DIM) == []
            await db.namespaces.bulk_end("n", "one")
            assert len(await db.namespaces.query("n", vector=[0] * DIM, top_k=999)) == 120
            assert len(await db.namespaces.query("n", text="tax", top_k=999)) == 120
            assert (await db.admin.check()).ok
