"""The cache: within its budget, never without what is in use, and good at guessing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.search.vectors.examples import clouds, make_segment
from treestore.search.vectors.cache import SegmentCache, warm
from treestore.search.vectors.segment import Segment


@attrs.define
class Thing:
    """Something of a certain size."""

    mapped_bytes: int = 10
    memory_bytes: int = 1
    warmed: int = 0

    def warm(self, *, pause: Callable[[], None] | None = None) -> int:
        self.warmed += 1
        return self.mapped_bytes


Cache = SegmentCache[int, Thing]


@contextmanager
def using(cache: Cache, key: int, thing: Thing | None = None) -> Generator[Thing]:
    with cache.use(key, lambda: thing or Thing()) as found:
        yield found


def touch(cache: Cache, key: int) -> None:
    with using(cache, key):
        pass


class CacheMachine(RuleBasedStateMachine):
    """Any uses, in any nesting, with sizes up to more than the whole budget."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: Cache = SegmentCache(mapped_bytes_max=100, memory_bytes_max=50, entries_max=8)
        self.sizes: dict[int, tuple[int, int]] = {}
        self.open: list[tuple[int, Thing, ExitStack]] = []
        self.uses = self.loads = 0

    @rule(key=st.integers(0, 15), mapped=st.integers(1, 120), memory=st.integers(0, 60))
    def use(self, key: int, mapped: int, memory: int) -> None:
        size = self.sizes.setdefault(key, (mapped, memory))
        expected = [thing for k, thing, _ in self.open if k == key]

        def load() -> Thing:
            self.loads += 1
            return Thing(*size)

        stack = ExitStack()
        thing = stack.enter_context(self.cache.use(key, load))
        self.uses += 1
        # What is in use is never opened a second time.
        assert not expected or thing is expected[0]
        assert (thing.mapped_bytes, thing.memory_bytes) == size
        self.open.append((key, thing, stack))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.open) - 1))
        self.open.pop(place)[2].close()

    @rule(key=st.integers(0, 15))
    def drop(self, key: int) -> None:
        self.cache.drop(key)
        assert key not in self.cache
        for _, _, stack in [o for o in self.open if o[0] == key]:
            stack.close()
        self.open = [o for o in self.open if o[0] != key]

    @rule(key=st.integers(0, 15))
    def fail(self, key: int) -> None:
        def load() -> Thing:
            raise OSError("no")

        if key not in self.cache:
            with pytest.raises(OSError, match="no"), self.cache.use(key, load):
                pass
            self.uses += 1
            self.loads += 1
            assert key not in self.cache

    @invariant()
    def the_books_are_right(self) -> None:
        found = self.cache.statistics()
        cached = [key for key in self.sizes if key in self.cache]
        assert found.entries == len(cached)
        assert found.mapped_bytes == sum(self.sizes[key][0] for key in cached)
        assert found.memory_bytes == sum(self.sizes[key][1] for key in cached)
        assert found.hits + found.misses == self.uses
        assert found.misses == self.loads
        assert found.pinned == len({key for key, _, _ in self.open})
        assert 0 <= self.cache._small_cost < 1e6

    @invariant()
    def the_budget_is_kept_where_it_can_be(self) -> None:
        found = self.cache.statistics()
        pinned = {key for key, _, _ in self.open}
        if found.entries > len(pinned):
            assert found.mapped_bytes <= 100
            assert found.memory_bytes <= 50
            assert found.entries <= 8
        assert all(key in self.cache for key in pinned)


TestCache = CacheMachine.TestCase
TestCache.settings = settings(stateful_step_count=60)


@pytest.mark.parametrize(("skew", "least"), [(1.3, 0.6), (1.6, 0.8)])
def test_a_skewed_workload_hits(skew: float, least: float) -> None:
    cache: Cache = SegmentCache(mapped_bytes_max=200, memory_bytes_max=1000)
    random = np.random.default_rng(1)
    keys = random.zipf(skew, 20_000) % 200
    for key in keys[:2000].tolist():
        touch(cache, key)
    before = cache.statistics()
    for key in keys[2000:].tolist():
        touch(cache, key)
    after = cache.statistics()
    assert after.entries == 20
    rate = (after.hits - before.hits) / 18_000
    assert rate > least
    # Nearly as many as if the twenty most wanted had been there from the start.
    best = np.sort(np.bincount(keys[2000:]))[-20:].sum() / 18_000
    assert rate > 0.93 * best


