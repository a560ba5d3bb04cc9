"""Values as bytes that sort as the values do: what entries of indexes and cursors are made of.

``encode(a) < encode(b)`` exactly where ``order_key(a) < order_key(b)``, equal where these are equal
(`treestore.query.values.order_key`), as long as nothing was cut. A value that is missing counts as
null. An encoding::

    null     10
    number   20 the largest double that is not above it, 8 bytes, big-endian, made to sort as
                unsigned (the sign bit flipped, of a negative number all bits; NaN as 0), then,
                where that double is 2**53 or more either way, what is left to the number, 2 bytes
    string   30 UTF-8, each 00 as 01 01 and each 01 as 01 02, then 00
    object   40 for each field, sorted by name: 02 name, as in a string, then its value; then 00
    list     50 its elements, then 00
    bool     60 false, 61 true
    date     70 microseconds since the year 1, 8 bytes, big-endian

No encoding is the beginning of another one, so they can be put one behind the other, and what
follows never decides between two different ones.

**Cut.** An encoding longer than ``size_bytes_max`` keeps so many bytes, and FF follows as a mark.
Two values that are cut may have one encoding and yet differ; the order of two encodings that
differ is right all the same. So where the *operand* of a comparison was not cut, what an index says
of its entries is exact: a value that was cut differs from the operand within its first bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any, Final

import attrs

from treestore.query.expression import Path
from treestore.query.paths import MISSING
from treestore.query.values import BOOL, DATE, LIST, NULL, NUMBER, OBJECT, STRING, bracket, plain

UNCUT: Final = 1 << 62
"""No limit to the size of an encoding."""

CUT_MARK: Final = b"\xff"

ENTRY_VALUES_SIZE_BYTES_MAX: Final = 480
"""Share of a key that the values of one index entry may take, marks of cuts not counted."""

_NULL, _NUMBER, _STRING, _OBJECT, _LIST = 0x10, 0x20, 0x30, 0x40, 0x50
_FALSE, _TRUE, _DATE = b"\x60", b"\x61", 0x70
_END: Final = b"\0"
_FIELD: Final = b"\2"

_EPOCH: Final = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EXACT_MAX: Final = 2**53
_SIGN: Final = 1 << 63
_ONES: Final = (1 << 64) - 1

_double = Struct(">d")
_bits = Struct(">Q")
_plain_number = Struct(">BQ")
_long_number = Struct(">BQH")
_date = Struct(">BQ")


@attrs.frozen(kw_only=True)
class IndexInfo:
    """What a planner knows of an index.

    Attributes:
        id: never used again.
        name: unique in its collection.
        fields: the paths whose values its entries are made of, in their order.
        unique: no two documents have an entry with the same values.
        sparse: a document without a value at any of ``fields`` has no entry.
        multikey: some document's way along ``fields`` led to or through a list, since the index
            was made (`treestore.query.entries`). Where it is False every document has one entry,
            or none in a sparse index.
        ready: whether every document of the collection has its entries.
    """

    id: int
    name: str
    fields: tuple[Path, ...]
    unique: bool = False
    sparse: bool = False
    multikey: bool = False
    ready: bool = True

    @property
    def value_size_bytes_max(self) -> int:
        """Where each value of an entry is cut."""
        return ENTRY_VALUES_SIZE_BYTES_MAX // len(self.fields)


def encode(value: Any, size_bytes_max: int = UNCUT) -> bytes:
    """The value as bytes; longer than ``size_bytes_max``, by one, where it was cut.

    Raises:
        TypeError: it is nothing that a document can hold.
    """
    kind = value.__class__
    encoded: bytes
    if kind is str:
        # Most values: a string without odd letters.
        if "\0" not in value and "\1" not in value:
            encoded = b"\x30" + value.encode("utf-8", "surrogatepass") + b"\0"
        else:
            encoded = b"\x30" + _escaped(value) + b"\0"
    elif (kind is int or kind is float) and -_EXACT_MAX < value < _EXACT_MAX:
        (bits,) = _bits.unpack(_double.pack(value + 0.0))  # -0.0 + 0.0 is 0.0
        encoded = _plain_number.pack(_NUMBER, bits | _SIGN if value >= 0 else bits ^ _ONES)
    else:
        parts: list[bytes] = []
        _append(parts, value, size_bytes_max + 1)
        encoded = b"".join(parts)
    if len(encoded) > size_bytes_max:
        return encoded[:size_bytes_max] + CUT_MARK
    return encoded


def is_cut(encoded: bytes, size_bytes_max: int) -> bool:
    """Whether what `encode` gave, with the same limit, is not all of the value."""
    return len(encoded) > size_bytes_max


def encode_all(values: Sequence[Any], size_bytes_max: int) -> bytes:
    """The values one behind the other, each cut at ``size_bytes_max``."""
    return b"".join([encode(value, size_bytes_max) for value in values])


def _append(parts: list[bytes], value: Any, left: int) -> int:
    """Append an encoding, or as much of it as is wanted; returns how many bytes may follow."""
    found = NULL if value is MISSING else bracket(value)
    if found == LIST:
        parts.append(b"\x50")
        left -= 1
        for element in value:
            if left <= 0:
                return left
            left = _append(parts, element, left)
        parts.append(_END)
        return left - 1
    if found == OBJECT:
        parts.append(b"\x40")
        left -= 1
        for name in sorted(value):
            if left <= 0:
                return left
            encoded = _FIELD + _escaped(name) + _END
            parts.append(encoded)
            left = _append(parts, value[name], left - len(encoded))
        parts.append(_END)
        return left - 1
    encoded = _scalar(found, value)
    parts.append(encoded)
    return left - len(encoded)


def _scalar(found: int, value: Any) -> bytes:
    if found == STRING:
        return b"\x30" + _escaped(plain(value)) + b"\0"
    if found == NUMBER:
        return _number(value)
    if found == NULL:
        return b"\x10"
    if found == BOOL:
        return _TRUE if value else _FALSE
    if found == DATE:
        return _date.pack(_DATE, (value - _EPOCH) // _MICROSECOND)
    raise TypeError(f"a document holds no {type(value).__name__}")


def _escaped(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return data.replace(b"\1", b"\1\2").replace(b"\0", b"\1\1")


def _number(value: int | float) -> bytes:
    if isinstance(value, float):
        floor, rest = value + 0.0, 0  # -0.0 + 0.0 is 0.0
        if math.isnan(floor):
            return _long_number.pack(_NUMBER, 0, 0)
    else:
        floor, rest = _floor(value)
    (bits,) = _bits.unpack(_double.pack(floor))
    bits = bits ^ _ONES if bits & _SIGN else bits | _SIGN
    if -_EXACT_MAX < floor < _EXACT_MAX:
        return _plain_number.pack(_NUMBER, bits)
    return _long_number.pack(_NUMBER, bits, rest)


def _floor(value: int) -> tuple[float, int]:
    """The largest double that is not above an int, and what is left.

    The ints that documents hold have 64 bits, and at most 2,047 left. Of larger ones, which a
    filter may name, it is enough that they lie between two doubles.
    """
    try:
        floor = float(value)
    except OverflowError:
        floor = math.inf if value > 0 else -math.inf
    if math.isinf(floor):
        return (math.nextafter(math.inf, 0), 0xFFFF) if value > 0 else (-math.inf, 0xFFFF)
    if floor > value:
        floor = math.nextafter(floor, -math.inf)
        if math.isinf(floor):
            return floor, 0xFFFF
    return floor, min(value - int(floor), 0xFFFF)


# --- bounds of brackets ----------------------------------------------------------------------

FIRST_NUMBER: Final = _long_number.pack(_NUMBER, 0, 1)
"""Behind NaN, before every other number."""

_BRACKET_ENDS: Final = {
    NULL: b"\x11",
    NUMBER: b"\x21",
    STRING: b"\x31",
    OBJECT: b"\x41",
    LIST: b"\x51",
    BOOL: b"\x62",
    DATE: b"\x71",
}
_BRACKET_STARTS: Final = {
    NULL: b"\x10",
    NUMBER: FIRST_NUMBER,
    STRING: b"\x30",
    OBJECT: b"\x40",
    LIST: b"\x50",
    BOOL: b"\x60",
    DATE: b"\x70",
}


def bracket_start(found: int) -> bytes:
    """Not above the encoding of any value of a bracket; of numbers, NaN is before it."""
    return _BRACKET_STARTS[found]


def bracket_end(found: int) -> bytes:
    """Above the encoding of every value of a bracket, below those of the next one."""
    return _BRACKET_ENDS[found]


# --- going over encodings --------------------------------------------------------------------

_LOWEST_EXACT: Final = _plain_number.pack(
    _NUMBER, _bits.unpack(_double.pack(-(2.0**53)))[0] ^ _ONES
)
_HIGHEST_EXACT: Final = _plain_number.pack(_NUMBER, _bits.unpack(_double.pack(2.0**53))[0] | _SIGN)


def end_of(data: bytes, at: int, size_bytes_max: int = UNCUT) -> int:
    """Where the encoding that begins at ``at`` has ended, its mark included if it was cut.

    Raises:
        ValueError: there is none.
    """
    tag = data[at : at + 1]
    # Most values are short strings and plain numbers.
    if tag == b"\x30":
        end = data.find(b"\0", at) + 1
        if 0 < end <= at + size_bytes_max:
            return end
    elif tag == b"\x20" and size_bytes_max >= 9:
        number = data[at : at + 9]
        if _LOWEST_EXACT < number < _HIGHEST_EXACT and len(number) == 9:
            return at + 9
    try:
        end = _end_of(data, at, at + size_bytes_max)
    except IndexError:
        raise ValueError("the encoding of a value is cut off") from None
    if end - at > size_bytes_max:
        end = at + size_bytes_max + 1
    if end > len(data):
        raise ValueError("the encoding of a value is cut off")
    return end


def tails(keys: Sequence[bytes], at: int, size_bytes_max: int) -> list[bytes] | None:
    """What stands behind the encoding at ``at`` in each of some keys; None where `end_of` is to
    say.

    Args:
        keys: in order, or in the reverse of it, all alike before ``at``. So where the first and the
            last have strings there, or numbers of the short form, those between have, too.
    """
    first, last = keys[0], keys[-1]
    tag = first[at : at + 1]
    if tag != last[at : at + 1]:
        return None
    if tag == b"\x20" and size_bytes_max >= 9:
        if _is_short(first[at : at + 9]) and _is_short(last[at : at + 9]):
            end = at + 9
            return [key[end:] for key in keys]
    elif tag == b"\x30":
        ends = [key.find(b"\0", at) for key in keys]
        # One that was cut has its end, if any, behind the limit.
        if min(ends) > 0 and max(ends) < at + size_bytes_max:
            return [key[end + 1 :] for key, end in zip(keys, ends, strict=True)]
    return None


def _is_short(number: bytes) -> bool:
    return _LOWEST_EXACT < number < _HIGHEST_EXACT and len(number) == 9


def _end_of(data: bytes, at: int, limit: int) -> int:
    """Likewise; something behind ``limit`` where it would have ended behind it."""
    depth = 0
    while True:
        if at >= limit:
            return limit + 1
        tag = data[at]
        if tag == 0 and depth:
            at += 1
            depth -= 1
        elif tag == _FIELD[0] and depth:
            at = _string_end(data, at, limit)
            continue
        elif tag == _STRING:
            at = _string_end(data, at, limit)
        elif tag == _NUMBER:
            number = data[at : at + 9]
            at += 9 if _LOWEST_EXACT < number < _HIGHEST_EXACT else 11
        elif tag in (_NULL, 0x60, 0x61):
            at += 1
        elif tag in (_LIST, _OBJECT):
            at += 1
            depth += 1
        elif tag == _DATE:
            at += 9
        else:
            raise ValueError(f"no value's encoding begins with byte {tag:#04x}")
        if not depth:
            return at


def _string_end(data: bytes, at: int, limit: int) -> int:
    # A string that was cut has no end of its own; the one found is of something behind it.
    end = data.find(b"\0", at, limit)
    return limit + 1 if end < 0 else end + 1
