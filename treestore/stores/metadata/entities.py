"""Free metadata: JSON values by key on any entity, found by filters.

``ENTITY_METADATA type id`` holds the `EntityMetadata` of one entity, all its keys together, so that
a filter over several of them reads one record.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from treestore.errors import InvalidArgument
from treestore.model.metadata import EntityMetadata
from treestore.model.page import Page
from treestore.query import compile
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import AFTER, packed_name
from treestore.stores.json_values import Json, encode
from treestore.stores.keys import Keyspace
from treestore.stores.records.fields import LIMIT_MAX, to_count, to_json, to_name
from treestore.stores.records.listing import LOOKED_AT_MAX, Cursors

KEYS_MAX: Final = 1000
"""Keys of one entity."""

ENTITY_SIZE_BYTES_MAX: Final = 1 << 20
"""Everything that is set on one entity, as msgpack."""

ENTITY_ID_SIZE_BYTES_MAX: Final = 600

POLICY: Final = "policy"
"""The type of entity whose ids are policy_ids: it is removed with its policy."""


class _Record(msgspec.Struct):
    metadata: dict[str, msgspec.Raw]


class _Decoded(msgspec.Struct):
    metadata: dict[str, Any]


_raw_values = msgspec.msgpack.Decoder(_Record).decode
_values = msgspec.msgpack.Decoder(_Decoded).decode


def _entity(entity_type: str, entity_id: str) -> bytes:
    return (
        Keyspace.ENTITY_METADATA
        + packed_name("entity_type", entity_type)
        + packed_name("entity_id", entity_id, ENTITY_ID_SIZE_BYTES_MAX)
    )


def _write(
    txn: Write, place: bytes, entity_type: str, entity_id: str, values: dict[str, msgspec.Raw]
) -> None:
    record = encode(
        {
            "entity_type": entity_type,
            "entity_id": entity_id,
            "metadata": values,
            "updated_at": txn.now,
        }
    )
    if len(record) > ENTITY_SIZE_BYTES_MAX:
        raise InvalidArgument(
            f"The metadata of {entity_type} {entity_id!r:.60} would have {len(record)} bytes; at "
            f"most {ENTITY_SIZE_BYTES_MAX}."
        )
    txn.put(place, record)


def set_metadata(txn: Write, entity_type: str, entity_id: str, key: str, value: Json) -> None:
    """Set one key of an entity's metadata.

    Args:
        entity_type: such as "policy", "node", "case": any name. On type "policy", whose entities
            are policies by their policy_id, metadata goes when the policy is deleted.
        entity_id: unique within its type; nothing has to be stored under it.
        key: any name. Filters reach keys without a dot, and that do not begin with "$".
        value: any JSON value.

    Raises:
        InvalidArgument: the value is no JSON, or the entity would have more than 1,000 keys or
            1 MiB of metadata.
    """
    place = _entity(entity_type, entity_id)
    to_name(key, "key")
    data = to_json(value, "value")
    record = txn.get(place)
    values = {} if record is None else _raw_values(record).metadata
    values[key] = data
    if len(values) > KEYS_MAX:
        raise InvalidArgument(
            f"{entity_type} {entity_id!r:.60} has {KEYS_MAX} keys of metadata, the most."
        )
    _write(txn, place, entity_type, entity_id, values)


def get_metadata(txn: Read, entity_type: str, entity_id: str, key: str | None = None) -> Any:
    """The value of one key of an entity's metadata, None where it is not set; or, without a key,
    all of them as a dict, empty where none is set."""
    record = txn.get(_entity(entity_type, entity_id))
    if key is None:
        return {} if record is None else _values(record).metadata
    to_name(key, "key")
    return None if record is None else _values(record).metadata.get(key)


def delete_metadata(txn: Write, entity_type: str, entity_id: str, key: str | None = None) -> bool:
    """Remove one key of an entity's metadata, or without a key all of them; returns whether there
    was something to remove."""
    place = _entity(entity_type, entity_id)
    if key is None:
        return txn.delete(place)
    to_name(key, "key")
    record = txn.get(place)
    if record is None:
        return False
    values = _raw_values(record).metadata
    if values.pop(key, None) is None:
        return False
    if values:
        _write(txn, place, entity_type, entity_id, values)
    else:
        txn.delete(place)
    return True


def find_metadata(
    txn: Read,
    entity_type: str,
    filter: dict[str, Any] | None = None,
    *,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[EntityMetadata]:
    """Entities of a type whose metadata satisfies a filter, by entity_id.

    Looks at every entity of the type, a million of them in some seconds.

    Args:
        filter: MongoDB's operators over the entity's keys, see docs/filters.md; None: all.
        limit: at most this many, 1 to 10,000. A page may hold fewer though others follow: as long
            as there is a ``next_cursor``, go on.
        cursor: ``next_cursor`` of the page before; stays good while others write.

    Raises:
        InvalidArgument: the filter is wrong; the message says where.
    """
    to_count(limit, "limit", 1, LIMIT_MAX)
    matches = compile(filter).matches
    place = Keyspace.ENTITY_METADATA + packed_name("entity_type", entity_type)
    cursors = Cursors(("entities", entity_type, ascii(filter or {})))
    start = place
    if cursor is not None:
        start = place + cursors.position(cursor) + b"\0"
    items: list[EntityMetadata] = []
    position = b""
    for looked_at, (key, record) in enumerate(txn.scan(start, place + AFTER)):
        if len(items) == limit or looked_at == LOOKED_AT_MAX:
            return Page(items, cursors.after(position))
        position = key[len(place) :]
        txn.spend(2 + len(record) // 200)
        if matches(_values(record).metadata):
            items.append(txn.load(EntityMetadata, record))
    return Page(items, None)
