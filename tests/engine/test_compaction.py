"""Compaction gives space back, changes nothing, and never needs more room (``docs/space.md``)."""

from __future__ import annotations

import errno
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.simdisk import SimDisk
from tests.engine.compacting import compact, execute, steps_of
from tests.engine.stores import SMALL, close_checked, contents, open_small, put_now
from treestore.engine import tree
from treestore.engine.compaction import MoveStep, cutoff_of
from treestore.engine.directory import OpenStore
from treestore.engine.meta import first_page
from treestore.engine.moving import Move
from treestore.engine.node import Large
from treestore.engine.options import EngineOptions
from treestore.errors import CorruptionError, ResourceExhausted

Model = dict[bytes, bytes]
PAGE = SMALL.page_size_bytes


def filled(disk: SimDisk, model: Model, options: EngineOptions = SMALL) -> OpenStore:
    """A store that holds ``model``, written in several checkpoints."""
    store = open_small(disk, options)
    keys = sorted(model)
    for first in range(0, len(keys), 150):
        put_now(store, [(key, model[key]) for key in keys[first : first + 150]])
        if first % 900:
            continue
        store.engine.checkpoint_now()
    return store


def delete(store: OpenStore, model: Model, keys: list[bytes], step: int = 50) -> None:
    """Remove keys from both, some at a time."""
    for first in range(0, len(keys), step):
        txn = store.engine.begin()
        for key in keys[first : first + step]:
            assert txn.delete(key)
            del model[key]
        store.engine.write_now(txn)
        if store.engine.checkpoint_due():
            store.engine.checkpoint_now()
    store.engine.checkpoint_now()


def live_bytes(model: Model) -> int:
    return sum(len(key) + len(value) for key, value in model.items())


def numbered(count: int, size: int) -> Model:
    return {b"%06d" % n: bytes((n % 256,)) * size for n in range(count)}


@pytest.mark.parametrize("pattern", ["random", "front", "back", "middle"])
@pytest.mark.parametrize(("count", "size"), [(30_000, 100), (10_000, 400)])
def test_requirement_12_nine_tenths_deleted_the_file_is_within_half_more_of_what_lives(
    pattern: str, count: int, size: int
) -> None:
    model = numbered(count, size)
    store = filled(SimDisk(1), model, attrs.evolve(SMALL, page_size_bytes=4096))
    keys = sorted(model)
    tenth = count // 10
    doomed = {
        "random": Random(1).sample(keys, 9 * tenth),
        "front": keys[: 9 * tenth],
        "back": keys[tenth:],
        "middle": [*keys[: 4 * tenth], *keys[5 * tenth :]],
    }[pattern]
    delete(store, model, sorted(doomed))
    before = store.engine.pages.file.size()
    assert before > 5 * live_bytes(model)
    compact(store.engine)
    after = store.engine.pages.file.size()
    assert after <= 1.5 * live_bytes(model) + 16 * 4096
    assert contents(store) == model
    close_checked(store)


def test_large_values_are_moved_too() -> None:
    disk = SimDisk(1)
    model = numbered(400, 20) | {b"large%04d" % n: bytes((n % 256,)) * 9000 for n in range(200)}
    store = filled(disk, model)
    doomed = [b"large%04d" % n for n in range(200) if n % 10 and n != 199]
    delete(store, model, doomed)
    compact(store.engine)
    assert store.engine.pages.file.size() <= 1.5 * live_bytes(model) + SMALL.headroom_pages * PAGE
    assert contents(store) == model
    store.close()
    store = open_small(disk)
    assert contents(store) == model
    close_checked(store)


def test_a_value_that_fits_nowhere_lower_stays() -> None:
    """Free pages below it are too scattered: moving it would make the file grow."""
    model = {b"%04d" % n: b"v" * 240 for n in range(800)}
    store = filled(SimDisk(1), model)
    huge = b"x" * 600 * PAGE
    put_now(store, [(b"huge", huge)])
    model[b"huge"] = huge
    store.engine.checkpoint_now()
    keys = [b"%04d" % n for n in range(800) if n % 8 < 3]
    delete(store, model, keys)
    size = store.engine.pages.file.size()
    for _ in steps_of(store.engine):
        assert store.engine.pages.file.size() <= size
    assert contents(store) == model
    close_checked(store)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    part=st.floats(0.2, 0.98),
    sizes=st.lists(st.sampled_from([5, 60, 200, 900, 3000, 20_000]), min_size=1, max_size=3),
    hold=st.booleans(),
)
def test_the_file_never_grows_and_a_snapshot_keeps_its_state(
    seed: int, part: float, sizes: list[int], hold: bool
) -> None:
    random = Random(seed)
    model = {b"%05d" % n: random.randbytes(random.choice(sizes)) for n in range(400)}
    store = filled(SimDisk(seed), model)
    engine = store.engine
    snapshot, then = engine.snapshot("test"), dict(model)
    if not hold:
        snapshot.close()
    delete(store, model, random.sample(sorted(model), int(part * len(model))))
    size = engine.pages.file.size()
    for _ in steps_of(engine):
        assert engine.pages.file.size() <= size
        assert contents(store) == model
    if hold:
        assert dict(snapshot.read().scan(b"", None)) == then
        snapshot.close()
        compact(engine)
    # What was pinned is given back as well.
    # The list of free space is written where there is room at the time: perhaps at the end.
    listed = sum(pages for _, pages, _ in engine.slots[0].free_runs)
    end = max(cutoff_of(engine), first_page(PAGE) + 40) + 2 * listed
    assert engine.free_space.page_count <= end
    close_checked(store)


