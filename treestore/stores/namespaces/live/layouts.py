"""Layouts: the parts that are searched together, and how a segment takes its place among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from treestore.stores.namespaces.live.arrays import Rows
from treestore.stores.namespaces.live.parts import (
    LIVES,
    NEVER,
    Content,
    Finder,
    GrowingPart,
    Part,
)


@attrs.frozen(eq=False)
class Layout:
    """Parts that together hold every row that is visible at states from `from_lsn` on.

    Attributes:
        from_lsn: at an earlier state a row may be missing.
        fixed: sealed and frozen parts.
        growing: where new rows go.
    """

    from_lsn: int
    fixed: tuple[Part, ...]
    growing: GrowingPart

    def __iter__(self) -> Iterator[Part]:
        yield from self.fixed
        yield self.growing

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of them."""
        return (*self.fixed, self.growing)

    def find(self, row: int) -> tuple[Part, int] | None:
        """The part that has a row, and the row's ordinal in it."""
        found: tuple[Part, int] | None = None
        # Where a number was given again, the earlier row is dead; behind, there is the later one.
        for part in reversed(self.parts):
            ordinal = part.find(row)
            if ordinal is not None:
                if part.died_at(ordinal) == LIVES:
                    return part, ordinal
                found = found or (part, ordinal)
        return found


@attrs.frozen(eq=False)
class Moves:
    """Rows of one part that are in a segment's file too.

    Attributes:
        part: where they are now.
        there: their ordinals in the part.
        here: their ordinals in the file.
    """

    part: Part
    there: Rows
    here: Rows


@attrs.frozen(eq=False)
class Prepared:
    """A segment's file that is open, ready to be taken in.

    Attributes:
        uuid: of the file.
        content: of its rows.
        finder: of its rows.
        moves: where the rows were when it was prepared.
    """

    uuid: str
    content: Content
    finder: Finder
    moves: tuple[Moves, ...]

    @classmethod
    def of(cls, uuid: str, content: Content, layout: Layout) -> Prepared:
        """Look for the rows of a file in a layout: what takes long of taking it in."""
        finder = Finder(content.rows)
        return cls(uuid, content, finder, tuple(_moves(content.rows, layout.parts)))


def _moves(rows: Rows, parts: Sequence[Part]) -> Iterator[Moves]:
    for part in parts:
        there = part.find_all(rows)
        here = np.flatnonzero(there >= 0)
        if len(here):
            yield Moves(part, there[here], here)


def taken_in(layout: Layout, prepared: Prepared, segment: int, lsn: int) -> Layout:
    """The layout with a segment in the place of where its rows were, good from ``lsn`` on."""
    parts = layout.parts
    moves = prepared.moves
    known = {id(one.part) for one in moves}
    if not known <= {id(part) for part in parts}:
        # Parts were replaced since it was prepared.
        moves = tuple(_moves(prepared.content.rows, parts))
    died = np.full(len(prepared.content), NEVER, np.int64)
    left: dict[int, Part | None] = {}
    for one in moves:
        its = one.part.died()[one.there]
        # A row that was given up by one part to another one is dead here and alive there.
        np.maximum(died[one.here], its, out=its)
        died[one.here] = its
        if one.part is not layout.growing:
            left[id(one.part)] = one.part.without(one.there)
    growing = layout.growing
    new = Part(
        prepared.content,
        prepared.finder,
        died=None if (died == LIVES).all() else died,
        segment=segment,
        uuid=prepared.uuid,
        changed_lsn=lsn,
    )
    fixed = [left.get(id(part), part) for part in layout.fixed]
    kept = [part for part in fixed if part is not None and _has_life(part)]
    for one in moves:
        if one.part is growing:
            rest = growing.frozen().without(one.there)
            if rest is not None:
                kept.append(rest)
            growing = growing.fresh()
    return Layout(lsn, (*kept, new), growing)


def _has_life(part: Part) -> bool:
    return bool((part.died() == LIVES).any())


def frozen(layout: Layout) -> Layout:
    """The layout with what grew as a part of its own, if anything did."""
    if not len(layout.growing.content):
        return layout
    return Layout(layout.from_lsn, (*layout.fixed, layout.growing.frozen()), layout.growing.fresh())
