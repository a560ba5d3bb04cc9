"""Queries over collections: find, scan, count, distinct, group, explain.

See docs/collection-queries.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import attrs

from treestore.errors import InvalidArgument
from treestore.model.page import Page
from treestore.model.plans import Explanation, Group, PlanStep
from treestore.query import Filter, compile
from treestore.query.aggregation import Distinct, Groups, parse_grouping
from treestore.query.ordering import IndexInfo
from treestore.query.partial import decoder_of
from treestore.query.planner import Access, Plan, Task, conditions_of, plan
from treestore.query.projection import Projection, parse_fields
from treestore.query.quick import read_quickly
from treestore.query.sorting import Order, parse_path, parse_sort
from treestore.stores.access import Read
from treestore.stores.collections import catalog
from treestore.stores.collections.catalog import Opened
from treestore.stores.collections.executing import Execution, Found
from treestore.stores.collections.layout import Document, decode_document, entries_prefix
from treestore.stores.collections.prepared import WANTED_MAX, Shape, prepare, shape_of
from treestore.stores.json_values import encode
from treestore.stores.records.fields import LIMIT_MAX, to_count, to_count_or_none
from treestore.stores.records.listing import Cursors

OFFSET_MAX: Final = 1_000_000
"""Documents that a query passes over at most."""

PAGE_SIZE_BYTES_MAX: Final = 16 << 20
"""A page that has grown to so many bytes ends, whatever its limit."""

_JOINED: Final = 100
_JOINED_SIZE_BYTES: Final = 64 << 10
"""So many documents, if they are short, are decoded in one call; more would take too long for one
that nobody can interrupt."""

_DOCUMENTS: Final = list[dict[str, Any]]

DISTINCT_SIZE_BYTES_MAX: Final = 32 << 20
"""Memory that different values may take."""

Sort = str | Sequence[Any] | Mapping[str, Any]
"""``"age"``, ``"-age"`` (descending), a list of these or of pairs, or a dict of name to ±1."""

Fields = str | Sequence[str] | Mapping[str, Any]
"""The paths to give, or a dict of path to 1 (only these) or 0 (all but these)."""


@attrs.define(eq=False)  # Never changed; frozen ones take three times as long to make.
class Query:
    """Filter and order of a query, understood.

    Attributes:
        source: what they were understood from; not kept where it could change.
    """

    filter: Filter
    order: Order
    source: tuple[Any, Any]
    _key: bytes = b""

    @property
    def key(self) -> bytes:
        """The same for the same query, another one for others."""
        if not self._key:
            self._key = _key_of(*self.source) or ascii(self.source).encode()
        return self._key


def _key_of(filter: Any, sort: Any) -> bytes:
    """Nothing where it cannot be encoded."""
    try:
        return encode((filter or {}, sort))
    except (TypeError, UnicodeEncodeError, OverflowError, RecursionError, ValueError):
        return b""


_queries: dict[bytes, Query] = {}
_QUERIES_KEPT: Final = 64
_QUERY_SIZE_BYTES_KEPT: Final = 10_000

_NO_ORDER: Final = Order()
_order_of: Final = lru_cache(maxsize=256)(parse_sort)


def _understood(filter: Any, sort: Any) -> Query:
    """The query; those of late are remembered."""
    if filter is not None and not isinstance(filter, dict):
        raise InvalidArgument(
            f"filter is an object of conditions (a dict), not {type(filter).__name__}."
        )
    if sort is None or sort.__class__ is str:
        quickly = read_quickly(filter)
        if quickly is not None:
            # Sooner done than remembered: many of its kind differ in their values.
            order = _NO_ORDER if sort is None else _order_of(sort)
            return Query(Filter(quickly), order, (filter, sort))
    key = _key_of(filter, sort)
    query = _queries.get(key)
    if query is None or not key:
        key_or_text = key or ascii((filter, sort)).encode()
        query = Query(compile(filter), parse_sort(sort), (None, None), key_or_text)
        if key and len(key) < _QUERY_SIZE_BYTES_KEPT:
            if len(_queries) >= _QUERIES_KEPT:
                # Another thread may do the same.
                _queries.pop(next(iter(tuple(_queries)), b""), None)
            _queries[key] = query
    return query


def _planned(
    txn: Read,
    collection: Opened,
    query: Query,
    *,
    any_order: bool = False,
    count: int | None = None,
    counted_only: bool = False,
    thoroughly: bool = False,
) -> tuple[Plan, list[Plan]]:
    def estimate(index: IndexInfo | None, low: bytes, high: bytes) -> int:
        prefix = collection.documents if index is None else entries_prefix(index.id)
        return txn.estimate(prefix + low, prefix + high)

    task = Task(
        conditions=conditions_of(query.filter.expression),
        order=None if any_order else query.order,
        count=count,
        counted_only=counted_only,
    )
    return plan(task, collection.infos, estimate, thoroughly=thoroughly)


def _items(txn: Read, projection: Projection | None, found: list[Found]) -> list[Any]:
    """Documents as the one part of an answer."""
    if projection is None and 1 < len(found) <= _JOINED:
        records = b"".join([record for _, record in found])
        if len(records) < _JOINED_SIZE_BYTES:
            return txn.load(_DOCUMENTS, b"\xdc" + len(found).to_bytes(2, "big") + records)
    return _shapes(txn, projection, found)


def _shapes(txn: Read, projection: Projection | None, found: list[Found]) -> list[Any]:
    """Documents as parts of an answer each."""
    if projection is None:
        load = txn.load
        return [load(dict, record) for _, record in found]
    return [projection.apply(decode_document(record)) for _, record in found]


# --- documents -------------------------------------------------------------------------------


def find(
    txn: Read,
    name: str,
    filter: dict[str, Any] | None = None,
    *,
    sort: Sort | None = None,
    limit: int | None = None,
    offset: int = 0,
    cursor: str | None = None,
    fields: Fields | None = None,
) -> Page[dict[str, Any]]:
    """Documents that satisfy a filter, in an order. See docs/collection-queries.md.

    Args:
        filter: MongoDB's operators, docs/filters.md; None: all documents.
        sort: ``"year"``, ``"-year"`` (descending), ``["-year", "name"]`` or
            ``{"year": -1, "name": 1}``; equal ones by id. None: by id.
        limit: at most this many, 1 to 10,000; None: 10,000. A page also ends at 16 MiB. As long as
            there is a ``next_cursor``, others follow.
        offset: pass over so many first, up to 1,000,000; not counted again with a cursor. Costs
            what they cost: page with cursors.
        cursor: ``next_cursor`` of the page before, for the same filter and sort. It stays good
            while others write: what is not changed meanwhile is given once.
        fields: paths to give (the id is always given), ``["name", "address.city"]`` or
            ``{"name": 1}``; or to leave out: ``["-text"]`` or ``{"text": 0}``. None: all.

    Raises:
        NotFound: there is no such collection.
        InvalidArgument: filter, sort, fields or cursor are wrong; the message says where.
        ResourceExhausted: sorting takes too much memory; an index on the fields, or a limit, helps.
    """
    to_count_or_none(limit, "limit", 1, LIMIT_MAX)
    skip = to_count(offset, "offset", 0, OFFSET_MAX)
    projection = parse_fields(fields)
    wanted = limit or LIMIT_MAX
    known = None
    if wanted <= WANTED_MAX and cursor is None and not skip:
        known = shape_of(filter, sort)
        if known is not None:
            page = _prepared_page(txn, name, (filter, sort), known, wanted, projection)
            if page is not None:
                return page
    query = _understood(filter, sort)
    collection = catalog.require(txn, name)
    cursors = Cursors(("find", collection.id, query.key))
    after = None
    if cursor is not None:
        after, skip = cursors.position(cursor), 0
        _check_position(after, query.order)
    count = skip + wanted + 1
    chosen, _ = _planned(txn, collection, query, count=count)
    if known is not None:
        prepare(collection, known, query.filter.expression, chosen)
    run = Execution(txn, collection, query.filter, chosen, query.order, after=after, count=count)
    found, more = _page(_behind(run, skip) if skip else run.found(), wanted)
    items = _items(txn, projection, found)
    return Page(items, cursors.after(run.position(found[-1])) if more else None)


def _prepared_page(
    txn: Read,
    name: str,
    source: tuple[Any, Any],
    known: tuple[Shape, list[Any]],
    wanted: int,
    projection: Projection | None,
) -> Page[dict[str, Any]] | None:
    """The first page of a query whose shape was planned before; None where that does not do.

    Args:
        source: filter and sort.
        known: the shape and its values.
    """
    collection = catalog.require(txn, name)
    shape, values = known
    prepared = collection.prepared.get(shape)
    first = None
    if prepared is not None:
        first = prepared.first(txn, values, wanted, PAGE_SIZE_BYTES_MAX)
    if first is None:
        return None
    found, more = first
    next_cursor = None
    if more:
        query = _understood(*source)
        packed_id, record = found[-1]
        order = query.order
        position = order.position_of()(decoder_of(order.names)(record), packed_id)
        next_cursor = Cursors(("find", collection.id, query.key)).after(position)
    return Page(_items(txn, projection, found), next_cursor)


def _page(batches: Iterator[list[Found]], wanted: int) -> tuple[list[Found], bool]:
    """The first documents, and whether others follow."""
    page: list[Found] = []
    size_bytes = 0
    for batch in batches:
        if len(page) + len(batch) <= wanted:
            more_bytes = sum([len(record) for _, record in batch])
            if size_bytes + more_bytes < PAGE_SIZE_BYTES_MAX:
                page += batch
                size_bytes += more_bytes
                continue
        for found in batch:
            if len(page) == wanted or (page and size_bytes >= PAGE_SIZE_BYTES_MAX):
                return page, True
            page.append(found)
            size_bytes += len(found[1])
    return page, False


def _behind(run: Execution, skip: int) -> Iterator[list[Found]]:
    for batch in run.found():
        if skip < len(batch):
            yield batch[skip:] if skip else batch
        skip = max(skip - len(batch), 0)


def _check_position(after: bytes, order: Order) -> None:
    """A cursor with the right checksum was made by somebody who means no good, or is fine."""
    try:
        order.check_position(after)
    except ValueError:
        raise InvalidArgument("The cursor is none that a query gave; start without one.") from None


def scan(
    txn: Read,
    name: str,
    filter: dict[str, Any] | None = None,
    *,
    sort: Sort | None = None,
    limit: int | None = None,
    fields: Fields | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Every document that satisfies a filter, one after the other, all of one snapshot.

    Args:
        filter: see `find`.
        sort: see `find`. None: in whatever order is quickest.
        limit: at most this many; None: all.
        fields: see `find`.

    Raises:
        SnapshotExpired: it took so long that its snapshot was evicted; begin again.
        NotFound, InvalidArgument, ResourceExhausted: see `find`.
    """
    to_count_or_none(limit, "limit", 0, 1 << 62)
    query, projection = _understood(filter, sort), parse_fields(fields)
    collection = catalog.require(txn, name)
    any_order = sort is None
    chosen, _ = _planned(txn, collection, query, any_order=any_order, count=limit)
    order = None if any_order else query.order
    run = Execution(txn, collection, query.filter, chosen, order, count=limit)
    return _scanned(txn, run, projection, limit)


