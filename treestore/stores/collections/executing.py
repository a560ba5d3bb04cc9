"""Runs a plan: candidates from an access path, checked and put in order.

Everything is a generator of lists, empty ones included, each of which is little work, so that
whoever draws from it can pause. What is drawn is in the query's order and lies behind ``after``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from treestore.errors import CorruptionError, ResourceExhausted
from treestore.query.bounds import BEHIND
from treestore.query.filter import Filter
from treestore.query.ordering import CUT_MARK, end_of, tails
from treestore.query.partial import Document, decoder_of, names_in, weight_of
from treestore.query.planner import Access, Plan
from treestore.query.sorting import (
    EMPTY_LIST,
    ID,
    SORT_SIZE_BYTES_MAX,
    SORT_VALUE_SIZE_BYTES_MAX,
    Order,
    Sorter,
    inverted,
)
from treestore.stores.access import Read
from treestore.stores.collections.catalog import Opened
from treestore.stores.collections.layout import entries_prefix, unpacked_id

Found = tuple[bytes, bytes]
"""A packed id and the document's record."""

BYTES_PER_LOOKUP: Final = 2000
"""Going over so much of a record takes as long as a look-up."""

_ID_OVERHEAD: Final = 120
"""Memory of an id in a set beside its bytes."""

_ENTRIES_AT_ONCE: Final = 24
"""Entries that are taken apart between two pauses."""

_FETCHED: Final = 64
"""Documents that are looked up between two pauses."""


