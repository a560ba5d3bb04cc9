"""Reading documents by their ids, all of them in order, and numbers about them."""

from __future__ import annotations

from typing import Any, Final

from treestore.errors import InvalidArgument
from treestore.model.namespaces import NamespaceDocument
from treestore.model.page import Page
from treestore.model.plans import Group
from treestore.query.aggregation import Grouping, Groups, parse_grouping
from treestore.stores.access import Read
from treestore.stores.namespaces import catalog
from treestore.stores.namespaces.catalog import Opened
from treestore.stores.namespaces.filters import ID, check_filterable, compile_filter
from treestore.stores.namespaces.layout import (
    packed_id,
    packed_row,
    row_of,
    unpacked_id,
    with_vector,
)
from treestore.stores.namespaces.scanning import attributes_decoder, documents, matching
from treestore.stores.records.fields import LIMIT_MAX, to_count, to_flag
from treestore.stores.records.listing import Cursors

IDS_MAX: Final = 10_000
"""Documents that `get` gives at most."""

PAGE_SIZE_BYTES_MAX: Final = 16 << 20
"""A page that has grown to so many bytes ends, whatever its limit."""


def get(
    txn: Read, name: str, ids: list[int | str], *, include_vector: bool = False
) -> list[NamespaceDocument]:
    """Documents by their ids, in the order asked; ids without a document are left out.

    Args:
        ids: at most 10,000.
        include_vector: whether they come with their vectors.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: an id is none.
    """
    to_flag(include_vector, "include_vector")
    if not isinstance(ids, list | tuple):
        raise InvalidArgument(f"ids is a list, not {type(ids).__name__}.")
    if len(ids) > IDS_MAX:
        raise InvalidArgument(f"{len(ids)} ids are asked for; at most {IDS_MAX} at a time.")
    there = catalog.require(txn, name)
    found: list[NamespaceDocument] = []
    for id in ids:
        record = txn.get(there.space.documents + packed_id(id))
        if record is not None:
            whole = _with_its_vector(txn, there, record) if include_vector else record
            found.append(txn.load(NamespaceDocument, whole))
    return found


def _with_its_vector(txn: Read, there: Opened, record: bytes) -> bytes:
    vector = txn.get(there.space.vectors + packed_row(row_of(record)))
    return with_vector(record, vector or b"")


def export(
    txn: Read,
    name: str,
    cursor: str | None = None,
    *,
    limit: int = 1000,
    include_vector: bool = True,
) -> Page[NamespaceDocument]:
    """All documents, in the order of their ids: strings by code points, then ints.

    Args:
        cursor: ``next_cursor`` of the page before. It stays good while others write: what is not
            changed meanwhile is given once. Page in a snapshot to have all of one state.
        limit: at most this many, 1 to 10,000. A page also ends at 16 MiB.
        include_vector: whether they come with their vectors.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: the cursor is none.
    """
    to_count(limit, "limit", 1, LIMIT_MAX)
    to_flag(include_vector, "include_vector")
    there = catalog.require(txn, name)
    cursors = Cursors(("namespaces.export", there.number))
    after = b"" if cursor is None else cursors.position(cursor)
    items: list[NamespaceDocument] = []
    size_bytes = 0
    last = b""
    for batch in documents(txn, there, after=after):
        for packed, record in batch:
            if len(items) == limit or size_bytes >= PAGE_SIZE_BYTES_MAX:
                return Page(items, cursors.after(last))
            whole = _with_its_vector(txn, there, record) if include_vector else record
            items.append(txn.load(NamespaceDocument, whole))
            size_bytes += len(whole)
            last = packed
    return Page(items, None)


def count(txn: Read, name: str, filter: dict[str, Any] | None = None) -> int:
    """How many documents there are, or satisfy a filter.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: the filter does not fit the schema.
    """
    there = catalog.require(txn, name)
    _check_filter(filter)
    compiled = compile_filter(filter, there.schema)
    if compiled.everything:
        return catalog.count_keys(txn, there.space.documents)
    return sum(map(len, matching(txn, there, compiled)))


def _check_filter(filter: Any) -> None:
    if filter is not None and not isinstance(filter, dict):
        raise InvalidArgument(
            f"filter is an object of conditions (a dict), not {type(filter).__name__}."
        )


def aggregate(
    txn: Read,
    name: str,
    aggregates: dict[str, Any],
    *,
    by: str | list[str] | None = None,
    filter: dict[str, Any] | None = None,
) -> list[Group]:
    """What is calculated of all documents, or of those that satisfy a filter, in groups.

    Args:
        aggregates: names, and what to calculate: ``{"$count": {}}``, ``{"$sum": "price"}``,
            ``$avg``, ``$min``, ``$max``; ``{"$count": "price"}`` counts documents that have it.
        by: a filterable attribute, or a list of them; documents with equal values are a group.
            None: all are one group.
        filter: docs/filters.md.

    Returns:
        The groups in the order of their values; null is the value of those that have none.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: an attribute is unknown or not filterable, or the filter is wrong.
        ResourceExhausted: there are more than 100,000 groups.
    """
    there = catalog.require(txn, name)
    _check_filter(filter)
    grouping = grouping_of(there, aggregates, by)
    names = grouping.names
    groups = Groups(grouping)
    decode = attributes_decoder(names)
    for batch in matching(txn, there, compile_filter(filter, there.schema)):
        txn.spend(len(batch))
        for packed, record in batch:
            attributes = decode(record)
            if ID in names:
                attributes[ID] = unpacked_id(packed)
            groups.add(attributes)
    return groups.results()


def grouping_of(there: Opened, aggregates: Any, by: Any) -> Grouping:
    """What to calculate, checked against the schema.

    Raises:
        InvalidArgument: it is nothing that can be.
    """
    grouping = parse_grouping(by, aggregates)
    for path in [path for _, path in grouping.by] + [
        path for _, _, path in grouping.aggregates if path is not None
    ]:
        check_filterable(".".join(path), there.schema, "aggregate")
    return grouping
