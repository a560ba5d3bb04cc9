"""What the runs of each tool came to, kept by tool and day.

A row of ``TOOL_STATISTICS tool day`` counts the runs of one UTC day and holds their latencies as a
`Sketch`. It is written with each result, so statistics cost as many rows as there are days in the
period, however many results there were.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec

from treestore.model.metadata import ToolStats
from treestore.model.page import Page
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import AFTER, packed_name
from treestore.stores.json_values import encode
from treestore.stores.keys import Keyspace, pack, successor, unpack_one
from treestore.stores.records.fields import LIMIT_MAX, to_count
from treestore.stores.records.ids import moment_of
from treestore.stores.records.listing import Cursors
from treestore.stores.records.moments import Moment, days_of
from treestore.stores.records.sketch import Sketch


class Row(msgspec.Struct, array_like=True):
    """One tool on one day, or on several together."""

    count: int = 0
    success_count: int = 0
    latencies: Sketch = msgspec.field(default_factory=Sketch)

    def add(self, success: bool, latency_ms: float | None, times: int) -> None:
        """Count a run, or with ``times`` of -1 take it out."""
        self.count += times
        self.success_count += success * times
        if latency_ms is not None:
            self.latencies.add(latency_ms, times)

    def merge(self, other: Row) -> None:
        """Count everything that ``other`` has."""
        self.count += other.count
        self.success_count += other.success_count
        self.latencies.merge(other.latencies)


decode_row = msgspec.msgpack.Decoder(Row).decode


def day_of(tool_result_id: str) -> date:
    """The day that a result counts for."""
    return moment_of(tool_result_id).date()


def row_key(tool_name: str, day: date) -> bytes:
    """Where a tool's row of one day is."""
    return Keyspace.TOOL_STATISTICS + packed_name("tool_name", tool_name) + pack(day)


def count(
    txn: Write, tool_name: str, day: date, success: bool, latency_ms: float | None, times: int
) -> None:
    """Count a run, or with ``times`` of -1 take it out."""
    key = row_key(tool_name, day)
    record = txn.get(key)
    row = Row() if record is None else decode_row(record)
    row.add(success, latency_ms, times)
    if row.count:
        txn.put(key, encode(row))
    else:
        txn.delete(key)


def tool_stats(
    txn: Read,
    *,
    tool_name: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    limit: int = 1000,
    cursor: str | None = None,
) -> Page[ToolStats]:
    """How often each tool was run, with what success and how quickly, by tool name.

    Kept up to date as results are stored: the cost is that of a row for each tool and day of the
    period, however many results there are. Counts and means are exact, percentiles within 1 %.

    Args:
        tool_name: only this tool.
        since: from this day on (UTC); of a time, its whole day counts.
        until: to this day, likewise.
        limit: at most this many tools, 1 to 10,000.
        cursor: ``next_cursor`` of the page before.
    """
    to_count(limit, "limit", 1, LIMIT_MAX)
    first, last = days_of(since, until)
    space = Keyspace.TOOL_STATISTICS
    start, end = space, successor(space)
    if tool_name is not None:
        start = space + packed_name("tool_name", tool_name)
        end = start + AFTER
    cursors = Cursors(("tool_stats", tool_name))
    if cursor is not None:
        start = max(start, space + cursors.position(cursor) + AFTER)
    items: list[ToolStats] = []
    at = start
    position = b""
    while True:
        found = next(txn.cursor(at, end), None)
        if found is None:
            return Page(items, None)
        if len(items) == limit:
            return Page(items, cursors.after(position))
        name, after = unpack_one(found[0], 1)
        position = found[0][1:after]
        tool = found[0][:after]
        stats = _total(txn, tool, str(name), first, last)
        if stats is not None:
            items.append(stats)
        at = tool + AFTER


def _total(txn: Read, tool: bytes, name: str, first: date, last: date) -> ToolStats | None:
    """A tool's rows together; None where there is none in the period."""
    total = Row()
    days: list[Any] = []
    for key, record in txn.scan(tool + pack(first), tool + pack(last) + AFTER):
        txn.spend(2 + len(record) // 40)
        total.merge(decode_row(record))
        days.append(unpack_one(key, len(tool))[0])
    if not days:
        return None
    latencies = total.latencies
    p50, p90, p99, longest = latencies.percentiles_ms(0.5, 0.9, 0.99, 1)
    return ToolStats(
        tool_name=name,
        count=total.count,
        success_count=total.success_count,
        success_rate=total.success_count / total.count,
        latency_count=latencies.count,
        latency_mean_ms=latencies.mean_ms,
        latency_p50_ms=p50,
        latency_p90_ms=p90,
        latency_p99_ms=p99,
        latency_max_ms=longest,
        first_day=days[0],
        last_day=days[-1],
    )
