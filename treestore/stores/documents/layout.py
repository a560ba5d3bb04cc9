"""Keys and records of documents.

Keys (``place`` is the packed policy_id and version_id, see `treestore.stores.keys`)::

    NODES     place path 00        -> record of a node (below)
    NODES     place path 01        -> its text as msgpack, where that is longer than 1 KiB
    NODE_IDS  place node_id        -> path
    PAGES     place level start path -> end      (pages.py)
    DOCUMENTS place                -> msgpack map of the `Document`
    SOURCES   place                -> what `get_structure` needs beside the nodes (shapes.py)

A policy's versions have keys of their own: docs/versions.md.

A path holds one ordinal for each level, root first. Ordinals grow with the siblings' order and
leave gaps, so an insert seldom moves a sibling. Written big-endian in 2, 3 or 5 bytes, smallest
first byte 0x02 and largest 0xEF, none the prefix of another. Hence:

* a node, its text and everything below it are one contiguous run, in document order;
* ``path FF`` is where that run has ended;
* the ancestors are the path's prefixes.

A node's record is what goes over the wire: the msgpack map of the `Node`, its text last. The map
has one more key in front, ``_``, which is the store's own and which decoders skip::

    0         DE 00 n        a map of n entries (always in three bytes, so that what follows has
                             its place however many fields a `Node` has)
    3         A1 5F          the key "_": an array of
    5         9m
    6         CE, u32          head_end, big-endian, and
    11                         source: how the node was written in what was stored (shapes.py)
              …              the fields of the `Node` up to and including the key "text"
    head_end                 text as msgpack; nothing where it has its own key

So a record is a node; a record that ends at head_end, and the text under the next key, are one
together; and ``record[:head_end] + A0`` is a node without its text. The values of a run of keys,
joined as they are, are the nodes of a subtree: nothing is decoded, nor even cut.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from treestore.errors import InvalidArgument, ResourceExhausted
from treestore.model.documents import Node
from treestore.stores.json_values import encode, shown
from treestore.stores.keys import Keyspace, pack_str

NAME_SIZE_BYTES_MAX: Final = 200
"""Longest policy_id and version_id, in UTF-8 (the characters 0 and 1 count twice)."""

NODE_ID_SIZE_BYTES_MAX: Final = 256
"""Longest node_id, likewise."""

PATH_SIZE_BYTES_MAX: Final = 600
"""Longest path: what the other parts of a key leave of the engine's limit."""

DEPTH_MAX: Final = 200
"""Levels of a document at most."""

ORDINAL_SIZE_MIN: Final = 2
"""Bytes of the shortest ordinal in a path."""

ORDINAL_GAP: Final = 64
"""Distance between the ordinals of siblings that are stored together."""

TEXT_INLINE_BYTES_MAX: Final = 1024
"""A longer text has its own key, so that an outline never reads it."""

HEAD = b"\x00"
TEXT = b"\x01"
FIRST_CHILD = b"\x02"
AFTER = b"\xff"
EMPTY_TEXT = b"\xa0"

_OPENING: Final = b"\xde\x00"
_OWN_KEY: Final = b"\xa1_"
_OWN_AT: Final = 5
_HEAD_END_AT: Final = 7
_SOURCE_AT: Final = 11
_u32_at = struct.Struct(">I").unpack_from

decode_node = msgspec.msgpack.Decoder(Node).decode
decode_any = msgspec.msgpack.Decoder().decode


def packed_name(what: str, name: str, size_bytes_max: int = NAME_SIZE_BYTES_MAX) -> bytes:
    """``name`` as a key element, or `InvalidArgument` with a sentence that begins with ``what``."""
    if not isinstance(name, str):
        raise InvalidArgument(f"{what} is a string, not {type(name).__name__}.")
    if not name:
        raise InvalidArgument(f"{what} must not be empty.")
    try:
        packed = pack_str(name)
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{what} {shown(name)} holds half of a surrogate pair, which is no character."
        ) from None
    if len(packed) - 2 > size_bytes_max:
        raise InvalidArgument(
            f"{what} has {len(packed) - 2} bytes; it has at most {size_bytes_max}."
        )
    return packed


def packed_node_id(node_id: str) -> bytes:
    """A node_id as a key element.

    Raises:
        InvalidArgument: it is no string, empty, too long or no Unicode.
    """
    return packed_name("node_id", node_id, NODE_ID_SIZE_BYTES_MAX)


class Place:
    """One document's prefixes."""

    __slots__ = ("ids", "nodes", "packed", "policy_id", "version_id")

    def __init__(self, policy_id: str, version_id: str) -> None:
        self.policy_id = policy_id
        self.version_id = version_id
        self.packed = packed_name("policy_id", policy_id) + packed_name("version_id", version_id)
        self.nodes = Keyspace.NODES + self.packed
        self.ids = Keyspace.NODE_IDS + self.packed

    @property
    def pages(self) -> bytes:
        return Keyspace.PAGES + self.packed

    @property
    def document(self) -> bytes:
        return Keyspace.DOCUMENTS + self.packed

    @property
    def source(self) -> bytes:
        return Keyspace.SOURCES + self.packed

    def __str__(self) -> str:
        return f"version {self.version_id!r} of policy {self.policy_id!r}"


# --- paths -----------------------------------------------------------------------------------

_TWO: Final = 0x7E00  # ordinals in two bytes: first byte 02..7F
_THREE: Final = 0x60_0000  # the next ones in three bytes: 80..DF
_FIVE: Final = 1 << 36  # and in five bytes: E0..EF


