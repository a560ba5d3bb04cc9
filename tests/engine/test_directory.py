"""Opening a data directory: what is refused, with which sentence, and what is survived."""

from __future__ import annotations

import errno
from random import Random

import pytest

from tests.crash.simdisk import SimDisk
from tests.engine.stores import (
    SMALL,
    assert_clean,
    close_checked,
    contents,
    environment,
    open_small,
)
from treestore.engine.check import check_engine
from treestore.engine.directory import open_engine
from treestore.engine.freespace import FreeSpace
from treestore.engine.meta import FORMAT_VERSION, SLOT_OFFSETS, SLOT_SIZE, read_slots
from treestore.errors import (
    CorruptionError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)


def filled(disk: SimDisk, rounds: int = 4) -> dict[bytes, bytes]:
    """A closed store with several checkpoints and some log after the last."""
    store = open_small(disk)
    model: dict[bytes, bytes] = {}
    for turn in range(rounds):
        for n in range(30):
            key, value = b"%d" % (turn * 20 + n), b"v%d" % turn * 9
            txn = store.engine.begin()
            txn.put(key, value)
            store.engine.write_now(txn)
            model[key] = value
        if turn < rounds - 1:
            store.engine.checkpoint_now()
    close_checked(store)
    return model


def newest_slot(disk: SimDisk) -> int:
    """Offset of the newest meta slot."""
    file = disk.open("/db/pages", read_only=True)
    sequence = read_slots(file)[0][0].sequence
    file.close()
    return SLOT_OFFSETS[sequence % 2]


@pytest.mark.parametrize("damage_offset", [0, 9, 17, 25, SLOT_SIZE - 1])
def test_requirement_1_a_damaged_newest_slot_falls_back_to_the_older(damage_offset: int) -> None:
    disk = SimDisk()
    model = filled(disk)
    disk.poke("/db/pages", newest_slot(disk) + damage_offset, b"\xa5")
    store = open_small(disk)
    assert contents(store) == model
    close_checked(store)


def test_both_slots_damaged_is_corruption() -> None:
    disk = SimDisk()
    filled(disk)
    for offset in SLOT_OFFSETS:
        disk.poke("/db/pages", offset + 30, b"\xff\xff\xff")
    with pytest.raises(CorruptionError, match="no valid meta slot") as caught:
        open_small(disk)
    assert caught.value.details["file"] == "/db/pages"


def test_requirement_7_a_newer_format_is_refused() -> None:
    disk = SimDisk()
    filled(disk)
    from treestore.engine import meta

    file = disk.open("/db/pages", read_only=True)
    newest, page_size = read_slots(file)[0][0], 1024
    meta.FORMAT_VERSION = FORMAT_VERSION + 1
    try:
        slot = meta.encode_slot(newest, page_size)
    finally:
        meta.FORMAT_VERSION = FORMAT_VERSION
    disk.poke("/db/pages", newest_slot(disk), slot)
    with pytest.raises(InvalidArgument, match="format version 2"):
        open_small(disk)


def test_requirement_7_one_opener_at_a_time() -> None:
    disk = SimDisk()
    store = open_small(disk)
    with pytest.raises(Unavailable, match="in use"):
        open_small(disk)
    store.close()
    open_small(disk).close()


def test_a_directory_of_something_else_is_refused_and_untouched() -> None:
    disk = SimDisk()
    disk.make_directory("/db")
    file = disk.open("/db/thesis.tex", create=True)
    file.write_at(0, [b"precious"])
    with pytest.raises(InvalidArgument, match="thesis"):
        open_small(disk)
    assert disk.list("/db") == ["thesis.tex"]


def test_a_missing_page_file_is_never_replaced_by_an_empty_one() -> None:
    disk = SimDisk()
    filled(disk)
    disk.unlink("/db/pages")
    with pytest.raises(CorruptionError, match="page file is missing"):
        open_small(disk)


