"""What is kept of bulk imports under way (``importing.py``): a record, and lines it rejected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from treestore.model.bulk import BulkMode, RejectedLine
from treestore.model.namespaces import DocumentId
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import packed_name
from treestore.stores.json_values import encode
from treestore.stores.keys import Keyspace, pack, pack_str, successor, unpack, unpack_one
from treestore.stores.namespaces.layout import AFTER, check_name

REJECTIONS_MAX: Final = 1000
"""Rejected lines of which an import, or one answer, tells why: the first ones."""


class ImportRecord(msgspec.Struct):
    """An import under way.

    Attributes:
        mode: of it.
        started_at: when it began.
        staging: the number that its documents are stored under; None: the namespace's own.
        lines, stored, rejected: so far.
    """

    mode: BulkMode
    started_at: datetime
    staging: int | None = None
    lines: int = 0
    stored: int = 0
    rejected: int = 0


decode_import = msgspec.msgpack.Decoder(ImportRecord).decode


def import_key(name: str, import_id: Any) -> bytes:
    """Key of the record of an import.

    Raises:
        InvalidArgument: one of them can be none.
    """
    return Keyspace.NAMESPACE_IMPORTS + _own(name, import_id)


def _own(name: str, import_id: Any) -> bytes:
    return pack_str(check_name(name)) + packed_name("The id of an import", import_id)


def imports_into(txn: Read, name: str) -> Iterator[tuple[str, ImportRecord]]:
    """The imports into a namespace, by their ids."""
    prefix = Keyspace.NAMESPACE_IMPORTS + pack_str(check_name(name))
    for key, value in txn.scan(prefix, prefix + AFTER):
        (import_id,) = unpack(key[len(prefix) :])
        yield str(import_id), decode_import(value)


def all_imports(txn: Read) -> Iterator[tuple[str, ImportRecord]]:
    """Every import under way, and the name of its namespace."""
    space = Keyspace.NAMESPACE_IMPORTS
    for key, value in txn.scan(space, successor(space)):
        yield str(unpack_one(key, 1)[0]), decode_import(value)


def stagings(txn: Read) -> set[int]:
    """The numbers under which imports store documents that nobody sees yet."""
    return {its.staging for _, its in all_imports(txn) if its.staging is not None}


def remove_import(txn: Write, name: str, import_id: str) -> None:
    """Forget an import: its record, and what it rejected."""
    txn.delete(import_key(name, import_id))
    rejections = Keyspace.NAMESPACE_REJECTIONS + _own(name, import_id)
    txn.delete_range(rejections, rejections + AFTER)


# --- the lines that it rejected --------------------------------------------------------------

_decode_reason = msgspec.msgpack.Decoder(tuple[str, DocumentId | None]).decode


def keep_rejections(
    txn: Write, name: str, import_id: str, rejections: Sequence[RejectedLine]
) -> None:
    """Keep why lines were rejected, for whoever goes on with the import."""
    own = Keyspace.NAMESPACE_REJECTIONS + _own(name, import_id)
    for one in rejections:
        txn.put(own + pack(one.line), encode((one.error, one.id)))


def kept_rejections(
    txn: Read, name: str, import_id: str, first: int = 1, last: int | None = None
) -> list[RejectedLine]:
    """What was kept of the lines from ``first`` to ``last`` (None: the end), in their order."""
    own = Keyspace.NAMESPACE_REJECTIONS + _own(name, import_id)
    end = own + (AFTER if last is None else pack(last + 1))
    found: list[RejectedLine] = []
    for key, value in txn.scan(own + pack(first), end):
        (line,) = unpack(key[len(own) :])
        assert isinstance(line, int)
        error, id = _decode_reason(value)
        found.append(RejectedLine(line=line, error=error, id=id))
    return found


def rejecting_imports(txn: Read) -> Iterator[tuple[str, str]]:
    """The names and ids of imports of which rejected lines are kept."""
    start, end = Keyspace.NAMESPACE_REJECTIONS, successor(Keyspace.NAMESPACE_REJECTIONS)
    while entry := txn.first(start, end):
        key = entry[0]
        name, at = unpack_one(key, 1)
        import_id, at = unpack_one(key, at)
        yield str(name), str(import_id)
        start = key[:at] + AFTER
