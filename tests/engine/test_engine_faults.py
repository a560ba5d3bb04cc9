"""The engine when something goes wrong beside it: full pages, dying checkpoints, abandoned
groups, hostile bytes. Nothing is lost, nothing false is written, and checks report what is."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from random import Random

import msgspec
import pytest

from tests.crash.simdisk import SimDisk
from tests.engine.stores import assert_clean, contents, open_small, put_now
from tests.engine.test_working import empty, no_load
from treestore.engine import page as page_format
from treestore.engine.cache import NodeCache
from treestore.engine.check import Checker, CheckReport
from treestore.engine.disk import File
from treestore.engine.engine import Engine
from treestore.engine.group import Group
from treestore.engine.log import Transaction
from treestore.engine.node import Node, Ref, Shape, encode_node
from treestore.engine.pagefile import PageFile
from treestore.engine.realdisk import RealDisk
from treestore.engine.working import WorkingTree
from treestore.errors import CorruptionError, ResourceExhausted, TreeStoreError

PAGE_SIZE = 1024


def seal(engine: Engine) -> Group:
    """Seal the open group; there is one."""
    group = engine.seal()
    assert group is not None
    return group


def checked_page(file: File, kind: int, payload: bytes) -> CheckReport:
    """The check of a tree whose root is one page with these bytes, and a right checksum."""
    run = page_format.seal(kind, 9, 1, payload, 1, PAGE_SIZE)
    file.write_at(9 * PAGE_SIZE, [run])
    checker = Checker(PageFile(file, Shape(PAGE_SIZE), NodeCache(0)))
    checker.walk(Ref(None, 9, page_format.checksum_of(run)))
    return checker.report


# -- every node fits its page -----------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1024, 8192])
def test_sorted_store_never_makes_an_oversize_leaf(page_size: int) -> None:
    """Whatever the sizes of keys and values, storing in bulk leaves nodes that fit a page."""
    shape = Shape(page_size)
    big = shape.inline_size_bytes_max
    for seed in range(300):
        random = Random(seed)
        sizes = [random.choice([0, 1, big // 3, big // 2, big - 8, big]) for _ in range(40)]
        key = random.choice([8, shape.key_size_bytes_max])
        tree = WorkingTree(empty(), 1, 0, shape, no_load)
        for _ in tree.put_sorted((b"%0*d" % (key, n), bytes(s)) for n, s in enumerate(sizes)):
            pass
        stack = [tree.root]
        while stack:
            node = stack.pop().node
            assert node is not None
            assert node.size <= shape.capacity, (seed, node.size, shape.capacity)
            stack.extend(node.children or [])


def test_replay_of_puts_can_be_checkpointed() -> None:
    """Replay merges the puts of the log in bulk; what it makes fits pages as well."""
    for seed in range(60):
        disk = SimDisk()
        store = open_small(disk)
        random = Random(seed)
        sizes = [random.choice([0, 85, 128, 248, 256]) for _ in range(30)]
        put_now(store, ((b"%0124d" % n, bytes(size)) for n, size in enumerate(sizes)))
        expected = contents(store)
        disk.restart()
        store = open_small(disk)
        store.engine.checkpoint_now()
        assert contents(store) == expected
        assert_clean(store)


# -- a checkpoint that dies half-way ----------------------------------------------------------


def test_requirement_8_a_checkpoint_that_dies_half_way_is_terminal_or_harmless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No later checkpoint refers to a page that the dead one never wrote."""
    disk = SimDisk()
    store = open_small(disk)
    put_now(store, ((b"%05d" % n, bytes(50)) for n in range(2000)))
    expected = contents(store)
    calls = count(1)

    def encode(node: Node) -> tuple[int, bytes]:
        if next(calls) == 60:
            raise MemoryError
        return encode_node(node)

    with monkeypatch.context() as patch:
        patch.setattr("treestore.engine.checkpoint.encode_node", encode)
        with pytest.raises(MemoryError):
            store.engine.checkpoint_now()
    try:
        store.engine.checkpoint_now()
    except TreeStoreError:
        pass  # terminal: nothing is written any more
    else:
        assert_clean(store)
    disk.restart()
    store = open_small(disk)
    assert contents(store) == expected
    assert_clean(store)


# -- groups that are given up, or on their way ------------------------------------------------


