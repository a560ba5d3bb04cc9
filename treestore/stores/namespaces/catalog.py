"""Which namespaces there are, and what their documents look like."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from treestore.errors import AlreadyExists, NotFound
from treestore.model.namespaces import Namespace, NamespaceSchema, NamespaceStatistics
from treestore.model.page import Page
from treestore.stores.access import Read, Write
from treestore.stores.json_values import encode, shown
from treestore.stores.keys import pack_str, unpack_one
from treestore.stores.namespaces.imports import imports_into, remove_import
from treestore.stores.namespaces.layout import (
    AFTER,
    FIRST_NAMESPACE,
    NEXT_NUMBER_KEY,
    Space,
    check_name,
    check_new_name,
    dropped_key,
    namespace_key,
)
from treestore.stores.namespaces.manifests import manifests
from treestore.stores.namespaces.schema import SchemaParameter, grown, parse_schema
from treestore.stores.namespaces.values import Attributes
from treestore.stores.records.fields import LIMIT_MAX, to_count
from treestore.stores.records.listing import Cursors

DROPPED_KEPT: Final = timedelta(days=7)
"""How long the name of a namespace that is gone is kept for feeds that fell behind."""


class NamespaceRecord(msgspec.Struct):
    """A namespace, as it is stored. Its number is never used again."""

    number: int
    schema: NamespaceSchema
    created_at: datetime
    updated_at: datetime


class DroppedRecord(msgspec.Struct):
    """A namespace that is gone, or a copy that was given up.

    Attributes:
        name: that it had.
        emptied: whether nothing of it is left to be removed.
    """

    name: str
    dropped_at: datetime
    emptied: bool = False


decode_namespace = msgspec.msgpack.Decoder(NamespaceRecord).decode
decode_dropped = msgspec.msgpack.Decoder(DroppedRecord).decode
_decode_number = msgspec.msgpack.Decoder(int).decode


class Opened:
    """A namespace, ready for work. Belongs to its record, and never changes.

    Attributes:
        number: of the namespace.
        schema: of its documents.
        space: where its keys are.
        attributes: checks those of documents.
    """

    __slots__ = ("attributes", "record", "schema", "space")

    def __init__(self, record: NamespaceRecord) -> None:
        self.record = record
        self.schema = record.schema
        self.space = Space(record.number)
        self.attributes = Attributes(record.schema)

    @property
    def number(self) -> int:
        """Of the namespace."""
        return self.space.number

    def described(self, name: str, statistics: NamespaceStatistics | None = None) -> Namespace:
        """As users see it."""
        record = self.record
        return Namespace(
            name=name,
            schema=record.schema,
            created_at=record.created_at,
            updated_at=record.updated_at,
            statistics=statistics,
        )


@lru_cache(maxsize=1024)
def opened(record: bytes) -> Opened:
    """The namespace of a record. Every operation begins here, so it is not decoded each time."""
    return Opened(decode_namespace(record))


def find(txn: Read, name: str) -> Opened | None:
    """The namespace of that name, or None."""
    record = txn.get(namespace_key(name))
    return None if record is None else opened(record)


def require(txn: Read, name: str) -> Opened:
    """The namespace of that name.

    Raises:
        NotFound: there is none.
        InvalidArgument: it is no name.
    """
    found = find(txn, name)
    if found is None:
        raise no_namespace(name)
    return found


def no_namespace(name: str) -> NotFound:
    """The error for a namespace that does not exist."""
    return NotFound(
        f"There is no namespace {shown(name)}; make it with namespaces.create.", namespace=name
    )


def new_number(txn: Write) -> int:
    """A number for a namespace, never given again."""
    record = txn.get(NEXT_NUMBER_KEY)
    number = 1 if record is None else _decode_number(record)
    txn.put(NEXT_NUMBER_KEY, encode(number + 1))
    return number


def found(txn: Write, name: str, number: int, schema: NamespaceSchema) -> Opened:
    """Enter a namespace that is not there."""
    record = encode(NamespaceRecord(number, schema, txn.now, txn.now))
    txn.put(namespace_key(name), record)
    return opened(record)


# --- operations ------------------------------------------------------------------------------


def create(txn: Write, name: str, schema: SchemaParameter) -> Namespace:
    """Make a namespace.

    Args:
        name: 1 to 128 ASCII letters, digits and ``-``, ``_``, ``.``; not ``.`` or ``..`` alone.
        schema: `NamespaceSchema` or a dict of its form, such as ``{"vector": {"dim": 768,
            "metric": "cosine"}, "attributes": {"year": {"type": "int"}, "title": {"type":
            "string", "full_text": {"language": "english"}}}}``.

    Raises:
        AlreadyExists: there is one of that name; ``details["same"]`` says whether its schema is
            the same.
        InvalidArgument: it is no name, or no schema.
    """
    check_new_name(name)
    wanted = parse_schema(schema)
    there = find(txn, name)
    if there is not None:
        same = there.schema == wanted
        raise AlreadyExists(
            f"There is a namespace {shown(name)} already"
            + (", with the same schema." if same else "; its schema is another one."),
            namespace=name,
            same=same,
        )
    return found(txn, name, new_number(txn), wanted).described(name)


def drop(txn: Write, name: str) -> bool:
    """Remove a namespace with all of its documents; returns whether there was one.

    It is gone at once; what it held is removed in the background.
    """
    there = find(txn, name)
    if there is None:
        return False
    for import_id, its in list(imports_into(txn, name)):
        remove_import(txn, name, import_id)
        if its.staging is not None:
            let_go(txn, its.staging, name)
    txn.delete(namespace_key(name))
    let_go(txn, there.number, name)
    return True


def let_go(txn: Write, number: int, name: str) -> None:
    """What is stored under a number is to be removed, in the background."""
    txn.put(dropped_key(number), encode(DroppedRecord(name, txn.now)))


def list_namespaces(
    txn: Read, *, prefix: str = "", limit: int = 100, cursor: str | None = None
) -> Page[Namespace]:
    """Namespaces, by name.

    Args:
        prefix: only those whose name begins with it.
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before; stays good while others write.
    """
    to_count(limit, "limit", 1, LIMIT_MAX)
    start = FIRST_NAMESPACE
    if prefix != "":
        start = FIRST_NAMESPACE[:-1] + pack_str(check_name(prefix, "The prefix"))[:-1]
    end = start + AFTER
    cursors = Cursors(("namespaces", prefix))
    if cursor is not None:
        start = max(start, FIRST_NAMESPACE + cursors.position(cursor) + b"\0")
    items: list[Namespace] = []
    last = b""
    for key, record in txn.scan(start, end):
        if len(items) == limit:
            return Page(items, cursors.after(last))
        last = key[len(FIRST_NAMESPACE) :]
        items.append(opened(record).described(str(unpack_one(key, 1)[0])))
    return Page(items, None)


def describe(txn: Read, name: str) -> Namespace:
    """A namespace, with what it holds: its keys are counted.

    Raises:
        NotFound: there is no such namespace.
    """
    there = require(txn, name)
    space = there.space
    its = [manifest for _, manifest in manifests(txn, there.number)]
    statistics = NamespaceStatistics(
        documents=count_keys(txn, space.documents),
        tail=count_keys(txn, space.tail),
        segments=len(its),
        segment_rows=sum(manifest.rows for manifest in its),
        dead=count_keys(txn, space.dead),
        segment_size_bytes=sum(manifest.size_bytes for manifest in its),
    )
    return there.described(name, statistics)


def count_keys(txn: Read, prefix: bytes) -> int:
    """How many keys begin with some packed elements."""
    return sum(map(len, txn.key_batches(prefix, prefix + AFTER)))


def update_schema(txn: Write, name: str, schema: SchemaParameter) -> Namespace:
    """Add attributes to a namespace's schema, or change whether and how they are searched.

    No document is written again. Text that is now searched, or otherwise, is indexed in the
    background.

    Args:
        schema: as for `create`; attributes that it does not name stay as they are, those that it
            names get all of what it says. A namespace without vectors may get them.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: a type, or the vectors' dim or metric, would change.
    """
    there = require(txn, name)
    wanted = grown(there.schema, parse_schema(schema))
    if wanted == there.schema:
        return there.described(name)
    record = there.record
    changed = NamespaceRecord(record.number, wanted, record.created_at, txn.now)
    txn.put(namespace_key(name), encode(changed))
    return Opened(changed).described(name)
