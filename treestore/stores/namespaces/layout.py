"""Keys and records of namespaces. docs/namespaces.md has the table and the invariants.

A document's record is the msgpack map of a `NamespaceDocument` without its vector, and in front the
row, which is the store's own and which decoders skip::

    0     83            a map of three entries
    1     A3 "row" CF   the row, always
    6     u64           in eight bytes, big-endian
    14    A2 "id"       an int or a string
          AA "attributes"  a map; its names are in the order in which they were given

So the record is what goes over the wire, and row, id and attributes are cut out of it without
decoding.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from treestore.errors import InvalidArgument
from treestore.model.namespaces import DocumentId
from treestore.stores.documents.layout import packed_name
from treestore.stores.json_values import encode, shown
from treestore.stores.keys import Keyspace, pack, pack_str, unpack_one

NAME_SIZE_MAX: Final = 128
"""Characters of a namespace's name."""

ID_SIZE_BYTES_MAX: Final = 200
"""Longest id that is a string, in UTF-8 (the characters 0 and 1 count twice)."""

ID_MAX: Final = 2**63 - 1
"""Largest id that is an int."""

AFTER: Final = b"\xff"
"""Behind everything that begins with packed elements."""

_name_fits = re.compile(r"[A-Za-z0-9_.-]{1,128}").fullmatch


# --- names and ids ---------------------------------------------------------------------------


def check_name(name: Any, what: str = "The name of a namespace") -> str:
    """The name, if it can be one.

    Raises:
        InvalidArgument: it is not 1 to 128 ASCII letters, digits, ``-``, ``_`` and ``.``.
    """
    if not isinstance(name, str) or not _name_fits(name):
        raise InvalidArgument(
            f"{what} has 1 to {NAME_SIZE_MAX} letters (A-Z, a-z), digits, and any of - _ . in it; "
            f"{shown(name)} does not."
        )
    return name


def check_new_name(name: Any) -> str:
    """The name, if a new namespace can have it.

    Raises:
        InvalidArgument: it cannot.
    """
    if check_name(name) in (".", ".."):
        raise InvalidArgument(
            f"No namespace is called {name}: in a path that means another place. Any other name of "
            "letters, digits, and - _ . does."
        )
    return str(name)


def packed_id(id: Any) -> bytes:
    """A document's id as a key element: strings come before ints.

    Raises:
        InvalidArgument: it is neither an int from 0 to 2**63-1 nor a string of 1 to 200 bytes.
    """
    if isinstance(id, str):
        return packed_name("The id of a document", id, ID_SIZE_BYTES_MAX)
    if isinstance(id, int) and not isinstance(id, bool) and 0 <= id <= ID_MAX:
        return pack(id)
    raise InvalidArgument(
        f"The id of a document is an int from 0 to 2**63-1 or a string, not {shown(id)}."
    )


def unpacked_id(packed: bytes) -> DocumentId:
    """The id in a key element.

    Raises:
        ValueError: there is none.
    """
    id, end = unpack_one(packed, 0)
    if end != len(packed) or not isinstance(id, str | int):
        raise ValueError("a key has no document's id where one belongs")
    return id


# --- keys ------------------------------------------------------------------------------------


NEXT_NUMBER_KEY: Final = Keyspace.NAMESPACES + pack(None)
"""The next number of a namespace."""

COPIES: Final = NEXT_NUMBER_KEY
"""What the keys of copies under way begin with; a number follows."""

FIRST_NAMESPACE: Final = Keyspace.NAMESPACES + b"\x07"
"""Namespaces begin here, behind `NEXT_NUMBER_KEY` and the copies."""

_ROW_TAG: Final = b"\x18"
"""Of an int in a key that takes eight bytes, as every row does."""


def namespace_key(name: Any) -> bytes:
    """Key of a namespace's record.

    Raises:
        InvalidArgument: it is no name.
    """
    return Keyspace.NAMESPACES + pack_str(check_name(name))


def copy_key(number: int) -> bytes:
    """Key of the record of a copy under way."""
    return COPIES + pack(number)


def dropped_key(number: int) -> bytes:
    """Key of what is known of a namespace that is gone."""
    return Keyspace.NAMESPACES_DROPPED + pack(number)


