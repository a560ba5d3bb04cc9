"""Sorted runs: the values of one kind in a sealed dictionary.

A run is sorted as `treestore.query.values.order_key` sorts, and typed where its values have one
type: ints of 64 bits and floats as numpy arrays (an int is never rounded to compare it), strings as
UTF-8 behind one another, moments as microseconds. Runs are made from values (`make_run`) or from
arrays that may be mapped (`load_run`), and give these arrays back.

`bounds` is all that equality and ranges need: where the values begin that are not below a value,
and where those that are above it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from treestore.query.ordering import encode
from treestore.query.values import BOOL, DATE, NUMBER, STRING, bracket, moment, order_key
from treestore.search.columns.blobs import ColumnsDamaged
from treestore.search.columns.values import INT64_MAX, INT64_MIN, Floats, Int64s, Ints

Arrays = Mapping[str, NDArray[Any]]

VALUES_KEPT_MAX: Final = 1 << 16
"""Strings of a run that are kept as Python strings once they were needed."""

NO_MOMENT: Final = INT64_MIN
"""Stands for a string that is no moment."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def micros_of(at: datetime) -> int:
    """Microseconds since 1970 of a moment in UTC."""
    return (at - _EPOCH) // _MICROSECOND


def moment_of(micros: int) -> datetime:
    """The moment of so many microseconds since 1970."""
    return _EPOCH + micros * _MICROSECOND


def text_moment(text: str) -> int:
    """Microseconds since 1970 of a string that is a moment, else `NO_MOMENT`."""
    at = moment(text)
    return NO_MOMENT if at is None else micros_of(at)


