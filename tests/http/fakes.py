"""Stands in for the collections store where there is none yet: the same names, over ``kv``'s keys.

As much of it as the HTTP edge asks for, on real transactions of a real engine.
"""

from __future__ import annotations

from typing import Any

import msgspec

from treestore.errors import AlreadyExists, InvalidArgument, NotFound
from treestore.model.page import Page
from treestore.stores.access import Read, Write
from treestore.stores.operation import OPERATIONS, A, Command, M, Operation, Query, Service

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


def _name(name: str) -> bytes:
    if not name or "\0" in name or len(name) > 200:
        raise InvalidArgument("A name has 1 to 200 characters.")
    return b"\x01~c\0" + name.encode()


def _key(name: str, id: str) -> bytes:
    if not id or len(id) > 256:
        raise InvalidArgument("An id has 1 to 256 characters.")
    return b"\x01~d\0" + name.encode() + b"\0" + id.encode()


def _require(txn: Read, name: str) -> dict[str, Any]:
    record = txn.get(_name(name))
    if record is None:
        raise NotFound(f"There is no collection {name!r}.")
    return decode(record)


def _scan(txn: Read, name: str) -> list[tuple[bytes, dict[str, Any]]]:
    start = _key(name, "x")[:-1]
    return [(key, decode(value)) for key, value in txn.scan(start, start + b"\xff" * 4)]


def _matches(document: dict[str, Any], filter: dict[str, Any] | None) -> bool:
    for name, wanted in (filter or {}).items():
        if name.startswith("$"):
            raise InvalidArgument(f"There is no operator {name}.")
        if isinstance(wanted, dict):
            for operator, value in wanted.items():
                if operator != "$gte":
                    raise InvalidArgument(f"There is no operator {operator}.")
                if not (isinstance(document.get(name), int) and document[name] >= value):
                    return False
        elif document.get(name) != wanted:
            return False
    return True


def create(txn: Write, name: str, *, indexes: list[Any] = []) -> dict[str, Any]:  # noqa: B006
    if txn.get(_name(name)) is not None:
        raise AlreadyExists(f"There is a collection {name!r} already.")
    txn.put(_name(name), encode({"name": name, "indexes": []}))
    return _require(txn, name)


def drop(txn: Write, name: str) -> bool:
    for key, _ in _scan(txn, name):
        txn.delete(key)
    return txn.delete(_name(name))


def list_collections(
    txn: Read, *, prefix: str = "", limit: int = 100, cursor: str | None = None
) -> Page[dict[str, Any]]:
    if cursor is not None or not 1 <= limit <= 10_000:
        raise InvalidArgument("limit is 1 to 10,000, and a cursor one that was given.")
    start = b"\x01~c\0"
    found = [decode(value) for _, value in txn.scan(start + prefix.encode(), start + b"\xff")]
    return Page(found[:limit])


def describe(txn: Read, name: str) -> dict[str, Any]:
    return _require(txn, name)


def insert(txn: Write, name: str, document: dict[str, Any]) -> str:
    if txn.get(_name(name)) is None:
        txn.put(_name(name), encode({"name": name, "indexes": []}))
    id = document.get("_id") or f"{txn.now.timestamp():.6f}{len(_scan(txn, name)):05}"
    if not isinstance(id, str):
        raise InvalidArgument("An _id is a string.")
    if txn.get(_key(name, id)) is not None:
        raise AlreadyExists(f"There is a document {id!r} already.")
    try:
        txn.put(_key(name, id), encode({"_id": id, **document}))
    except (OverflowError, UnicodeError) as error:
        raise InvalidArgument(f"The document cannot be stored: {error}") from None
    return id


def insert_many(txn: Write, name: str, documents: list[dict[str, Any]]) -> list[str]:
    return [insert(txn, name, document) for document in documents]


