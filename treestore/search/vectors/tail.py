"""Vectors that no segment holds yet, compared exactly.

One thread appends; any number of others read, without locks. What a reader gets is a `TailView`:
as many rows as there were, which never change, whatever is appended meanwhile. This works because
rows are appended behind what any view shows, into blocks that are never moved: a new block is added
where an array would have to be copied to grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import numpy as np
from numpy.typing import NDArray

from treestore.search.vectors.distances import squares
from treestore.search.vectors.library import Doubles, Flags, Floats
from treestore.search.vectors.nearest import Block

_FIRST_ROWS: Final = 512
_BLOCK_BYTES_MAX: Final = 4 << 20
"""Blocks double up to this size, so that a small tail takes little and a long one few blocks."""


@attrs.frozen(eq=False)
class _Space:
    """One block: memory for some rows, the first ones of which are filled."""

    start: int
    rows: NDArray[np.int64]
    vectors: Floats
    squares: Doubles


@attrs.frozen(eq=False)
class TailView:
    """The rows of a tail as they were at one moment. Ordinals count from 0 in the order of
    appending.

    Attributes:
        dim: numbers in each vector.
    """

    dim: int
    _spaces: tuple[_Space, ...] = attrs.field(repr=False)
    _count: int

    def __len__(self) -> int:
        return self._count

    def blocks(self) -> Iterator[Block]:
        """See `treestore.search.vectors.nearest.Rows`."""
        for space in self._spaces:
            filled = min(len(space.vectors), self._count - space.start)
            if filled > 0:
                yield Block(space.start, space.vectors[:filled], space.squares[:filled])

    @property
    def rows(self) -> NDArray[np.int64]:
        """The numbers of all rows; a copy."""
        pieces = [space.rows[: max(0, self._count - space.start)] for space in self._spaces]
        return np.concatenate([np.empty(0, np.int64), *pieces])

    def vector(self, ordinal: int) -> Floats:
        """One vector; it cannot be written to."""
        if not 0 <= ordinal < self._count:
            raise IndexError(f"there is no row {ordinal} among {self._count}")
        for space in reversed(self._spaces):
            if ordinal >= space.start:
                found: Floats = space.vectors[ordinal - space.start]
                found.flags.writeable = False
                return found
        raise AssertionError("blocks begin at 0")

    def vectors(self) -> Floats:
        """All vectors; a copy, shape (n, dim)."""
        pieces = [block.vectors for block in self.blocks()]
        return np.concatenate([np.empty((0, self.dim), np.float32), *pieces])


class Tail:
    """A growing array of vectors with their row numbers.

    Args:
        dim: numbers in each vector.
    """

    def __init__(self, dim: int) -> None:
        self._view: TailView = TailView(dim, (), 0)

    def __len__(self) -> int:
        return len(self._view)

    @property
    def dim(self) -> int:
        """Numbers in each vector."""
        return self._view.dim

    @property
    def memory_bytes(self) -> int:
        """What the blocks take, filled or not."""
        return sum(
            space.vectors.nbytes + space.rows.nbytes + space.squares.nbytes
            for space in self._view._spaces
        )

    def view(self) -> TailView:
        """The rows there are now. Any thread."""
        return self._view

    def append(self, rows: NDArray[np.int64], vectors: Floats) -> int:
        """Add rows; one thread at a time.

        Args:
            rows: their numbers, shape (n,).
            vectors: shape (n, dim), finite.

        Returns:
            The ordinal of the first one.
        """
        if vectors.shape != (len(rows), self.dim):
            raise ValueError(f"{len(rows)} rows of {self.dim} numbers, not {vectors.shape}")
        first = count = len(self._view)
        spaces = self._view._spaces
        done = 0
        while done < len(rows):
            if not spaces or count == spaces[-1].start + len(spaces[-1].vectors):
                spaces = (*spaces, self._new_space(spaces))
            space = spaces[-1]
            at = count - space.start
            some = min(len(rows) - done, len(space.vectors) - at)
            here, there = slice(at, at + some), slice(done, done + some)
            space.rows[here] = rows[there]
            space.vectors[here] = vectors[there]
            space.squares[here] = squares(space.vectors[here])
            done += some
            count += some
        # The one step in which readers begin to see them.
        self._view = TailView(self.dim, spaces, count)
        return first

    def _new_space(self, spaces: tuple[_Space, ...]) -> _Space:
        rows_max = max(1, _BLOCK_BYTES_MAX // (4 * self.dim))
        size = min(rows_max, 2 * len(spaces[-1].vectors) if spaces else _FIRST_ROWS)
        return _Space(
            spaces[-1].start + len(spaces[-1].vectors) if spaces else 0,
            np.empty(size, np.int64),
            np.empty((size, self.dim), np.float32),
            np.empty(size, np.float64),
        )

    def kept(self, keep: Flags) -> Tail:
        """A new tail with some of the rows, in their order: what is left when a part of them went
        into a segment. Views of this one stay as they are."""
        view = self._view
        if len(keep) != len(view):
            raise ValueError(f"{len(keep)} flags for {len(view)} rows")
        tail = Tail(self.dim)
        rows = view.rows
        for block in view.blocks():
            part = slice(block.start, block.start + len(block.vectors))
            tail.append(rows[part][keep[part]], block.vectors[keep[part]])
        return tail
