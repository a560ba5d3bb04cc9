"""``namespaces.bulk``, through every face."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from treestore.errors import AlreadyExists, InvalidArgument, NotFound
from treestore.model.bulk import RejectedLine

SCHEMA = {
    "vector": {"dim": 2, "metric": "l2"},
    "attributes": {"year": {"type": "int"}, "title": {"type": "string"}},
}


def line(number: int) -> str:
    vector = [float(number), 1.0]
    return json.dumps({"id": number, "vector": vector, "attributes": {"year": number % 7}}) + "\n"


LINES = [line(number) for number in range(2500)]

BAD = {
    10: ("not json\n", "no JSON object"),
    11: ("[1]\n", "no JSON object"),
    12: ('{"vector": [1, 2]}\n', "no id"),
    13: ('{"id": 1, "vector": [1]}\n', "has 1 numbers"),
    14: ('{"id": 1, "vector": [1, 1e999]}\n', "no JSON object|infinity"),
    15: ('{"id": 1, "attributes": {"colour": 1}}\n', "colour"),
    16: ('{"id": 1, "attributes": {"year": "x"}}\n', "year"),
    17: ('{"id": -1}\n', "id of a document"),
    18: ('{"id": 1, "attributes": {"title": "\\ud800"}}\n', "no JSON object|surrogate"),
    19: ("[" * 5000 + "\n", "no JSON object"),
    1500: ("{}\n", "no id"),
}


def spoiled() -> list[str]:
    lines = list(LINES)
    for number, (text, _) in BAD.items():
        lines[number - 1] = text
    lines[1999] = "  \n"
    return lines


async def test_lines_are_stored(db: Any, tmp_path: Path) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        path = tmp_path / "lines.ndjson"
        path.write_text("".join(LINES))
        told: list[tuple[int, int | None]] = []
        report = await db.namespaces.bulk("n", path, on_progress=lambda *its: told.append(its))
        assert (report.applied, report.lines, report.stored, report.rejected) == (
            *(True, 2500, 2500),
            0,
        )
        assert told[-1] == (path.stat().st_size, path.stat().st_size)
        assert len(told) == 3
        assert await db.namespaces.count("n") == 2500
        hits = await db.namespaces.query("n", vector=[700.0, 1.0], top_k=3)
        assert [hit.id for hit in hits] == [700, 699, 701]


async def test_what_is_wrong_is_told_line_by_line(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        report = await db.namespaces.bulk("n", "".join(spoiled()).encode())
        assert (report.applied, report.lines, report.stored) == (True, 2500, 2488)
        assert report.rejected == len(BAD)
        assert [one.line for one in report.rejections] == list(BAD)
        for one in report.rejections:
            assert isinstance(one, RejectedLine)
            assert re.search(BAD[one.line][1], one.error), one
        assert await db.namespaces.count("n") == 2488


async def test_a_line_that_is_too_long_is_rejected_alone(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        report = await db.namespaces.bulk("n", [*LINES[:10], "x" * (17 << 20), "\n", *LINES[10:]])
        assert (report.applied, report.lines, report.stored) == (True, 2501, 2500)
        (rejected,) = report.rejections
        assert rejected.line == 11
        assert "more than 16 MiB" in rejected.error
        # Without an end, to the end of the source.
        report = await db.namespaces.bulk("n", [*LINES[:10], *["x" * (1 << 20)] * 20])
        assert [(one.line, "16 MiB" in one.error) for one in report.rejections] == [(11, True)]


async def test_documents_that_cannot_be_sent_are_rejected_one_by_one(db: Any) -> None:
    documents: list[Any] = [{"id": number, "vector": [number, 0.5]} for number in range(2500)]
    bad = {
        5: ({"id": 5, "vector": [1, 2], "attributes": {"year": Decimal(1)}}, "Decimal"),
        17: ({"id": 1 << 70, "vector": [1, 2]}, "64 bits|2\\*\\*63"),
        18: ({"id": "\ud800", "vector": [1, 2]}, "surrogate|Unicode"),
        1500: (object(), "object"),
        2499: ({"id": 9, "vector": [1, 2, 3]}, "3 numbers"),
    }
    for number, (document, _) in bad.items():
        documents[number] = document
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        report = await db.namespaces.bulk("n", documents)
        assert (report.lines, report.stored) == (2500, 2495)
        assert [one.line for one in report.rejections] == [number + 1 for number in bad]
        for one in report.rejections:
            assert re.search(bad[one.line - 1][1], one.error), one
        assert await db.namespaces.count("n") == 2495


async def test_what_ends_an_import_says_what_is_stored(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        with pytest.raises(InvalidArgument, match="text or documents, not both") as caught:
            await db.namespaces.bulk("n", [*LINES, {"id": 1}])
        assert caught.value.details == {"lines": 2000, "stored": 2000}
        assert "2,000 documents are stored" in str(caught.value)
        assert await db.namespaces.count("n") == 2000


async def test_all_or_nothing(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        report = await db.namespaces.bulk("n", spoiled(), mode="all_or_nothing")
        assert (report.applied, report.rejected) == (False, len(BAD))
        assert await db.namespaces.count("n") == 0
        assert await db.namespaces.bulk_imports("n") == []
        report = await db.namespaces.bulk("n", LINES, mode="all_or_nothing")
        assert (report.applied, report.stored) == (True, 2500)
        assert await db.namespaces.count("n") == 2500
        # Into one that holds something: together with that.
        more = [line(number) for number in range(2400, 2600)]
        report = await db.namespaces.bulk("n", more, mode="all_or_nothing")
        assert report.applied
        assert await db.namespaces.count("n") == 2600


async def test_nothing_is_seen_before_the_end(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        await db.namespaces.bulk_begin("n", "one", mode="all_or_nothing")
        written = await db.namespaces.bulk_write(
            "n", lines="".join(LINES[:100]).encode(), import_id="one"
        )
        assert (written.lines, written.stored) == (100, 100)
        assert await db.namespaces.count("n") == 0
        assert await db.namespaces.query("n", vector=[1.0, 1.0]) == []
        await db.namespaces.bulk_end("n", "one")
        assert await db.namespaces.count("n") == 100
        with pytest.raises(NotFound):
            await db.namespaces.bulk_end("n", "one")


async def test_it_goes_on_where_it_was(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        with pytest.raises(ZeroDivisionError):
            await db.namespaces.bulk("n", LINES, import_id="mine", on_progress=lambda *_: 1 // 0)
        (known,) = await db.namespaces.bulk_imports("n")
        assert (known.import_id, known.lines, known.stored) == ("mine", 1000, 1000)
        assert await db.namespaces.count("n") == 1000
        with pytest.raises(AlreadyExists):
            await db.namespaces.bulk("n", LINES, import_id="mine", mode="all_or_nothing")
        with pytest.raises(InvalidArgument, match="not the one that the import began with"):
            await db.namespaces.bulk("n", LINES[:500], import_id="mine")
        report = await db.namespaces.bulk("n", LINES, import_id="mine")
        assert (report.resumed_at, report.lines, report.stored) == (1000, 2500, 2500)
        assert await db.namespaces.count("n") == 2500
        assert await db.namespaces.bulk_imports("n") == []


async def test_a_batch_that_is_sent_twice_counts_once(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        await db.namespaces.bulk_begin("n", "one")
        text = "".join(LINES[:10]).encode()
        for _ in range(2):
            written = await db.namespaces.bulk_write("n", lines=text, import_id="one")
            assert (written.lines, written.stored) == (10, 10)
        # One that begins within what is done stores the rest.
        written = await db.namespaces.bulk_write(
            "n", first=6, lines="".join(LINES[5:15]).encode(), import_id="one"
        )
        assert (written.lines, written.stored) == (15, 15)
        # Lines that are rejected are told again, too.
        for _ in range(2):
            written = await db.namespaces.bulk_write(
                "n", first=16, lines=b"x\n\n{}\n", import_id="one"
            )
            assert (written.lines, written.stored, written.rejected) == (18, 15, 2)
            assert [one.line for one in written.rejections] == [16, 18]
        written = await db.namespaces.bulk_write("n", first=18, lines=b"{}\n\n", import_id="one")
        assert (written.lines, written.rejected) == (19, 2)
        assert [one.line for one in written.rejections] == [18]
        with pytest.raises(InvalidArgument, match="next one is not 30"):
            await db.namespaces.bulk_write("n", first=30, lines=text, import_id="one")
        assert await db.namespaces.bulk_abort("n", "one")
        assert not await db.namespaces.bulk_abort("n", "one")
        assert await db.namespaces.count("n") == 15


@pytest.mark.parametrize("mode", ["best_effort", "all_or_nothing"])
async def test_what_an_earlier_attempt_rejected_is_in_the_report(db: Any, mode: str) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        options = {"import_id": "mine", "mode": mode}
        with pytest.raises(ZeroDivisionError):
            await db.namespaces.bulk("n", spoiled(), **options, on_progress=lambda *_: 1 // 0)
        (known,) = await db.namespaces.bulk_imports("n")
        assert (known.lines, known.rejected, known.rejections) == (1000, len(BAD) - 1, ())
        known = await db.namespaces.bulk_begin("n", **options)
        assert [one.line for one in known.rejections] == list(BAD)[:-1]
        report = await db.namespaces.bulk("n", spoiled(), **options)
        assert (report.resumed_at, report.lines, report.rejected) == (1000, 2500, len(BAD))
        assert [one.line for one in report.rejections] == list(BAD)
        for one in report.rejections:
            assert re.search(BAD[one.line][1], one.error), one
        assert report.rejections[-1].id is None
        assert report.rejections[3].id == 1
        # Ended or given up, it leaves nothing behind: one of that name begins with nothing.
        assert (await db.namespaces.bulk_begin("n", **options)).rejections == ()


async def test_only_the_first_rejected_lines_are_kept(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        await db.namespaces.bulk_begin("n", "one")
        for first in (1, 701):
            written = await db.namespaces.bulk_write(
                "n", first=first, lines=b"x\n" * 700, import_id="one"
            )
            assert len(written.rejections) == 700
        assert written.rejected == 1400
        ended = await db.namespaces.bulk_end("n", "one")
        assert [one.line for one in ended.rejections] == list(range(1, 1001))


async def test_a_dropped_namespace_takes_its_imports_along(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        await db.namespaces.bulk_begin("n", "one", mode="all_or_nothing")
        await db.namespaces.bulk_write("n", lines=(LINES[0] + "x").encode(), import_id="one")
        assert await db.namespaces.drop("n")
        await db.namespaces.create("n", SCHEMA)
        assert await db.namespaces.bulk_imports("n") == []
        begun = await db.namespaces.bulk_begin("n", "one", mode="all_or_nothing")
        assert (begun.lines, begun.rejections) == (0, ())


async def test_asynchronous_sources(db: Any, request: pytest.FixtureRequest) -> None:
    async def documents() -> AsyncIterator[dict[str, Any]]:
        for number in range(1200):
            await trio.lowlevel.checkpoint()
            yield json.loads(line(number))

    face = request.node.callspec.params["db"]
    if face not in ("embedded", "trio"):
        pytest.skip("the source is trio's")
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        report = await db.namespaces.bulk("n", documents())
        assert (report.lines, report.stored) == (1200, 1200)


async def test_bad_arguments(db: Any) -> None:
    with trio.fail_after(60):
        await db.namespaces.create("n", SCHEMA)
        for error, arguments in (
            (NotFound, {"name": "other", "source": LINES}),
            (InvalidArgument, {"name": "n", "source": 5}),
            (InvalidArgument, {"name": "n", "source": LINES, "mode": "some"}),
            (InvalidArgument, {"name": "n", "source": LINES, "import_id": ""}),
        ):
            with pytest.raises(error):
                await db.namespaces.bulk(**arguments)
        batches: tuple[dict[str, Any], ...] = (
            *({}, {"lines": b"", "documents": []}, {"lines": b"\n" * 20_000}),
            *({"lines": b"{}", "first": 0}, {"documents": [{}] * 10_001}),
        )
        for batch in batches:
            with pytest.raises(InvalidArgument):
                await db.namespaces.bulk_write("n", **batch)
        assert await db.namespaces.count("n") == 0
