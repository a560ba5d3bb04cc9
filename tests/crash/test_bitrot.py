"""Bit rot, lost and misdirected writes: noticed, made good, or of no importance; nothing else."""

from __future__ import annotations

import time
from collections import Counter
from random import Random

import pytest
from crc32c import crc32c

from scripts.torture import bitrot
from scripts.torture.bitrot import (
    OPTIONS,
    PAGES,
    Specimen,
    attempt,
    environment,
    flips,
    judge,
    run,
    specimens,
)
from scripts.torture.bytemap import Span, Use
from treestore.engine import page
from treestore.engine.check import check_engine
from treestore.engine.directory import open_engine
from treestore.engine.memorydisk import MemoryDisk


@pytest.fixture(params=["always the same", "never the same"])
def seed(request: pytest.FixtureRequest) -> int:
    """Failures name it."""
    return 1 if request.param == "always the same" else time.time_ns() % 1_000_000


@pytest.mark.slow
def test_headers_and_a_sample_of_the_rest(seed: int) -> None:
    result = run(seed, every_byte=False)
    assert result.ok, "\n".join(result.failures)
    assert result.trials > 3000
    assert set(result.by_use) == {use.name.lower() for use in Use}


def test_specimens_hold_what_they_are_meant_to(seed: int) -> None:
    """Large values, several segments, free pages, an older slot's pages: else nothing is shown."""
    found = list(specimens(seed))
    assert len({specimen.name for specimen in found}) == len(found)
    segments = [sum(path.endswith(".log") for path in each.images) for each in found]
    assert max(segments) > 2
    for specimen in found:
        store = open_engine(
            "/db", OPTIONS, environment(MemoryDisk(specimen.images), seed), create=False
        )
        report = check_engine(store.engine)
        assert report.ok
        if "free pages" in specimen.name:
            assert report.large_values
            assert report.pages_free
            assert report.pages_retired
        if "killed" in specimen.name:
            assert specimen.before_last != specimen.contents
        store.close()


# -- the suite can fail -----------------------------------------------------------------------


def specimen_of(seed: int) -> Specimen:
    return list(specimens(seed))[1]


def test_a_missed_page_would_be_seen() -> None:
    """Told that a used page is unused, or the other way round, the suite objects."""
    specimen = specimen_of(3)
    wrong: Counter[Use] = Counter()
    for span, offset, data in flips(specimen, Random(1), every_byte=False):
        image = specimen.images[span.path]
        assert image is not None
        damaged = image[:offset] + data + image[offset + 1 :]
        outcome = attempt({**specimen.images, span.path: damaged}, 1)
        assert judge(specimen, span, offset, outcome) is None
        for use in set(Use) - {span.use}:
            other = Span(span.path, span.begin, span.end, use, span.page)
            if {use, span.use} <= {Use.TAIL, Use.BEHIND}:
                continue  # Both are a torn tail without loss in a store that was closed.
            assert judge(specimen, other, offset, outcome) is not None, (span, use)
        wrong[span.use] += 1
    assert set(wrong) >= set(Use) - {Use.BEHIND}


def test_a_checksum_that_is_not_verified_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(data: bytes | memoryview, value: int = 0) -> int:
        # As though verification took whatever is stored.
        if isinstance(data, memoryview):
            return int.from_bytes(bytes(data.obj)[:4], "little")
        found: int = crc32c(data, value)
        return found

    monkeypatch.setattr(page, "crc32c", blind)
    result = run(4, every_byte=False)
    assert not result.ok


def test_the_command_line_says_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    monkey = bitrot.main(["--seed", "5", "--sample"])
    output = capsys.readouterr().out
    assert monkey == 0
    assert output.startswith("seed 5\n")
    assert "no failures" in output
    assert PAGES == "/db/pages"
