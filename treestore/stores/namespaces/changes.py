"""What the log's records about namespaces say, as changes.

Keys of documents have their namespace's number; its name is learned from the namespace's record. A
feed begins with the names of the namespaces that there are, and of those that were dropped of
late, and learns of others as it meets their records. What has no name yet is a copy under way: of
that nothing is told before its name is.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from treestore.stores.access import Read
from treestore.stores.changes.decoding import Fields, shown_id
from treestore.stores.keys import Keyspace, successor, unpack_one
from treestore.stores.namespaces.catalog import decode_dropped
from treestore.stores.namespaces.layout import AFTER, FIRST_NAMESPACE

_NAMESPACES = Keyspace.NAMESPACES[0]


class _Number(msgspec.Struct):
    """The one field of a namespace's record that is looked at."""

    number: int


_decode_number = msgspec.msgpack.Decoder(_Number).decode


def namespace_names(txn: Read) -> dict[int, str]:
    """Number → name, of all namespaces that a feed may meet in the log."""
    dropped = Keyspace.NAMESPACES_DROPPED
    names = {
        int(str(unpack_one(key, 1)[0])): decode_dropped(record).name
        for key, record in txn.scan(dropped, successor(dropped))
    }
    for key, record in txn.scan(FIRST_NAMESPACE, FIRST_NAMESPACE + AFTER):
        names[_decode_number(record).number] = str(unpack_one(key, 1)[0])
    return names


class NamespaceChanges:
    """Implements `treestore.stores.changes.decoding.Decoder`."""

    remembers = False
    keyspaces = Keyspace.NAMESPACES + Keyspace.NAMESPACE_DOCUMENTS

    def __init__(self, names: dict[int, str], *, collection: str | None = None) -> None:
        """Made for one feed.

        Args:
            names: number → name of the namespaces; it is added to.
            collection: only changes of that one.
        """
        self._names = names
        self._collection = collection

    def note(self, key: bytes, value: bytes | None) -> Fields | None:
        """See `Decoder.note`."""
        kind = "delete" if value is None else "put"
        element, end = unpack_one(key, 1)
        if key[0] == _NAMESPACES:
            if not isinstance(element, str):
                return None  # The next number, or a copy under way.
            if value is not None:
                self._names[_decode_number(value).number] = element
            return self._change("namespace", kind, element)
        name = self._names.get(element) if isinstance(element, int) else None
        fields = None if name is None else self._change("document", kind, name)
        if fields is not None:
            fields["entity_id"] = shown_id([unpack_one(key, end)[0]])
        return fields

    def cleared(self, start: bytes, end: bytes | None) -> Fields | None:
        """See `Decoder.cleared`. Ranges are removed of namespaces alone that are gone."""
        return None

    def _change(self, entity: str, kind: str, name: str) -> Fields | None:
        if self._collection is not None and name != self._collection:
            return None
        return {"entity": entity, "kind": kind, "collection": name}

    def finish(self) -> Iterator[Fields]:
        """See `Decoder.finish`."""
        return iter(())
