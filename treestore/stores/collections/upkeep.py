"""Keeping indexes true: what the entries of a collection are before and after a document changes.

An `Upkeep` belongs to one transaction and one collection. It gathers entries of one or many
documents, then `apply` looks after uniqueness and writes: all of it, or it raises before the first
write.
"""

from __future__ import annotations

from treestore.errors import AlreadyExists, CorruptionError, InvalidArgument
from treestore.stores.access import Read, Write
from treestore.stores.collections import catalog
from treestore.stores.collections.catalog import Opened
from treestore.stores.collections.indexes import Index
from treestore.stores.collections.layout import AFTER, Document, decode_document, unpacked_id
from treestore.stores.json_values import shown


class Upkeep:
    """Changes of entries that go with changes of documents."""

    __slots__ = ("_collection", "_multikey", "_name", "_places", "_removed", "_txn", "_unique")

    def __init__(
        self, txn: Write, name: str, collection: Opened, *, only: Index | None = None
    ) -> None:
        """Of all live indexes, or of one."""
        indexes = collection.live if only is None else (only,)
        self._txn = txn
        self._name = name
        self._collection = collection
        self._places: list[tuple[Index, list[bytes]]] = [(index, []) for index in indexes]
        """The indexes, and the keys of entries to be put into them."""
        self._removed: set[bytes] = set()
        self._unique: dict[int, dict[bytes, list[tuple[bytes, Document]]]] = {
            index.id: {} for index in indexes if index.unique
        }
        """Index → entry without an id → the documents, with their packed ids, that are to have it
        and had it not."""
        self._multikey: set[int] = set()
        """Indexes that are to be marked."""

    def add(self, packed_id: bytes, document: Document) -> None:
        """A document comes to be.

        Raises:
            InvalidArgument: it cannot be in one of the indexes.
        """
        for index, added in self._places:
            entries, multikey = index.entries(document)
            if len(entries) == 1:
                added.append(index.prefix + entries[0] + packed_id)
            else:
                prefix = index.prefix
                added += [prefix + entry + packed_id for entry in entries]
            if multikey and not index.multikey:
                self._multikey.add(index.id)
            if index.unique:
                self._claim(index, entries, packed_id, document)

    def remove(self, packed_id: bytes, document: Document) -> None:
        """A document goes."""
        for index, _ in self._places:
            prefix = index.prefix
            self._removed.update(prefix + entry + packed_id for entry in _held(index, document))

    def change(self, packed_id: bytes, old: Document, new: Document) -> None:
        """A document becomes another one.

        Raises:
            InvalidArgument: the new one cannot be in one of the indexes.
        """
        for index, added in self._places:
            had, (has, multikey) = _held(index, old), index.entries(new)
            if multikey and not index.multikey:
                self._multikey.add(index.id)
            prefix, fresh = index.prefix, has
            if index.ready:
                if had == has and not (index.unique and index.may_be_cut(has)):
                    continue
                kept = set(had)
                fresh = [entry for entry in has if entry not in kept]
            # Else perhaps none of them is there yet.
            gone = set(had).difference(has)
            self._removed.update(prefix + entry + packed_id for entry in gone)
            added += [prefix + entry + packed_id for entry in fresh]
            if index.unique:
                # An entry that stays may stand for other values where it is cut.
                self._claim(index, has, packed_id, new)

    def _claim(
        self, index: Index, entries: list[bytes], packed_id: bytes, document: Document
    ) -> None:
        claims = self._unique[index.id]
        for entry in entries:
            claims.setdefault(entry, []).append((packed_id, document))

    def check(self) -> None:
        """To be called before the first write.

        Raises:
            AlreadyExists: two documents would have equal values in a unique index.
        """
        for index, _ in self._places:
            claims = self._unique.get(index.id)
            if claims:
                for entry, claimants in claims.items():
                    self._check_claim(index, entry, claimants)

    def _check_claim(
        self, index: Index, entry: bytes, claimants: list[tuple[bytes, Document]]
    ) -> None:
        place = index.prefix + entry
        rivals = self._rivals(place, claimants)
        if not rivals and len(claimants) == 1:
            return
        taken = {
            values: unpacked_id(packed_id)
            for packed_id, document in rivals
            for values in index.values(document)
        }
        for packed_id, document in claimants:
            id = unpacked_id(packed_id)
            for values in index.values(document):
                other = taken.setdefault(values, id)
                if other != id:
                    raise not_unique(self._name, index, document, id, other)

    def _rivals(
        self, place: bytes, claimants: list[tuple[bytes, Document]]
    ) -> list[tuple[bytes, Document]]:
        """The documents that have the entry and keep it, those apart that claim it."""
        txn, at = self._txn, len(place)
        if txn.first(place, place + AFTER) is None:
            return []
        own = {packed_id for packed_id, _ in claimants}
        keys = [key for key, _ in txn.scan(place, place + AFTER) if key not in self._removed]
        found = [key[at:] for key in keys if key[at:] not in own]
        return [(packed_id, stored(txn, self._collection, packed_id)) for packed_id in found]

    def apply(self) -> None:
        """Write the entries, and mark indexes that become multikey."""
        txn = self._txn
        for key in self._removed:
            txn.delete(key)
        for _, keys in self._places:
            if len(keys) < 4:
                for key in keys:
                    txn.put(key, b"")
            else:
                keys.sort()
                txn.put_sorted([(key, b"") for key in keys])
        if self._multikey:
            mark_multikey(txn, self._name, self._collection, self._multikey)


def _held(index: Index, document: Document) -> list[bytes]:
    """The entries that a stored document has in an index, or will have when it is ready."""
    try:
        return index.entries(document)[0]
    except InvalidArgument:
        if index.ready:
            raise
        return []  # It has none; its build fails, unless the document changes first.


def mark_multikey(txn: Write, name: str, collection: Opened, index_ids: set[int]) -> Opened:
    """Some document has, or may have, several entries in these indexes."""
    records = []
    for index in collection.indexes:
        record = index.record
        if index.id in index_ids:
            record = catalog.changed_record(record, multikey=True)
        records.append(record)
    return catalog.save(txn, name, collection, records)


def stored(txn: Read, collection: Opened, packed_id: bytes) -> Document:
    """The document that an entry leads to."""
    record = txn.get(collection.documents + packed_id)
    if record is None:
        raise CorruptionError(
            f"An index has an entry of document {shown(unpacked_id(packed_id))}, which is not "
            "there; admin.check says more, rebuild_index mends it."
        )
    return decode_document(record)


def not_unique(name: str, index: Index, document: Document, id: str, other: str) -> AlreadyExists:
    """The error for equal values in a unique index."""
    return AlreadyExists(
        f"Index {shown(index.name)} of collection {shown(name)} is unique, and documents "
        f"{shown(other)} and {shown(id)} have the same there: {index.shown_values(document)}.",
        collection=name,
        index_name=index.name,
        id=id,
        other_id=other,
    )
