"""Readers are leases: what they keep is counted, and let go of when they are evicted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.simdisk import SimDisk
from tests.engine.stores import close_checked, contents, open_small, put_now
from treestore.engine.engine import Engine
from treestore.engine.node import Large, Ref
from treestore.engine.snapshot import LEASE_SLICE
from treestore.errors import SnapshotExpired

OPERATION = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 60), st.sampled_from([10, 200, 3000])),
    st.tuples(st.just("put"), st.integers(0, 60), st.sampled_from([10, 200, 3000])),
    st.tuples(st.just("delete"), st.integers(0, 60), st.integers(1, 20)),
    st.tuples(st.just("checkpoint"), st.booleans(), st.none()),
    st.tuples(st.just("open"), st.none(), st.none()),
    st.tuples(st.just("close"), st.integers(0, 5), st.none()),
)


def reached(engine: Engine, root: Ref) -> tuple[set[int], int]:
    """Pages that a root reaches, and how many more it will want."""
    pages: set[int] = set()
    unwritten: set[int] = set()
    waiting: list[Ref] = [root]
    while waiting:
        ref = waiting.pop()
        if ref.page:
            pages.add(ref.page)
        else:
            unwritten.add(id(ref))
        node = engine.pages.load(ref)
        node.settle()
        waiting += node.children or []
        for cell in node.values:
            if isinstance(cell, Large):
                for start, count, _ in cell.extents:
                    pages.update(range(start, start + count))
    return pages, len(unwritten)


@settings(max_examples=60)
@given(st.lists(OPERATION, max_size=25))
def test_pinned_pages_are_those_that_nothing_else_reaches(operations: list[tuple]) -> None:
    store = open_small(SimDisk(1))
    engine = store.engine
    put_now(store, [(b"%03d" % n, bytes(150)) for n in range(60)])
    engine.checkpoint_now()
    leases = []
    lists: dict[int, set[int]] = {}
    for what, one, other in operations:
        if what == "put":
            put_now(store, [(b"%03d" % one, bytes(other))])
        elif what == "delete":
            txn = engine.begin()
            txn.delete_range(b"%03d" % one, b"%03d" % (one + other))
            engine.write_now(txn)
        elif what == "checkpoint":
            engine.checkpoint_now(settle=one)
        elif what == "open":
            leases.append(engine.snapshot("test"))
        elif leases:
            leases.pop(one % len(leases)).close()
        for meta in engine.slots:
            runs = [range(page, page + pages) for page, pages, _ in meta.free_runs]
            lists.setdefault(meta.number, set()).update(page for run in runs for page in run)
    others, _ = reached(engine, engine.durable.root)
    for meta in engine.slots:
        others |= reached(engine, Ref(None, meta.root_page, meta.root_checksum))[0]
    pinned = engine.lease_books(engine.pinned()).count()
    union: set[int] = set()
    for lease in leases:
        pages, unwritten = reached(engine, lease.usable_root())
        # A slot of that number has gone; its list of free space has the same lifetime.
        slots = [meta.number for meta in engine.slots]
        lists_too = lists.get(lease.number, set()) if lease.number not in slots else set()
        only = (pages | lists_too) - others
        union |= only
        # Nodes in memory are counted too, and a large value among them by its length.
        assert len(only) <= pinned.of(lease.number)
        if not unwritten:
            assert pinned.of(lease.number) == len(only)
    assert len(union) <= pinned.total <= sum(pinned.of(lease.number) for lease in leases)
    for lease in leases:
        lease.close()
    assert engine.lease_books(engine.pinned()).count().total == 0
    assert engine.leases.unwritten() == []
    close_checked(store)


def test_nodes_that_never_got_a_page_count_while_a_lease_reaches_them() -> None:
    store = open_small(SimDisk(1))
    put_now(store, [(b"%03d" % n, bytes(100)) for n in range(100)])
    lease = store.engine.snapshot("test")
    put_now(store, [(b"%03d" % n, bytes(100)) for n in range(100)])
    pinned = store.engine.lease_books([lease.number]).count()
    assert pinned.of(lease.number) == reached(store.engine, lease.usable_root())[1] > 10
    lease.close()
    assert store.engine.leases.unwritten() == []
    close_checked(store)


def test_who_must_go_so_that_the_others_pin_little() -> None:
    store = open_small(SimDisk(1))
    engine = store.engine
    leases = []
    for _ in range(4):
        put_now(store, [(b"%03d" % n, bytes(200)) for n in range(100)])
        engine.checkpoint_now(settle=True)
        leases.append(engine.snapshot("test"))
    put_now(store, [(b"%03d" % n, bytes(200)) for n in range(100)])
    engine.checkpoint_now(settle=True)
    pinned = engine.lease_books(engine.pinned()).count()
    each = pinned.of(leases[0].number)
    assert each > 20
    # They share nothing: everything was overwritten in between.
    assert pinned.total == sum(pinned.of(lease.number) for lease in leases)
    assert pinned.oldest_to_evict(pinned.total) is None
    assert pinned.oldest_to_evict(pinned.total - each) == leases[0].number
    assert pinned.oldest_to_evict(pinned.total - each - 1) == leases[1].number
    assert pinned.oldest_to_evict(0) == leases[3].number
    close_checked(store)


def test_requirement_10_one_idle_reader_does_not_make_anything_grow() -> None:
    store = open_small(SimDisk(1))
    engine = store.engine
    model = {b"%03d" % n: bytes(200) for n in range(300)}
    put_now(store, model.items())
    engine.checkpoint_now()
    engine.checkpoint_now()
    idle = engine.snapshot("idle")
    sizes, log_sizes = [], []
    for turn in range(40):
        model = {key: bytes((turn,)) * 200 for key in model}
        put_now(store, model.items())
        engine.checkpoint_now()
        pinned = engine.lease_books(engine.pinned()).count()
        if pinned.oldest_to_evict(50) is not None:
            idle.evict("It kept too much.")
        sizes.append(engine.free_space.page_count)
        log_sizes.append(engine.log.statistics().live_bytes)
    assert idle.evicted
    # What it kept is used again; the log never waited for it.
    assert max(sizes[10:]) <= max(sizes[:10])
    assert sizes[-1] < 5 * 100
    assert max(log_sizes[10:]) <= max(log_sizes[:10])
    with pytest.raises(SnapshotExpired, match="too much"):
        idle.read()
    assert contents(store) == model
    close_checked(store)


def test_pages_wait_for_a_read_in_flight_on_an_evicted_lease() -> None:
    store = open_small(SimDisk(1))
    engine = store.engine
    put_now(store, [(b"%04d" % n, bytes(100)) for n in range(LEASE_SLICE)])
    engine.checkpoint_now(settle=True)
    lease = engine.snapshot("test")
    lease.begin_read()
    read = lease.read()
    assert read.get(b"0001") == bytes(100)
    lease.evict("Evicted by a test.")
    put_now(store, [(b"%04d" % n, bytes(99)) for n in range(LEASE_SLICE)])
    engine.checkpoint_now(settle=True)
    engine.checkpoint_now(settle=True)
    assert engine.snapshots() == [lease]
    assert read.get(b"0999") == bytes(100)
    # It notices at its next slice.
    with pytest.raises(SnapshotExpired, match="by a test"):
        for n in range(LEASE_SLICE):
            assert read.get(b"%04d" % n) == bytes(100)
    lease.end_read()
    assert engine.snapshots() == []
    lease.close()
    close_checked(store)


def test_a_read_in_flight_outlives_the_close_of_its_snapshot() -> None:
    store = open_small(SimDisk(1))
    put_now(store, [(b"%04d" % n, bytes(100)) for n in range(2 * LEASE_SLICE)])
    lease = store.engine.snapshot("test")
    lease.begin_read()
    read = lease.read()
    lease.close()
    lease.close()
    assert len(list(read.scan(b"", None))) == 2 * LEASE_SLICE
    assert store.engine.snapshots() == [lease]
    with pytest.raises(SnapshotExpired, match="closed"):
        lease.begin_read()
    lease.end_read()
    assert store.engine.snapshots() == []
    close_checked(store)
