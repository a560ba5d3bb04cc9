"""What is to be done about the segments of a namespace: decided here, done by the keeper.

Sizes form tiers: a segment is of tier 0 up to the rows of a seal, of tier 1 up to `FANOUT` times
that, and so on. `FANOUT` segments of one tier become one of the next; so a row is written again
about once a tier, and a query meets a few segments a tier at most. One of which many rows are dead
is written again by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from treestore.stores.access import Read
from treestore.stores.keys import unpack_one
from treestore.stores.namespaces import catalog
from treestore.stores.namespaces.catalog import NamespaceRecord, Opened
from treestore.stores.namespaces.imports import all_imports
from treestore.stores.namespaces.layout import AFTER, FIRST_NAMESPACE, Space
from treestore.stores.namespaces.manifests import manifests

FANOUT: Final = 4

DEAD_SHARE_MAX: Final = 0.3
"""With more dead rows than this a segment is written again."""


@attrs.frozen(kw_only=True)
class UpkeepOptions:
    """Sizes of segments.

    Attributes:
        seal_rows: a tail of this many rows is sealed.
        seal_rows_max: at most so many at a time.
        segment_rows_max: no larger segment is made of several.
        cache_size_bytes: what views of namespaces may take together, mapped files included, before
            those go that were asked for longest ago.
    """

    seal_rows: int = 8192
    seal_rows_max: int = 131_072
    segment_rows_max: int = 1 << 20
    cache_size_bytes: int = 2 << 30


@attrs.frozen
class SegmentSize:
    """A segment as the choice sees it."""

    number: int
    rows: int
    dead: int

    @property
    def live(self) -> int:
        """Rows that are not dead."""
        return self.rows - self.dead


def kept(txn: Read) -> Iterator[Opened]:
    """Every namespace that is kept up: those with a name, and what imports store apart."""
    named: dict[str, Opened] = {}
    for key, record in txn.scan(FIRST_NAMESPACE, FIRST_NAMESPACE + AFTER):
        there = catalog.opened(record)
        named[str(unpack_one(key, 1)[0])] = there
        yield there
    for name, its in all_imports(txn):
        there_too = named.get(name)
        if its.staging is not None and there_too is not None:
            yield staged(there_too, its.staging)


def staged(there: Opened, number: int) -> Opened:
    """A namespace whose documents are under another number."""
    its = there.record
    return Opened(NamespaceRecord(number, its.schema, its.created_at, its.updated_at))


def tail_is_long(txn: Read, number: int, rows: int) -> bool:
    """Whether a tail has as many rows; reads no more than that takes."""
    prefix = Space(number).tail
    found = 0
    for keys in txn.key_batches(prefix, prefix + AFTER):
        found += len(keys)
        if found >= rows:
            return True
    return False


def sizes(txn: Read, number: int) -> list[SegmentSize]:
    """The segments of a namespace, the oldest first, as if no row were dead: a look at the
    manifests."""
    return [SegmentSize(segment, its.rows, 0) for segment, its in manifests(txn, number)]


def choose_merge(all_: Sequence[SegmentSize], options: UpkeepOptions) -> list[int]:
    """The segments to make one of; empty where there is nothing to do."""
    for one in all_:
        if one.dead > DEAD_SHARE_MAX * one.rows:
            return [one.number]
    tiers: dict[int, list[SegmentSize]] = {}
    for one in all_:
        tiers.setdefault(_tier(one.live, options.seal_rows), []).append(one)
    for tier in sorted(tiers):
        chosen: list[SegmentSize] = []
        for one in sorted(tiers[tier], key=lambda its: its.live):
            if sum(its.live for its in chosen) + one.live <= options.segment_rows_max:
                chosen.append(one)
        if len(chosen) >= FANOUT:
            return [one.number for one in chosen]
    return []


def _tier(rows: int, seal_rows: int) -> int:
    return max(0, math.ceil(math.log(max(rows, 1) / seal_rows, FANOUT) - 1e-9))
