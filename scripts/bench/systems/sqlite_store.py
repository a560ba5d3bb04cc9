"""sqlite3 of the standard library, as one would tune it for this: WAL, a cache that holds all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from itertools import count, islice
from pathlib import Path
from time import perf_counter

from scripts.bench.callers import loop_sync, loop_timed
from scripts.bench.data import Row, random_keys, some_keys, sorted_rows, value_of
from scripts.bench.systems.batches import BULK_ROWS, INSERTS, batches
from scripts.bench.worker import Config, Sample, serve

PUT = "INSERT OR REPLACE INTO pairs VALUES (?, ?)"


def connect(path: Path) -> sqlite3.Connection:
    """A store with an empty table; transactions are begun and ended by hand."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -1048576")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
    )
    return connection


def put_all(connection: sqlite3.Connection, rows: list[Row]) -> None:
    """One transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(PUT, rows)
    connection.execute("COMMIT")


class Sqlite:
    """The workloads."""

    def __init__(self, config: Config, connection: sqlite3.Connection, rows: list[Row]) -> None:
        self._directory = Path(config.directory)
        self._connection = connection
        self._rows = rows
        self._new = count(1000)

    def get(self, seconds: float, repetition: int) -> Sample:
        """Point gets, each a transaction of its own."""
        execute = self._connection.execute

        def get(key: bytes) -> object:
            return execute("SELECT value FROM pairs WHERE key = ?", (key,)).fetchone()[0]

        return loop_sync(get, some_keys(self._rows, repetition), seconds)

    def get_in_transaction(self, seconds: float, repetition: int) -> Sample:
        """Point gets inside one read transaction."""
        self._connection.execute("BEGIN")
        try:
            return self.get(seconds, repetition)
        finally:
            self._connection.execute("COMMIT")

    def insert(self, seconds: float, repetition: int) -> Sample:
        """Random inserts, 100 a transaction, without syncing."""
        self._connection.execute("PRAGMA synchronous = OFF")
        groups = batches(next(self._new), seconds)
        done, begin = 0, perf_counter()
        for rows in groups:
            put_all(self._connection, rows)
            done += INSERTS
            if perf_counter() - begin > seconds:
                break
        sample = Sample(done, perf_counter() - begin)
        self._connection.execute("PRAGMA synchronous = FULL")
        return sample

    def commit(self, seconds: float, repetition: int) -> Sample:
        """Durable single puts. Its commits follow one another, so more tasks gain nothing."""
        keys = random_keys(100_000, next(self._new))
        execute = self._connection.execute
        value = value_of(repetition)
        return loop_timed(lambda key: execute(PUT, (key, value)), keys, seconds)

    def scan(self, repetition: int) -> Sample:
        """Every row in key order."""
        done, begin = 0, perf_counter()
        for _key, _value in self._connection.execute("SELECT key, value FROM pairs ORDER BY key"):
            done += 1
        return Sample(done, perf_counter() - begin)

    def bulk_load(self, repetition: int) -> Sample:
        """Sorted rows into an empty table, `BULK_ROWS` a transaction, durable."""
        path = self._directory / f"bulk{repetition}.sqlite"
        rows = iter(self._rows)
        with closing(connect(path)) as connection:
            begin = perf_counter()
            while group := list(islice(rows, BULK_ROWS)):
                put_all(connection, group)
            sample = Sample(len(self._rows), perf_counter() - begin)
        for file in self._directory.glob(f"{path.name}*"):
            file.unlink()
        return sample


@contextmanager
def open_workloads(config: Config) -> Generator[Mapping[str, Callable[..., Sample]], None, None]:
    """Load the table and offer the workloads."""
    rows = sorted_rows(config.sizes.keys)
    with closing(connect(Path(config.directory) / "table.sqlite")) as connection:
        put_all(connection, rows)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store = Sqlite(config, connection, rows)
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
