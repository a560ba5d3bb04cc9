"""Backups: what is in them, and what is refused."""

from __future__ import annotations

import json
from random import Random

import attrs
import pytest

from tests.crash.simdisk import SimDisk
from tests.engine.backup.backups import back_up, contents_at, open_at, restore_to
from tests.engine.stores import SMALL, close_checked, contents, environment, open_small, put_now
from treestore.engine.backup.copy import BackupCopy, Source
from treestore.engine.backup.files import json_checksum
from treestore.engine.backup.manifest import open_chain
from treestore.engine.backup.verify import verify_backup
from treestore.engine.directory import OpenStore
from treestore.engine.engine import Engine
from treestore.errors import (
    AlreadyExists,
    CorruptionError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    TreeStoreError,
)


def filled(disk: SimDisk, count: int = 300) -> OpenStore:
    """A store with small and large values."""
    store = open_small(disk)
    put_now(store, [(b"%04d" % n, bytes((n % 256,)) * 80) for n in range(count)])
    put_now(store, [(b"large%d" % n, bytes((n,)) * 5000) for n in range(3)])
    return store


def churn(store: OpenStore, random: Random) -> None:
    """Change much, and give freed pages every chance of being used again."""
    for _ in range(3):
        put_now(
            store,
            [(b"%04d" % random.randrange(300), random.randbytes(80)) for _ in range(40)],
        )
        store.engine.checkpoint_now()


def test_requirement_13_a_backup_is_of_one_state_whatever_is_written_meanwhile() -> None:
    disk, random = SimDisk(1), Random(1)
    store = filled(disk)
    expected = contents(store)
    back_up(store, "/full", between=lambda: churn(store, random))
    report = restore_to(disk, "/full")
    assert contents_at(disk, "/new") == expected != contents(store)
    assert (report.timeline, report.parent_timeline, report.lsn) == (2, 1, 2)
    close_checked(store)


