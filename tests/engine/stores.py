"""Engines on a simulated disk, for tests; every one that is closed here is checked first."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from tests.crash.simdisk import SimDisk
from treestore.engine.check import check_engine
from treestore.engine.directory import OpenStore, open_engine
from treestore.engine.options import EngineOptions, Environment

SMALL = EngineOptions(
    page_size_bytes=1024,
    cache_size_bytes=20_000,
    log_size_bytes_max=16 << 20,
    log_segment_size_bytes_min=1 << 16,
    log_segment_size_bytes_max=1 << 20,
    transaction_size_bytes_max=4 << 20,
    headroom_pages=16,
)
"""Small pages make deep trees, a small cache makes evictions."""


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


def environment(disk: SimDisk, seed: int = 0) -> Environment:
    """Everything simulated."""
    return Environment(disk, Clock(), Random(seed))


def open_small(disk: SimDisk, options: EngineOptions = SMALL, *, seed: int = 0) -> OpenStore:
    """Open (or create) the store ``/db``."""
    return open_engine("/db", options, environment(disk, seed))


def put_now(store: OpenStore, items: Iterable[tuple[bytes, bytes]]) -> None:
    """Store all of them in one transaction that is durable at once."""
    transaction = store.engine.begin()
    for key, value in items:
        transaction.put(key, value)
    store.engine.write_now(transaction)


def contents(store: OpenStore) -> dict[bytes, bytes]:
    """The durable state."""
    return dict(store.engine.read().scan(b"", None))


def assert_clean(store: OpenStore) -> None:
    """The integrity check finds nothing."""
    report = check_engine(store.engine)
    assert report.ok, report.errors


def close_checked(store: OpenStore) -> None:
    """Check, then close."""
    assert_clean(store)
    store.close()
