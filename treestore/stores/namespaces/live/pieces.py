"""What of a layout a query may find: the visible rows of each part that satisfy the filter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs
import numpy as np

from treestore.query.expression import Expression
from treestore.search.columns.bitmaps import bitmap
from treestore.search.columns.sealed import AttributeLeftOut
from treestore.stores.namespaces.live.arrays import Flags, Rows
from treestore.stores.namespaces.live.layouts import Layout
from treestore.stores.namespaces.live.parts import Content, Part


class UseTree(Exception):
    """The view cannot answer this, or not now; the tree can."""


class StateTooOld(UseTree):
    """The state was before the view: somebody else had it loaded from a later one."""

    def __init__(self) -> None:
        super().__init__("the state is older than the view")


@attrs.frozen(eq=False)
class Piece:
    """Some rows of a part.

    Attributes:
        part: that they are of.
        content: of the part, as it was at the state.
        allowed: a flag for each row of ``content``; None: all. Not to be changed.
        count: rows that are allowed.
        visible: rows that are visible, whether the filter lets them through or not.
    """

    part: Part
    content: Content
    allowed: Flags | None
    count: int
    visible: int

    def flags(self) -> Flags:
        """A flag for each row."""
        return np.ones(len(self.content), np.bool_) if self.allowed is None else self.allowed

    def find_all(self, rows: Rows) -> Rows:
        """The ordinals of rows; -1 for those that are not allowed, or not here: a part may still
        have a row that another one took over."""
        ordinals = self.part.find_all(rows)
        here = (ordinals >= 0) & (ordinals < len(self.content))
        if self.allowed is not None:
            here[here] = self.allowed[ordinals[here]]
        return np.where(here, ordinals, -1)

    def ordinals(self) -> Rows:
        """The rows that are allowed, ascending."""
        if self.allowed is None:
            return np.arange(len(self.content))
        return np.flatnonzero(self.allowed)


Hidden = Mapping[int, list[int]]
"""Rows that are not to be found: by the `id` of their part, their ordinals."""


def pieces(
    layout: Layout, lsn: int, expression: Expression | None, hidden: Hidden | None = None
) -> list[Piece]:
    """What is visible at a state and satisfies a filter, in parts with any such row.

    Args:
        expression: of the filter; None: everything.

    Raises:
        UseTree: the columns do not have an attribute.
    """
    return [one for one in _pieces(layout, lsn, expression, hidden or {}) if one.count]


def _pieces(
    layout: Layout, lsn: int, expression: Expression | None, hidden: Hidden
) -> Iterator[Piece]:
    for part in layout.parts:
        visible = part.visible(lsn)
        content, allowed, count = visible.content, visible.flags, visible.count
        if not count:
            continue
        gone = hidden.get(id(part))
        if gone:
            allowed = np.ones(len(content), np.bool_) if allowed is None else allowed.copy()
            allowed[gone] = False
            count = int(np.count_nonzero(allowed))
        if expression is not None and count:
            allowed, count = _filtered(content, expression, allowed)
        yield Piece(part, content, allowed, count, visible.count)


def _filtered(
    content: Content, expression: Expression, visible: Flags | None
) -> tuple[Flags | None, int]:
    try:
        found = bitmap(expression, content.columns)
    except AttributeLeftOut as error:
        raise UseTree(f"the attribute {error} was not filterable when rows were sealed") from None
    if visible is not None:
        found = found & visible
    count = int(np.count_nonzero(found))
    return (None if count == len(found) else found), count


def only(pieces: Iterable[Piece], rows: Rows) -> list[Piece]:
    """Of pieces, some rows, each named once, as far as these are in them."""
    found: list[Piece] = []
    for piece in pieces:
        ordinals = piece.find_all(rows)
        here = ordinals[ordinals >= 0]
        if len(here):
            allowed = np.zeros(len(piece.content), np.bool_)
            allowed[here] = True
            found.append(attrs.evolve(piece, allowed=allowed, count=len(here)))
    return found


def hidden_rows(layout: Layout, rows: Iterable[int]) -> dict[int, list[int]]:
    """Where rows are that are not to be found."""
    found: dict[int, list[int]] = {}
    for row in rows:
        place = layout.find(row)
        if place is not None:
            found.setdefault(id(place[0]), []).append(place[1])
    return found