def test_no_store_and_not_to_be_created() -> None:
    disk = SimDisk()
    for prepare in (lambda: None, lambda: disk.make_directory("/db")):
        prepare()
        with pytest.raises(NotFound, match="no store"):
            open_engine("/db", SMALL, environment(disk), create=False)


def test_a_cut_page_file_is_corruption() -> None:
    disk = SimDisk()
    filled(disk)
    file = disk.open("/db/pages")
    file.truncate(20 * 1024)
    with pytest.raises(CorruptionError, match="it was cut"):
        open_small(disk)


def test_a_log_of_another_store_is_refused() -> None:
    disk = SimDisk()
    filled(disk)
    other = SimDisk(9)
    open_engine("/db", SMALL, environment(other, 99)).close()
    name = next(name for name in other.list("/db/log") if "seg" in name or "log" in name)
    for mine in disk.list("/db/log"):
        disk.unlink(f"/db/log/{mine}")
    copied = disk.open(f"/db/log/{name}", create=True)
    copied.write_at(0, [other.image(f"/db/log/{name}")])
    with pytest.raises(CorruptionError):
        open_small(disk)


def test_a_missing_log_is_corruption() -> None:
    disk = SimDisk()
    filled(disk)
    for name in disk.list("/db/log"):
        disk.unlink(f"/db/log/{name}")
    with pytest.raises(CorruptionError):
        open_small(disk)


def test_requirement_11_a_damaged_free_space_list_is_rebuilt() -> None:
    disk = SimDisk()
    model = filled(disk)
    file = disk.open("/db/pages", read_only=True)
    newest = read_slots(file)[0][0]
    file.close()
    disk.poke("/db/pages", newest.free_runs[0][0] * 1024 + 40, b"\xff\xff")
    store = open_small(disk)
    assert store.report.free_space_rebuilt
    assert contents(store) == model
    txn = store.engine.begin()
    txn.put(b"more", b"x" * 5000)
    store.engine.write_now(txn)
    store.engine.checkpoint_now()
    close_checked(store)


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.EACCES, PermissionDenied, "write permission"),
        (errno.EROFS, PermissionDenied, "write permission"),
        (errno.ENOSPC, ResourceExhausted, "no room"),
        (errno.EIO, Unavailable, "cannot be opened"),
    ],
)
@pytest.mark.parametrize("operation", ["open", "write", "sync", "make_directory"])
def test_what_the_operating_system_refuses_is_a_typed_error(
    operation: str, number: int, error: type[Exception], words: str
) -> None:
    disk = SimDisk()
    disk.fail_next(operation, number)
    with pytest.raises(error, match=words):
        open_small(disk)
    # And nothing stands in the way of the next attempt.
    disk.restart()
    store = open_small(disk)
    assert contents(store) == {}
    close_checked(store)


def test_a_full_disk_refuses_writes_cleanly_and_deletes_still_work() -> None:
    disk = SimDisk()
    store = open_small(disk)
    engine = store.engine
    disk.capacity_bytes = disk.used_bytes() + 600_000
    model: dict[bytes, bytes] = {}
    refused = 0
    for n in range(3000):
        key, value = b"%05d" % n, b"v" * 800
        try:
            txn = engine.begin()
        except ResourceExhausted:
            refused += 1
            break
        txn.put(key, value)
        try:
            engine.write_now(txn)
        except ResourceExhausted:
            refused += 1
            break
        model[key] = value
        if n % 100 == 99:
            try:
                engine.checkpoint_now()
            except ResourceExhausted:
                refused += 1
                break
    assert refused
    assert contents(store) == model
    assert_clean(store)
    store.close()
    disk.capacity_bytes += 2_000_000
    store = open_small(disk)
    assert contents(store) == model
    close_checked(store)


