"""Repair: what is in the new store is right, and what is not in it is told."""

from __future__ import annotations

import errno
from random import Random

import attrs
import pytest

from tests.crash.simdisk import SimDisk
from tests.engine.salvage.damaged import (
    OPTIONS,
    PAGES,
    History,
    groups,
    make_history,
    make_settled_history,
    newest_slot,
    repaired,
    runs,
    segments,
)
from tests.engine.stores import environment, open_small
from tests.engine.test_replay import TINY, grown
from treestore.engine.page import BRANCH, FREE_SPACE, LARGE, LEAF
from treestore.engine.salvage.rebuild import RepairOptions, repair
from treestore.engine.salvage.report import RepairReport
from treestore.engine.salvage.walk import Ranges
from treestore.errors import InvalidArgument, NotFound, Unavailable

PAGE_SIZE = OPTIONS.page_size_bytes


@pytest.fixture(scope="module", params=[1, 2, 3])
def history(request: pytest.FixtureRequest) -> History:
    return make_history(request.param)


def lost_ranges(report: RepairReport) -> Ranges:
    """The ranges of keys that the report gives up."""
    return Ranges([(s.key_low, s.key_high) for s in report.skipped if s.key_low is not None])


def assert_right(history: History, report: RepairReport, found: dict[bytes, bytes]) -> None:
    """Outside of what is reported, the new store is exactly an old state; inside nothing is
    wrong, though it may be missing."""
    expected = history.at(report.log_lsn_last)
    lost = lost_ranges(report)
    for key in expected.keys() | found.keys():
        if key not in lost or key in found:
            assert found.get(key) == expected.get(key), key
    if report.complete:
        assert found == history.last


def ruin(disk: SimDisk, page: int) -> None:
    """Make a page unreadable for its checksum."""
    offset = page * PAGE_SIZE + 100
    disk.poke(PAGES, offset, bytes([disk.image(PAGES)[offset] ^ 0x40]))


def reachable(disk: SimDisk, kind: int) -> list[int]:
    """Pages of a kind that the newest tree has below its root."""
    newest = newest_slot(disk)
    file = disk.open(PAGES, read_only=True)
    from treestore.engine.cache import NodeCache
    from treestore.engine.check import Checker
    from treestore.engine.node import Ref, Shape
    from treestore.engine.pagefile import PageFile

    checker = Checker(PageFile(file, Shape(PAGE_SIZE), NodeCache(0)))
    checker.walk(Ref(None, newest.root_page, newest.root_checksum))
    assert checker.report.ok
    return [
        run.page
        for run in runs(disk, kind)
        if run.page in checker.used and run.page != newest.root_page
    ]


# -- nothing is lost --------------------------------------------------------------------------


def test_whole_store_is_copied(history: History) -> None:
    report, found = repaired(history.disk.clone())
    assert report.complete
    assert not report.replaced
    assert found == history.last
    assert report.keys == len(found)
    assert report.keys_missing == 0
    assert report.new_database_uuid != report.database_uuid


def test_store_that_was_killed_is_copied() -> None:
    history = make_history(7, clean=False)
    report, found = repaired(history.disk.clone())
    assert report.complete
    assert found == history.last


def test_newest_slot_damaged(history: History) -> None:
    disk = history.disk.clone()
    disk.poke(PAGES, newest_slot(disk).sequence % 2 * 4096 + 30, b"xx")
    report, found = repaired(disk)
    assert report.complete
    assert [r.by for r in report.replaced] == ["the other slot"]
    assert found == history.last


def test_free_space_list_damaged(history: History) -> None:
    disk = history.disk.clone()
    for run in runs(disk, FREE_SPACE):
        ruin(disk, run.page)
    report, found = repaired(disk)
    assert report.complete
    assert found == history.last


def test_page_that_changed_since_the_older_checkpoint_costs_nothing(history: History) -> None:
    """The older tree has another copy, and the log has what was changed in between."""
    old_disk = history.disk.clone()
    newest = newest_slot(old_disk)
    raw = old_disk.image(PAGES)
    other = min((0, 1), key=lambda n: n == newest.sequence % 2)
    from treestore.engine.meta import decode_slot

    decoded = decode_slot(raw[other * 4096 : other * 4096 + 512], PAGES)
    assert decoded is not None
    older = decoded[0]
    fresh = [
        run.page
        for run in runs(old_disk, LEAF)
        if run.born > older.number and run.page in reachable(old_disk, LEAF)
    ]
    assert fresh
    for page in fresh:
        ruin(old_disk, page)
    report, found = repaired(old_disk)
    assert_right(history, report, found)
    assert report.keys_from_older_slot
    assert report.replaced
    assert report.complete
    assert found == history.last


# -- damaged pages ----------------------------------------------------------------------------


def test_damaged_leaf_loses_its_keys_only(history: History) -> None:
    random = Random(4)
    for page in random.sample(reachable(history.disk, LEAF), 5):
        disk = history.disk.clone()
        ruin(disk, page)
        report, found = repaired(disk)
        assert_right(history, report, found)
        told = [(each.offset, each.why) for each in report.skipped]
        told += [(each.offset, each.why) for each in report.replaced]
        assert [offset for offset, _ in told] == [page * PAGE_SIZE]
        assert f"Page {page} " in told[0][1]
        missing = history.last.keys() - found.keys()
        assert all(key in lost_ranges(report) for key in missing)


