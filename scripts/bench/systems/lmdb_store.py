"""py-lmdb."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from time import perf_counter

import lmdb

from scripts.bench.callers import loop_sync, loop_timed
from scripts.bench.data import Row, random_keys, some_keys, sorted_rows, value_of
from scripts.bench.systems.batches import BULK_ROWS, INSERTS, batches
from scripts.bench.worker import Config, Sample, serve

MAP_SIZE_BYTES = 1 << 34


def _open(path: Path, *, sync: bool = True) -> lmdb.Environment:
    return lmdb.open(str(path), map_size=MAP_SIZE_BYTES, sync=sync, metasync=sync)


def _put_all(environment: lmdb.Environment, rows: list[Row], *, append: bool = False) -> None:
    with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
        cursor.putmulti(rows, append=append)


class Lmdb:
    """The workloads."""

    def __init__(self, config: Config, durable: lmdb.Environment, rows: list[Row]) -> None:
        self._directory = Path(config.directory)
        self._durable = durable
        self._rows = rows
        self._new = count(1000)
        self._unsynced: lmdb.Environment | None = None

    def get(self, seconds: float, repetition: int) -> Sample:
        """Point gets, each in a read transaction of its own."""
        begin = self._durable.begin

        def get(key: bytes) -> object:
            with begin() as transaction:
                return transaction.get(key)

        return loop_sync(get, some_keys(self._rows, repetition), seconds)

    def get_in_transaction(self, seconds: float, repetition: int) -> Sample:
        """Point gets inside one read transaction."""
        with self._durable.begin() as transaction:
            return loop_sync(transaction.get, some_keys(self._rows, repetition), seconds)

    def insert(self, seconds: float, repetition: int) -> Sample:
        """Random inserts, 100 a transaction, without syncing; into a copy of the table."""
        if self._unsynced is None:
            path = self._directory / "unsynced.lmdb"
            path.mkdir()
            self._durable.copy(str(path))
            self._unsynced = _open(path, sync=False)
        groups = batches(next(self._new), seconds)
        done, begin = 0, perf_counter()
        for rows in groups:
            _put_all(self._unsynced, rows)
            done += INSERTS
            if perf_counter() - begin > seconds:
                break
        return Sample(done, perf_counter() - begin)

    def commit(self, seconds: float, repetition: int) -> Sample:
        """Durable single puts. One writer at a time, so more tasks gain nothing."""
        keys = random_keys(100_000, next(self._new))
        begin = self._durable.begin
        value = value_of(repetition)

        def put(key: bytes) -> None:
            with begin(write=True) as transaction:
                transaction.put(key, value)

        return loop_timed(put, keys, seconds)

    def scan(self, repetition: int) -> Sample:
        """Every row in key order."""
        done, begin = 0, perf_counter()
        with self._durable.begin() as transaction:
            for _key, _value in transaction.cursor():
                done += 1
        return Sample(done, perf_counter() - begin)

    def bulk_load(self, repetition: int) -> Sample:
        """Sorted rows into an empty table, `BULK_ROWS` a transaction, durable."""
        path = self._directory / f"bulk{repetition}.lmdb"
        rows = iter(self._rows)
        with _open(path) as environment:
            begin = perf_counter()
            while group := list(islice(rows, BULK_ROWS)):
                _put_all(environment, group, append=True)
            sample = Sample(len(self._rows), perf_counter() - begin)
        shutil.rmtree(path)
        return sample


@contextmanager
def open_workloads(config: Config) -> Generator[Mapping[str, Callable[..., Sample]], None, None]:
    """Load the table and offer the workloads."""
    rows = sorted_rows(config.sizes.keys)
    with _open(Path(config.directory) / "table.lmdb") as environment:
        _put_all(environment, rows, append=True)
        store = Lmdb(config, environment, rows)
        yield {
            "get": store.get,
            "get_in_transaction": store.get_in_transaction,
            "insert": store.insert,
            "commit": store.commit,
            "scan": store.scan,
            "bulk_load": store.bulk_load,
        }


if __name__ == "__main__":
    serve(open_workloads)