def get(txn: Read, name: str, id: str) -> dict[str, Any]:
    _require(txn, name)
    record = txn.get(_key(name, id))
    if record is None:
        raise NotFound(f"Collection {name!r} has no document {id!r}.")
    return decode(record)


def replace(
    txn: Write, name: str, id: str, document: dict[str, Any], *, upsert: bool = False
) -> bool:
    there = txn.get(_name(name)) is not None and txn.get(_key(name, id)) is not None
    if not there and not upsert:
        raise NotFound(f"There is no document {id!r}.")
    if there:
        txn.delete(_key(name, id))
    insert(txn, name, {"_id": id, **document, "_id": id})  # noqa: F601
    return not there


def update(txn: Write, name: str, id: str, patch: dict[str, Any]) -> dict[str, Any]:
    document = {**get(txn, name, id), **patch}
    replace(txn, name, id, document)
    return document


def delete(txn: Write, name: str, id: str) -> bool:
    _require(txn, name)
    return txn.delete(_key(name, id))


def delete_many(txn: Write, name: str, filter: dict[str, Any]) -> int:
    _require(txn, name)
    found = [key for key, document in _scan(txn, name) if _matches(document, filter)]
    return sum(map(txn.delete, found))


def find(
    txn: Read,
    name: str,
    filter: dict[str, Any] | None = None,
    *,
    sort: Any = None,
    limit: int | None = None,
    offset: int = 0,
    cursor: str | None = None,
    fields: Any = None,
) -> Page[dict[str, Any]]:
    _require(txn, name)
    _matches({}, filter)
    limit = 100 if limit is None else limit
    if not 1 <= limit <= 10_000 or offset < 0:
        raise InvalidArgument("limit is 1 to 10,000 documents, offset 0 or more.")
    if cursor is not None and not cursor.isdigit():
        raise InvalidArgument("The cursor is none of this query.")
    found = [document for _, document in _scan(txn, name) if _matches(document, filter)]
    start = offset if cursor is None else int(cursor[:9])
    end = start + limit
    return Page(found[start:end], str(end) if end < len(found) else None)


def count(txn: Read, name: str, filter: dict[str, Any] | None = None) -> int:
    return len(find(txn, name, filter, limit=10_000).items)


def explain(txn: Read, name: str, filter: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"found": count(txn, name, filter)}


def create_index(
    txn: Write,
    name: str,
    fields: str | list[str],
    *,
    unique: bool = False,
    sparse: bool = False,
    index_name: str | None = None,
) -> dict[str, Any]:
    record = _require(txn, name)
    index_name = index_name or ",".join([fields] if isinstance(fields, str) else fields)
    if not index_name:
        raise InvalidArgument("An index has fields.")
    index = {"name": index_name, "fields": fields, "unique": unique, "sparse": sparse}
    txn.put(_name(name), encode({**record, "indexes": [*record["indexes"], index]}))
    return index


def drop_index(txn: Write, name: str, index_name: str) -> bool:
    record = _require(txn, name)
    left = [index for index in record["indexes"] if index["name"] != index_name]
    txn.put(_name(name), encode({**record, "indexes": left}))
    return len(left) < len(record["indexes"])


def fake_operations() -> dict[str, Operation]:
    """Operations by name; nothing of them stays registered."""
    before = dict(OPERATIONS)

    class FakeCollections(Service[M, A]):
        service_name = "collections"

        create = Command(create)
        drop = Command(drop)
        list = Query(list_collections)
        describe = Query(describe)
        insert = Command(insert)
        insert_many = Command(insert_many)
        get = Query(get)
        replace = Command(replace)
        update = Command(update)
        delete = Command(delete)
        delete_many = Command(delete_many)
        find = Query(find)
        count = Query(count)
        explain = Query(explain)
        create_index = Command(create_index)
        drop_index = Command(drop_index)

    made = {name: OPERATIONS[name] for name in OPERATIONS if name.startswith("collections.")}
    OPERATIONS.clear()
    OPERATIONS.update(before)
    return {**OPERATIONS, **made}
