"""Keys of the tree: order-preserving tuples under a keyspace.

A key is one keyspace byte (`Keyspace`) and then elements. Comparing two packed tuples as bytes
gives the order of the tuples, element by element; values of different types order as
None < bytes < str < int < date < datetime. An element::

    None      05
    bytes     06 data, each 00 as 01 01 and each 01 as 01 02, then 00
    str       07 UTF-8, likewise, then 00
    int       08..0F  negative, -(2**64)+1 up; 8 - n = how many bytes n its size takes
              10      zero
              11..18  positive, up to 2**64-1, likewise; big-endian
    date      20 days since 0001-01-01, 3 bytes big-endian
    datetime  21 microseconds since 0001-01-01 UTC, 8 bytes big-endian (timezone-aware only)

No packed element is a prefix of another one, so a store may append what it likes, and every key
that begins with some packed elements holds exactly these first.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

KEY_SIZE_BYTES_MAX: Final = 1020
"""Longest key that the engine takes, keyspace included."""


class Keyspace:
    """The first byte of every key, one per kind of record. A number is never used again."""

    KV: Final = b"\x01"
    DEDUPLICATION: Final = b"\x02"
    NODES: Final = b"\x10"
    NODE_IDS: Final = b"\x11"
    PAGES: Final = b"\x12"
    DOCUMENTS: Final = b"\x13"
    SOURCES: Final = b"\x14"
    POLICIES: Final = b"\x15"
    VERSIONS: Final = b"\x16"
    VERSION_PERIODS: Final = b"\x17"
    VERSION_TAGS: Final = b"\x18"
    VERSION_HISTORY: Final = b"\x19"
    TOOL_RESULTS: Final = b"\x20"
    TOOL_RESULTS_BY_TOOL: Final = b"\x21"
    TOOL_RESULTS_BY_CASE: Final = b"\x22"
    TRAJECTORIES: Final = b"\x23"
    TRAJECTORIES_BY_CASE: Final = b"\x24"
    CROSS_REFERENCES_OUT: Final = b"\x25"
    CROSS_REFERENCES_IN: Final = b"\x26"
    CONTRADICTIONS: Final = b"\x27"
    CONTRADICTIONS_BY_CASE: Final = b"\x28"
    ENTITY_METADATA: Final = b"\x29"
    TOOL_RESULTS_BY_NODE: Final = b"\x2a"
    TOOL_STATISTICS: Final = b"\x2b"
    TRAJECTORY_STATISTICS: Final = b"\x2c"
    NODE_VISITS: Final = b"\x2d"
    CONTRADICTIONS_BY_NODE: Final = b"\x2e"
    PROMPTS: Final = b"\x30"
    PROMPT_DATES: Final = b"\x31"
    PROMPT_USAGE: Final = b"\x32"
    PROMPT_USAGE_BY_PROMPT: Final = b"\x33"
    PROMPT_USAGE_BY_CASE: Final = b"\x34"
    PROMPT_STATISTICS: Final = b"\x35"
    COLLECTIONS: Final = b"\x40"
    COLLECTION_DOCUMENTS: Final = b"\x41"
    INDEX_ENTRIES: Final = b"\x42"
    INDEX_BUILDS: Final = b"\x43"
    COLLECTIONS_DROPPED: Final = b"\x44"
    API_KEYS: Final = b"\x50"
    AUDIT: Final = b"\x51"
    NAMESPACES: Final = b"\x60"
    NAMESPACE_DOCUMENTS: Final = b"\x61"
    NAMESPACE_VECTORS: Final = b"\x62"
    NAMESPACE_TAIL: Final = b"\x63"
    NAMESPACE_DEAD: Final = b"\x64"
    NAMESPACE_SEGMENTS: Final = b"\x65"
    NAMESPACES_DROPPED: Final = b"\x66"
    NAMESPACE_IMPORTS: Final = b"\x67"
    NAMESPACE_REJECTIONS: Final = b"\x68"


Element = None | bytes | str | int | date | datetime

_NONE, _BYTES, _STR, _ZERO, _DATE, _DATETIME = 0x05, 0x06, 0x07, 0x10, 0x20, 0x21
_EPOCH = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def pack_str(text: str) -> bytes:
    """One string element.

    Raises:
        UnicodeEncodeError: the string holds a lone surrogate.
    """
    return b"\x07" + _escape(text.encode()) + b"\0"


def _escape(data: bytes) -> bytes:
    return data.replace(b"\1", b"\1\2").replace(b"\0", b"\1\1")


def pack(*elements: Element) -> bytes:
    """The elements as bytes that sort like the tuple.

    Raises:
        TypeError: an element of another type (bool and float included), or a naive datetime.
        OverflowError: an int beyond 64 bits and a sign.
        UnicodeEncodeError: a string with a lone surrogate.
    """
    return b"".join(map(_pack_one, elements))


def _pack_one(element: Element) -> bytes:
    if isinstance(element, str):
        return pack_str(element)
    if isinstance(element, bytes):
        return b"\x06" + _escape(element) + b"\0"
    if isinstance(element, bool):
        raise TypeError("a key element cannot be a bool")
    if isinstance(element, int):
        return _pack_int(element)
    if isinstance(element, datetime):
        if element.tzinfo is None:
            raise TypeError("a datetime in a key must be timezone-aware")
        return b"\x21" + ((element - _EPOCH) // _MICROSECOND).to_bytes(8, "big")
    if isinstance(element, date):
        return b"\x20" + element.toordinal().to_bytes(3, "big")
    if element is None:
        return b"\x05"
    raise TypeError(f"a key element cannot be a {type(element).__name__}")


def _pack_int(number: int) -> bytes:
    if number == 0:
        return b"\x10"
    size = (abs(number).bit_length() + 7) // 8
    if size > 8:
        raise OverflowError(f"{number} does not fit a key: at most 64 bits and a sign")
    if number > 0:
        return bytes((_ZERO + size,)) + number.to_bytes(size, "big")
    # The complement, so that a larger magnitude sorts first.
    return bytes((_ZERO - size,)) + (number + (1 << 8 * size) - 1).to_bytes(size, "big")


def unpack(data: bytes) -> tuple[Element, ...]:
    """The elements of packed ``data``, all of it.

    Raises:
        ValueError: ``data`` is not a packed tuple.
    """
    elements: list[Element] = []
    at = 0
    while at < len(data):
        element, at = unpack_one(data, at)
        elements.append(element)
    return tuple(elements)


def unpack_one(data: bytes, at: int) -> tuple[Element, int]:
    """The element that begins at ``at``, and where the next one begins.

    Raises:
        ValueError: there is no element at ``at``.
    """
    tag = data[at]
    if tag in (_STR, _BYTES):
        raw, after = _unescape(data, at + 1)
        return (raw.decode() if tag == _STR else raw), after
    if tag == _NONE:
        return None, at + 1
    if _ZERO - 8 <= tag <= _ZERO + 8:
        size = abs(tag - _ZERO)
        number = int.from_bytes(_take(data, at + 1, size), "big")
        if tag < _ZERO:
            number -= (1 << 8 * size) - 1
        return number, at + 1 + size
    if tag == _DATE:
        return date.fromordinal(int.from_bytes(_take(data, at + 1, 3), "big")), at + 4
    if tag == _DATETIME:
        moment = int.from_bytes(_take(data, at + 1, 8), "big")
        return _EPOCH + moment * _MICROSECOND, at + 9
    raise ValueError(f"no key element begins with byte {tag:#04x}")


def _take(data: bytes, at: int, size: int) -> bytes:
    part = data[at : at + size]
    if len(part) != size:
        raise ValueError("a key element is cut off")
    return part


def _unescape(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\0", at)
    if end < 0:
        raise ValueError("a string or bytes element has no end")
    return data[at:end].replace(b"\1\1", b"\0").replace(b"\1\2", b"\1"), end + 1


def successor(prefix: bytes) -> bytes | None:
    """The first key after every key that starts with ``prefix``; None where there is none."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes((stripped[-1] + 1,))
