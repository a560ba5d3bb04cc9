"""Storing, changing and removing documents.

Each change of a document makes a new row and ends the old one (docs/namespaces.md): `Rows` gathers
what a call changes and writes all of it in the end, when everything is known to be good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import attrs

from treestore.errors import InvalidArgument, TreeStoreError
from treestore.model.namespaces import DocumentId, PatchResult, UpsertResult
from treestore.stores.access import Write
from treestore.stores.json_values import check_values, shown
from treestore.stores.namespaces import catalog, vectors
from treestore.stores.namespaces.catalog import Opened
from treestore.stores.namespaces.filters import NamespaceFilter, compile_filter
from treestore.stores.namespaces.layout import (
    ID_SIZE_BYTES_MAX,
    Space,
    attributes_of,
    decode_attributes,
    make_record,
    packed_id,
    packed_row,
    row_of,
    unpacked_id,
)
from treestore.stores.namespaces.rows import new_rows
from treestore.stores.namespaces.scanning import matching
from treestore.stores.namespaces.values import packed_attributes
from treestore.stores.operation import Wire
from treestore.stores.records.fields import to_count_or_none

DOCUMENTS_MAX: Final = 10_000
"""Documents of one call."""

_SORTED_MIN: Final = 8
"""From so many keys on they are put together."""


def documents_to_wire(documents: Any) -> Any:
    """Documents as they travel: vectors of numpy as float32."""
    if not isinstance(documents, list | tuple):
        return documents
    found = list(documents)
    for number, document in enumerate(found):
        if isinstance(document, Mapping) and "vector" in document:
            given = document["vector"]
            travels = vectors.to_wire(given)
            if travels is not given:
                found[number] = {**document, "vector": travels}
    return found


Documents = Annotated[
    Sequence[Mapping[str, Any]],
    Wire(type=list[dict[str, Any]], encode=documents_to_wire, check=check_values),
]
"""A list of dicts with ``id``, ``vector`` and ``attributes``."""


# --- what a call changes ---------------------------------------------------------------------


@attrs.define(slots=True, eq=False)
class Change:
    """What becomes of one document.

    Attributes:
        old: its record before; None where there is none.
        attributes: new ones as msgpack; None: it is removed.
        vector: the new one as it is stored; empty: none.
    """

    old: bytes | None
    attributes: bytes | None = None
    vector: bytes = b""


class Rows:
    """The changes of one call, none of which is made before `write`."""

    def __init__(self, txn: Write, there: Opened) -> None:
        self._txn = txn
        self._space = there.space
        self._changes: dict[bytes, Change] = {}

    def take(self, packed: bytes) -> Change:
        """The change of a document; the same one where the call changes it again."""
        change = self._changes.get(packed)
        if change is None:
            change = self._changes[packed] = Change(self._txn.get(self._space.documents + packed))
        return change

    def old(self, packed: bytes) -> bytes | None:
        """The record of a document before this call."""
        change = self._changes.get(packed)
        return self._txn.get(self._space.documents + packed) if change is None else change.old

    def enter(self, packed: bytes, change: Change) -> None:
        """Take in the change of a document whose record is known."""
        self._changes[packed] = change

    def __len__(self) -> int:
        return len(self._changes)

    def write(self) -> None:
        """Make the changes."""
        txn, space = self._txn, self._space
        stored = [change for change in self._changes.values() if change.attributes is not None]
        # Before the old rows go: they must not be given again.
        row = new_rows(txn, space, len(stored)) if stored else 0
        for packed, change in self._changes.items():
            if change.old is not None:
                end_row(txn, space, row_of(change.old))
                if change.attributes is None:
                    txn.delete(space.documents + packed)
        documents: list[tuple[bytes, bytes]] = []
        vectors_: list[tuple[bytes, bytes]] = []
        tail: list[tuple[bytes, bytes]] = []
        for packed, change in self._changes.items():
            if change.attributes is not None:
                record = make_record(row, unpacked_id(packed), change.attributes)
                key = packed_row(row)
                documents.append((space.documents + packed, record))
                vectors_.append((space.vectors + key, change.vector))
                tail.append((space.tail + key, packed))
                row += 1
        documents.sort()
        for items in (documents, vectors_, tail):
            _put(txn, items)


def _put(txn: Write, items: list[tuple[bytes, bytes]]) -> None:
    if len(items) >= _SORTED_MIN:
        txn.put_sorted(items)
    else:
        for key, value in items:
            txn.put(key, value)


def end_row(txn: Write, space: Space, row: int) -> None:
    """A document gives up its row: it leaves the tail, or is one of the dead of its segment."""
    key = packed_row(row)
    txn.delete(space.vectors + key)
    if not txn.delete(space.tail + key):
        txn.put(space.dead + key, b"")


# --- what is given ---------------------------------------------------------------------------


def _listed(documents: Any, what: str) -> Sequence[Any]:
    if not isinstance(documents, list | tuple):
        raise InvalidArgument(f"{what} is a list, not {type(documents).__name__}.")
    if len(documents) > DOCUMENTS_MAX:
        raise InvalidArgument(
            f"{what} has {len(documents)} items; a call takes at most {DOCUMENTS_MAX}. Split it."
        )
    return documents


def _parts(document: Any) -> tuple[bytes, Mapping[str, Any]]:
    """The packed id of a document or patch, and itself."""
    if not isinstance(document, Mapping):
        raise InvalidArgument(f"it is an object (a dict), not {shown(document)}.")
    for name in document:
        if name not in ("id", "vector", "attributes"):
            raise InvalidArgument(
                f"it has {shown(name)} beside id, vector and attributes; attributes belong under "
                '"attributes".'
            )
    if "id" not in document:
        raise InvalidArgument("it has no id.")
    return packed_id(document["id"]), document


def _vector(there: Opened, given: Any) -> bytes:
    """A vector as it is stored."""
    if given is None:
        return b""
    if there.schema.vector is None:
        raise InvalidArgument("it has a vector, and the namespace's schema has none.")
    return vectors.checked(given, there.schema.vector)


def checked_document(there: Opened, document: Any) -> tuple[bytes, bytes, bytes]:
    """A document as it is stored: its packed id, its attributes and its vector.

    Raises:
        InvalidArgument: it does not fit the schema.
    """
    packed, given = _parts(document)
    attributes = given.get("attributes")
    checked = there.attributes.check({} if attributes is None else attributes)
    return packed, packed_attributes(checked), _vector(there, given.get("vector"))


def told_id(id: Any) -> DocumentId | None:
    """An id as an answer or an error can name it, be it wrong; None where it cannot."""
    if isinstance(id, str):
        # Neither half of a surrogate pair nor a whole text travels.
        return str(id[:ID_SIZE_BYTES_MAX]).encode(errors="replace").decode()
    if isinstance(id, int) and not isinstance(id, bool) and -(2**63) <= id < 2**64:
        return int(id)
    return None


def _of_one(error: TreeStoreError, what: str, number: int, document: Any) -> TreeStoreError:
    """The same error, with the place of the document in the list."""
    details = {**error.details, "index": number}
    where = f"{what}[{number}]"
    id = told_id(document.get("id")) if isinstance(document, Mapping) else None
    if id is not None:
        details["id"] = id
        where += f" (id {shown(id)})"
    return type(error)(f"{where}: {error.message}", **details)


# --- operations ------------------------------------------------------------------------------


def upsert(
    txn: Write,
    name: str,
    documents: Documents,
    *,
    condition: dict[str, Any] | None = None,
) -> UpsertResult:
    """Store documents: new ones, or in the place of those with the same id; all of them or none.

    They are found by every query that begins after this returns.

    Args:
        documents: at most 10,000, each ``{"id": 1, "vector": [0.1, …], "attributes": {"year":
            2024}}``. The id is an int from 0 or a string of at most 200 bytes. The vector is a
            list of numbers, little-endian float32 as bytes, or a numpy array; a document without
            one is found by its words and attributes only. Of two with the same id the last counts.
        condition: a filter (docs/filters.md) that a document which is there already must satisfy
            to be replaced. A new one is stored whatever it says.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: a document does not fit the schema; ``details["index"]`` says which.
        ResourceExhausted: the call is larger than a transaction may be; split it.
    """
    listed = _listed(documents, "documents")
    there = catalog.require(txn, name)
    wanted = None if condition is None else compile_filter(condition, there.schema)
    rows = Rows(txn, there)
    skipped: dict[bytes, None] = {}
    created: set[bytes] = set()
    for number, document in enumerate(listed):
        try:
            packed, attributes, vector = checked_document(there, document)
        except TreeStoreError as error:
            raise _of_one(error, "documents", number, document) from None
        if wanted is not None and not _allows(wanted, rows.old(packed), packed):
            skipped[packed] = None
            continue
        change = rows.take(packed)
        change.attributes, change.vector = attributes, vector
        if change.old is None:
            created.add(packed)
    rows.write()
    return UpsertResult(
        stored=len(rows), created=len(created), skipped=tuple(map(unpacked_id, skipped))
    )


def _allows(condition: NamespaceFilter, record: bytes | None, packed: bytes) -> bool:
    """Whether a condition lets a document be changed; one that is not there it does."""
    if record is None:
        return True
    return condition.matches(unpacked_id(packed), decode_attributes(attributes_of(record)))


def patch(
    txn: Write,
    name: str,
    patches: Documents,
    *,
    condition: dict[str, Any] | None = None,
) -> PatchResult:
    """Change attributes of documents, one by one; all of the patches are made or none.

    Args:
        patches: at most 10,000, each ``{"id": 1, "attributes": {"year": 2025}}``. Attributes that
            are not named stay; null sets null. A ``vector`` takes the place of the old one, None
            removes it. Several for one id are made one after the other.
        condition: a filter that a document must satisfy, as it was before the call.

    Returns:
        How many documents were changed, and the ids of those that are not there, or do not
        satisfy the condition.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: a patch does not fit the schema; ``details["index"]`` says which.
        ResourceExhausted: the call is larger than a transaction may be; split it.
    """
    listed = _listed(patches, "patches")
    there = catalog.require(txn, name)
    wanted = None if condition is None else compile_filter(condition, there.schema)
    rows = Rows(txn, there)
    merged: dict[bytes, dict[str, Any]] = {}
    missing: dict[bytes, None] = {}
    skipped: dict[bytes, None] = {}
    for number, one in enumerate(listed):
        try:
            packed, given = _parts(one)
            attributes = given.get("attributes")
            checked = there.attributes.check({} if attributes is None else attributes)
            packed_attributes(checked)
            has_vector = "vector" in given
            vector = _vector(there, given["vector"]) if has_vector else b""
            if packed in merged:
                merged[packed].update(checked)
            elif packed not in skipped and packed not in missing:
                record = rows.old(packed)
                if record is None:
                    missing[packed] = None
                elif wanted is not None and not _allows(wanted, record, packed):
                    skipped[packed] = None
                else:
                    merged[packed] = _begin_patch(txn, there, rows, packed, checked)
            if packed in merged:
                if has_vector:
                    rows.take(packed).vector = vector
                rows.take(packed).attributes = packed_attributes(merged[packed])
        except TreeStoreError as error:
            raise _of_one(error, "patches", number, one) from None
    rows.write()
    return PatchResult(
        patched=len(rows),
        missing=tuple(map(unpacked_id, missing)),
        skipped=tuple(map(unpacked_id, skipped)),
    )


def _begin_patch(
    txn: Write, there: Opened, rows: Rows, packed: bytes, attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """A document's attributes with the first patch; its vector stays."""
    change = rows.take(packed)
    assert change.old is not None
    change.vector = txn.get(there.space.vectors + packed_row(row_of(change.old))) or b""
    return {**decode_attributes(attributes_of(change.old)), **attributes}


