"""The decision tables: complete, without contradiction, and each row met by a real directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import attrs
import pytest
from crc32c import crc32c

from tests.crash.simdisk import Crash, SimDisk
from tests.engine.stores import SMALL, close_checked, contents, environment, open_small, put_now
from treestore.engine import verdict as directory_verdict
from treestore.engine.decision import Outcome, Table
from treestore.engine.directory import open_engine
from treestore.engine.log import verdict as log_verdict
from treestore.engine.meta import SLOT_OFFSETS, read_slots
from treestore.errors import TreeStoreError

TABLES = [directory_verdict.TABLE, log_verdict.TABLE]
DOCUMENT = Path(__file__).parents[2] / "docs" / "recovery.md"


@pytest.mark.parametrize("table", TABLES, ids=["directory", "log"])
def test_requirement_4_every_combination_matches_exactly_one_row(table: Table) -> None:
    met = dict.fromkeys((row.name for row in table.rows), 0)
    for answers in table.combinations():
        rows = [row for row in table.rows if row.matches(answers)]
        assert len(rows) == 1, (answers, [row.name for row in rows])
        met[rows[0].name] += 1
    assert sum(met.values()) == 2 ** len(table.facts)
    assert all(met.values())


@pytest.mark.parametrize("table", TABLES, ids=["directory", "log"])
def test_rows_are_made_of_facts_and_say_what_happens(table: Table) -> None:
    for row in table.rows:
        assert set(row.when) <= set(table.facts)
        assert (row.error is not None) == (row.outcome is Outcome.REFUSE)
        assert row.sentence
    assert len({row.name for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize("table", TABLES, ids=["directory", "log"])
def test_what_is_known_early_is_never_taken_back(table: Table) -> None:
    """A row that is found before all facts are known is the one that all facts give."""
    names = list(table.facts)
    for answers in table.combinations():
        final = table.decide(answers)
        for count in range(len(names)):
            early = table.decide({name: answers[name] for name in names[:count]})
            assert early in (None, final)


@pytest.mark.parametrize("table", TABLES, ids=["directory", "log"])
def test_the_document_shows_the_table(table: Table) -> None:
    text = DOCUMENT.read_text()
    assert table.markdown() in text
    for name, question in table.facts.items():
        assert f"| {name} | {question} |" in text


# -- directories ------------------------------------------------------------------------------


def store_with(transactions: int, *, closed: bool = False) -> SimDisk:
    """A store with some in a checkpoint, and as many in its log; it died, or was closed."""
    disk = SimDisk()
    store = open_small(disk)
    for number in range(transactions):
        put_now(store, [(b"a%03d" % number, bytes(20_000))])
    store.engine.checkpoint_now()
    for number in range(transactions):
        put_now(store, [(b"b%03d" % number, bytes(20_000))])
    if closed:
        close_checked(store)
    disk.restart()
    return disk


def segments(disk: SimDisk) -> list[str]:
    return [f"/db/log/{name}" for name in disk.list("/db/log") if name.endswith(".log")]


def forge(disk: SimDisk, path: str, **changes: int) -> None:
    """Overwrite fields of a segment's header (offset and size below), with a right checksum."""
    block = bytearray(disk.image(path)[:4096])
    for name, value in changes.items():
        offset, size = {"version": (8, 4), "timeline": (12, 4), "uuid": (16, 16)}[name]
        block[offset : offset + size] = value.to_bytes(size, "little")
    block[4092:] = crc32c(bytes(block[:4092])).to_bytes(4, "little")
    disk.poke(path, 0, bytes(block))