def test_damaged_branch_gives_back_its_leaves_only_when_asked() -> None:
    history = make_settled_history(21)
    proven = 0
    for page in reachable(history.disk, BRANCH):
        disk = history.disk.clone()
        ruin(disk, page)
        report, found = repaired(disk)
        assert_right(history, report, found)
        assert report.keys_from_unreferenced == 0
        if report.complete:
            continue
        assert len(found) < len(history.last)
        disk = history.disk.clone()
        ruin(disk, page)
        more, all_found = repaired(disk, include_unreferenced=True)
        assert more.unreferenced_proven
        assert more.keys_from_unreferenced == report.unreferenced_keys > 0
        # The list of free space tells which leaves were in use: nothing deleted comes back.
        assert_right(history, more, all_found)
        assert all_found == history.last
        assert not more.complete
        assert sum(s.keys_recovered for s in more.skipped) == more.keys_from_unreferenced
        proven += 1
    assert proven


def test_root_damaged_in_both_trees_and_no_list(history: History) -> None:
    """Leaves by themselves: the newest of each range, as far as they go."""
    disk = history.disk.clone()
    for run in [*runs(disk, BRANCH), *runs(disk, FREE_SPACE)]:
        ruin(disk, run.page)
    report, found = repaired(disk)
    assert report.keys_from_tree == 0
    assert_right(history, report, found)
    disk = history.disk.clone()
    for run in [*runs(disk, BRANCH), *runs(disk, FREE_SPACE)]:
        ruin(disk, run.page)
    more, all_found = repaired(disk, include_unreferenced=True)
    assert not more.unreferenced_proven
    assert more.keys_from_unreferenced > 100
    assert found.items() <= all_found.items()
    # Each value is one that the key had once.
    for key, value in all_found.items():
        assert any(state.get(key) == value for _, state in history.states)


def test_damaged_large_value(history: History) -> None:
    page = reachable(history.disk, LARGE)[0]
    disk = history.disk.clone()
    ruin(disk, page)
    report, found = repaired(disk)
    assert_right(history, report, found)
    for each in report.skipped:
        assert each.kind == "large value"
        assert each.key_low is not None
        assert len(history.last.keys() - found.keys()) <= 1


def test_both_slots_damaged_leaves_the_log_and_the_pages(history: History) -> None:
    disk = history.disk.clone()
    for offset in (40, 4096 + 40):
        disk.poke(PAGES, offset, b"????")
    report, found = repaired(disk.clone())
    assert {each.kind for each in report.skipped} >= {"slot", "keys"}
    assert report.slot is None
    assert report.page_size_bytes == PAGE_SIZE
    for key, value in found.items():
        assert any(state.get(key) == value for _, state in history.states)
    more, all_found = repaired(disk, include_unreferenced=True)
    assert len(all_found) > len(found)
    assert more.keys_from_unreferenced > 100


def test_page_file_missing(history: History) -> None:
    disk = history.disk.clone()
    disk.unlink(PAGES)
    report, found = repaired(disk)
    assert report.skipped[0].kind == "slot"
    for key, value in found.items():
        assert any(state.get(key) == value for _, state in history.states)


