"""Vectors as they are given: checked, and made into float32.

Imports no numpy: a client needs none, and it is slow to import.
"""

from __future__ import annotations

import math
import numbers
import sys
from array import array
from collections.abc import Sequence
from typing import Any, Final, Protocol

from treestore.errors import InvalidArgument
from treestore.model.namespaces import VectorSchema
from treestore.stores.json_values import shown

MAGNITUDE_MAX: Final = 1e18
"""Longer vectors' squares do not fit float32, in which indexes calculate."""

MAGNITUDE_MIN: Final = 1e-18
"""Shorter ones', under cosine, vanish."""


class Array(Protocol):
    """An array of numpy, or Python's own."""

    def tolist(self) -> Any:
        """Its numbers."""
        ...


Vector = Sequence[float] | bytes | Array
"""What can be given: numbers, float32 in little-endian bytes, or an array of numpy."""

_PLAIN: Final = frozenset({int, float})
_LITTLE: Final = sys.byteorder == "little"


def float32(vector: Any) -> bytes | None:
    """A vector as little-endian float32, unchecked; None where it is none.

    Args:
        vector: a list or tuple of numbers, bytes of little-endian float32, or what has a buffer of
            numbers of one dimension (numpy's and Python's arrays).
    """
    if isinstance(vector, bytes):
        return vector if len(vector) % 4 == 0 else None
    if isinstance(vector, list | tuple):
        return _packed(vector)
    try:
        view = memoryview(vector)
    except TypeError:
        return None
    if view.ndim != 1:
        return None
    if view.format == "B":
        return bytes(view) if len(view) % 4 == 0 else None
    if view.format == "f" and _LITTLE:
        return view.tobytes()
    try:
        return _packed(view.tolist())
    except (NotImplementedError, ValueError):
        # numpy's float16 and dates: not everything that has a buffer is numbers.
        tolist = getattr(vector, "tolist", None)
        return None if tolist is None else _packed(tolist())


def _packed(numbers_: Sequence[Any]) -> bytes | None:
    kinds = set(map(type, numbers_))
    if not kinds <= _PLAIN and any(
        issubclass(kind, bool) or not issubclass(kind, numbers.Real) for kind in kinds
    ):
        return None
    try:
        packed = array("f", numbers_)
    except OverflowError:
        return array("f", [math.inf] * len(numbers_)).tobytes()  # An int beyond all floats.
    except (TypeError, ValueError):
        return None
    if not _LITTLE:
        packed.byteswap()
    return packed.tobytes()


def checked(vector: Any, schema: VectorSchema) -> bytes:
    """A vector as it is stored.

    Raises:
        InvalidArgument: it does not fit the schema; the sentence goes on after whose it is.
    """
    packed = float32(vector)
    if packed is None:
        raise InvalidArgument(
            "the vector is a list of numbers, float32 as little-endian bytes or a numpy array, not "
            f"{shown(vector)}."
        )
    if len(packed) != 4 * schema.dim:
        raise InvalidArgument(
            f"the vector has {len(packed) // 4} numbers, and the namespace's have {schema.dim}."
        )
    floats = array("f", packed)
    if not _LITTLE:
        floats.byteswap()
    magnitude = math.hypot(*floats)
    if not magnitude <= MAGNITUDE_MAX:
        if all(map(math.isfinite, floats)):
            raise InvalidArgument(
                f"the vector's length is {magnitude:.3g}, more than {MAGNITUDE_MAX:g}; scale it."
            )
        raise InvalidArgument(
            "the vector holds NaN or infinity, or a number too large for float32."
        )
    if schema.metric == "cosine" and magnitude < MAGNITUDE_MIN:
        raise InvalidArgument(
            "the vector is zero, or so near that it has no direction, which cosine needs."
            if magnitude
            else "the vector is zero, which has no direction; cosine needs one."
        )
    return packed


def to_wire(vector: Any) -> Any:
    """A vector as it travels: what is no list goes as float32, where it can."""
    if vector is None or isinstance(vector, list | bytes):
        return vector
    if isinstance(vector, tuple):
        return list(vector)
    packed = float32(vector)
    return vector if packed is None else packed