def groups_end(disk: SimDisk) -> tuple[str, int]:
    """The last segment, and where the zeros behind its last group begin."""
    path = segments(disk)[-1]
    image = disk.image(path).rstrip(b"\0")
    return path, -(-len(image) // 4096) * 4096


def nothing() -> SimDisk:
    return SimDisk()


def foreign() -> SimDisk:
    disk = SimDisk()
    disk.make_directory("/db")
    disk.open("/db/thesis.tex", create=True)
    return disk


def pages_missing() -> SimDisk:
    disk = store_with(1)
    disk.unlink("/db/pages")
    return disk


def creation_unfinished() -> SimDisk:
    disk = SimDisk()

    def stop(_number: int, op: str, path: str) -> None:
        if op == "rename" and path.endswith("pages.new"):
            raise Crash

    disk.on_step = stop
    with pytest.raises(Crash):
        open_small(disk)
    return disk.crash(Random(1))


def other_page_version() -> SimDisk:
    disk = store_with(1)
    slot = bytearray(disk.image("/db/pages")[:512])
    slot[8] = 9
    slot[16:20] = crc32c(bytes(slot[20:]), crc32c(bytes(slot[:16]))).to_bytes(4, "little")
    disk.poke("/db/pages", 0, bytes(slot))
    return disk


def no_slot() -> SimDisk:
    disk = store_with(1)
    for offset in SLOT_OFFSETS:
        disk.poke("/db/pages", offset + 30, b"\xff\xff\xff")
    return disk


def pages_cut() -> SimDisk:
    disk = store_with(2)
    disk.open("/db/pages").truncate(20 * 1024)
    return disk


def one_slot() -> SimDisk:
    disk = store_with(1)
    file = disk.open("/db/pages", read_only=True)
    newest = SLOT_OFFSETS[read_slots(file)[0][0].sequence % 2]
    disk.poke("/db/pages", newest + 30, b"\xff\xff\xff")
    return disk


def both_slots() -> SimDisk:
    return store_with(1)


DIRECTORIES: dict[str, tuple[Callable[[], SimDisk], bool]] = {
    "somebody else's": (foreign, True),
    "page file missing": (pages_missing, True),
    "no store": (nothing, False),
    "new store": (nothing, True),
    "creation unfinished": (creation_unfinished, True),
    "no store, creation unfinished": (creation_unfinished, False),
    "page file of another version": (other_page_version, True),
    "no meta slot": (no_slot, True),
    "page file cut": (pages_cut, True),
    "one meta slot": (one_slot, True),
    "both meta slots": (both_slots, True),
}
"""For each row a directory that it is the verdict on, and whether a store may be created."""


def log_missing() -> SimDisk:
    disk = store_with(1)
    for path in segments(disk):
        disk.unlink(path)
    return disk


def header_damaged() -> SimDisk:
    disk = store_with(1)
    disk.poke(segments(disk)[-1], 100, b"x")
    return disk


def other_log_version() -> SimDisk:
    disk = store_with(1)
    forge(disk, segments(disk)[-1], version=2)
    return disk


def other_database() -> SimDisk:
    disk = store_with(1)
    forge(disk, segments(disk)[-1], uuid=7)
    return disk


def other_timeline() -> SimDisk:
    disk = store_with(1)
    forge(disk, segments(disk)[-1], timeline=7)
    return disk


def first_segment_missing() -> SimDisk:
    disk = store_with(8)
    file = disk.open("/db/pages", read_only=True)
    needed = read_slots(file)[0][0].log_position[4]
    assert len(segments(disk)) > needed + 1
    disk.unlink(f"/db/log/{needed:016x}.log")
    return disk


def last_segment_missing() -> SimDisk:
    disk = store_with(8)
    open_small(disk).engine.checkpoint_now()
    disk.restart()
    for path in segments(disk)[-2:]:
        disk.unlink(path)
    return disk


def damage_before_a_segment() -> SimDisk:
    disk = store_with(8)
    disk.poke(segments(disk)[-2], 4096 + 500, b"x")
    return disk


def damage_before_a_group() -> SimDisk:
    disk = store_with(1, closed=True)
    store = open_small(disk)
    for number in range(3):
        put_now(store, [(b"c%d" % number, b"value")])
    disk.restart()
    path, end = groups_end(disk)
    disk.poke(path, end - 3 * 4096 + 10, b"x")
    return disk


def log_before_the_checkpoint() -> SimDisk:
    """Its slot was written in the middle of a replay, which took in the group that is lost."""
    disk = store_with(3)
    options = attrs.evolve(SMALL, recovery_dirty_bytes=1)
    end = open_small(disk, options).engine.durable.position
    disk.restart()
    disk.poke(f"/db/log/{end.sequence:016x}.log", end.offset - 5 * 4096, bytes(5 * 4096))
    return disk


def torn_tail() -> SimDisk:
    disk = store_with(1)
    path, end = groups_end(disk)
    disk.poke(path, end, b"torn")
    return disk


def clean() -> SimDisk:
    return store_with(1, closed=True)


LOGS: dict[str, Callable[[], SimDisk]] = {
    "log missing": log_missing,
    "header damaged": header_damaged,
    "log of another version": other_log_version,
    "log of another database": other_database,
    "log of another timeline": other_timeline,
    "log begins too late": first_segment_missing,
    "log ends too early": last_segment_missing,
    "damage before a segment": damage_before_a_segment,
    "damage before a group": damage_before_a_group,
    "log ends before the checkpoint": log_before_the_checkpoint,
    "torn tail": torn_tail,
    "clean": clean,
}
"""For each row of the log's table a store that it is the verdict on."""


def test_there_is_a_directory_for_each_row() -> None:
    assert set(DIRECTORIES) == {row.name for row in directory_verdict.TABLE.rows}
    assert set(LOGS) == {row.name for row in log_verdict.TABLE.rows}


def check_verdict(disk: SimDisk, table: Table, name: str, index: int, *, create: bool) -> None:
    row = next(row for row in table.rows if row.name == name)
    before = {path: disk.image(path) for path in files(disk)}
    if row.error is None:
        store = open_engine("/db", SMALL, environment(disk), create=create)
        assert store.report.found[index] == name
        assert store.report.created == (row.outcome is Outcome.CREATE)
        expected = contents(store)
        close_checked(store)
        store = open_small(disk)
        assert contents(store) == expected
        close_checked(store)
        return
    with pytest.raises(TreeStoreError) as caught:
        open_engine("/db", SMALL, environment(disk), create=create)
    assert type(caught.value) is row.error
    assert caught.value.details["verdict"] == name
    assert "{" not in caught.value.message
    assert {path: disk.image(path) for path in files(disk)} == before


def files(disk: SimDisk) -> list[str]:
    """Every file below the store's directory, but for the lock."""
    found = []
    for directory in ("/db", "/db/log"):
        if disk.exists(directory):
            found += [f"{directory}/{name}" for name in disk.list(directory)]
    return [path for path in found if path not in ("/db/log", "/db/LOCK")]


@pytest.mark.parametrize("name", DIRECTORIES)
def test_verdict_on_a_directory(name: str) -> None:
    make, create = DIRECTORIES[name]
    check_verdict(make(), directory_verdict.TABLE, name, 0, create=create)


@pytest.mark.parametrize("name", LOGS)
def test_verdict_on_a_log(name: str) -> None:
    check_verdict(LOGS[name](), log_verdict.TABLE, name, 1, create=True)