@pytest.mark.parametrize("long", [False, True])
def test_transaction_over_an_abandoned_group_is_refused(long: bool) -> None:
    """What was built on a group that could not be written is not written either."""
    disk = SimDisk()
    store = open_small(disk)
    engine = store.engine
    put_now(store, [(b"base", b"")])
    before = contents(store)
    aborted = engine.begin()
    aborted.put(b"aborted", b"x")
    engine.commit(aborted)
    seal(engine)
    built_on_it = engine.begin(long=long)
    assert built_on_it.delete(b"aborted")
    engine.abandon()  # the group could not be written: disk full
    with pytest.raises(ResourceExhausted):
        engine.commit(built_on_it)
    engine.rollback(built_on_it)
    assert engine.seal() is None
    assert contents(store) == before
    put_now(store, [(b"later", b"")])
    live = contents(store)
    assert live == {**before, b"later": b""}
    disk.restart()
    assert contents(open_small(disk)) == live


def test_abandon_restores_dirty_pages() -> None:
    """The pages of a group that is given up need not be written by the next checkpoint."""
    store = open_small(SimDisk())
    engine = store.engine
    put_now(store, [(b"a", b"")])
    dirty = engine.dirty_pages
    transaction = engine.begin()
    for n in range(300):
        transaction.put(b"%05d" % n, bytes(50))
    engine.commit(transaction)
    assert engine.dirty_pages > dirty
    seal(engine)
    engine.abandon()
    assert engine.dirty_pages == dirty


def test_dirty_pages_counts_what_the_checkpoint_did_not_write() -> None:
    """Pages of a group that is on its way stay dirty when a checkpoint of the state before ends."""
    store = open_small(SimDisk())
    engine = store.engine
    put_now(store, [(b"a", b"")])
    transaction = engine.begin()
    for n in range(3000):
        transaction.put(b"%05d" % n, bytes(50))
    engine.commit(transaction)
    group = seal(engine)
    checkpoint = engine.begin_checkpoint()  # of the state before the group
    assert checkpoint is not None
    checkpoint.run()
    engine.finish_checkpoint()
    engine.publish(group, engine.append(group))
    assert engine.dirty_pages >= 200


# -- hostile bytes under a right checksum -----------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        [1, 10, 20, 1 << 40, 5],
        [1, 10, 20, -3, 5],
        [1, -10, 20, 1, 5],
        [1, 1 << 62, 20, 1 << 50, 5],
        [1, 10, 1 << 62, 1, 5],
        [-1, 10, 1 << 63, 1 << 63, 1 << 63],
    ],
)
def test_check_survives_hostile_large_values(cell: list[int], tmp_path: Path) -> None:
    """Impossible places and sizes of a large value are errors in the report, on a real disk too."""
    file = RealDisk().open(str(tmp_path / "pages"), create=True)
    payload = msgspec.msgpack.encode(([b"k"], [cell]))
    report = checked_page(file, page_format.LEAF_WITH_LARGE, payload)
    file.close()
    assert not report.ok


def test_check_notices_a_child_without_page() -> None:
    """Page 0 stands for a node that is not written yet; a page cannot name it as a child."""
    disk = SimDisk()
    disk.make_directory("/x")
    payload = msgspec.msgpack.encode(([], [0], [0]))
    report = checked_page(disk.open("/x/p", create=True), page_format.BRANCH, payload)
    assert not report.ok


def test_check_does_not_fill_the_cache() -> None:
    """A check reads every page once; those that are in use stay in the cache."""
    disk = SimDisk()
    store = open_small(disk)
    put_now(store, ((b"%05d" % n, bytes(50)) for n in range(500)))
    store.engine.checkpoint_now()
    store.close()
    store = open_small(disk)
    before = store.engine.pages.cache.statistics()
    assert_clean(store)
    after = store.engine.pages.cache.statistics()
    assert (after.misses, after.entries) == (before.misses, before.entries)


@pytest.mark.parametrize(
    "notes",
    [
        [b"odd"],
        [b"key", 5],
        [7, b"value"],
        [[b"a", b"b"], b"value"],
        [["a", None], None],
        [[], None],
    ],
    ids=str,
)
def test_replay_of_a_wrong_log_is_a_corruption_error(notes: list[object]) -> None:
    """A log that no transaction wrote is damage, and is called that."""
    disk = SimDisk()
    store = open_small(disk)
    store.engine.log.append([Transaction(1, [msgspec.msgpack.encode(notes)])])
    disk.restart()
    with pytest.raises(CorruptionError, match="does not fit"):
        open_small(disk)