def test_without_the_pin_that_would_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the test above: pages really are used again under the copy."""
    disk, random = SimDisk(1), Random(1)
    store = filled(disk)
    monkeypatch.setattr(Engine, "pinned", lambda self: [])
    monkeypatch.setattr(Engine, "pins", lambda self: sorted(m.number for m in self.slots))
    with pytest.raises(CorruptionError):
        back_up(store, "/full", between=lambda: churn(store, random))
    assert not disk.exists("/full")


def test_an_incremental_backup_copies_what_its_parent_lacks() -> None:
    disk, random = SimDisk(2), Random(2)
    store = filled(disk)
    back_up(store, "/full")
    states = {}
    parent = "/full"
    for name in ("/one", "/two", "/three"):
        put_now(store, [(b"%04d" % random.randrange(300), random.randbytes(80)) for _ in range(3)])
        states[name] = contents(store)
        made = back_up(store, name, parent, between=lambda: churn(store, random))
        parent = name
        assert made.manifest.parent is not None
    chain = open_chain(disk, "/three")
    assert [backup.path for backup in chain] == ["/three", "/two", "/one", "/full"]
    sizes = [len(disk.image(f"{path}/pages")) for path in ("/full", "/one")]
    assert 0 < sizes[1] < sizes[0]
    for name, expected in states.items():
        verify_backup(environment(disk), name)
        restore_to(disk, name, f"/db{name[1:]}")
        assert contents_at(disk, f"/db{name[1:]}") == expected
    close_checked(store)


def test_nothing_changed_nothing_copied() -> None:
    disk = SimDisk(3)
    store = filled(disk)
    back_up(store, "/full")
    back_up(store, "/same", "/full")
    assert disk.image("/same/pages") == b""
    restore_to(disk, "/same")
    assert contents_at(disk, "/new") == contents(store)
    close_checked(store)


def test_an_empty_store_can_be_backed_up() -> None:
    disk = SimDisk(4)
    store = open_small(disk)
    back_up(store, "/full")
    restore_to(disk, "/full")
    assert contents_at(disk, "/new") == {}
    close_checked(store)


def test_a_backup_is_never_written_to() -> None:
    disk = SimDisk(5)
    store = filled(disk)
    back_up(store, "/full")
    before = {name: disk.image(f"/full/{name}") for name in disk.list("/full")}
    verify_backup(environment(disk), "/full")
    restore_to(disk, "/full")
    assert {name: disk.image(f"/full/{name}") for name in disk.list("/full")} == before
    assert set(before) == {"manifest.json", "index", "pages"}
    close_checked(store)


def test_damage_anywhere_is_found() -> None:
    disk = SimDisk(6)
    store = filled(disk, 60)
    back_up(store, "/full")
    put_now(store, [(b"more", b"x" * 50)])
    back_up(store, "/next", "/full")
    close_checked(store)
    random = Random(6)
    for path in ("/full", "/next"):
        for name in ("manifest.json", "index", "pages"):
            size = len(disk.image(f"{path}/{name}"))
            for _ in range(12):
                damaged = disk.clone()
                offset = random.randrange(size)
                byte = disk.image(f"{path}/{name}")[offset]
                damaged.poke(f"{path}/{name}", offset, bytes((byte ^ 1 << random.randrange(8),)))
                with pytest.raises(TreeStoreError):
                    verify_backup(environment(damaged), "/next")
                try:
                    restore_to(damaged, "/next")
                except TreeStoreError:
                    assert not damaged.exists("/new")
                else:  # a part of the parent that the newer state does not need
                    assert path == "/full"
                    assert name != "manifest.json"
                    assert contents_at(damaged, "/new") == contents_at(disk.clone(), "/db")


@pytest.mark.parametrize("name", ["manifest.json", "index", "pages"])
def test_a_missing_or_cut_file_is_named(name: str) -> None:
    disk = SimDisk(7)
    store = filled(disk, 60)
    back_up(store, "/full")
    close_checked(store)
    cut = disk.clone()
    cut.open(f"/full/{name}").truncate(len(disk.image(f"/full/{name}")) // 2)
    with pytest.raises(CorruptionError, match=name):
        verify_backup(environment(cut), "/full")
    disk.unlink(f"/full/{name}")
    wanted = NotFound if name == "manifest.json" else CorruptionError
    for check in (verify_backup, lambda env, path: restore_to(disk, path)):
        with pytest.raises(wanted, match=name):
            check(environment(disk), "/full")


def test_a_chain_that_is_broken_or_mixed_up_is_refused() -> None:
    disk = SimDisk(8)
    store = filled(disk, 60)
    back_up(store, "/full")
    put_now(store, [(b"a", b"1")])
    back_up(store, "/next", "/full")
    close_checked(store)
    missing = disk.clone()
    missing.rename("/full", "/elsewhere")
    assert len(open_chain(missing, "/next")) == 2  # found beside it
    missing.make_directory("/deep")
    missing.rename("/elsewhere", "/deep/full")
    with pytest.raises(CorruptionError, match="builds on backup"):
        restore_to(missing, "/next")
    # Another backup of the same id: made again, or edited.
    document = json.loads(disk.image("/full/manifest.json"))
    document["commit_number"] -= 1
    document["checksum"] = json_checksum(document)
    disk.unlink("/full/manifest.json")
    file = disk.open("/full/manifest.json", create=True)
    file.write_at(0, [json.dumps(document).encode()])
    for check in (verify_backup, lambda env, path: restore_to(disk, path)):
        with pytest.raises(CorruptionError, match="is not that backup"):
            check(environment(disk), "/next")


def test_where_a_backup_may_go() -> None:
    disk = SimDisk(9)
    store = filled(disk, 20)
    back_up(store, "/full")
    with pytest.raises(AlreadyExists):
        back_up(store, "/full")
    with pytest.raises(InvalidArgument, match="no folder"):
        back_up(store, "/nowhere/full")
    disk.make_directory("/empty")
    back_up(store, "/empty")
    disk.make_directory("/mine.unfinished")
    disk.open("/mine.unfinished/letters", create=True)
    with pytest.raises(InvalidArgument, match="stands in the way"):
        back_up(store, "/mine")
    with pytest.raises(NotFound, match="no whole backup"):
        back_up(store, "/next", "/mine.unfinished")
    close_checked(store)


def test_an_incremental_backup_needs_a_parent_of_the_same_history() -> None:
    disk = SimDisk(10)
    store = filled(disk, 20)
    back_up(store, "/full")
    close_checked(store)
    restore_to(disk, "/full")
    restored = open_at(disk, "/new")
    with pytest.raises(InvalidArgument, match="was restored since"):
        back_up(restored, "/next", "/full")
    back_up(restored, "/own")
    report = restore_to(disk, "/own", "/third")
    assert (report.timeline, report.parent_timeline) == (3, 2)
    close_checked(restored)
    other_disk = SimDisk(11)
    other = open_small(other_disk, seed=5)
    back_up(other, "/theirs")
    with pytest.raises(InvalidArgument, match="another database"):
        BackupCopy(
            attrs.evolve(restored.engine.environment, disk=other_disk),
            Source.of(open_at(disk, "/new").engine),
            "/mixed",
            "/theirs",
        )


def test_a_damaged_store_is_not_backed_up() -> None:
    disk = SimDisk(12)
    store = filled(disk)
    store.engine.checkpoint_now()
    close_checked(store)
    page_size = SMALL.page_size_bytes
    pages = len(disk.image("/db/pages")) // page_size
    refused = 0
    for page in range(8, pages, 3):
        damaged = disk.clone()
        damaged.poke("/db/pages", page * page_size + 40, b"\xff\x00\xff")
        try:
            # Opening copes with what nothing refers to.
            back_up(open_small(damaged), "/full")
        except CorruptionError:
            refused += 1
            continue
        restore_to(damaged, "/full")
        assert contents_at(damaged, "/new") == contents_at(disk.clone(), "/db")
    assert refused > 10


def test_a_full_disk_is_said_and_leaves_nothing() -> None:
    disk = SimDisk(13)
    store = filled(disk)
    store.engine.checkpoint_now()
    source = Source.of(store.engine)
    disk.capacity_bytes = disk.used_bytes() + 20_000
    copy = BackupCopy(store.engine.environment, source, "/full")
    with pytest.raises(OSError, match="No space"):
        while copy.step():
            pass
    copy.abort()
    assert not [name for name in disk.list("/") if name.startswith("full")]
    source.pin.close()
    disk.capacity_bytes = None
    back_up(store, "/full")
    disk.capacity_bytes = disk.used_bytes() + 20_000
    with pytest.raises(ResourceExhausted):
        restore_to(disk, "/full")
    assert not [name for name in disk.list("/") if name.startswith("new")]
    close_checked(store)