@pytest.mark.parametrize("size", [100, 5000])
def test_a_full_disk_is_made_room_on(size: int) -> None:
    disk = SimDisk(1)
    model = numbered(2000, size)
    store = filled(disk, model)
    disk.capacity_bytes = disk.used_bytes()
    delete(store, model, [key for n, key in enumerate(sorted(model)) if n % 10], step=1)
    before = disk.used_bytes()
    for _ in steps_of(store.engine):
        assert disk.used_bytes() <= before
    assert disk.used_bytes() < before - live_bytes(model)
    assert contents(store) == model
    # The room is somebody else's, too, until the store asks for it.
    put_now(store, [(b"after", b"1")])
    model[b"after"] = b"1"
    close_checked(store)
    store = open_small(disk)
    assert contents(store) == model
    store.close()


@pytest.mark.parametrize("number", range(3))
def test_a_checkpoint_without_room_ends_it_and_harms_nothing(number: int) -> None:
    disk = SimDisk(1)
    model = numbered(2000, 100)
    store = filled(disk, model)
    delete(store, model, [key for n, key in enumerate(sorted(model)) if n % 10])
    before = store.engine.pages.file.size()
    disk.fail_next("allocate", errno.ENOSPC, "pages", skip=number)
    with pytest.raises(ResourceExhausted):
        compact(store.engine)
    assert store.engine.failed is None
    assert contents(store) == model
    compact(store.engine)
    assert store.engine.pages.file.size() < before / 3
    close_checked(store)


def test_a_damaged_page_ends_it() -> None:
    disk = SimDisk(1)
    model = numbered(3000, 100)
    filled(disk, model).close()
    store = open_small(disk)
    delete(store, model, [key for n, key in enumerate(sorted(model)) if 100 < n < 2900])
    store.close()
    store = open_small(disk)
    engine = store.engine
    root = engine.pages.load(engine.durable.root)
    assert root.children is not None
    leaf = root.children[-1]
    while leaf.page and (below := engine.pages.load(leaf).children) is not None:
        leaf = below[-1]
    leaf.node = None
    disk.poke("/db/pages", leaf.page * PAGE + 100, b"damaged")
    with pytest.raises(CorruptionError):
        compact(engine)
    assert engine.failed is None
    disk.restart()


def test_a_move_of_what_changed_meanwhile_does_nothing() -> None:
    store = filled(SimDisk(1), numbered(500, 100) | {b"large": b"x" * 5000})
    engine = store.engine
    txn = engine.begin()
    cell = tree.get(engine.durable.root, b"large", engine.pages.load)
    assert isinstance(cell, Large)
    txn.put(b"large", b"y" * 5000)
    engine.write_now(txn)
    stale = Move(b"large", value=cell, data=b"x" * 5000)
    step = MoveStep(engine, [stale, Move(b"large"), Move(b"large", leaves=0)], 1)
    execute(engine, step)
    assert engine.read().get(b"large") == b"y" * 5000
    assert step.moved == 0
    close_checked(store)


def test_a_cut_leaves_what_was_reserved_meanwhile() -> None:
    store = filled(SimDisk(1), numbered(3000, 100))
    engine = store.engine
    model = numbered(3000, 100)
    delete(store, model, sorted(model)[100:])
    compact(engine)
    pages = engine.pages
    pages.allocate(engine.file_pages + 1000)
    pages.shorten(engine.file_pages)
    pages.allocate(engine.file_pages + 10)
    assert pages.cut()
    assert not pages.cut()
    assert pages.file.size() == (engine.file_pages + 10) * PAGE
    close_checked(store)


def test_moves_wait_for_nothing_in_the_log() -> None:
    """They are published though not a byte can be appended."""
    options = attrs.evolve(SMALL, headroom_pages=16)
    disk = SimDisk(1)
    store = open_small(disk, options)
    put_now(store, numbered(500, 100).items())
    store.engine.checkpoint_now()
    lsn = store.engine.durable.position.lsn
    step = MoveStep(store.engine, [Move(b"000250")], 1)
    execute(store.engine, step)
    assert step.moved > 0
    assert store.engine.durable.position.lsn == lsn
    assert contents(store) == numbered(500, 100)
    close_checked(store)
