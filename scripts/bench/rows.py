"""The rows and their targets."""

from __future__ import annotations

from typing import Literal

import attrs

Unit = Literal["ratio", "seconds", "milliseconds", "mebibytes"]
Verdict = Literal["ok", "MISSED", "not measured"]


@attrs.frozen
class Target:
    """What a row should reach.

    ``against`` names the other system of a ratio. The ratio is of rates (TreeStore's over the
    other's), or, where ``at_most``, of median latencies.
    """

    limit: float
    against: str = ""
    aim: float | None = None
    unit: Unit = "ratio"
    at_most: bool = False
    measure: str = ""
    """Which of a row's numbers is meant, where it is none of the above."""

    @property
    def label(self) -> str:
        """The target in words."""
        sign = "≤" if self.at_most else "≥"
        suffix = {"ratio": "×", "seconds": " s", "milliseconds": " ms", "mebibytes": " MiB"}
        text = f"{sign} {self.limit:g}{suffix[self.unit]}"
        if self.against:
            text += f" {self.against}"
        if self.measure:
            text = f"{self.measure} {text}"
        return text if self.aim is None else f"{text} (aim {self.aim:g})"

    def verdict(self, value: float | None) -> Verdict:
        """Whether ``value`` reaches it."""
        if value is None:
            return "not measured"
        reached = value <= self.limit if self.at_most else value >= self.limit
        return "ok" if reached else "MISSED"


@attrs.frozen
class Row:
    """One line of the table."""

    name: str
    title: str
    targets: tuple[Target, ...] = ()
    unit: str = "op/s"


SQLITE, LMDB, POSTGRES, ECHO = "sqlite3", "py-lmdb", "PostgreSQL", "bare echo"
TREESTORE = "TreeStore"

EMBEDDED = (
    Row(
        "point-get",
        "embedded point get, warm",
        (Target(2.5, SQLITE), Target(0.5, LMDB, aim=0.8)),
        "get/s",
    ),
    Row(
        "point-get-snapshot",
        "embedded point get, in one snapshot or read transaction",
        unit="get/s",
    ),
    Row("insert", "random inserts, 100 a transaction, no sync", (Target(1.5, SQLITE, 3),), "row/s"),
    Row(
        "commit-64",
        "durable commits, 64 concurrent tasks",
        (Target(8, SQLITE, 15), Target(8, LMDB, 15)),
        "commit/s",
    ),
    Row("commit-1", "durable commits, one task", (Target(0.7, SQLITE),), "commit/s"),
    Row("scan", "full scan", (Target(1, SQLITE),), "row/s"),
    Row("bulk-load", "sorted bulk load, 10,000 a transaction", (Target(1, SQLITE),), "row/s"),
    Row(
        "as-of",
        "embedded as_of, 12,000 versions of one policy",
        (Target(1, unit="milliseconds", at_most=True, measure="p99"),),
        "call/s",
    ),
    Row(
        "as-of-known",
        "embedded as_of with known_at, 12,000 versions",
        unit="call/s",
    ),
)