def test_unreadable_blocks_are_damage(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the medium refuses to read costs its own block, and nothing around it."""
    from tests.crash.simdisk import SimFile

    page = reachable(history.disk, LEAF)[3]
    disk = history.disk.clone()
    bad = range(page * PAGE_SIZE // 4096 * 4096, page * PAGE_SIZE // 4096 * 4096 + 4096)
    read = SimFile.read_at

    def read_at(self: SimFile, offset: int, size: int) -> bytes:
        if self.path == PAGES and offset < bad.stop and offset + size > bad.start:
            raise OSError(errno.EIO, "bad block", self.path)
        return read(self, offset, size)

    monkeypatch.setattr(SimFile, "read_at", read_at)
    report, found = repaired(disk)
    assert_right(history, report, found)
    assert report.skipped or report.replaced
    for each in report.skipped:
        assert each.pages is not None
        assert each.offset < bad.stop
        assert each.offset + each.pages * PAGE_SIZE > bad.start


# -- the log ----------------------------------------------------------------------------------


def replayed(disk: SimDisk) -> list[tuple[str, int, int, int]]:
    """The groups that come after the newest checkpoint."""
    start = newest_slot(disk).log_position[0]
    return [group for group in groups(disk) if group[2] > start]


def test_damage_in_the_middle_of_the_log_stops_there() -> None:
    history = make_history(11, steps=80)
    for path, offset, first, last in replayed(history.disk)[:-2]:
        disk = history.disk.clone()
        disk.poke(path, offset + 60, b"\xff\xff")
        report, found = repaired(disk.clone())
        assert_right(history, report, found)
        assert report.log_lsn_last == first - 1
        assert found == history.at(first - 1)
        told = [(s.kind, s.file, s.lsn_first, s.lsn_last) for s in report.skipped]
        assert told[0] == ("log", path, first, last)
        assert report.skipped[0].offset == offset
        assert told[1][0] == "log"
        assert told[1][2] == last + 1
        past, _ = repaired(disk, past_damage=True)
        assert past.past_damage
        assert past.past_damage[0][0] == last + 1
        assert not past.complete


@pytest.mark.parametrize("part", ["checksum", "salt", "sequence", "follows"])
def test_damaged_segment_header_costs_nothing(part: str) -> None:
    history = make_history(12, steps=80)
    where = {"checksum": 4093, "salt": 57, "sequence": 33, "follows": 70}[part]
    for path in segments(history.disk):
        disk = history.disk.clone()
        disk.poke(path, where, bytes([history.disk.image(path)[where] ^ 1]))
        report, found = repaired(disk)
        assert_right(history, report, found)
        assert found == history.last


def test_missing_segment_stops_the_log() -> None:
    history = make_history(13, steps=90)
    paths = sorted({group[0] for group in replayed(history.disk)})
    assert len(paths) > 2
    for path in paths[1:]:
        disk = history.disk.clone()
        disk.unlink(path)
        report, found = repaired(disk)
        assert_right(history, report, found)
        assert found == history.at(report.log_lsn_last)
        # That the last one is missing cannot be seen.
        assert report.complete is (path == segments(history.disk)[-1])


def test_log_missing(history: History) -> None:
    disk = history.disk.clone()
    for path in segments(disk):
        disk.unlink(path)
    report, found = repaired(disk)
    assert [each.kind for each in report.skipped] == ["log"]
    assert report.skipped[0].lsn_first == newest_slot(history.disk).log_position[0] + 1
    assert found == history.at(report.log_lsn_last)


def test_torn_tail_is_told() -> None:
    history = make_history(14, clean=False)
    disk = history.disk.clone()
    path = segments(disk)[-1]
    end = len(disk.image(path).rstrip(b"\0"))
    disk.poke(path, end - 3, b"\0\0\0")
    report, found = repaired(disk)
    assert [each.kind for each in report.skipped] == ["torn tail"]
    assert found == history.at(report.log_lsn_last) == history.states[-2][1]


# -- random damage ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_requirement_14_random_damage(seed: int) -> None:
    """Whatever is damaged: nothing wrong is in the new store, and nothing is missing untold."""
    random = Random(seed)
    history = make_history(random.randrange(1000), clean=random.random() < 0.5)
    disk = history.disk.clone()
    files = [PAGES, *segments(disk)]
    for _ in range(random.choice([1, 2, 5, 20])):
        path = random.choice([PAGES, random.choice(files)])
        image = disk.image(path)
        at = random.randrange(len(image))
        if path == PAGES and at < 8192 and random.random() < 0.8:
            continue
        what = random.choice([b"\0" * 512, random.randbytes(1), random.randbytes(700)])
        disk.poke(path, at, what[: len(image) - at])
    report, found = repaired(disk.clone())
    assert_right_or_lost_slots(history, report, found)
    more, _ = repaired(disk.clone(), include_unreferenced=True, past_damage=True)
    assert more.keys >= report.keys or more.past_damage


def assert_right_or_lost_slots(
    history: History, report: RepairReport, found: dict[bytes, bytes]
) -> None:
    if report.slot is None:
        assert not report.complete
    else:
        assert_right(history, report, found)


# -- refusals ---------------------------------------------------------------------------------


def try_repair(disk: SimDisk, source: str = "/db", target: str = "/new") -> RepairReport:
    return repair(source, target, RepairOptions(), OPTIONS, environment(disk))


def test_refusals(history: History) -> None:
    disk = history.disk.clone()
    with pytest.raises(NotFound):
        try_repair(disk, source="/nowhere")
    disk.make_directory("/other")
    with pytest.raises(InvalidArgument, match="no TreeStore data directory"):
        try_repair(disk, source="/other")
    with pytest.raises(InvalidArgument, match="not empty"):
        try_repair(disk, target="/db")
    store = open_small(disk, OPTIONS)
    with pytest.raises(Unavailable, match="in use by another process"):
        try_repair(disk)
    store.close()
    assert try_repair(disk).complete
    with pytest.raises(InvalidArgument, match="not empty"):
        try_repair(disk)


def test_a_tree_from_the_middle_of_a_recovery_is_told() -> None:
    """Its last transactions may be there in part, where the log does not reach them any more."""
    disk = SimDisk()
    grown(disk, 60)
    one_page = attrs.evolve(TINY, recovery_batch_bytes=1 << 20, recovery_dirty_bytes=1)
    end = open_small(disk, one_page).engine.durable.position
    disk.restart()
    whole, _ = repaired(disk.clone())
    assert whole.complete
    disk.poke(f"/db/log/{end.sequence:016x}.log", end.offset - 4096, bytes(4096))
    report, _ = repaired(disk)
    assert not report.complete
    (told,) = [skipped for skipped in report.skipped if "in part" in skipped.why]
    assert (told.kind, told.lsn_first, told.lsn_last) == ("log", 60, 60)