def test_a_scan_drives_out_nothing_that_is_used() -> None:
    cache: Cache = SegmentCache(mapped_bytes_max=200, memory_bytes_max=1000)
    for _ in range(3):
        for key in range(12):
            touch(cache, key)
    for key in range(1000, 3000):
        touch(cache, key)
        touch(cache, key % 12)
    before = cache.statistics()
    for key in range(12):
        touch(cache, key)
    assert cache.statistics().hits - before.hits == 12


def test_what_comes_back_soon_stays() -> None:
    cache: Cache = SegmentCache(mapped_bytes_max=200, memory_bytes_max=1000)
    for key in range(100, 120):
        touch(cache, key)
        touch(cache, key)
    touch(cache, 1)
    for key in range(200, 205):
        touch(cache, key)
    assert 1 not in cache
    touch(cache, 1)  # remembered: it enters the main queue
    for key in range(300, 310):
        touch(cache, key)
    assert 1 in cache


def test_one_thread_opens_and_the_others_wait() -> None:
    cache: Cache = SegmentCache(mapped_bytes_max=100, memory_bytes_max=100)
    opening, go_on = threading.Event(), threading.Event()
    loads = []

    def load() -> Thing:
        loads.append(1)
        opening.set()
        assert go_on.wait(60)
        return Thing()

    found: list[Thing] = []

    def run() -> None:
        with cache.use(1, load) as thing:
            found.append(thing)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert opening.wait(60)
    touch(cache, 2)  # others are not held up
    assert cache.statistics().entries == 1
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len({id(thing) for thing in found}) == 1
    assert cache.statistics().pinned == 0


def test_a_failure_is_tried_again_by_who_waited() -> None:
    cache: Cache = SegmentCache(mapped_bytes_max=100, memory_bytes_max=100)
    opening, go_on = threading.Event(), threading.Event()
    results: list[str] = []

    def fail() -> Thing:
        opening.set()
        assert go_on.wait(60)
        raise OSError

    def first() -> None:
        try:
            with cache.use(1, fail):
                results.append("opened")
        except OSError:
            results.append("failed")

    def second() -> None:
        with using(cache, 1):
            results.append("opened")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert opening.wait(60)
    threads.append(threading.Thread(target=second))
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["failed", "opened"]


def test_one_that_is_dropped_while_it_is_opened() -> None:
    cache: Cache = SegmentCache(mapped_bytes_max=100, memory_bytes_max=100)

    def load() -> Thing:
        cache.drop(1)
        return Thing()

    with cache.use(1, load) as thing:
        assert thing.mapped_bytes == 10
    assert 1 not in cache
    assert cache.statistics().mapped_bytes == 0


def test_warming() -> None:
    cache: Cache = SegmentCache(mapped_bytes_max=100, memory_bytes_max=100)
    things = {key: Thing() for key in range(5)}
    wanted = {key: partial(things.__getitem__, key) for key in things}
    assert warm(cache, wanted, bytes_max=25) == 30
    assert [thing.warmed for thing in things.values()] == [1, 1, 1, 0, 0]
    assert all(key in cache for key in range(3))


def test_budgets_are_checked() -> None:
    with pytest.raises(ValueError):
        SegmentCache[int, Thing](mapped_bytes_max=0, memory_bytes_max=1)


def test_an_evicted_segment_can_still_be_read(tmp_path: Path) -> None:
    vectors = clouds(50, 4, seed=1)
    size = make_segment(tmp_path, vectors, "l2").mapped_bytes
    cache: SegmentCache[int, Segment] = SegmentCache(
        mapped_bytes_max=size, memory_bytes_max=1 << 20
    )
    with cache.use(1, lambda: make_segment(tmp_path, vectors, "l2", number=1)) as first:
        found = first.vectors
    with cache.use(2, lambda: make_segment(tmp_path, vectors, "l2", number=2)):
        assert 1 not in cache
    del first
    assert (found == vectors).all()
    assert cache.statistics().evictions == 1
