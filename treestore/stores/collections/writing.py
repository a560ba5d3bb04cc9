"""Storing, changing and removing documents, their entries in indexes along with them."""

from __future__ import annotations

from typing import Any

from treestore.errors import AlreadyExists, InvalidArgument, TreeStoreError
from treestore.model.collections import UpdateResult
from treestore.query.update import Update, compile_update
from treestore.stores.access import Write
from treestore.stores.collections import catalog
from treestore.stores.collections.catalog import Opened
from treestore.stores.collections.layout import (
    AFTER,
    Document,
    NewIds,
    check_document,
    decode_document,
    given_id,
    packed_id,
    stored,
    unpacked_id,
)
from treestore.stores.collections.queries import matching
from treestore.stores.collections.reading import no_document
from treestore.stores.collections.upkeep import Upkeep
from treestore.stores.json_values import shown
from treestore.stores.records.fields import to_flag


def insert(txn: Write, name: str, document: dict[str, Any]) -> str:
    """Store a new document; returns its id.

    A collection that does not exist is made.

    Args:
        document: its id is the string under ``_id``, or else under ``id``; without either one is
            assigned, under ``_id``.

    Raises:
        AlreadyExists: there is a document with this id, or with equal values in a unique index.
        InvalidArgument: it is no document, or cannot be in an index.
    """
    check_document(document)
    collection = catalog.find_or_make(txn, name)
    id = given_id(document)
    if id is None:
        id = NewIds(txn, collection.documents).next()
        document = {"_id": id, **document}
    packed = packed_id(id)
    key = collection.documents + packed
    if txn.get(key) is not None:
        raise _exists(name, id)
    record, document = stored(document)
    if collection.live:
        upkeep = Upkeep(txn, name, collection)
        upkeep.add(packed, document)
        upkeep.check()
        upkeep.apply()
    txn.put(key, record)
    return id


def insert_many(txn: Write, name: str, documents: list[dict[str, Any]]) -> list[str]:
    """Store new documents, all of them or none; returns their ids, in the same order.

    A collection that does not exist is made.

    Args:
        documents: see `insert`.

    Raises:
        AlreadyExists: a document has the id of another one, or equal values in a unique index.
        InvalidArgument: one is no document, or cannot be in an index; ``details["index"]`` says
            which.
    """
    if not isinstance(documents, list | tuple):
        raise InvalidArgument(f"documents is a list, not {type(documents).__name__}.")
    collection = catalog.find_or_make(txn, name)
    ids: list[str] = []
    pairs: list[tuple[bytes, bytes]] = []
    upkeep = Upkeep(txn, name, collection)
    take, add = _NewDocuments(txn, name, collection).take, upkeep.add
    try:
        for document in documents:
            id, packed, key, document = take(document)
            record, document = stored(document)
            pairs.append((key, record))
            add(packed, document)
            ids.append(id)
    except TreeStoreError as error:
        raise _of_one(error, len(ids)) from None
    upkeep.check()
    upkeep.apply()
    pairs.sort()
    txn.put_sorted(pairs)
    return ids


class _NewDocuments:
    """Gives documents their ids and keys, none twice."""

    def __init__(self, txn: Write, name: str, collection: Opened) -> None:
        self._txn = txn
        self._name = name
        self._documents = collection.documents
        self._new_ids = NewIds(txn, collection.documents)
        self._taken: set[bytes] = set()

    def take(self, document: Any) -> tuple[str, bytes, bytes, Document]:
        """The id, packed too, the key, and the document with its id."""
        check_document(document)
        id = given_id(document)
        if id is None:
            id = self._new_ids.next()
            document = {"_id": id, **document}
            packed = packed_id(id)
            key = self._documents + packed
            taken = False
        else:
            packed = packed_id(id)
            key = self._documents + packed
            taken = self._txn.get(key) is not None
        if taken or key in self._taken:
            raise _exists(self._name, id)
        self._taken.add(key)
        return id, packed, key, document


def _exists(name: str, id: str) -> AlreadyExists:
    return AlreadyExists(
        f"There is a document {shown(id)} in collection {shown(name)} already.",
        collection=name,
        id=id,
    )


def _of_one(error: TreeStoreError, position: int) -> TreeStoreError:
    """The same error, with the place of the document in the list."""
    details = {**error.details, "index": position}
    return type(error)(f"documents[{position}]: {error.message}", **details)


def replace(
    txn: Write, name: str, id: str, document: dict[str, Any], *, upsert: bool = False
) -> bool:
    """Put another document in the place of one; returns whether it is new.

    Args:
        document: where it has an id that must be ``id``; where it has none it gets it, under
            ``_id``.
        upsert: store it also where there is no such document (and no such collection).

    Raises:
        NotFound: there is no such collection or document, and ``upsert`` is False.
        AlreadyExists: another document has equal values in a unique index.
        InvalidArgument: it is no document, has another id, or cannot be in an index.
    """
    check_document(document)
    to_flag(upsert, "upsert")
    packed = packed_id(id)
    if upsert:
        collection = catalog.find_or_make(txn, name)
    else:
        collection = catalog.require(txn, name)
    own = given_id(document)
    if own is None:
        document = {"_id": id, **document}
    elif own != id:
        raise _other_id(id, own)
    old = txn.get(collection.documents + packed)
    if old is None and not upsert:
        raise no_document(name, id)
    upkeep = Upkeep(txn, name, collection)
    record, document = stored(document)
    if old is None:
        upkeep.add(packed, document)
    else:
        upkeep.change(packed, decode_document(old), document)
    upkeep.check()
    upkeep.apply()
    txn.put(collection.documents + packed, record)
    return old is None


