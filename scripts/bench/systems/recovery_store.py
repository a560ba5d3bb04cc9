"""A store whose log is full when its process is killed, and the process that opens it then.

``fill DIR SHAPE MIB`` writes and kills itself; ``open DIR`` prints what opening took, as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator

import msgspec

from treestore.engine.directory import open_engine
from treestore.engine.log import Transaction
from treestore.engine.options import MEBIBYTE, EngineOptions
from treestore.engine.realdisk import real_environment
from treestore.errors import ResourceExhausted

GROUP = 1000
"""Transactions that are synced together: as many as the log's limit lets in soonest."""

KEY_BYTES, VALUE_BYTES, KEYS = 16, 100, 1_000_000

SHAPES = ("new keys", "overwrites", "single")


def _keys(shape: str, source: random.Random) -> Callable[[], bytes]:
    if shape == "overwrites":
        known = [source.randbytes(KEY_BYTES) for _ in range(KEYS)]
        return lambda: source.choice(known)
    return lambda: source.randbytes(KEY_BYTES)


def _transactions(shape: str) -> Iterator[Transaction]:
    source = random.Random(1)
    key, encode = _keys(shape, source), msgspec.msgpack.Encoder().encode
    number = 0
    while True:
        number += 1
        yield Transaction(number, [encode([key(), source.randbytes(VALUE_BYTES)])])


def fill(directory: str, shape: str, size_mib: int) -> None:
    """Append small transactions until the log refuses one, as a writer whose checkpoints do not
    get anywhere would; then die."""
    options = EngineOptions(
        log_size_bytes_max=size_mib * MEBIBYTE,
        transaction_size_bytes_max=size_mib * MEBIBYTE // 4,
    )
    log = open_engine(directory, options, real_environment()).engine.log
    transactions = _transactions(shape)
    size = 1 if shape == "single" else GROUP
    try:
        while True:
            log.append([next(transactions) for _ in range(size)])
    except ResourceExhausted:
        os.kill(os.getpid(), signal.SIGKILL)


def open_again(directory: str) -> None:
    """Open it, as a server would."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    opened = open_engine(directory, EngineOptions(), real_environment(), create=False)
    took = {
        "opened in": time.perf_counter() - wall,
        "processor time": time.process_time() - cpu,
        "peak memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "transactions": opened.report.replayed_transactions,
        "keys": opened.engine.durable.count,
        "checkpoints": opened.engine.checkpoints,
    }
    print(json.dumps(took), flush=True)
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        open_again(sys.argv[2])
