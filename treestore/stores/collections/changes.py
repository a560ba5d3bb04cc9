"""What the log's records about collections say, as changes.

Keys of documents have their collection's id; its name is learned from the collection's record. A
feed begins with the names of the collections that there are, and of those that were dropped of
late, and learns of others as it meets their records.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from treestore.stores.access import Read
from treestore.stores.changes.decoding import Fields
from treestore.stores.collections.catalog import decode_dropped
from treestore.stores.collections.layout import AFTER, FIRST_COLLECTION
from treestore.stores.keys import Keyspace, successor, unpack_one

_COLLECTIONS = Keyspace.COLLECTIONS[0]


class _Id(msgspec.Struct):
    """The one field of a collection's record that is looked at."""

    id: int


_decode_id = msgspec.msgpack.Decoder(_Id).decode


def collection_names(txn: Read) -> dict[int, str]:
    """Id → name, of all collections that a feed may meet in the log."""
    dropped = Keyspace.COLLECTIONS_DROPPED
    names = {
        int(str(unpack_one(key, 1)[0])): decode_dropped(record).name
        for key, record in txn.scan(dropped, successor(dropped))
    }
    for key, record in txn.scan(FIRST_COLLECTION, FIRST_COLLECTION + AFTER):
        names[_decode_id(record).id] = str(unpack_one(key, 1)[0])
    return names


class CollectionChanges:
    """Implements `treestore.stores.changes.decoding.Decoder`."""

    remembers = False
    keyspaces = Keyspace.COLLECTIONS + Keyspace.COLLECTION_DOCUMENTS

    def __init__(self, names: dict[int, str], *, collection: str | None = None) -> None:
        """Made for one feed.

        Args:
            names: id → name of the collections; it is added to.
            collection: only changes of that one.
        """
        self._names = names
        self._collection = collection

    def note(self, key: bytes, value: bytes | None) -> Fields | None:
        """See `Decoder.note`."""
        kind = "delete" if value is None else "put"
        if key[0] == _COLLECTIONS:
            name, _ = unpack_one(key, 1)
            if not isinstance(name, str):
                return None  # The next id.
            if value is not None:
                self._names[_decode_id(value).id] = name
            return self._change("collection", kind, name)
        id, end = unpack_one(key, 1)
        fields = self._change("document", kind, self._name(id))
        if fields is not None:
            fields["entity_id"] = unpack_one(key, end)[0]
        return fields

    def cleared(self, start: bytes, end: bytes | None) -> Fields | None:
        """See `Decoder.cleared`."""
        if start[:1] != Keyspace.COLLECTION_DOCUMENTS:
            return None
        return self._change("document", "clear", self._name(unpack_one(start, 1)[0]))

    def _name(self, id: object) -> str | None:
        return self._names.get(id) if isinstance(id, int) else None

    def _change(self, entity: str, kind: str, name: str | None) -> Fields | None:
        if self._collection is not None and name != self._collection:
            return None
        return {"entity": entity, "kind": kind, "collection": name}

    def finish(self) -> Iterator[Fields]:
        """See `Decoder.finish`."""
        return iter(())