def _scanned(
    txn: Read, run: Execution, projection: Projection | None, limit: int | None
) -> Iterator[list[dict[str, Any]]]:
    left = limit
    if left == 0:
        return
    for batch in run.found():
        some = batch
        if left is not None:
            some = batch[:left]
            left -= len(some)
        yield _shapes(txn, projection, some)
        if left == 0:
            return


# --- numbers ---------------------------------------------------------------------------------


def count(txn: Read, name: str, filter: dict[str, Any] | None = None) -> int:
    """How many documents satisfy a filter. An index that answers all of it is only gone over.

    Raises:
        NotFound, InvalidArgument: see `find`.
    """
    query = _understood(filter, None)
    collection = catalog.require(txn, name)
    chosen, _ = _planned(txn, collection, query, any_order=True, counted_only=True)
    return sum(Execution(txn, collection, query.filter, chosen, None).counted())


def distinct(txn: Read, name: str, field: str, filter: dict[str, Any] | None = None) -> list[Any]:
    """The different values at a path among documents that satisfy a filter, in their order.

    Elements of lists count each for itself. A number is given once, be it an int or a float.

    Raises:
        ResourceExhausted: there are too many of them.
        NotFound, InvalidArgument: see `find`.
    """
    path = parse_path(field, "field")
    values = Distinct(path, DISTINCT_SIZE_BYTES_MAX)
    for document in _documents(txn, name, filter, frozenset(path[:1])):
        values.add(document)
    return values.results()


