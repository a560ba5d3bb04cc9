"""Scrubbing by slices: everything is verified once, from the medium, and damage is named."""

from __future__ import annotations

from random import Random

import pytest

from tests.crash.simdisk import SimDisk
from tests.engine.salvage.damaged import OPTIONS, PAGES, groups, make_history, newest_slot
from tests.engine.stores import open_small
from treestore.engine.check import Checker, check_engine
from treestore.engine.directory import OpenStore
from treestore.engine.log import LogPosition
from treestore.engine.scrub import Place, Scrub, Slice
from treestore.errors import CorruptionError

PAGE_SIZE = OPTIONS.page_size_bytes


def opened(seed: int = 5) -> tuple[SimDisk, OpenStore]:
    disk = make_history(seed).disk.clone()
    store = open_small(disk, OPTIONS)
    store.engine.checkpoint_now()
    return disk, store


def scrubbed(store: OpenStore, slice_bytes: int) -> tuple[list[Slice], set[int]]:
    """All slices of one pass, and the pages where damage was found."""
    scrub = Scrub(store.engine.pages, lambda: None)
    slices: list[Slice] = []
    key: bytes | None = b""
    while key is not None:
        slices.append(scrub.tree(store.engine.durable.root, key, slice_bytes))
        key = slices[-1].next_key
    slices.append(scrub.free_space(list(store.engine.slots[0].free_runs)))
    return slices, {error.details["page"] for each in slices for error in each.damage}


def used_pages(store: OpenStore) -> dict[int, int]:
    """First page and pages of every run that the newest checkpoint reaches."""
    checker = Checker(store.engine.pages)
    checker.walk(store.engine.durable.root)
    free = {page: pages for page, pages, _ in store.engine.slots[0].free_runs}
    return checker.used | free


def flip(disk: SimDisk, offset: int) -> None:
    disk.poke(PAGES, offset, bytes([disk.image(PAGES)[offset] ^ 1]))


@pytest.mark.parametrize("slice_bytes", [1, 5000, 1 << 30])
def test_a_whole_store_is_verified_page_by_page(slice_bytes: int) -> None:
    _, store = opened()
    slices, damaged = scrubbed(store, slice_bytes)
    assert damaged == set()
    pages = sum(used_pages(store).values())
    if slice_bytes == 1 << 30:
        assert sum(each.pages for each in slices) == pages
        assert sum(each.bytes for each in slices) == pages * PAGE_SIZE
        assert len(slices) == 2
    else:
        # The way down to the slice's beginning is read again in each.
        assert sum(each.pages for each in slices) >= pages
        assert len(slices) > 5
    assert check_engine(store.engine).ok
    store.close()


def test_requirement_2_damage_of_every_used_page_is_found_although_all_is_cached() -> None:
    disk, store = opened()
    store.engine.pages.cache.budget_bytes = 1 << 30
    dict(store.engine.read().scan(b"", None))
    random = Random(1)
    used = used_pages(store)
    for page, pages in used.items():
        offset = page * PAGE_SIZE + random.randrange(pages * PAGE_SIZE)
        flip(disk, offset)
        _, damaged = scrubbed(store, random.choice([1, 8000, 1 << 30]))
        assert damaged == {page}
        flip(disk, offset)
    assert check_engine(store.engine).ok
    store.close()


def test_damage_of_unused_pages_is_nobody_s_business() -> None:
    disk, store = opened()
    used = {page + n for page, pages in used_pages(store).items() for n in range(pages)}
    unused = [n for n in range(8, store.engine.free_space.page_count) if n not in used]
    assert unused
    for page in unused:
        flip(disk, page * PAGE_SIZE + 17)
    assert scrubbed(store, 5000)[1] == set()
    store.close()