def patch_by_filter(
    txn: Write,
    name: str,
    filter: dict[str, Any],
    attributes: dict[str, Any],
    *,
    limit: int | None = None,
) -> int:
    """Change attributes of every document that satisfies a filter, in one transaction.

    Args:
        filter: docs/filters.md; ``{}`` is all of them.
        attributes: names and new values; null sets null.
        limit: at most so many documents, the first ones in the order of their ids. Where as many
            were changed, there may be others: call again (with a filter that they do not satisfy
            any more).

    Returns:
        How many documents satisfied the filter and were changed.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: the filter or the attributes do not fit the schema.
        ResourceExhausted: it is more than a transaction may write; use ``limit``.
    """
    there = catalog.require(txn, name)
    checked = there.attributes.check(attributes)
    packed_attributes(checked)
    rows = Rows(txn, there)
    for packed, record in _chosen(txn, there, filter, limit):
        vector = txn.get(there.space.vectors + packed_row(row_of(record))) or b""
        merged = {**decode_attributes(attributes_of(record)), **checked}
        rows.enter(packed, Change(record, packed_attributes(merged), vector))
    rows.write()
    return len(rows)


def _chosen(txn: Write, there: Opened, filter: Any, limit: int | None) -> list[tuple[bytes, bytes]]:
    """The documents that satisfy a filter, which has to be given."""
    to_count_or_none(limit, "limit", 1, 1 << 62)
    if not isinstance(filter, dict):
        raise InvalidArgument(
            f"filter is a dict, {{}} for every document, not {type(filter).__name__}."
        )
    found: list[tuple[bytes, bytes]] = []
    for batch in matching(txn, there, compile_filter(filter, there.schema)):
        found += batch
        if limit is not None and len(found) >= limit:
            return found[:limit]
    return found