class Run(ABC):
    """Sorted values of one kind."""

    kind: ClassVar[str]
    bracket: ClassVar[int]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def value(self, at: int) -> Any:
        """One of them."""

    @abstractmethod
    def values(self) -> list[Any]:
        """All of them."""

    @abstractmethod
    def bounds(self, value: Any) -> tuple[int, int]:
        """How many are below a value of the same bracket, and how many are not above it."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """What `load_run` makes it of again."""

    @abstractmethod
    def ranks(self) -> Int64s | None:
        """Ascending numbers from 0, the same for those that are equal; None: each has its own."""


def _in_array(array: NDArray[Any], value: Any) -> tuple[int, int]:
    wanted = array.dtype.type(value)
    return int(array.searchsorted(wanted, "left")), int(array.searchsorted(wanted, "right"))


class IntRun(Run):
    """Ints of 64 bits with a sign."""

    kind = "int"
    bracket = NUMBER

    def __init__(self, array: Int64s) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def value(self, at: int) -> int:
        return int(self.array[at])

    def values(self) -> list[int]:
        values: list[int] = self.array.tolist()
        return values

    def bounds(self, value: Any) -> tuple[int, int]:
        return int_bounds(self.array, value)

    def arrays(self) -> Arrays:
        return {"ints": self.array}

    def ranks(self) -> Int64s | None:
        return None


def int_bounds(array: Int64s, value: int | float) -> tuple[int, int]:
    """`Run.bounds` of sorted ints; without rounding either of them."""
    if isinstance(value, float):
        if value != value or value == -math.inf:
            return 0, 0
        if value == math.inf:
            return len(array), len(array)
        below = math.floor(value)
        if below != value:
            _, at = int_bounds(array, below)
            return at, at
        value = below
    if value < INT64_MIN:
        return 0, 0
    return (len(array), len(array)) if value > INT64_MAX else _in_array(array, value)


class FloatRun(Run):
    """Floats; NaN is before all others."""

    kind = "float"
    bracket = NUMBER

    def __init__(self, array: Floats) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @cached_property
    def nans(self) -> int:
        """How many NaN there are."""
        return int(np.isnan(self.array).sum())

    def value(self, at: int) -> float:
        return float(self.array[at])

    def values(self) -> list[float]:
        values: list[float] = self.array.tolist()
        return values

    def bounds(self, value: Any) -> tuple[int, int]:
        nans = self.nans
        if value != value:
            return 0, nans
        low, high = float_bounds(self.array[nans:], value)
        return low + nans, high + nans

    def arrays(self) -> Arrays:
        return {"floats": self.array}

    def ranks(self) -> Int64s | None:
        return _ranks_of(self.array[1:] != self.array[:-1], len(self.array))  # Both zeros.


def float_bounds(array: Floats, value: int | float) -> tuple[int, int]:
    """`Run.bounds` of sorted floats without NaN; an int is not rounded."""
    try:
        near = float(value)
    except OverflowError:
        # Beyond every float but the infinite ones.
        at = _in_array(array, math.inf)[0] if value > 0 else _in_array(array, -math.inf)[1]
        return at, at
    low, high = _in_array(array, near)
    if near == value:
        return low, high
    # No float lies between the two.
    return (low, low) if near > value else (high, high)


class NumberRun(Run):
    """Ints and floats together, and ints beyond 63 bits."""

    kind = "number"
    bracket = NUMBER

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def value(self, at: int) -> Any:
        return self._values[at]

    def values(self) -> list[Any]:
        return self._values

    def bounds(self, value: Any) -> tuple[int, int]:
        wanted = order_key(value)
        low = bisect_left(self._values, wanted, key=order_key)
        return low, bisect_right(self._values, wanted, lo=low, key=order_key)

    def arrays(self) -> Arrays:
        return {"packed": np.frombuffer(msgspec.msgpack.encode(self._values), np.uint8)}

    def ranks(self) -> Int64s | None:
        keys = list(map(order_key, self._values))
        differ = [one != other for one, other in pairwise(keys)]
        return _ranks_of(np.array(differ, np.bool_), len(keys))


class TextRun(Run):
    """Strings, in the order of their code points, which is that of their bytes in UTF-8.

    Attributes:
        moments: of each, in microseconds since 1970 (`NO_MOMENT` where it is none); found when it
            is needed, unless it was stored.
    """

    kind = "text"
    bracket = STRING

    def __init__(self, offsets: Ints, data: NDArray[np.uint8], moments: Int64s | None) -> None:
        self._offsets = offsets
        self._data = data
        self._bytes = data.data
        self._moments = moments
        self._values: list[str] | None = None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def value(self, at: int) -> str:
        return _decoded(self._at(at))

    def _at(self, at: int) -> bytes:
        return bytes(self._bytes[int(self._offsets[at]) : int(self._offsets[at + 1])])

    def values(self) -> list[str]:
        values = self._values
        if values is None:
            values = self.stretch(0, len(self))
            if len(values) <= VALUES_KEPT_MAX:
                self._values = values
        return values

    def stretch(self, low: int, high: int) -> list[str]:
        """Those from ``low`` to before ``high``."""
        if self._values is not None:
            return self._values[low:high]
        if low == high:
            return []
        ends = self._offsets[low : high + 1].tolist()
        data = bytes(self._bytes[ends[0] : ends[-1]])
        first = ends[0]
        if data.isascii():
            text = data.decode("ascii")
            return [text[a - first : b - first] for a, b in pairwise(ends)]
        return [_decoded(data[a - first : b - first]) for a, b in pairwise(ends)]

    def bounds(self, value: Any) -> tuple[int, int]:
        if self._values is not None:
            low = bisect_left(self._values, value)
            return low, low + (low < len(self._values) and self._values[low] == value)
        wanted = value.encode("utf-8", "surrogatepass")
        low = self.not_below(wanted)
        return low, low + (low < len(self) and self._at(low) == wanted)

    def not_below(self, wanted: bytes) -> int:
        """How many are below a string in UTF-8."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._at(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def beginning_with(self, prefix: str) -> tuple[int, int]:
        """Where those lie that begin with ``prefix``."""
        data = prefix.encode("utf-8", "surrogatepass")
        # No string in UTF-8 has FF in it.
        return self.not_below(data), self.not_below(data + b"\xff")

    @property
    def moments(self) -> Int64s:
        if self._moments is None:
            self._moments = np.array([text_moment(text) for text in self.values()], np.int64)
        return self._moments

    def arrays(self) -> Arrays:
        arrays: dict[str, NDArray[Any]] = {"offsets": self._offsets, "data": self._data}
        if self._moments is not None:
            arrays["moments"] = self._moments
        return arrays

    def ranks(self) -> Int64s | None:
        return None

    def cut_ranks(self, size_bytes_max: int) -> Int64s | None:
        """`ranks`, where those are equal whose encodings agree in so many bytes."""
        longest = int(np.diff(self._offsets.astype(np.int64)).max(initial=0))
        if 2 * longest + 2 <= size_bytes_max:
            return None  # Not even where each byte takes two.
        encoded = [encode(value, size_bytes_max) for value in self.values()]
        differ = [one != other for one, other in pairwise(encoded)]
        return _ranks_of(np.array(differ, np.bool_), len(self))


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise ColumnsDamaged("a string of a dictionary is not in UTF-8") from None


