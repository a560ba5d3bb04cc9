"""The same documents in sqlite3: JSON in a column, indexes on expressions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from time import perf_counter

from scripts.bench.callers import loop_timed
from scripts.bench.systems.people import PAGE, SCAN_SQL, people, some_scores, some_teams
from scripts.bench.worker import Config, Sample, serve

TEAM = "json_extract(doc, '$.team')"
SCORE = "json_extract(doc, '$.score')"


class SqliteDocuments:
    """The workloads. Documents are decoded, as TreeStore's are."""

    def __init__(self, config: Config, connection: sqlite3.Connection) -> None:
        self._sizes = config.sizes
        self._connection = connection

    def load(self) -> None:
        """One large table with two indexes, one smaller one without."""
        execute = self._connection.execute
        for table in ("large", "small"):
            execute(f"CREATE TABLE {table} (id TEXT PRIMARY KEY, doc TEXT) WITHOUT ROWID")
        documents = people(self._sizes.documents)
        rows = [(each["_id"], json.dumps(each)) for each in documents]
        execute("BEGIN")
        self._connection.executemany("INSERT INTO large VALUES (?, ?)", rows)
        small = rows[: self._sizes.scanned_documents]
        self._connection.executemany("INSERT INTO small VALUES (?, ?)", small)
        execute("COMMIT")
        execute(f"CREATE INDEX by_team ON large ({TEAM})")
        execute(f"CREATE INDEX by_score ON large ({SCORE})")
        execute("ANALYZE")

    def equality(self, seconds: float, repetition: int) -> Sample:
        """Ten documents by an index."""
        query = f"SELECT doc FROM large WHERE {TEAM} = ? ORDER BY id LIMIT {PAGE}"
        execute, loads = self._connection.execute, json.loads
        teams = some_teams(self._sizes.documents, repetition)
        return loop_timed(
            lambda team: [loads(doc) for (doc,) in execute(query, (team,))], teams, seconds
        )

    def ordered(self, seconds: float, repetition: int) -> Sample:
        """The first twenty of a range, sorted."""
        query = (
            f"SELECT doc FROM large WHERE {SCORE} >= ? AND {SCORE} < ? "
            f"ORDER BY {SCORE}, id LIMIT {PAGE}"
        )
        execute, loads = self._connection.execute, json.loads
        return loop_timed(
            lambda score: [loads(doc) for (doc,) in execute(query, (score, score + 1e5))],
            some_scores(repetition),
            seconds,
        )

    def unindexed(self, repetition: int) -> Sample:
        """Every document is looked at."""
        begin = perf_counter()
        query = f"SELECT count(*) FROM small WHERE {SCAN_SQL}"
        (found,) = self._connection.execute(query).fetchone()
        seconds = perf_counter() - begin
        assert found
        return Sample(self._sizes.scanned_documents, seconds)


@contextmanager
def open_workloads(config: Config) -> Generator[Mapping[str, Callable[..., Sample]], None, None]:
    """Load the tables and offer the workloads."""
    path = Path(config.directory) / "documents.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA cache_size = -4194304")
        store = SqliteDocuments(config, connection)
        store.load()
        yield {
            "equality": store.equality,
            "ordered": store.ordered,
            "unindexed": store.unindexed,
        }


if __name__ == "__main__":
    serve(open_workloads)