def _other_id(id: str, other: Any) -> InvalidArgument:
    return InvalidArgument(
        f"The document {shown(id)} would have the id {shown(other)}; ids do not change. Insert it "
        "under the other id and delete this one."
    )


def update(txn: Write, name: str, id: str, patch: dict[str, Any]) -> dict[str, Any]:
    """Change a document; returns it as it is then.

    Args:
        patch: operators, such as ``{"$set": {"a.b": 1}, "$inc": {"n": 1}}``, or else a JSON merge
            patch (RFC 7396): objects are merged, null removes.

    Raises:
        NotFound: there is no such collection or document.
        AlreadyExists: another document has equal values in a unique index.
        InvalidArgument: the patch is none, does not fit the document, or would change its id.
    """
    change = compile_update(patch)
    packed = packed_id(id)
    collection = catalog.require(txn, name)
    key = collection.documents + packed
    old = txn.get(key)
    if old is None:
        raise no_document(name, id)
    upkeep = Upkeep(txn, name, collection)
    record = _updated(change, upkeep, packed, id, old)
    if record is not None:
        upkeep.check()
        upkeep.apply()
        txn.put(key, record)
    return txn.load(Document, record or old)


def _updated(change: Update, upkeep: Upkeep, packed: bytes, id: str, old: bytes) -> bytes | None:
    """The record of a changed document, None where nothing is different."""
    before = decode_document(old)
    record, after = stored(change.apply(before))
    own = given_id(after)
    if own != id:
        raise _other_id(id, own)
    if record == old:
        return None
    upkeep.change(packed, before, after)
    return record


def delete(txn: Write, name: str, id: str) -> bool:
    """Remove a document; returns whether there was one.

    Raises:
        NotFound: there is no such collection.
    """
    packed = packed_id(id)
    collection = catalog.require(txn, name)
    key = collection.documents + packed
    record = txn.get(key)
    if record is None:
        return False
    if collection.live:
        upkeep = Upkeep(txn, name, collection)
        upkeep.remove(packed, decode_document(record))
        upkeep.apply()
    txn.delete(key)
    return True


# --- by filter -------------------------------------------------------------------------------


def delete_many(txn: Write, name: str, filter: dict[str, Any]) -> int:
    """Remove every document that satisfies a filter, in one transaction; returns how many.

    Args:
        filter: see docs/filters.md; ``{}`` is all of them.

    Raises:
        NotFound: there is no such collection.
        InvalidArgument: the filter is wrong; the message says where.
    """
    _check_filter(filter)
    collection = catalog.require(txn, name)
    if not filter:
        return _delete_all(txn, collection)
    found = list(matching(txn, collection, filter))
    upkeep = Upkeep(txn, name, collection)
    for packed, record in found:
        if collection.live:
            upkeep.remove(packed, decode_document(record))
    upkeep.apply()
    for packed, _ in found:
        txn.delete(collection.documents + packed)
    return len(found)


def _check_filter(filter: Any) -> None:
    """None is no filter here: all documents have to be asked for."""
    if not isinstance(filter, dict):
        raise InvalidArgument(
            f"filter is a dict, {{}} for every document, not {type(filter).__name__}."
        )


def _delete_all(txn: Write, collection: Opened) -> int:
    for index in collection.live:
        txn.delete_range(index.prefix, index.prefix + AFTER)
    return txn.delete_range(collection.documents, collection.documents + AFTER)


def update_many(
    txn: Write, name: str, filter: dict[str, Any], patch: dict[str, Any]
) -> UpdateResult:
    """Change every document that satisfies a filter, in one transaction.

    Args:
        filter: see docs/filters.md; ``{}`` is all of them.
        patch: see `update`.

    Raises:
        NotFound: there is no such collection.
        AlreadyExists: documents would have equal values in a unique index.
        InvalidArgument: filter or patch is wrong, or the patch does not fit one of the documents.
    """
    _check_filter(filter)
    change = compile_update(patch)
    collection = catalog.require(txn, name)
    upkeep = Upkeep(txn, name, collection)
    matched = 0
    pairs: list[tuple[bytes, bytes]] = []
    for packed, old in matching(txn, collection, filter):
        matched += 1
        record = _updated(change, upkeep, packed, unpacked_id(packed), old)
        if record is not None:
            pairs.append((collection.documents + packed, record))
    upkeep.check()
    upkeep.apply()
    pairs.sort()
    txn.put_sorted(pairs)
    return UpdateResult(matched=matched, modified=len(pairs))