def group(
    txn: Read,
    name: str,
    by: str | Sequence[str] | None,
    aggregates: dict[str, Any],
    filter: dict[str, Any] | None = None,
) -> list[Group]:
    """Documents that satisfy a filter, grouped by values, and what is calculated of each group.

    Args:
        by: a path or a list of paths; None: all documents are one group.
        aggregates: names, and what to calculate: ``{"$count": {}}``, ``{"$sum": path}``, ``$avg``,
            ``$min``, ``$max``; ``{"$count": path}`` counts documents that have a value there.
        filter: see `find`.

    Returns:
        The groups in the order of their values.

    Raises:
        ResourceExhausted: there are more than 100,000 groups.
        NotFound, InvalidArgument: see `find`.
    """
    grouping = parse_grouping(by, aggregates)
    groups = Groups(grouping)
    for document in _documents(txn, name, filter, grouping.names):
        groups.add(document)
    return groups.results()


def matching(txn: Read, collection: Opened, filter: dict[str, Any]) -> Iterator[Found]:
    """The packed ids and records of the documents that satisfy a filter, in any order."""
    for batch in _any_order(txn, collection, _understood(filter, None)).found():
        txn.spend(len(batch))
        yield from batch


def _any_order(txn: Read, collection: Opened, query: Query) -> Execution:
    chosen, _ = _planned(txn, collection, query, any_order=True)
    return Execution(txn, collection, query.filter, chosen, None)