def packed_row(row: int) -> bytes:
    """A row as a key element."""
    return _ROW_TAG + row.to_bytes(8, "big")


def row_in(key: bytes) -> int:
    """The row that a key of vectors, tail or dead rows ends with."""
    return int.from_bytes(key[-8:], "big")


class Space:
    """The prefixes of one namespace's keys.

    Attributes:
        number: of the namespace.
        documents: an id follows.
        vectors, tail, dead: a row follows.
        segments: a segment's number follows, and behind that the number of a part.
    """

    __slots__ = ("dead", "documents", "number", "segments", "tail", "vectors")

    def __init__(self, number: int) -> None:
        packed = pack(number)
        self.number = number
        self.documents = Keyspace.NAMESPACE_DOCUMENTS + packed
        self.vectors = Keyspace.NAMESPACE_VECTORS + packed
        self.tail = Keyspace.NAMESPACE_TAIL + packed
        self.dead = Keyspace.NAMESPACE_DEAD + packed
        self.segments = Keyspace.NAMESPACE_SEGMENTS + packed

    @property
    def all(self) -> tuple[bytes, ...]:
        """Every prefix."""
        return self.documents, self.vectors, self.tail, self.dead, self.segments


ROW_SPACES: Final = (
    Keyspace.NAMESPACE_DOCUMENTS
    + Keyspace.NAMESPACE_VECTORS
    + Keyspace.NAMESPACE_TAIL
    + Keyspace.NAMESPACE_DEAD
    + Keyspace.NAMESPACE_SEGMENTS
)
"""The keyspaces whose keys begin with a namespace's number."""


# --- records ---------------------------------------------------------------------------------

_HEAD: Final = b"\x83\xa3row\xcf"
_ROW_AT: Final = len(_HEAD)
_ROW_END: Final = _ROW_AT + 8
_ID: Final = b"\xa2id"
_ID_AT: Final = _ROW_END + len(_ID)
_ATTRIBUTES: Final = b"\xaaattributes"
_VECTOR: Final = b"\xa6vector"


class StoredDocument(msgspec.Struct):
    """A record, decoded."""

    row: int
    id: DocumentId
    attributes: dict[str, Any]


decode_document = msgspec.msgpack.Decoder(StoredDocument).decode
decode_attributes = msgspec.msgpack.Decoder(dict[str, Any]).decode


def make_record(row: int, id: DocumentId, attributes: bytes) -> bytes:
    """A document's record.

    Args:
        attributes: msgpack map.
    """
    return b"".join((_HEAD, row.to_bytes(8, "big"), _ID, encode(id), _ATTRIBUTES, attributes))


def row_of(record: bytes) -> int:
    """The row of a document, from its record."""
    return int.from_bytes(record[_ROW_AT:_ROW_END], "big")


def attributes_of(record: bytes) -> bytes:
    """The attributes of a document as msgpack, from its record."""
    return record[_after_id(record) + len(_ATTRIBUTES) :]


def is_well_formed(record: bytes) -> bool:
    """Whether a record begins as one does."""
    if not record.startswith(_HEAD) or record[_ROW_END:_ID_AT] != _ID:
        return False
    return record.startswith(_ATTRIBUTES, _after_id(record))


def _after_id(record: bytes) -> int:
    """Where the id ends: a short string, one with its length in a byte, or an int."""
    tag = record[_ID_AT]
    if 0xA0 <= tag <= 0xBF:
        return _ID_AT + 1 + (tag & 0x1F)
    if tag == 0xD9:
        return _ID_AT + 2 + record[_ID_AT + 1]
    return _ID_AT + {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}.get(tag, 1)


def with_vector(record: bytes, vector: bytes) -> bytes:
    """The record as the msgpack map of a document with its vector.

    Args:
        vector: as it is stored; empty where there is none.
    """
    if not vector:
        return record
    return b"".join((b"\x84", memoryview(record)[1:], _VECTOR, packed_floats(vector)))


def packed_floats(vector: bytes) -> bytes:
    """Little-endian float32 as a msgpack array of float32."""
    count = len(vector) // 4
    packed = bytearray(5 * count)
    packed[0::5] = b"\xca" * count
    for at in range(4):
        packed[1 + at :: 5] = vector[3 - at :: 4]
    return b"\xdd" + count.to_bytes(4, "big") + packed
