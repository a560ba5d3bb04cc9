"""Arrays that grow, of which readers see a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Numbers of rows, ordinals, or LSNs."""

Flags = NDArray[np.bool_]

_FIRST: Final = 64


class Growing:
    """An array that is filled from its beginning. One thread writes.

    A reader takes `prefix`: what is in it is never moved or changed, since an array that is full is
    copied into a larger one, and who holds the old one keeps it.
    """

    def __init__(self, dtype: type[Any] = np.int64) -> None:
        self._data: NDArray[Any] = np.empty(_FIRST, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, values: Sequence[Any] | NDArray[Any]) -> None:
        """Put values behind those that are there."""
        end = self._count + len(values)
        if end > len(self._data):
            larger = np.empty(max(end, 2 * len(self._data)), self._data.dtype)
            larger[: self._count] = self._data[: self._count]
            self._data = larger
        self._data[self._count : end] = values
        self._count = end

    def prefix(self, count: int) -> NDArray[Any]:
        """The first ones, where they lie."""
        return self._data[:count]


class Ids(Protocol):
    """Packed ids by ordinal."""

    def __getitem__(self, ordinal: int, /) -> bytes: ...
