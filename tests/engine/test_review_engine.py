"""Faults found by review: each test states what must hold."""

from __future__ import annotations

from random import Random

import pytest

from tests.crash.simdisk import SimDisk
from tests.engine.stores import assert_clean, contents, open_small
from treestore.engine import page as page_format
from treestore.engine.cache import NodeCache
from treestore.engine.check import Checker
from treestore.engine.node import Node, Ref, Shape
from treestore.engine.pagefile import PageFile
from treestore.errors import TreeStoreError


def put_all(store, items):
    txn = store.engine.begin()
    for k, v in items:
        txn.put(k, v)
    store.engine.write_now(txn)


# -- 1: bulk stores leave leaves that do not fit a page ------------------------------------------


@pytest.mark.parametrize("page_size", [1024, 8192])
def test_sorted_store_never_makes_an_oversize_leaf(page_size: int) -> None:
    shape = Shape(page_size)
    big = shape.inline_size_bytes_max
    for seed in range(300):
        random = Random(seed)
        sizes = [random.choice([0, 1, big // 3, big // 2, big - 8, big]) for _ in range(40)]
        key = random.choice([8, shape.key_size_bytes_max])
        from treestore.engine.node import NO_VALUES
        from treestore.engine.working import WorkingTree

        tree = WorkingTree(Ref(Node([], NO_VALUES, None, 0, 0)), 1, 0, shape, lambda ref: ref.node)
        for _ in tree.put_sorted((b"%0*d" % (key, n), bytes(s)) for n, s in enumerate(sizes)):
            pass
        stack = [tree.root]
        while stack:
            node = stack.pop().node
            assert node.size <= shape.capacity, (seed, node.size, shape.capacity)
            stack.extend(node.children or [])


def test_replay_of_puts_can_be_checkpointed() -> None:
    # Ordinary puts; replay merges them in bulk.
    for seed in range(60):
        disk = SimDisk()
        store = open_small(disk)
        random = Random(seed)
        put_all(
            store,
            [(b"%0124d" % n, bytes(random.choice([0, 85, 128, 248, 256]))) for n in range(30)],
        )
        disk.restart()
        store = open_small(disk)
        store.engine.checkpoint_now()
        assert_clean(store)


# -- 2: a checkpoint that dies half-way leaves references to pages that were never written --------


def test_crashed_checkpoint_is_terminal_or_harmless(monkeypatch) -> None:
    disk = SimDisk()
    store = open_small(disk)
    put_all(store, [(b"%05d" % n, bytes(50)) for n in range(2000)])
    import treestore.engine.checkpoint as module

    real, calls = module.encode_node, [0]

    def encode(node):
        calls[0] += 1
        if calls[0] == 60:
            raise MemoryError
        return real(node)

    monkeypatch.setattr(module, "encode_node", encode)
    with pytest.raises(MemoryError):
        store.engine.checkpoint_now()
    monkeypatch.undo()
    try:
        store.engine.checkpoint_now()
    except TreeStoreError:
        return  # terminal: fine
    assert_clean(store)


# -- 3: abandon while a transaction is open ------------------------------------------------------


def test_transaction_over_an_abandoned_group_is_refused() -> None:
    disk = SimDisk()
    store = open_small(disk)
    engine = store.engine
    put_all(store, [(b"base", b"")])
    txn = engine.begin()
    txn.put(b"aborted", b"x")
    engine.commit(txn)
    group = engine.seal()
    assert group is not None
    long = engine.begin()  # a long command begins on top of the group under way
    assert long.delete(b"aborted")
    engine.abandon()  # the group could not be written: disk full
    try:
        engine.commit(long)
    except TreeStoreError:
        return
    second = engine.seal()
    engine.publish(second, engine.append(second))
    live = contents(store)
    disk.restart()
    store = open_small(disk)
    assert contents(store) == live


# -- 4: hostile bytes ----------------------------------------------------------------------------


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
def test_check_survives_hostile_large_values(cell: list[int]) -> None:
    import tempfile

    import msgspec

    from treestore.engine.realdisk import RealDisk

    with tempfile.TemporaryDirectory() as d:
        file = RealDisk().open(d + "/p", create=True)
        payload = msgspec.msgpack.encode(([b"k"], [cell]))
        run = page_format.seal(page_format.LEAF_WITH_LARGE, 9, 1, payload, 1, 1024)
        file.write_at(9 * 1024, [run])
        checker = Checker(PageFile(file, Shape(1024), NodeCache(0)))
        checker.walk(Ref(None, 9, page_format.checksum_of(run)))
        assert not checker.report.ok


def test_check_notices_a_child_without_page() -> None:
    import msgspec

    disk = SimDisk()
    disk.make_directory("/x")
    file = disk.open("/x/p", create=True)
    payload = msgspec.msgpack.encode(([], [0], [0]))
    run = page_format.seal(page_format.BRANCH, 9, 1, payload, 1, 1024)
    file.write_at(9 * 1024, [run])
    checker = Checker(PageFile(file, Shape(1024), NodeCache(0)))
    checker.walk(Ref(None, 9, page_format.checksum_of(run)))
    assert not checker.report.ok


def test_check_does_not_fill_the_cache() -> None:
    disk = SimDisk()
    store = open_small(disk)
    put_all(store, [(b"%05d" % n, bytes(50)) for n in range(500)])
    store.engine.checkpoint_now()
    store.close()
    store = open_small(disk)
    before = store.engine.pages.cache.statistics()
    assert_clean(store)
    after = store.engine.pages.cache.statistics()
    assert (after.misses, after.entries) == (before.misses, before.entries)


# -- 5: dirty pages of a group on its way are still dirty after a checkpoint ---------------------


def test_dirty_pages_counts_what_the_checkpoint_did_not_write() -> None:
    disk = SimDisk()
    store = open_small(disk)
    engine = store.engine
    put_all(store, [(b"a", b"")])
    txn = engine.begin()
    for n in range(3000):
        txn.put(b"%05d" % n, bytes(50))
    engine.commit(txn)
    group = engine.seal()
    checkpoint = engine.begin_checkpoint()  # of the state before the group
    checkpoint.run()
    engine.finish_checkpoint()
    engine.publish(group, engine.append(group))
    assert engine.dirty_pages >= 200


# -- 6: a snapshot closed under a reader ---------------------------------------------------------


def test_rollback_restores_and_abandon_restores_dirty_pages() -> None:
    disk = SimDisk()
    store = open_small(disk)
    engine = store.engine
    put_all(store, [(b"a", b"")])
    dirty = engine.dirty_pages
    txn = engine.begin()
    for n in range(300):
        txn.put(b"%05d" % n, bytes(50))
    engine.commit(txn)
    engine.seal()
    engine.abandon()
    assert engine.dirty_pages == dirty


def test_replay_of_a_wrong_log_is_a_corruption_error() -> None:
    import msgspec

    from treestore.engine.log import Transaction
    from treestore.errors import CorruptionError

    disk = SimDisk()
    store = open_small(disk)
    store.engine.log.append([Transaction(1, [msgspec.msgpack.encode([b"missing", None])])])
    with pytest.raises(CorruptionError):
        disk.restart()
        open_small(disk)