class Execution:
    """One run of a plan.

    Args:
        order: of what is found; None: any.
        after: only what lies behind this position.
        count: how many are wanted; None: all. More may be given.

    Attributes:
        entries: looked at so far.
        documents: looked at so far.
    """

    def __init__(
        self,
        txn: Read,
        collection: Opened,
        filter: Filter,
        plan: Plan,
        order: Order | None,
        *,
        after: bytes | None = None,
        count: int | None = None,
    ) -> None:
        self.entries = 0
        self.documents = 0
        self._txn = txn
        self._documents = collection.documents
        self._plan = plan
        self._order = order or Order()
        self._after = after
        self._count = count
        self._filter = filter
        self._place: Callable[[bytes, bytes], bytes] | None = None
        self._by_id = False
        if plan.check:
            names = names_in(filter.expression)
            self._decode = decoder_of(names)
            self._by_id = ID in names
            self._weight = weight_of(filter.expression)

    # -- what is found --------------------------------------------------------------------------

    def found(self) -> Iterator[list[Found]]:
        """The documents, in order."""
        plan = self._plan
        if not plan.access.ranges and plan.access.kind != "intersection":
            return iter(())
        if plan.ordered:
            return self._in_order(plan.access)
        if self._order.fields:
            return self._sorted_documents(plan.access)
        return self._sorted_ids(plan.access)

    def counted(self) -> Iterator[int]:
        """How many documents there are, in parts."""
        plan = self._plan
        access = plan.access
        index = access.index
        if plan.check or access.kind == "intersection" or (index is not None and index.multikey):
            for batch in self.found():
                yield len(batch)
        elif access.kind == "ids" and access.fixed:
            for batch in self._by_ids(access):
                yield len(batch)
        else:
            prefix = self._documents if index is None else entries_prefix(index.id)
            for low, high in access.ranges:
                for keys in self._txn.key_batches(prefix + low, prefix + high):
                    if index is not None:
                        self.entries += len(keys)
                    yield len(keys)

    def position(self, found: Found) -> bytes:
        """Where a document stands in the order."""
        place = self._place or self._placed()
        return place(found[1], found[0])

    def _placed(self) -> Callable[[bytes, bytes], bytes]:
        """`position`, of a record and a packed id."""
        decode, position_of = decoder_of(self._order.names), self._order.position_of()
        self._place = lambda record, packed_id: position_of(decode(record), packed_id)
        return self._place

    # -- in the order of the access path --------------------------------------------------------

    def _in_order(self, access: Access) -> Iterator[list[Found]]:
        if access.kind == "scan" or (access.kind == "ids" and not access.fixed):
            return self._scanned(access)
        if access.kind == "ids":
            return self._by_ids(access)
        if access.kind == "intersection":
            return self._fetched(self._intersected(access))
        if self._order.fields and any(p not in access.constants for p, _ in self._order.fields):
            return self._indexed_in_order(access)
        return self._fetched(self._resumed(self._ids(access, self._plan.reverse)))

    def _scanned(self, access: Access) -> Iterator[list[Found]]:
        txn, prefix, at = self._txn, self._documents, len(self._documents)
        reverse, check = self._plan.reverse, self._plan.check
        for low, high in reversed(access.ranges) if reverse else access.ranges:
            start, end = self._behind_after(prefix + low, prefix + high)
            if start >= end:
                continue
            for keys, records in txn.batches(start, end, reverse=reverse):
                self.documents += len(keys)
                pairs = zip(keys, records, strict=True)
                if not check:
                    yield [(key[at:], record) for key, record in pairs]
                    continue
                size_bytes = sum(map(len, records))
                decode, matches = self._decode, self._filter.matches
                txn.spend((len(keys) // 2 + size_bytes // BYTES_PER_LOOKUP) * self._weight)
                if self._by_id:
                    yield [
                        (key[at:], record)
                        for key, record in pairs
                        if matches(self.with_id(decode(record), key[at:]))
                    ]
                else:
                    yield [(key[at:], record) for key, record in pairs if matches(decode(record))]

    def _behind_after(self, start: bytes, end: bytes) -> tuple[bytes, bytes]:
        """A stretch of documents in the order of ids, without what lies before ``after``."""
        after = self._after
        if after is None or self._order.fields:
            return start, end
        if self._plan.reverse:
            return start, min(end, self._documents + inverted(after))
        return max(start, self._documents + after + b"\0"), end

    def _by_ids(self, access: Access) -> Iterator[list[Found]]:
        """Of ids that are known."""
        ids = [low for low, _ in access.ranges]
        if self._plan.reverse:
            ids.reverse()
        batches = (ids[at : at + _FETCHED] for at in range(0, len(ids), _FETCHED))
        for batch in batches if self._order.fields else self._resumed(batches):
            found: list[Found] = []
            for packed_id in batch:
                record = self._txn.get(self._documents + packed_id)
                if record is not None and self._matches(packed_id, record):
                    found.append((packed_id, record))
            yield found

    def _resumed(self, batches: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
        """Ids that come in their order, from behind ``after``."""
        after = self._after
        if after is None:
            yield from batches
            return
        # What is fixed for all of them may stand before the id in the position.
        order = self._order
        for batch in batches:
            if not order.fields:
                if order.id_descending:
                    yield [each for each in batch if inverted(each) > after]
                else:
                    yield [each for each in batch if each > after]
            else:
                yield [each for each in batch if self._is_behind(each, after)]

    def _is_behind(self, packed_id: bytes, after: bytes) -> bool:
        return self.position((packed_id, self._record(packed_id))) > after

    # -- through indexes ------------------------------------------------------------------------

    def _ids(self, access: Access, reverse: bool = False) -> Iterator[list[bytes]]:
        """Packed ids from an index, none twice."""
        index = access.index
        assert index is not None
        batches = self._entry_ids(access, reverse)
        if not index.multikey or (access.fixed == len(index.fields) and len(access.ranges) == 1):
            yield from batches
            return
        seen: set[bytes] = set()
        size_bytes = 0
        for batch in batches:
            fresh = [each for each in dict.fromkeys(batch) if each not in seen]
            size_bytes += sum(map(len, fresh)) + _ID_OVERHEAD * len(fresh)
            _check_size(size_bytes)
            seen.update(fresh)
            yield fresh

    def _entry_ids(self, access: Access, reverse: bool) -> Iterator[list[bytes]]:
        index = access.index
        assert index is not None
        prefix = entries_prefix(index.id)
        limit = index.value_size_bytes_max
        free = len(index.fields) - access.fixed
        fixed_size = len(prefix)
        for low, high in reversed(access.ranges) if reverse else access.ranges:
            if access.fixed:
                fixed_size = _end_of_values(prefix + low, len(prefix), access.fixed, limit)
            for keys in self._txn.key_batches(prefix + low, prefix + high, reverse=reverse):
                self.entries += len(keys)
                self._txn.spend(len(keys) // (4 if free else 16))
                if not free:
                    yield [key[fixed_size:] for key in keys]
                    continue
                ids = tails(keys, fixed_size, limit) if free == 1 and keys else None
                if ids is None:
                    ids = [key[_end_of_values(key, fixed_size, free, limit) :] for key in keys]
                yield ids

    def _intersected(self, access: Access) -> Iterator[list[bytes]]:
        """Packed ids that both parts have."""
        one, other = access.parts
        wanted: set[bytes] = set()
        size_bytes = 0
        for batch in self._entry_ids(one, False):
            wanted.update(batch)
            size_bytes += sum(map(len, batch)) + _ID_OVERHEAD * len(batch)
            _check_size(size_bytes)
            yield []
        for batch in self._entry_ids(other, False):
            both = [each for each in batch if each in wanted]
            wanted.difference_update(both)
            yield list(dict.fromkeys(both))

    def _fetched(self, batches: Iterable[list[bytes]]) -> Iterator[list[Found]]:
        """The documents of ids, as far as they satisfy the filter."""
        check, size = self._plan.check, _ENTRIES_AT_ONCE
        get, prefix = self._txn.get, self._documents
        for batch in batches:
            if not batch:
                yield []
            at = 0
            while at < len(batch):
                # A few first: often no more are wanted.
                some = batch[at : at + size]
                at += size
                size = min(2 * size, _FETCHED)
                records = [get(prefix + packed_id) for packed_id in some]
                if None in records:
                    raise leads_nowhere(some[records.index(None)])
                self.documents += len(some)
                found: list[Any] = list(zip(some, records, strict=True))
                if check:
                    found = [each for each in found if self._matches(*each)]
                yield found

    def _record(self, packed_id: bytes) -> bytes:
        record = self._txn.get(self._documents + packed_id)
        if record is None:
            raise leads_nowhere(packed_id)
        self.documents += 1
        return record

    def _matches(self, packed_id: bytes, record: bytes) -> bool:
        if not self._plan.check:
            return True
        self._txn.spend((1 + len(record) // BYTES_PER_LOOKUP) * self._weight)
        document = self._decode(record)
        if self._by_id:
            document = self.with_id(document, packed_id)
        return self._filter.matches(document)

    def with_id(self, document: Document, packed_id: bytes) -> Document:
        """What a filter sees: every document has its id under ``_id``."""
        document["_id"] = unpacked_id(packed_id)
        return document

    def _indexed_in_order(self, access: Access) -> Iterator[list[Found]]:
        """Documents in the order of an index's entries.

        Entries that agree up to a value that was cut may be in another order than their documents:
        such runs are sorted.
        """
        index = access.index
        assert index is not None
        limit, fields = index.value_size_bytes_max, len(index.fields)
        prefix_size = len(entries_prefix(index.id))
        pending: list[bytes] = []
        run: list[bytes] = []
        run_values = b""
        for keys in self._keys_behind(access):
            ids = tails(keys, prefix_size, limit) if fields == 1 and not run else None
            if ids is not None:
                # None of them was cut, and none waits to be sorted.
                yield from self._fetched((ids,))
                continue
            for key in keys:
                at, cut_at = prefix_size, 0
                for _ in range(fields):
                    end = end_of(key, at, limit)
                    if end - at > limit and not cut_at:
                        cut_at = end
                    at = end
                if run and key[:cut_at] != run_values:
                    yield from self._fetched((pending,))
                    yield from self._run(run)
                    pending, run = [], []
                if cut_at:
                    run.append(key[at:])
                    run_values = key[:cut_at]
                else:
                    pending.append(key[at:])
            if not run:
                yield from self._fetched((pending,))
                pending = []
        yield from self._fetched((pending,))
        yield from self._run(run)

    def _keys_behind(self, access: Access) -> Iterator[list[bytes]]:
        """Entries, from where ``after`` is or before it."""
        index = access.index
        assert index is not None
        prefix, reverse = entries_prefix(index.id), self._plan.reverse
        size = min(self._count or _ENTRIES_AT_ONCE, _ENTRIES_AT_ONCE)
        low_bound, high_bound = prefix, prefix + BEHIND
        if self._after is not None:
            place, whole = self._entry_at(access, self._after)
            if reverse:
                high_bound = prefix + place + (b"" if whole else BEHIND)
            else:
                low_bound = prefix + place + (b"\0" if whole else b"")
        for low, high in reversed(access.ranges) if reverse else access.ranges:
            start, end = max(prefix + low, low_bound), min(prefix + high, high_bound)
            if start < end:
                for keys in self._txn.key_batches(start, end, reverse=reverse):
                    # A few at a time: often no more are wanted.
                    for at in range(0, len(keys), size):
                        some = keys[at : at + size]
                        self.entries += len(some)
                        self._txn.spend(len(some) // 4)
                        yield some

    def _entry_at(self, access: Access, after: bytes) -> tuple[bytes, bool]:
        """What the entry of a position begins with, up to a value that was cut, and whether that is
        all of it."""
        index, order = access.index, self._order
        assert index is not None
        limit = index.value_size_bytes_max
        values: dict[Any, bytes] = dict(access.constants)
        at = 0
        # All fields have the direction of the id, but for constant ones, which are not needed.
        for path, down in order.fields:
            data = inverted(after) if down else after
            if data[at : at + 1] == EMPTY_LIST:
                end = at + 1  # Of a document that has changed since: no index has its like.
            else:
                end = end_of(data, at, SORT_VALUE_SIZE_BYTES_MAX)
            if path not in values:
                values[path] = data[at:end]
            at = end
        place = b""
        for path in index.fields:
            if len(values[path]) > limit:
                return place + values[path][:limit] + CUT_MARK, False
            place += values[path]
        packed_id = after[at:]
        return place + (inverted(packed_id) if order.id_descending else packed_id), True

    def _run(self, run: list[bytes]) -> Iterator[list[Found]]:
        """Documents whose entries have the same values, some of them cut, in their order."""
        sorter = Sorter(None)
        for at in range(0, len(run), _FETCHED):
            for found in self._fetched((run[at : at + _FETCHED],)):
                for each in found:
                    position = self.position(each)
                    if self._after is None or position > self._after:
                        sorter.add(position, each[0])
                yield []
        for _, packed_id in sorter.sorted():
            yield [(packed_id, self._record(packed_id))]

    # -- sorted in memory -----------------------------------------------------------------------

    def _sorted_documents(self, access: Access) -> Iterator[list[Found]]:
        after, place = self._after, self._placed()
        sorter = Sorter(self._count)
        for batch in self._candidates(access):
            for packed_id, record in batch:
                position = place(record, packed_id)
                if after is None or position > after:
                    sorter.add(position, packed_id)
            self._txn.spend(len(batch))
            yield []
        yield from self._refetched(sorter)

    def _candidates(self, access: Access) -> Iterator[list[Found]]:
        if access.kind == "index":
            return self._fetched(self._ids(access))
        if access.kind == "intersection":
            return self._fetched(self._intersected(access))
        if access.kind == "ids" and access.fixed:
            return self._by_ids(access)
        return self._scanned(access)

    def _sorted_ids(self, access: Access) -> Iterator[list[Found]]:
        """Documents in the order of their ids, which an access path gives in another one."""
        after, descending = self._after, self._order.id_descending
        sorter = Sorter(None if self._plan.check else self._count)
        ids = self._intersected(access) if access.parts else self._ids(access)
        for batch in ids:
            for packed_id in batch:
                position = inverted(packed_id) if descending else packed_id
                if after is None or position > after:
                    sorter.add(position, packed_id)
            self._txn.spend(len(batch) // 2)
            yield []
        batches = ([packed_id] for _, packed_id in sorter.sorted())
        yield from self._fetched(batches)

    def _refetched(self, sorter: Sorter) -> Iterator[list[Found]]:
        batch: list[Found] = []
        for _, packed_id in sorter.sorted():
            record = self._txn.get(self._documents + packed_id)
            assert record is not None
            batch.append((packed_id, record))
            if len(batch) == _FETCHED:
                yield batch
                batch = []
        yield batch


def _end_of_values(key: bytes, at: int, count: int, size_bytes_max: int) -> int:
    for _ in range(count):
        at = end_of(key, at, size_bytes_max)
    return at


def leads_nowhere(packed_id: bytes) -> CorruptionError:
    """The error for an entry of a document that does not exist."""
    return CorruptionError(
        f"An index has an entry of document {unpacked_id(packed_id)!r:.80}, which is not there; "
        "admin.check says more, rebuild_index mends it."
    )


def _check_size(size_bytes: int) -> None:
    if size_bytes > SORT_SIZE_BYTES_MAX:
        raise ResourceExhausted(
            f"The query has to remember more than {SORT_SIZE_BYTES_MAX >> 20} MiB of ids; narrow "
            "its filter."
        )