def encode_ordinal(ordinal: int) -> bytes:
    """One level of a path; bytes order as the ordinals do."""
    if ordinal < _TWO:
        return (ordinal + 0x0200).to_bytes(2, "big")
    ordinal -= _TWO
    if ordinal < _THREE:
        return (ordinal + 0x80_0000).to_bytes(3, "big")
    ordinal -= _THREE
    if ordinal < _FIVE:
        return (ordinal + (0xE0 << 32)).to_bytes(5, "big")
    raise ResourceExhausted("A node has too many children for another one.")


def decode_ordinal(code: bytes) -> int:
    """The ordinal that `encode_ordinal` wrote."""
    number = int.from_bytes(code, "big")
    if len(code) == 2:
        return number - 0x0200
    if len(code) == 3:
        return number - 0x80_0000 + _TWO
    return number - (0xE0 << 32) + _TWO + _THREE


def level_ends(path: bytes, start: int = 0) -> list[int]:
    """Where each level of ``path`` ends, root first, from the level that begins at ``start``."""
    ends = []
    at = start
    size = len(path)
    while at < size:
        first = path[at]
        at += 2 if first < 0x80 else 3 if first < 0xE0 else 5
        ends.append(at)
    return ends


def parent_path(path: bytes) -> bytes:
    """The path of the parent; empty for a root."""
    ends = level_ends(path)
    return path[: ends[-2]] if len(ends) > 1 else b""


def spread(ordinals: list[int], index: int, count: int) -> tuple[int, int, list[int]]:
    """Ordinals for ``count`` new siblings before ``ordinals[index]``.

    Gives ``(low, high, new)``: the siblings ``ordinals[low:high]``, with the new ones put in at
    ``index``, get the ordinals ``new``. Mostly ``low == high``: nobody moves. Where the gap is
    used up, as few neighbours as make room for a while move along.
    """
    low = high = index
    width = 1
    while True:
        before = ordinals[low - 1] if low else 0
        places = high - low + count
        if high == len(ordinals):
            return low, high, [before + ORDINAL_GAP * (i + 1) for i in range(places)]
        room = ordinals[high] - before
        if room > places and (low == high or room >= 8 * (places + 1)):
            return low, high, [before + room * (i + 1) // (places + 1) for i in range(places)]
        low = max(0, low - width)
        high = min(len(ordinals), high + width)
        width *= 2


# --- records ---------------------------------------------------------------------------------


class _Own(msgspec.Struct):
    """What the store keeps in a record for itself."""

    own: list[Any] = msgspec.field(name="_")


_decode_own = msgspec.msgpack.Decoder(_Own).decode


def make_record(head: bytes, text: bytes, source: bytes) -> tuple[bytes, bytes | None]:
    """A record, and the text where it needs its own key.

    Args:
        head: msgpack map of a node (of up to 15 fields) up to and including the key "text".
        text: msgpack string.
        source: msgpack array.
    """
    record = _make_head(head, source)
    if len(text) > TEXT_INLINE_BYTES_MAX:
        return record, text
    return record + text, None


def _make_head(head: bytes, source: bytes) -> bytes:
    fields, items = head[0] - 0x80, source[0] - 0x90
    assert 0 < fields < 16
    assert 0 < items < 15
    return b"".join(
        (
            _OPENING,
            (fields + 1).to_bytes(1, "big"),
            _OWN_KEY,
            (0x91 + items).to_bytes(1, "big"),
            b"\xce",
            (_SOURCE_AT + len(source) + len(head) - 2).to_bytes(4, "big"),
            memoryview(source)[1:],
            memoryview(head)[1:],
        )
    )


def head_end_of(record: bytes) -> int:
    """Where the text begins; the end of the record where the text has its own key."""
    end: int = _u32_at(record, _HEAD_END_AT)[0]
    return end


def is_whole(record: bytes) -> bool:
    """Whether the text is in the record."""
    return head_end_of(record) != len(record)


def is_well_formed(record: bytes) -> bool:
    """Whether it begins as a record does and says of itself what can be."""
    return (
        len(record) > _SOURCE_AT
        and record.startswith(_OPENING)
        and record[3:_OWN_AT] == _OWN_KEY
        and record[_OWN_AT + 1] == 0xCE
        and _SOURCE_AT < head_end_of(record) <= len(record)
    )


def bare(record: bytes) -> bytes:
    """The node of a record without its text, as msgpack."""
    return record[: head_end_of(record)] + EMPTY_TEXT


def fields_of(record: bytes) -> dict[str, Any]:
    """The fields of a record's node, in order, with an empty text."""
    fields: dict[str, Any] = decode_any(bare(record))
    del fields["_"]
    return fields


def source_of(record: bytes) -> list[Any]:
    """How the node was written: shape number, then overrides and position where needed."""
    return _decode_own(bare(record)).own[1:]


def with_fields(record: bytes, **fields: Any) -> bytes:
    """``record`` with other values of some fields (not the text)."""
    return _rewritten(record, fields, encode(source_of(record)))


def with_source(record: bytes, source: bytes) -> bytes:
    """``record`` with another source."""
    return _rewritten(record, {}, source)


def _rewritten(record: bytes, changes: dict[str, Any], source: bytes) -> bytes:
    node = fields_of(record)
    node.update(changes)
    return _make_head(encode(node)[:-1], source) + record[head_end_of(record) :]