def test_what_lies_beside_damage_is_verified() -> None:
    """A damaged branch hides its own leaves only, and none where it is cached."""
    disk, store = opened()
    root = store.engine.durable.root
    store.engine.pages.load(root)
    flip(disk, root.page * PAGE_SIZE + 100)
    for cached in (True, False):
        if not cached:
            root.node = None
        slices, damaged = scrubbed(store, 1 << 30)
        assert damaged == {root.page}
        assert (slices[0].pages > 10) is cached
    store.close()


def test_dirty_nodes_have_nothing_on_the_medium_yet() -> None:
    _, store = opened()
    for number in range(200):
        txn = store.engine.begin()
        txn.put(b"new %d" % number, b"x" * 50)
        store.engine.write_now(txn)
    assert scrubbed(store, 3000)[1] == set()
    assert check_engine(store.engine).ok
    store.close()


@pytest.mark.parametrize("slice_bytes", [1, 1 << 30])
def test_what_only_the_checkpoint_has_is_verified(slice_bytes: int) -> None:
    """A restart begins with it, whatever was written since."""
    disk, store = opened()
    engine = store.engine
    before = used_pages(store)
    for number in range(200):
        txn = engine.begin()
        txn.put(b"new %d" % number, b"x" * 50)
        engine.write_now(txn)
    txn = engine.begin()
    txn.delete_range(b"", b"m")
    engine.write_now(txn)
    only_there = before.keys() - used_pages(store).keys()
    assert only_there

    def damaged() -> set[int]:
        scrub = Scrub(engine.pages, lambda: None)
        found: set[int] = set()
        place: Place | None = (0, 0)
        while place is not None:
            groups = engine.superseded_since_checkpoint
            result, place = scrub.superseded(groups, place, slice_bytes)
            found |= {error.details["page"] for error in result.damage}
        return found

    assert damaged() == set()
    for page in only_there:
        flip(disk, page * PAGE_SIZE + 100)
        assert damaged() == {page}
        flip(disk, page * PAGE_SIZE + 100)
    store.close()


# -- the log ----------------------------------------------------------------------------------


def verify_log(store: OpenStore, start: LogPosition, slice_bytes: int) -> int:
    """Bytes of all closed segments behind a position."""
    position: LogPosition | None = start
    total = 0
    while position is not None:
        position, size = store.engine.log.verify_closed(position, slice_bytes)
        total += size
    return total


@pytest.mark.parametrize("slice_bytes", [1, 1 << 30])
def test_closed_segments_are_verified(slice_bytes: int) -> None:
    disk = make_history(6, steps=80).disk.clone()
    store = open_small(disk, OPTIONS)
    start = LogPosition.from_tuple(store.engine.slots[-1].log_position)
    closed = [path for path in segments(disk)[:-1] if path >= name_of(start)]
    assert len(closed) > 1
    assert verify_log(store, start, slice_bytes) >= 4096 * len(closed)
    found = [group for group in groups(disk) if group[0] in closed and group[2] > start.lsn]
    assert found
    for path, offset, _, _ in found:
        before = disk.image(path)[offset + 30]
        disk.poke(path, offset + 30, bytes([before ^ 4]))
        with pytest.raises(CorruptionError) as caught:
            verify_log(store, start, slice_bytes)
        assert (caught.value.details["file"], caught.value.details["offset"]) == (path, offset)
        disk.poke(path, offset + 30, bytes([before]))
    for path in closed[1:]:
        disk.poke(path, 90, b"x")
        with pytest.raises(CorruptionError) as caught:
            verify_log(store, start, slice_bytes)
        assert (caught.value.details["file"], caught.value.details["offset"]) == (path, 0)
        disk.poke(path, 90, b"\0")
    assert newest_slot(disk).log_position
    store.close()


def segments(disk: SimDisk) -> list[str]:
    return [f"/db/log/{name}" for name in disk.list("/db/log") if name.endswith(".log")]


def name_of(position: LogPosition) -> str:
    return f"/db/log/{position.sequence:016x}.log"
