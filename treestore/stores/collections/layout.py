"""Keys and records of collections; what a document may be. See docs/collections.md."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from treestore.errors import InvalidArgument, ResourceExhausted
from treestore.stores.access import Read
from treestore.stores.documents.layout import decode_any, packed_name
from treestore.stores.json_values import check_values, encode, not_json, shown
from treestore.stores.keys import Keyspace, pack, unpack_one

DOCUMENT_SIZE_BYTES_MAX: Final = 16 << 20
"""Size of a document, as msgpack."""

DOCUMENT_DEPTH_MAX: Final = 100
"""Levels of a document, itself included."""

DOCUMENT_ID_SIZE_BYTES_MAX: Final = 500
"""Longest id of a document, in UTF-8 (the characters 0 and 1 count twice)."""

Document = dict[str, Any]

AFTER: Final = b"\xff"
"""Behind everything that begins with packed elements or encoded values."""

decode_document = msgspec.msgpack.Decoder(Document).decode


# --- keys ------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _collection_key(name: str) -> bytes:
    return Keyspace.COLLECTIONS + packed_name("The name of a collection", name)


def collection_key(name: str) -> bytes:
    """Key of a collection's record.

    Raises:
        InvalidArgument: the name is no string of 1 to 200 bytes.
    """
    if not isinstance(name, str):  # It might not even be hashable.
        raise InvalidArgument(f"The name of a collection is a string, not {type(name).__name__}.")
    return _collection_key(name)


NEXT_ID_KEY: Final = Keyspace.COLLECTIONS + pack(None)
"""The next id of a collection or an index."""

FIRST_COLLECTION: Final = Keyspace.COLLECTIONS + b"\x07"
"""Collections begin here, behind `NEXT_ID_KEY`."""


def documents_prefix(collection_id: int) -> bytes:
    """What the keys of a collection's documents begin with."""
    return Keyspace.COLLECTION_DOCUMENTS + pack(collection_id)


@lru_cache(maxsize=4096)
def entries_prefix(index_id: int) -> bytes:
    """What the keys of an index's entries begin with."""
    return Keyspace.INDEX_ENTRIES + pack(index_id)


def build_key(index_id: int) -> bytes:
    """Key of a build's progress."""
    return Keyspace.INDEX_BUILDS + pack(index_id)


def dropped_key(collection_id: int) -> bytes:
    """Key of the name of a collection that is gone."""
    return Keyspace.COLLECTIONS_DROPPED + pack(collection_id)


# --- ids of documents ------------------------------------------------------------------------


def packed_id(id: Any) -> bytes:
    """A document's id as a key element.

    Raises:
        InvalidArgument: it is no string of 1 to 500 bytes.
    """
    return packed_name("The id of a document", id, DOCUMENT_ID_SIZE_BYTES_MAX)


def unpacked_id(packed: bytes) -> str:
    """The id in a key element.

    Raises:
        ValueError: there is none.
    """
    id, end = unpack_one(packed, 0)
    if not isinstance(id, str) or end != len(packed):
        raise ValueError("a key has no document's id where one belongs")
    return id


def given_id(document: Document) -> str | None:
    """The id that a document says it has; None where the store has to assign one."""
    if "_id" in document:
        id = document["_id"]
        if not isinstance(id, str):
            raise InvalidArgument(
                f"_id is a string, not {shown(id)}; leave it out to have one assigned."
            )
        return id
    id = document.get("id")
    return id if isinstance(id, str) else None


_EPOCH: Final = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NUMBER_MAX: Final = 16**5 - 1


class NewIds:
    """Assigns ids in the order of time, none that is taken. Of one transaction and collection."""

    def __init__(self, txn: Read, documents: bytes) -> None:
        self._txn = txn
        self._documents = documents
        self._moment = (txn.now - _EPOCH) // _MICROSECOND
        self._number = -1

    def next(self) -> str:
        """Another id."""
        if self._number < 0:
            self._number = self._first_free()
        elif self._number >= _NUMBER_MAX:
            raise ResourceExhausted(
                f"More than {_NUMBER_MAX} ids are assigned in one transaction; split it."
            )
        id = f"{self._moment:015x}{self._number:05x}"
        self._number += 1
        return id

    def _first_free(self) -> int:
        """The number behind those that are taken at this moment, mostly 0.

        Only the keys of ids of this very moment are read, so that transactions that assign ids do
        not conflict.
        """
        while True:
            start = self._documents + b"\x07" + f"{self._moment:015x}".encode()
            last = next(self._txn.scan(start, start + b"g", reverse=True), None)
            if last is None:
                return 0
            try:
                number = int(last[0][len(start) : len(start) + 5], 16)
            except ValueError:
                number = _NUMBER_MAX
            if number < _NUMBER_MAX // 2:
                return number + 1
            # Somebody gave ids that look like ours.
            self._moment += 1