def delete(
    txn: Write,
    name: str,
    ids: list[int | str] | dict[str, Any] | None = None,
    *,
    filter: dict[str, Any] | None = None,
    limit: int | None = None,
) -> int:
    """Remove documents: by their ids, by a filter, or of these ids those that satisfy the filter.

    Args:
        ids: at most 10,000. Those without a document do not matter. A filter may stand in their
            place.
        filter: docs/filters.md; ``{}``, without ids, is all documents.
        limit: without ids: at most so many documents, the first ones in the order of their ids.

    Returns:
        How many documents were removed.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: neither ids nor a filter are given, or one of them is wrong.
        ResourceExhausted: it is more than a transaction may write; use ``limit``.
    """
    there = catalog.require(txn, name)
    if isinstance(ids, dict):
        if filter is not None:
            raise InvalidArgument("There are two filters; make one of them with $and.")
        ids, filter = None, ids
    rows = Rows(txn, there)
    for packed, record in _to_delete(txn, there, ids, filter, limit):
        rows.enter(packed, Change(record))
    rows.write()
    return len(rows)


def _to_delete(
    txn: Write, there: Opened, ids: Any, filter: Any, limit: int | None
) -> Iterator[tuple[bytes, bytes]]:
    if ids is None:
        if filter is None:
            raise InvalidArgument("Say which documents: give ids, or a filter ({} is all of them).")
        yield from _chosen(txn, there, filter, limit)
        return
    if limit is not None:
        raise InvalidArgument("A limit goes with a filter alone, not with ids.")
    wanted = None if filter is None else compile_filter(filter, there.schema)
    for packed in dict.fromkeys(map(packed_id, _listed(ids, "ids"))):
        record = txn.get(there.space.documents + packed)
        if record is not None and (wanted is None or _allows(wanted, record, packed)):
            yield packed, record