def _documents(
    txn: Read, name: str, filter: dict[str, Any] | None, names: frozenset[str]
) -> Iterator[Document]:
    """Documents, as far as these fields go, in any order."""
    query = _understood(filter, None)
    run = _any_order(txn, catalog.require(txn, name), query)
    decode = decoder_of(names)
    for batch in run.found():
        txn.spend(len(batch))
        for packed_id, record in batch:
            document = decode(record)
            if "_id" in names:
                document = run.with_id(document, packed_id)
            yield document


# --- plans -----------------------------------------------------------------------------------


def explain(
    txn: Read,
    name: str,
    filter: dict[str, Any] | None = None,
    *,
    sort: Sort | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> Explanation:
    """How `find` answers a query: it is run, and what it did is told instead of what it found.

    Raises:
        NotFound, InvalidArgument, ResourceExhausted: see `find`.
    """
    to_count_or_none(limit, "limit", 1, LIMIT_MAX)
    skip = to_count(offset, "offset", 0, OFFSET_MAX)
    query = _understood(filter, sort)
    collection = catalog.require(txn, name)
    wanted = limit or LIMIT_MAX
    number = skip + wanted + 1
    chosen, others = _planned(txn, collection, query, count=number, thoroughly=True)
    run = Execution(txn, collection, query.filter, chosen, query.order, count=number)
    rows = len(_page(_behind(run, skip), wanted)[0])
    return Explanation(
        plan=_step(chosen),
        rejected=tuple(map(_step, others)),
        rows=rows,
        entries_examined=run.entries,
        documents_examined=run.documents,
    )


def _step(of: Plan) -> PlanStep:
    return PlanStep(
        access=of.access.kind,
        indexes=tuple(_names(of.access)),
        ranges=_ranges(of.access),
        reverse=of.reverse,
        check=of.check,
        sort=not of.ordered,
        estimated_entries=of.access.entries,
        estimated_rows=round(of.rows),
        cost=round(of.cost, 1),
    )


def _names(access: Access) -> Iterator[str]:
    if access.index is not None:
        yield access.index.name
    for part in access.parts:
        yield from _names(part)


def _ranges(access: Access) -> int:
    return len(access.ranges) + sum(map(_ranges, access.parts))