class BoolRun(Run):
    """False, true, or both."""

    kind = "bool"
    bracket = BOOL

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def value(self, at: int) -> bool:
        return bool(self._array[at])

    def values(self) -> list[bool]:
        return [bool(value) for value in self._array]

    def bounds(self, value: Any) -> tuple[int, int]:
        return _in_array(self._array, value)

    def arrays(self) -> Arrays:
        return {"bools": self._array}

    def ranks(self) -> Int64s | None:
        return None


class MomentRun(Run):
    """Datetimes, as microseconds since 1970."""

    kind = "moment"
    bracket = DATE

    def __init__(self, array: Int64s) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def value(self, at: int) -> datetime:
        return moment_of(int(self.array[at]))

    def values(self) -> list[datetime]:
        return [moment_of(micros) for micros in self.array.tolist()]

    def bounds(self, value: Any) -> tuple[int, int]:
        at = moment(value)
        assert at is not None
        return _in_array(self.array, micros_of(at))

    def arrays(self) -> Arrays:
        return {"moments": self.array}

    def ranks(self) -> Int64s | None:
        return None


def _ranks_of(differ: NDArray[np.bool_], size: int) -> Int64s | None:
    if bool(differ.all()):
        return None
    ranks = np.zeros(size, np.int64)
    np.cumsum(differ, out=ranks[1:])
    return ranks


# --- making them -----------------------------------------------------------------------------


def make_run(values: Sequence[Any], *, with_moments: bool = False) -> Run:
    """A run of sorted values of one bracket, at least one.

    Args:
        with_moments: whether the moments of strings are kept beside them.
    """
    found = bracket(values[0])
    if found == STRING:
        return _make_text(values, with_moments)
    if found == BOOL:
        return BoolRun(np.array(values, np.uint8))
    if found == DATE:
        return MomentRun(np.array([micros_of(value) for value in values], np.int64))
    if all(value.__class__ is float for value in values):
        return FloatRun(np.array(values, np.float64))
    if all(value.__class__ is int and value <= INT64_MAX for value in values):
        return IntRun(np.array(values, np.int64))
    return NumberRun(list(values))


def _make_text(values: Sequence[str], with_moments: bool) -> TextRun:
    encoded = [value.encode("utf-8", "surrogatepass") for value in values]
    ends = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter((len(each) for each in encoded), np.int64, len(encoded)), out=ends[1:])
    offsets: Ints = ends.astype(np.uint32) if ends[-1] < 2**32 else ends
    moments = None
    if with_moments:
        moments = np.fromiter((text_moment(value) for value in values), np.int64, len(values))
    return TextRun(offsets, np.frombuffer(b"".join(encoded), np.uint8), moments)


def load_run(kind: str, arrays: Arrays) -> Run:
    """The run that gave these arrays.

    Raises:
        ValueError: they are of none.
    """
    try:
        run = _LOADERS[kind](arrays)
    except (KeyError, msgspec.MsgspecError) as error:
        raise ValueError(f"no run of a dictionary: {error}") from None
    return run


def _load_ints(arrays: Arrays) -> Run:
    array = arrays["ints"]
    _check_ascending(array)
    return IntRun(array)


def _load_floats(arrays: Arrays) -> Run:
    run = FloatRun(arrays["floats"])
    if np.isnan(run.array[run.nans :]).any() or (np.diff(run.array[run.nans :]) < 0).any():
        raise ValueError("the values of a dictionary are not in order")
    return run


def _load_numbers(arrays: Arrays) -> Run:
    return NumberRun(msgspec.msgpack.decode(arrays["packed"].tobytes(), type=list[int | float]))


def _load_text(arrays: Arrays) -> Run:
    offsets, data, moments = arrays["offsets"], arrays["data"], arrays.get("moments")
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(data):
        raise ValueError("the strings of a dictionary do not fill their bytes")
    if (offsets[1:] < offsets[:-1]).any():
        raise ValueError("the strings of a dictionary overlap")
    if moments is not None and len(moments) != len(offsets) - 1:
        raise ValueError("not each string of a dictionary has its moment")
    return TextRun(offsets, data, moments)


def _load_bools(arrays: Arrays) -> Run:
    _check_ascending(arrays["bools"])
    return BoolRun(arrays["bools"])


def _load_moments(arrays: Arrays) -> Run:
    _check_ascending(arrays["moments"])
    return MomentRun(arrays["moments"])


def _check_ascending(array: NDArray[Any]) -> None:
    if (array[1:] <= array[:-1]).any():
        raise ValueError("the values of a dictionary are not in order")


_LOADERS: Final[dict[str, Callable[[Arrays], Run]]] = {
    "int": _load_ints,
    "float": _load_floats,
    "number": _load_numbers,
    "text": _load_text,
    "bool": _load_bools,
    "moment": _load_moments,
}
