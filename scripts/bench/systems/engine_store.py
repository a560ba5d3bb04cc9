"""TreeStore's engine without actors and without syncing, for what no public call offers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from time import perf_counter

from actors.tuning import tune
from scripts.bench.callers import loop_sync
from scripts.bench.data import Row, some_keys, sorted_rows
from scripts.bench.systems.batches import INSERTS, batches
from scripts.bench.worker import Config, Sample, serve
from treestore.engine.directory import open_engine
from treestore.engine.disk import File
from treestore.engine.engine import Engine
from treestore.engine.options import EngineOptions, Environment
from treestore.engine.realdisk import RealDisk, RealFile


class UnsyncedFile(RealFile):
    """A file whose sync does nothing: a crash of the machine loses what was written."""

    def sync(self) -> None:
        """Nothing."""


class UnsyncedDisk(RealDisk):
    """A disk of such files."""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """As `RealDisk.open`."""
        file = super().open(path, create=create, read_only=read_only)
        file.__class__ = UnsyncedFile
        return file


class EngineStore:
    """The workloads."""

    def __init__(self, engine: Engine, rows: list[Row]) -> None:
        self._engine = engine
        self._rows = rows
        self._new = count(1000)

    def get(self, seconds: float, repetition: int) -> Sample:
        """Point gets straight from the tree, each of the newest state."""
        read = self._engine.read

        def get(key: bytes) -> object:
            return read().get(key)

        return loop_sync(get, some_keys(self._rows, repetition), seconds)

    def scan(self, repetition: int) -> Sample:
        """Every row in key order."""
        done, begin = 0, perf_counter()
        for _key, _value in self._engine.read().scan(b"\x00", None):
            done += 1
        return Sample(done, perf_counter() - begin)

    def insert(self, seconds: float, repetition: int) -> Sample:
        """Random inserts, 100 a transaction; checkpoints are made as they fall due."""
        engine = self._engine
        groups = batches(next(self._new), seconds)
        checkpoint_s = 0.0
        done, begin = 0, perf_counter()
        for rows in groups:
            transaction = engine.begin()
            for key, value in rows:
                transaction.put(key, value)
            engine.write_now(transaction)
            done += INSERTS
            if engine.checkpoint_due():
                before = perf_counter()
                engine.checkpoint_now()
                checkpoint_s += perf_counter() - before
            if perf_counter() - begin > seconds:
                break
        elapsed = perf_counter() - begin
        return Sample(done, elapsed, details={"checkpoint_s": checkpoint_s})

    def checkpoint(self) -> Sample:
        """Write back what the inserts left."""
        begin = perf_counter()
        self._engine.checkpoint_now()
        return Sample(1, perf_counter() - begin)


@contextmanager
def open_workloads(config: Config) -> Generator[Mapping[str, Callable[..., Sample]], None, None]:
    """Load the table and offer the workloads."""
    rows = sorted_rows(config.sizes.keys)
    environment = Environment(UnsyncedDisk(), time.time_ns, random.SystemRandom())
    options = EngineOptions(cache_size_bytes=1 << 30)
    path = str(Path(config.directory) / "unsynced.treestore")
    tune()
    with closing(open_engine(path, options, environment)) as opened:
        engine = opened.engine
        for at in range(0, len(rows), 100_000):
            transaction = engine.begin()
            transaction.put_sorted(rows[at : at + 100_000])
            engine.write_now(transaction)
        engine.checkpoint_now()
        store = EngineStore(engine, rows)
        yield {
            "get": store.get,
            "scan": store.scan,
            "insert": store.insert,
            "checkpoint": store.checkpoint,
        }


if __name__ == "__main__":
    serve(open_workloads)
