"""Arrays in one run of bytes, which may be mapped::

    "TSC1", length of the header (4 bytes), the header (msgpack), then each array, the first byte of
    each at a multiple of 64 from the beginning; zeros in between

All numbers are little-endian. The header has what its maker wants, and of each array its name,
type, count and place.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

_MAGIC: Final = b"TSC1"
_ALIGNMENT: Final = 64
_prefix = Struct("<4sI")

_TYPES: Final = frozenset({"<i8", "<f8", "<u4", "<i4", "<u2", "|u1"})

Buffer = bytes | bytearray | memoryview


class ColumnsDamaged(ValueError):
    """Bytes are not those of columns; make them again from the rows."""


class ArrayInfo(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Where an array is."""

    name: str
    type: str
    count: int
    offset: int


class Header(msgspec.Struct, forbid_unknown_fields=True):
    """Of a blob. ``fields`` are its maker's."""

    fields: dict[str, Any]
    arrays: list[ArrayInfo]


_decode_header = msgspec.msgpack.Decoder(Header).decode

Fields = TypeVar("Fields")


def pack(fields: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A blob of these arrays, each of one dimension."""
    ordered = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        for name, array in arrays.items()
    }
    # The header's length depends on the offsets, and the offsets on it: so it gets room.
    infos = [ArrayInfo(name, array.dtype.str, len(array), 2**40) for name, array in ordered.items()]
    room = _prefix.size + len(msgspec.msgpack.encode(Header(fields, infos)))
    at = _aligned(room)
    for info, array in zip(infos, ordered.values(), strict=True):
        info.offset = at
        at = _aligned(at + array.nbytes)
    data = bytearray(at)
    header = msgspec.msgpack.encode(Header(fields, infos))
    data[: _prefix.size] = _prefix.pack(_MAGIC, len(header))
    data[_prefix.size : _prefix.size + len(header)] = header
    for info, array in zip(infos, ordered.values(), strict=True):
        data[info.offset : info.offset + array.nbytes] = array.tobytes()
    return bytes(data)


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT) * _ALIGNMENT


def unpack(data: Buffer) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The fields and arrays of a blob; the arrays are views of it and cannot be written to.

    Raises:
        ColumnsDamaged: it is none.
    """
    view = memoryview(data).cast("B").toreadonly()
    if len(view) < _prefix.size:
        raise ColumnsDamaged("a column is cut off")
    magic, length = _prefix.unpack_from(view)
    if magic != _MAGIC:
        raise ColumnsDamaged("these bytes are no column, or one of another version")
    if length > len(view) - _prefix.size:
        raise ColumnsDamaged("the header of a column is cut off")
    try:
        header = _decode_header(view[_prefix.size : _prefix.size + length])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ColumnsDamaged(f"the header of a column is damaged: {error}") from None
    arrays: dict[str, NDArray[Any]] = {}
    for info in header.arrays:
        if info.type not in _TYPES or info.count < 0 or info.offset < 0:
            raise ColumnsDamaged(f"the header of a column names an impossible array {info.name!a}")
        dtype = np.dtype(info.type)
        if info.offset + info.count * dtype.itemsize > len(view):
            raise ColumnsDamaged(f"the array {info.name!a} of a column is cut off")
        arrays[info.name] = np.frombuffer(view, dtype, info.count, info.offset)
    return header.fields, arrays