@pytest.mark.parametrize("slot", SLOT_OFFSETS)
def test_a_new_store_survives_damage_of_either_slot(slot: int) -> None:
    """Both are written from the beginning, not from the second checkpoint on."""
    disk = SimDisk()
    store = open_small(disk)
    txn = store.engine.begin()
    txn.put(b"key", b"value")
    store.engine.write_now(txn)
    store.close()
    disk.poke("/db/pages", slot + 30, b"rot")
    store = open_small(disk)
    assert contents(store) == {b"key": b"value"}
    (warning,) = check_engine(store.engine).warnings
    assert f"offset {slot} is damaged" in warning
    store.engine.checkpoint_now()
    store.engine.begin_checkpoint(repeat=True)
    checkpoint = store.engine.checkpoint
    if checkpoint is not None:
        checkpoint.run()
        store.engine.finish_checkpoint()
    assert check_engine(store.engine).warnings == []
    close_checked(store)


def test_a_slot_write_that_was_lost_is_warned_about() -> None:
    disk = SimDisk()
    filled(disk)
    offset = min(SLOT_OFFSETS, key=lambda each: each == newest_slot(disk))
    old = SimDisk()
    filled(old, rounds=1)
    disk.poke("/db/pages", offset, old.image("/db/pages")[offset : offset + SLOT_SIZE])
    store = open_small(disk)
    (warning,) = check_engine(store.engine).warnings
    assert f"offset {offset} is stale" in warning
    close_checked(store)


def test_an_unreadable_sector_is_corruption_that_names_its_page() -> None:
    disk = SimDisk()
    filled(disk)
    store = open_small(disk)
    disk.fail_next("read", errno.EIO, "pages")
    with pytest.raises(CorruptionError, match="cannot be read") as caught:
        store.engine.pages.read_node(9, 0)
    assert caught.value.details["page"] == 9
    close_checked(store)


def test_a_run_beyond_the_file_is_refused_before_memory_is_taken() -> None:
    disk = SimDisk()
    filled(disk)
    store = open_small(disk)
    for page, pages in ((9, 1 << 40), (9, 0), (0, 2), (1 << 40, 2)):
        with pytest.raises(CorruptionError, match="are not in the file"):
            store.engine.pages.read_run(page, pages, 0, (1,))
    close_checked(store)


@pytest.mark.parametrize(
    ("starts", "counts"),
    [
        ([5], []),
        ([5], [0]),
        ([5, 4], [1, 1]),
        ([5, 6], [1, 1]),
        ([5, 6], [2, 1]),
        ([9], [2]),
        ([-1], [1]),
    ],
)
def test_a_list_of_free_space_that_makes_no_sense_is_not_taken(
    starts: list[int], counts: list[int]
) -> None:
    with pytest.raises(ValueError, match="no sense"):
        FreeSpace.restore(10, starts, counts)


@pytest.mark.parametrize(("starts", "counts"), [([], []), ([3, 5, 8], [1, 2, 2])])
def test_free_space_is_restored_as_it_was(starts: list[int], counts: list[int]) -> None:
    restored = FreeSpace.restore(10, starts, counts)
    assert restored.extents() == FreeSpace(10, zip(starts, counts, strict=True)).extents()


@pytest.mark.parametrize("made_before", [(), ("/a",), ("/a", "/a/b")])
def test_requirement_6_names_are_durable_up_to_the_last_new_ancestor(
    made_before: tuple[str, ...],
) -> None:
    """Also of directories that a process made which died before it came to the sync."""
    disk = SimDisk()
    for path in made_before[:-1]:
        disk.make_directory(path)
        disk.sync_directory(path.rsplit("/", 1)[0] or "/")
    for path in made_before[-1:]:
        disk.make_directory(path)
    store = open_engine("/a/b/db", SMALL, environment(disk))
    txn = store.engine.begin()
    txn.put(b"key", b"value")
    store.engine.write_now(txn)
    for seed in range(30):
        image = disk.crash(Random(seed))
        again = open_engine("/a/b/db", SMALL, environment(image), create=False)
        assert contents(again) == {b"key": b"value"}
        assert_clean(again)