TCP = (
    Row("tcp-get-node", "TCP get_node, 16 callers", (Target(2, POSTGRES),), "call/s"),
    Row("tcp-get-node-16", "TCP get_node, 16 callers with a connection each", unit="call/s"),
    Row(
        "tcp-subtree",
        "TCP get_subtree depth 3, about 600 nodes",
        (Target(3, POSTGRES, 5), Target(50, unit="milliseconds", at_most=True, measure="p99")),
        "call/s",
    ),
    Row(
        "tcp-enriched",
        "TCP get_enriched: 600 nodes, 600 references, 30 contradictions",
        (Target(3, POSTGRES),),
        "call/s",
    ),
    Row("tcp-ancestors", "TCP get_ancestor_path, 16 callers", (Target(2, POSTGRES),), "call/s"),
    Row(
        "tcp-ancestors-16",
        "TCP get_ancestor_path, 16 callers with a connection each",
        unit="call/s",
    ),
    Row("tcp-as-of", "TCP as_of, 12,000 versions, 16 callers", (Target(3, POSTGRES),), "call/s"),
    Row("tcp-as-of-16", "TCP as_of, 16 callers with a connection each", unit="call/s"),
    Row("tcp-put", "TCP durable puts, 64 callers", (Target(2.5, POSTGRES, 4),), "put/s"),
    Row("tcp-put-64", "TCP durable puts, 64 callers with a connection each", unit="put/s"),
    Row(
        "tcp-transaction",
        "TCP serialisable read-modify-write transactions, 16 callers",
        (Target(2, POSTGRES),),
        "transaction/s",
    ),
    Row(
        "tcp-transaction-16",
        "TCP serialisable read-modify-write transactions, 16 callers with a connection each",
        unit="transaction/s",
    ),
    Row(
        "tcp-latency",
        "TCP get_node, one caller: median latency",
        (Target(1.5, POSTGRES, 1.2, at_most=True),),
        "call/s",
    ),
    Row("tcp-pipelined", "TCP pipelined gets, 64 in flight", (Target(0.5, ECHO),), "get/s"),
)

DOCUMENTS = (
    Row(
        "insert-many",
        "collection with two indexes, 1,000 documents a call, durable",
        (Target(1, SQLITE),),
        "document/s",
    ),
    Row(
        "insert-100",
        "the same, single documents, durable, 100 concurrent tasks",
        (Target(8, SQLITE),),
        "document/s",
    ),
    Row("document-get", "document by id", (Target(2, SQLITE),), "get/s"),
)

QUERIES = (
    Row("query-equality", "indexed equality, 10 documents", (Target(1, SQLITE),), "query/s"),
    Row(
        "query-ordered",
        "indexed range, sorted, the first 20 documents",
        (Target(1, SQLITE),),
        "query/s",
    ),
    Row("query-unindexed", "unindexed filter, counted", (Target(0.5, SQLITE),), "document/s"),
)

LAW = Row(
    "law",
    "the D.C. Code as one document",
    (
        Target(20, unit="seconds", at_most=True, measure="stored in"),
        Target(10, unit="milliseconds", at_most=True, measure="get_node p99 after"),
        Target(1024, unit="mebibytes", at_most=True, measure="process memory"),
        Target(50, unit="milliseconds", at_most=True, measure="others' get_node p99"),
    ),
    "get_node/s",
)

LOOP = Row(
    "event-loop",
    "event loop under mixed load",
    (Target(5, unit="milliseconds", at_most=True, measure="step p99.9"),),
    "step/s",
)

RECOVERY = Row(
    "recovery",
    "opening after a crash, log full of small transactions",
    (
        Target(10, unit="seconds", at_most=True, measure="opened in"),
        Target(1536, unit="mebibytes", at_most=True, measure="peak memory"),
    ),
    "transaction/s",
)

SEARCH = Row(
    "search",
    "full-text search of the D.C. Code, three words, top 10",
    (
        Target(50, measure="median is less by"),
        Target(10, unit="milliseconds", at_most=True, measure="p99"),
        Target(50, unit="milliseconds", at_most=True, measure="strong search after a write p50"),
    ),
    "search/s",
)

UNOBSERVED = "TreeStore without"

OBSERVED = (
    Row(
        "observed-get",
        "TCP pipelined gets with metrics and log, against without",
        (Target(0.95, UNOBSERVED),),
        "get/s",
    ),
    Row(
        "observed-put",
        "TCP durable puts with metrics and log, against without",
        (Target(0.95, UNOBSERVED),),
        "put/s",
    ),
)

ALL = (*EMBEDDED, *TCP, *DOCUMENTS, *QUERIES, LAW, LOOP, RECOVERY, SEARCH, *OBSERVED)
