"""What the tests of the log share: a small log on a simulated medium."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.crash.simdisk import SimDisk
from treestore.engine.disk import Disk
from treestore.engine.log import (
    Log,
    LogIdentity,
    LogOptions,
    LogPosition,
    LogRecord,
    Recovered,
    Transaction,
)

DIRECTORY = "/log"
IDENTITY = LogIdentity(bytes(range(16)), timeline=3)
OPTIONS = LogOptions(
    segment_size_bytes_min=16384,
    segment_size_bytes_max=65536,
    size_bytes_max=1 << 20,
)

Content = list[tuple[int, list[bytes]]]
"""Transactions: number and payloads."""


class Clock:
    """A clock that moves by a microsecond per look."""

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


def create(disk: Disk, options: LogOptions = OPTIONS, *, seed: int = 1) -> Log:
    return Log.create(disk, DIRECTORY, IDENTITY, options, clock_ns=Clock(), random=Random(seed))


def reopen(
    disk: Disk,
    start: LogPosition | None = None,
    options: LogOptions = OPTIONS,
    *,
    seed: int = 2,
    clock: Clock | None = None,
) -> tuple[Log, Recovered]:
    return Log.open(
        disk,
        DIRECTORY,
        IDENTITY,
        options,
        start or LogPosition(0),
        clock_ns=clock or Clock(),
        random=Random(seed),
    )


def transaction(number: int, *payloads: bytes) -> Transaction:
    return Transaction(number, list(payloads) or [b"payload of %d" % number])


def content(transactions: Iterator[Transaction] | list[Transaction]) -> Content:
    return [(t.transaction_id, list(t.payloads)) for t in transactions]


def recovered_from(disk: SimDisk, start: LogPosition | None = None) -> Content:
    """What a fresh recovery finds; the disk is not changed."""
    log, recovered = reopen(disk.clone(), start)
    found = list(recovered.transactions)
    log.close()
    return found


def grouped(records: Iterator[LogRecord]) -> Content:
    """The transactions in records, markers left out."""
    found: Content = []
    payloads: list[bytes] = []
    for record in records:
        if record.kind == 3:
            continue
        payloads.append(record.payload)
        if record.kind == 2:
            found.append((record.transaction_id, payloads))
            payloads = []
    assert not payloads
    return found


def log_files(disk: SimDisk, suffix: str = ".log") -> list[str]:
    return [f"{DIRECTORY}/{name}" for name in disk.list(DIRECTORY) if name.endswith(suffix)]
