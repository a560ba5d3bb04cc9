"""What is kept of bulk imports under way: a record for each (``importing.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from treestore.model.bulk import BulkMode
from treestore.stores.access import Read
from treestore.stores.documents.layout import packed_name
from treestore.stores.keys import Keyspace, pack_str, successor, unpack, unpack_one
from treestore.stores.namespaces.layout import AFTER, check_name


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
    return _prefix(name) + packed_name("The id of an import", import_id)


def _prefix(name: str) -> bytes:
    return Keyspace.NAMESPACE_IMPORTS + pack_str(check_name(name))


def imports_into(txn: Read, name: str) -> Iterator[tuple[str, ImportRecord]]:
    """The imports into a namespace, by their ids."""
    prefix = _prefix(name)
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
