"""What queries of collections say of themselves, and groups."""

from __future__ import annotations

from typing import Any, Literal

import attrs

AccessKind = Literal["scan", "ids", "index", "intersection"]


@attrs.frozen(kw_only=True)
class PlanStep:
    """A way to find the documents of a query, and what it was thought to cost.

    Attributes:
        access: "scan" of all documents, "ids" (look-ups by id), "index", or "intersection" of two.
        indexes: names of the indexes that are used.
        ranges: stretches of them, or of ids, that are gone through.
        reverse: whether from the end.
        check: whether each document is checked against the filter; False where the index says
            enough.
        sort: whether documents are sorted in memory; False where they come in order.
        estimated_entries: about how many entries, or documents, lie in the ranges.
        estimated_rows: about how many documents satisfy the filter.
        cost: what it was thought to take, in microseconds.
    """

    access: AccessKind
    indexes: tuple[str, ...] = ()
    ranges: int = 1
    reverse: bool = False
    check: bool = True
    sort: bool = False
    estimated_entries: int = 0
    estimated_rows: int = 0
    cost: float = 0.0


@attrs.frozen(kw_only=True)
class Explanation:
    """How a query is answered.

    Attributes:
        plan: what was chosen.
        rejected: what else was thought of, the cheapest first.
        rows: documents that the query gives.
        entries_examined: entries of indexes that were looked at.
        documents_examined: documents that were looked at.
    """

    plan: PlanStep
    rejected: tuple[PlanStep, ...] = ()
    rows: int = 0
    entries_examined: int = 0
    documents_examined: int = 0


@attrs.frozen(kw_only=True)
class Group:
    """Documents that have something in common.

    Attributes:
        by: a path → the value that they have there; None also where they have none.
        values: an aggregate's name → what came out.
    """

    by: dict[str, Any]
    values: dict[str, Any]