# --- what a document may be ------------------------------------------------------------------


def _json_of(levels: int) -> Any:
    """The type of JSON values of so many levels."""
    value: Any = None | bool | int | float | str
    for _ in range(levels):
        value = None | bool | int | float | str | list[value] | dict[str, value]
    return value


_SHALLOW: Any = dict.__class_getitem__((str, _json_of(8)))

_decode_shallow: Callable[[bytes], Document] = msgspec.msgpack.Decoder(_SHALLOW).decode
"""Most documents. It refuses what is no JSON, and what has more levels; to look at every value in
Python takes seven times as long."""


_may_be_infinite = re.compile(rb"\xcb[\x7f\xff]").search
"""A float that is not finite begins like this; no part of a text does. (The pattern takes a quarter
of the time of two searches.)"""


def check_document(document: Any) -> None:
    """Raise `InvalidArgument` unless it can be a document; `stored` looks at what is inside."""
    if not isinstance(document, dict):
        raise InvalidArgument(f"A document is an object (a dict), not {type(document).__name__}.")


def stored(document: Document) -> tuple[bytes, Document]:
    """A document's record, and the document as the record gives it back.

    What the encoder turns into JSON (tuples, dates, sets, …) is in the second as it is
    stored, the same whichever way the document came.

    Raises:
        InvalidArgument: it is no document.
    """
    check_values(document, "The document")
    try:
        record = encode(document)
    except (OverflowError, UnicodeEncodeError, RecursionError, TypeError) as error:
        raise not_json(error, "The document") from None
    if len(record) > DOCUMENT_SIZE_BYTES_MAX:
        raise InvalidArgument(
            f"The document has {len(record)} bytes; at most {DOCUMENT_SIZE_BYTES_MAX}."
        )
    try:
        decoded = _decode_shallow(record)
    except msgspec.ValidationError:
        decoded = _decode_checked(record)
    if _may_be_infinite(record):
        _check_values(decoded)
    if "$" in "".join(decoded):
        _check_top(decoded)
    return record, decoded


def _decode_checked(record: bytes) -> Document:
    """A record of many levels, or one that is no document's."""
    try:
        decoded = decode_any(record)
    except (msgspec.DecodeError, RecursionError, TypeError, ValueError):
        # Objects are names of something, or it is nested beyond the decoder's limit.
        raise InvalidArgument(
            "The document is nested too deeply, or has lists or objects in the place of names."
        ) from None
    _check_values(decoded)
    return cast("Document", decoded)


def _check_values(document: Document) -> None:
    """Raise `InvalidArgument` where a value is not JSON's, or nested too deeply."""
    stack: list[tuple[Any, int]] = [(document, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > DOCUMENT_DEPTH_MAX:
            raise InvalidArgument(
                f"The document is nested more than {DOCUMENT_DEPTH_MAX} levels deep."
            )
        values = item
        if isinstance(item, dict):
            for name in item:
                if not isinstance(name, str):
                    raise InvalidArgument(
                        f"The document has the name {shown(name)}; names are strings."
                    )
            values = item.values()
        for value in values:
            if isinstance(value, dict | list):
                stack.append((value, depth + 1))
            elif isinstance(value, float):
                if not math.isfinite(value):
                    raise InvalidArgument(
                        f"The document holds {value}, which JSON has no number for."
                    )
            elif value is not None and not isinstance(value, str | int):
                raise InvalidArgument(
                    f"The document holds a {type(value).__name__}; it is made of strings, numbers, "
                    "booleans, null, lists and objects. Write a moment as ISO 8601."
                )


def _check_top(document: Document) -> None:
    for name in document:
        if name.startswith("$"):
            raise InvalidArgument(
                f"The name {shown(name)} at the top of a document begins with $; operators are for "
                "update."
            )
