"""One page of a listing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import attrs

T = TypeVar("T")


@attrs.frozen
class Page(Generic[T]):
    """Some items of a listing; iterating gives the items.

    Attributes:
        items: in the listing's order.
        next_cursor: hand it back as ``cursor`` for the items that follow; None at the end.
    """

    items: list[T]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
