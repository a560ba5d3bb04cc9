"""A group: the transactions that become durable together, with one write and one sync."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from treestore.engine.freespace import Retired
from treestore.engine.log import Transaction
from treestore.engine.node import Large, Ref

Superseded = tuple[Ref | Large, int]
"""A reference that a transaction no longer needs, and its commit number of birth."""


def retired_pages(published: Iterable[tuple[list[Superseded], int]]) -> Iterator[Retired]:
    """The pages of what groups superseded, and when: references without a page have none."""
    for superseded, died in published:
        for ref, born in superseded:
            if isinstance(ref, Large):
                for start, pages, _ in ref.extents:
                    yield Retired(born, died, start, pages)
            elif ref.page:
                yield Retired(born, died, ref.page, 1)


@attrs.define(eq=False)
class Group:
    """What was committed since the last group was sealed; owned by whoever sealed it."""

    transactions: list[Transaction]
    superseded: list[Superseded]
    root: Ref
    number: int
    count: int
    size_bytes: int
    """Payload bytes for the log."""
    dirty_pages: int
    """About how many more pages the next checkpoint must write because of it."""
    frees: bool = False
    """Whether every transaction frees space: then the log's reserve is there for it."""
