"""The same documents stored in sqlite3: JSON in a column, indexes on expressions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from scripts.bench.callers import loop_sync, loop_timed
from scripts.bench.systems.people import BATCH, new_people, people, some_ids
from scripts.bench.worker import Config, Sample, serve

INSERT = "INSERT INTO people VALUES (?, ?)"


class SqliteDocuments:
    """The workloads. Documents are given and got as Python objects, as TreeStore's are."""

    def __init__(self, config: Config, connection: sqlite3.Connection) -> None:
        self._sizes = config.sizes
        self._new = count(1000)
        self._connection = connection

    def load(self) -> None:
        """The documents that are there before."""
        execute = self._connection.execute
        execute("CREATE TABLE people (id TEXT PRIMARY KEY, doc TEXT) WITHOUT ROWID")
        execute("CREATE INDEX by_team ON people (json_extract(doc, '$.team'))")
        execute("CREATE INDEX by_score ON people (json_extract(doc, '$.score'))")
        self._insert(people(self._sizes.scanned_documents))
        execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _insert(self, documents: list[dict[str, Any]]) -> None:
        rows = [(each["_id"], json.dumps(each)) for each in documents]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(INSERT, rows)
        self._connection.execute("COMMIT")

    def insert_many(self, seconds: float, repetition: int) -> Sample:
        """`BATCH` documents a transaction, durable."""
        documents = new_people(f"m{next(self._new)}", seconds)
        done, begin = 0, perf_counter()
        for at in range(0, len(documents), BATCH):
            self._insert(documents[at : at + BATCH])
            done += BATCH
            if perf_counter() - begin > seconds:
                break
        return Sample(done, perf_counter() - begin)

    def insert(self, seconds: float, repetition: int) -> Sample:
        """Single documents, durable. Its commits follow one another, so more tasks gain nothing."""
        execute = self._connection.execute
        return loop_timed(
            lambda each: execute(INSERT, (each["_id"], json.dumps(each))),
            new_people(f"s{next(self._new)}", seconds),
            seconds,
        )

    def get(self, seconds: float, repetition: int) -> Sample:
        """By id."""
        execute, loads = self._connection.execute, json.loads
        query = "SELECT doc FROM people WHERE id = ?"
        return loop_sync(
            lambda id: loads(execute(query, (id,)).fetchone()[0]),
            some_ids(self._sizes.scanned_documents, repetition),
            seconds,
        )


@contextmanager
def open_workloads(config: Config) -> Generator[Mapping[str, Callable[..., Sample]], None, None]:
    """Load the table and offer the workloads."""
    path = Path(config.directory) / "written.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -1048576")
        store = SqliteDocuments(config, connection)
        store.load()
        yield {"insert_many": store.insert_many, "insert": store.insert, "get": store.get}


if __name__ == "__main__":
    serve(open_workloads)
