"""The simulated medium itself: a crash shows everything that it may, and nothing else."""

from __future__ import annotations

import errno
from random import Random

import pytest

from tests.crash.simdisk import SECTOR, Crash, SimDisk


def disk_with(data: bytes) -> SimDisk:
    disk = SimDisk()
    file = disk.open("/f", create=True)
    file.write_at(0, [data])
    file.sync()
    disk.sync_directory("/")
    return disk


GONE = b"(no such file)"


def images(disk: SimDisk, path: str = "/f", count: int = 200) -> list[bytes]:
    crashed = [disk.crash(Random(seed)) for seed in range(count)]
    return [other.image(path) if other.exists(path) else GONE for other in crashed]


def test_what_is_synced_stays():
    assert set(images(disk_with(b"a" * 2000))) == {b"a" * 2000}


def test_unsynced_sectors_are_kept_lost_or_torn_each_on_its_own():
    disk = disk_with(b"a" * 4 * SECTOR)
    disk.open("/f").write_at(SECTOR, [b"b" * 2 * SECTOR])
    old, new = b"a" * SECTOR, b"b" * SECTOR
    seen = images(disk)
    pairs = {(image[SECTOR : 2 * SECTOR], image[2 * SECTOR : 3 * SECTOR]) for image in seen}
    assert {(old, old), (old, new), (new, old), (new, new)} < pairs
    assert any(first not in (old, new) for first, _ in pairs)
    assert {image[:SECTOR] + image[3 * SECTOR :] for image in seen} == {old + old}


def test_sizes_are_undone_or_not():
    disk = disk_with(b"a" * 600)
    disk.open("/f").write_at(600, [b"b" * 600])
    assert {len(image) for image in images(disk)} == {600, 1200}
    disk = disk_with(b"a" * 1200)
    disk.open("/f").truncate(600)
    assert set(images(disk)) == {b"a" * 1200, b"a" * 600}
    disk.open("/f").sync()
    assert set(images(disk)) == {b"a" * 600}


def test_bytes_cut_off_do_not_come_back_in_the_live_image():
    disk = disk_with(b"a" * 1200)
    file = disk.open("/f")
    file.truncate(100)
    file.allocate(1200)
    assert disk.image("/f") == b"a" * 100 + bytes(1100)
    file.sync()
    assert set(images(disk)) == {b"a" * 100 + bytes(1100)}


def test_names_need_the_directory_synced():
    disk = disk_with(b"a")
    other = disk.open("/g", create=True)
    other.write_at(0, [b"g"])
    other.sync()
    assert set(images(disk, "/g")) == {GONE, b"g"}
    disk.rename("/g", "/f")
    assert disk.image("/f") == b"g"
    assert set(images(disk)) == {b"a", b"g"}
    disk.sync_directory("/")
    assert set(images(disk)) == {b"g"}
    disk.unlink("/f")
    assert set(images(disk)) == {b"g", GONE}
    disk.sync_directory("/")
    assert set(images(disk)) == {GONE}


def test_files_of_a_directory_that_is_lost_are_lost():
    disk = SimDisk()
    disk.make_directory("/d")
    disk.open("/d/f", create=True).sync()
    disk.sync_directory("/d")
    assert set(images(disk, "/d/f")) == {GONE, b""}
    disk.sync_directory("/")
    assert set(images(disk, "/d/f")) == {b""}


def test_a_process_that_dies_leaves_unsynced_bytes_unsynced():
    disk = disk_with(b"a" * SECTOR)
    file = disk.open("/f")
    lock = disk.lock("/lock")
    file.write_at(0, [b"b" * SECTOR])
    disk.restart()
    assert disk.image("/f") == b"b" * SECTOR
    assert b"a" * SECTOR in images(disk)
    with pytest.raises(Crash):
        file.read_at(0, 1)
    disk.lock("/lock")
    lock.release()
    with pytest.raises(BlockingIOError):
        disk.lock("/lock")


def test_a_failed_sync_forgets():
    outcomes = set()
    for seed in range(20):
        disk = SimDisk(seed)
        file = disk.open("/f", create=True)
        disk.sync_directory("/")
        file.write_at(0, [b"b" * 4 * SECTOR])
        disk.fail_next("sync", errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        file.sync()  # reports success and writes nothing
        assert disk.image("/f") == b"b" * 4 * SECTOR
        assert len(set(images(disk, count=5))) == 1
        outcomes.update(images(disk, count=1))
    assert len(outcomes) > 4


def test_failures_hit_the_call_that_was_meant():
    disk = SimDisk()
    disk.fail_next("write", errno.EIO, "g", skip=1)
    f, g = disk.open("/f", create=True), disk.open("/g", create=True)
    f.write_at(0, [b"1"])
    g.write_at(0, [b"1"])
    with pytest.raises(OSError, match="Input/output"):
        g.write_at(0, [b"22"])
    assert disk.image("/g") in (b"1", b"2")
    g.write_at(0, [b"3"])
    disk.fail_next("read", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        g.read_at(0, 1)
    with pytest.raises(ValueError, match="wriet"):
        disk.fail_next("wriet", errno.EIO)


def test_capacity():
    disk = SimDisk()
    disk.capacity_bytes = 1000
    file = disk.open("/f", create=True)
    file.allocate(900)
    for act in (lambda: file.allocate(1001), lambda: file.write_at(800, [b"x" * 300])):
        with pytest.raises(OSError, match="No space"):
            act()
    assert disk.free_bytes("/") == 100


def test_steps_and_the_end_of_the_power():
    disk = SimDisk()
    seen = []

    def watch(number: int, op: str, path: str) -> None:
        seen.append((number, op, path))
        if number == 3:
            raise Crash

    disk.on_step = watch
    file = disk.open("/f", create=True)
    file.write_at(0, [b"a"])
    with pytest.raises(Crash):
        file.sync()
    for act in (file.sync, lambda: disk.unlink("/f"), lambda: file.read_at(0, 1)):
        with pytest.raises(Crash):
            act()
    assert seen == [(1, "open", "/f"), (2, "write", "/f"), (3, "sync", "/f")]


def test_the_same_seed_gives_the_same_image():
    disk = disk_with(b"a" * 4096)
    disk.open("/f").write_at(0, [Random(1).randbytes(4096)])
    assert disk.crash(Random(7)).image("/f") == disk.crash(Random(7)).image("/f")


def test_clones_and_pokes_are_apart():
    disk = disk_with(b"abc")
    other = disk.clone()
    other.poke("/f", 1, b"X")
    assert (disk.image("/f"), other.image("/f"), other.durable_image("/f")) == (
        (b"abc", b"aXc", b"aXc")
    )
