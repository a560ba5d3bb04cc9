"""Bulk imports: lines that are stored or rejected one by one, a batch in each transaction.

An import with a name (``import_id``) has a record that says how many lines are done, written in the
same transaction as what they stored. So an import that was cut off, whoever died, goes on behind
the last line that is there, and a batch that is sent twice counts once.

In mode ``all_or_nothing`` the documents are stored apart, under a number of a namespace of their
own that no name leads to. In the end, one transaction makes them visible: where the namespace holds
nothing yet, it takes that number; otherwise they are written into it, as far as a transaction goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, cast

import msgspec

from treestore.errors import AlreadyExists, InvalidArgument, NotFound, TreeStoreError
from treestore.model.bulk import BulkMode, BulkProgress, RejectedLine
from treestore.model.namespaces import DocumentId
from treestore.stores.access import Read, Write
from treestore.stores.json_values import check_values, encode, shown
from treestore.stores.namespaces import catalog
from treestore.stores.namespaces.catalog import NamespaceRecord, Opened
from treestore.stores.namespaces.imports import (
    REJECTIONS_MAX,
    ImportRecord,
    decode_import,
    import_key,
    imports_into,
    keep_rejections,
    kept_rejections,
    remove_import,
)
from treestore.stores.namespaces.layout import (
    AFTER,
    Space,
    attributes_of,
    namespace_key,
    packed_row,
    row_of,
)
from treestore.stores.namespaces.upkeep import staged
from treestore.stores.namespaces.writing import (
    Change,
    Rows,
    checked_document,
    documents_to_wire,
    told_id,
)
from treestore.stores.operation import Wire

LINES_MAX: Final = 10_000
"""In one call."""

MODES: Final = ("best_effort", "all_or_nothing")

_decode_line = msgspec.json.Decoder(dict[str, Any]).decode


def _progress(
    name: str,
    import_id: str,
    record: ImportRecord,
    rejections: Sequence[RejectedLine] = (),
) -> BulkProgress:
    return BulkProgress(
        import_id=import_id,
        namespace=name,
        mode=record.mode,
        lines=record.lines,
        stored=record.stored,
        rejected=record.rejected,
        rejections=tuple(rejections),
        started_at=record.started_at,
    )


def _require(txn: Read, name: str, import_id: Any) -> ImportRecord:
    record = txn.get(import_key(name, import_id))
    if record is None:
        raise NotFound(
            f"There is no import {shown(import_id)} into namespace {shown(name)}: it was ended, "
            "given up, or not begun (bulk_begin)."
        )
    return decode_import(record)


# --- operations ------------------------------------------------------------------------------


def bulk_begin(
    txn: Write, name: str, import_id: str, *, mode: BulkMode = "best_effort"
) -> BulkProgress:
    """Begin an import, or learn how far it is, and which lines it rejected (the first 1,000).

    Args:
        import_id: names it in its namespace: 1 to 200 bytes.
        mode: ``best_effort`` stores what can be stored, at once; ``all_or_nothing`` shows nothing
            of it before `bulk_end`.

    Raises:
        NotFound: there is no such namespace.
        AlreadyExists: there is an import of that id, in the other mode.
    """
    if mode not in MODES:
        raise InvalidArgument(f"mode is one of {', '.join(MODES)}, not {shown(mode)}.")
    catalog.require(txn, name)
    key = import_key(name, import_id)
    known = txn.get(key)
    if known is not None:
        record = decode_import(known)
        if record.mode != mode:
            raise AlreadyExists(
                f"Import {shown(import_id)} into namespace {shown(name)} was begun in mode "
                f"{record.mode}. Go on in that mode, or give it up with bulk_abort.",
                mode=record.mode,
            )
        return _progress(name, import_id, record, kept_rejections(txn, name, import_id))
    staging = None
    if mode == "all_or_nothing":
        staging = catalog.new_number(txn)
    record = ImportRecord(mode, txn.now, staging)
    txn.put(key, encode(record))
    return _progress(name, import_id, record)


Items = Annotated[list[Any], Wire(list[Any], encode=documents_to_wire, check=check_values)]
"""A list of documents as `upsert` takes them; what is none is rejected by itself."""


def bulk_write(
    name: str,
    *,
    first: int = 1,
    lines: bytes | None = None,
    documents: Items | None = None,
    import_id: str | None = None,
) -> Callable[[Write], BulkProgress]:
    """Store documents one by one: what cannot be stored is rejected, and told; the others are.

    Args:
        first: number of the first line (or document) of this batch in its source, from 1.
        lines: NDJSON: whole lines, each a document as `upsert` takes it; empty lines count and are
            passed over. At most 10,000.
        documents: in place of lines.
        import_id: of an import that was begun (`bulk_begin`). Lines that it has done already are
            passed over, so a batch may be sent again.

    Returns:
        How far the import is; without ``import_id``, what became of this batch.

    Raises:
        NotFound: there is no such namespace or import.
        InvalidArgument: there are both lines and documents, or neither, or too many; or ``first``
            leaves out lines of the import.
    """
    if (lines is None) == (documents is None):
        raise InvalidArgument("bulk_write takes lines or documents.")
    if isinstance(first, bool) or not isinstance(first, int) or first < 1:
        raise InvalidArgument(f"first is the number of a line, from 1, not {shown(first)}.")
    if lines is not None:
        each = _split(lines)
        items = list(_decoded(each, first))
        last = first + len(each) - 1
    else:
        items = list(enumerate(cast("list[Any]", documents), first))
        last = first + len(items) - 1
        _check_count(len(items))
    return lambda txn: _write(txn, name, import_id, first, last, items)


def _check_count(count: int) -> None:
    if count > LINES_MAX:
        raise InvalidArgument(f"A call takes at most {LINES_MAX} lines, not {count}. Split it.")


def _split(lines: bytes) -> list[bytes]:
    if not isinstance(lines, bytes | bytearray | memoryview):
        raise InvalidArgument(f"lines is NDJSON as bytes, not {type(lines).__name__}.")
    found = bytes(lines).split(b"\n")
    if not found[-1]:
        found.pop()
    _check_count(len(found))
    return found


def _decoded(lines: Sequence[bytes], first: int) -> Iterator[tuple[int, Any]]:
    """Numbers and documents; what is no JSON object as the error that says so."""
    for number, line in enumerate(lines, first):
        if not line or line.isspace():
            continue
        try:
            yield number, _decode_line(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if line[:1] == b'"':
                with suppress(msgspec.DecodeError, UnicodeDecodeError):
                    yield number, msgspec.json.decode(line)
                    continue
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else f"{error}"
            yield number, InvalidArgument(f"This is no JSON object: {reason}.")


def _write(
    txn: Write,
    name: str,
    import_id: str | None,
    first: int,
    last: int,
    items: Sequence[tuple[int, Any]],
) -> BulkProgress:
    there = catalog.require(txn, name)
    if import_id is None:
        stored, rejections = _store(txn, there, items)
        return BulkProgress(
            namespace=name,
            lines=last - first + 1,
            stored=stored,
            rejected=len(rejections),
            rejections=tuple(rejections[:REJECTIONS_MAX]),
        )
    record = _require(txn, name, import_id)
    if first > record.lines + 1:
        raise InvalidArgument(
            f"Import {shown(import_id)} has {record.lines} lines; the next one is not {first}.",
            lines=record.lines,
        )
    # A batch that is sent again has the same answer, whatever of it was done before.
    told = kept_rejections(txn, name, import_id, first, last)
    if last <= record.lines:
        return _progress(name, import_id, record, told)
    if record.staging is not None:
        there = staged(there, record.staging)
    stored, rejections = _store(txn, there, [its for its in items if its[0] > record.lines])
    keep_rejections(txn, name, import_id, rejections[: max(0, REJECTIONS_MAX - record.rejected)])
    record.lines = last
    record.stored += stored
    record.rejected += len(rejections)
    txn.put(import_key(name, import_id), encode(record))
    return _progress(name, import_id, record, (told + rejections)[:REJECTIONS_MAX])


def _store(
    txn: Write, there: Opened, items: Sequence[tuple[int, Any]]
) -> tuple[int, list[RejectedLine]]:
    rows = Rows(txn, there)
    rejections: list[RejectedLine] = []
    stored = 0
    for number, document in items:
        try:
            if isinstance(document, TreeStoreError):
                raise document
            if isinstance(document, str):
                # Also what stands for something that could not be sent, and says why.
                raise InvalidArgument(f"This is no document but a string: {document:.200}")
            packed, attributes, vector = checked_document(there, document)
        except TreeStoreError as error:
            # Other errors are of the store, not of a line.
            if not isinstance(error, InvalidArgument):
                raise
            rejections.append(RejectedLine(line=number, error=error.message, id=_id_of(document)))
            continue
        change = rows.take(packed)
        change.attributes, change.vector = attributes, vector
        stored += 1
    rows.write()
    return stored, rejections


def _id_of(document: Any) -> DocumentId | None:
    """What a rejected document is called, where an answer can say so."""
    id = document.get("id") if isinstance(document, Mapping) else None
    return told_id(id)


def bulk_end(txn: Write, name: str, import_id: str) -> BulkProgress:
    """End an import. One in mode ``all_or_nothing`` becomes visible now, all of it.

    Returns:
        What became of it, with the first 1,000 rejected lines.

    Raises:
        NotFound: there is no such namespace or import (any more).
        InvalidArgument: a line of an import in mode ``all_or_nothing`` was rejected: give it up
            with `bulk_abort`.
        ResourceExhausted: the namespace has documents already, and more come to them at once than
            a transaction may write: import into an empty namespace, or in mode ``best_effort``.
    """
    there = catalog.require(txn, name)
    record = _require(txn, name, import_id)
    if record.staging is not None:
        if record.rejected:
            raise InvalidArgument(
                f"{record.rejected} lines of import {shown(import_id)} were rejected, so none of "
                "it becomes visible. Give it up (bulk_abort), mend them, and begin again.",
                rejected=record.rejected,
            )
        _publish(txn, name, there, record.staging)
    rejections = kept_rejections(txn, name, import_id)
    remove_import(txn, name, import_id)
    return _progress(name, import_id, record, rejections)


def _publish(txn: Write, name: str, there: Opened, staging: int) -> None:
    documents = there.space.documents
    gone = staging
    if txn.first(documents, documents + AFTER) is None:
        # Nothing to be written again: the name leads to them from now on.
        its = there.record
        changed = NamespaceRecord(staging, its.schema, its.created_at, its.updated_at)
        txn.put(namespace_key(name), encode(changed))
        gone = its.number
    else:
        _merge(txn, there, Space(staging))
    catalog.let_go(txn, gone, name)


def _merge(txn: Write, there: Opened, staged: Space) -> None:
    rows = Rows(txn, there)
    for keys, records in txn.batches(staged.documents, staged.documents + AFTER):
        for key, record in zip(keys, records, strict=True):
            change: Change = rows.take(key[len(staged.documents) :])
            change.attributes = bytes(attributes_of(record))
            change.vector = txn.get(staged.vectors + packed_row(row_of(record))) or b""
    rows.write()


def bulk_abort(txn: Write, name: str, import_id: str) -> bool:
    """Give an import up; returns whether there was one.

    What it stored in mode ``best_effort`` stays; in mode ``all_or_nothing`` nothing of it does.
    """
    key = import_key(name, import_id)
    known = txn.get(key)
    if known is None:
        return False
    staging = decode_import(known).staging
    if staging is not None:
        catalog.let_go(txn, staging, name)
    remove_import(txn, name, import_id)
    return True


def bulk_imports(txn: Read, name: str) -> list[BulkProgress]:
    """Imports into a namespace that were begun and not ended, by their ids: to be gone on with
    (`bulk` with the same ``import_id``), or given up (`bulk_abort`). `bulk_begin` tells which lines
    one has rejected.

    Raises:
        NotFound: there is no such namespace.
    """
    catalog.require(txn, name)
    return [_progress(name, its, record) for its, record in imports_into(txn, name)]
