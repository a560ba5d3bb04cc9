"""One column of some rows: `Plain` where a cell is a value, `Lists` where it is a list of them.

`mask` gives for each row whether a condition holds for its cell: what `treestore.query` says of the
document ``{name: cell}``. A list stands for itself and for each of its elements
(docs/filters.md), so a condition is decided for the elements' codes, and the rows of the elements
for which it holds are marked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import attrs
import numpy as np

from treestore.query.expression import (
    Contains,
    Element,
    Equal,
    Exists,
    Expression,
    Glob,
    In,
    Path,
    Range,
    Regex,
    Size,
    Type,
)
from treestore.query.matching import predicate
from treestore.query.values import LIST, bracket
from treestore.search.columns.codes import NONE, Codes, truth_codes
from treestore.search.columns.dictionary import Dictionary
from treestore.search.columns.values import FIRST_CODE, MISSING_CODE, NULL_CODE, Bools, Int64s, Ints

Leaf = Equal | In | Range | Exists | Type | Contains | Size | Regex | Glob | Element
"""A condition on the values at one path."""

MISSING_CELL, NULL_CELL, LIST_CELL = 0, 1, 2
"""What a cell of `Lists` is."""

_HOLDS: Final = {
    "$gt": lambda order: order > 0,
    "$gte": lambda order: order >= 0,
    "$lt": lambda order: order < 0,
    "$lte": lambda order: order <= 0,
}


class Column(ABC):
    """What some rows have under one name.

    Attributes:
        dictionary: the different values of the cells, or of their elements.
    """

    dictionary: Dictionary

    @property
    @abstractmethod
    def count(self) -> int:
        """How many rows."""

    @abstractmethod
    def mask(self, leaf: Leaf) -> Bools:
        """For each row whether a condition holds for its cell; the first name of its path is the
        column's."""

    @abstractmethod
    def present(self) -> Bools:
        """For each row whether its cell is not missing."""

    @abstractmethod
    def cell(self, row: int) -> Any:
        """One cell; None for a missing one too."""


def index_in_list(path: Path) -> int | None:
    """The place in a list that a path of one name stands for."""
    (name,) = path
    if name.isascii() and name.isdecimal() and (name == "0" or name[0] != "0"):
        return int(name)
    return None


def holds_for_nothing(leaf: Leaf) -> bool:
    """Whether a condition holds where its path leads nowhere."""
    return predicate(leaf)({})


@attrs.frozen(eq=False)
class Plain(Column):
    """Cells that are no lists.

    Attributes:
        codes: of each row: ``MISSING_CODE``, ``NULL_CODE``, or that of a value.
    """

    codes: Ints
    dictionary: Dictionary

    @property
    def count(self) -> int:
        return len(self.codes)

    def mask(self, leaf: Leaf) -> Bools:
        if len(leaf.path) > 1:
            # No way leads on from a value that is no list.
            return np.full(len(self.codes), holds_for_nothing(leaf))
        return self.codes_with(leaf).of(self.codes)

    def codes_with(self, leaf: Leaf) -> Codes:
        """The codes for which a condition on the column itself holds."""
        if isinstance(leaf, Size | Element):
            return NONE
        return self.dictionary.matching(leaf)

    def present(self) -> Bools:
        present: Bools = self.codes != MISSING_CODE
        return present

    def cell(self, row: int) -> Any:
        code = int(self.codes[row])
        return self.dictionary.value(code - FIRST_CODE) if code >= FIRST_CODE else None


@attrs.frozen(eq=False)
class Lists(Column):
    """Cells that are lists.

    Attributes:
        kinds: of each row `MISSING_CELL`, `NULL_CELL` or `LIST_CELL`.
        starts, lengths: where the elements of each row are, and how many; 0 where it has no list.
        codes: of each element: ``NULL_CODE``, or that of a value.
        owners: of each element its row, ascending.
    """

    kinds: Ints
    starts: Ints
    lengths: Ints
    codes: Ints
    owners: Ints
    dictionary: Dictionary

    @property
    def count(self) -> int:
        return len(self.kinds)

    def present(self) -> Bools:
        present: Bools = self.kinds != MISSING_CELL
        return present

    def cell(self, row: int) -> Any:
        if self.kinds[row] != LIST_CELL:
            return None
        start = int(self.starts[row])
        codes = self.codes[start : start + int(self.lengths[row])]
        return [
            self.dictionary.value(code - FIRST_CODE) if code >= FIRST_CODE else None
            for code in codes.tolist()
        ]

    def mask(self, leaf: Leaf) -> Bools:
        if len(leaf.path) > 1:
            return self._inside(leaf)
        if isinstance(leaf, Exists):
            return self.present()
        if isinstance(leaf, Size):
            sized: Bools = (self.kinds == LIST_CELL) & (self.lengths == leaf.count)
            return sized
        found = self.rows_of(self.elements_with(leaf))
        if isinstance(leaf, Equal):
            return self._or_equal(found, (leaf.value,))
        if isinstance(leaf, In):
            return self._or_equal(found, leaf.values)
        if isinstance(leaf, Range):
            if bracket(leaf.value) == LIST:
                found |= _HOLDS[leaf.operator](self._compared(leaf.value))
                found[self.kinds != LIST_CELL] = False
        elif isinstance(leaf, Type):
            for cell, name in ((NULL_CELL, "null"), (LIST_CELL, "list")):
                if name in leaf.types:
                    found |= self.kinds == cell
        return found

    def elements_with(self, leaf: Leaf) -> Codes:
        """The codes of elements that make a condition on the column itself hold."""
        if isinstance(leaf, Element):
            return self._decided(leaf.part)
        if isinstance(leaf, Contains):
            # Elements that are equal; what a string has in it plays no part here.
            return self.dictionary.matching(In(leaf.path, leaf.values))
        if isinstance(leaf, Exists | Size):
            return NONE
        return self.dictionary.matching(leaf)

    def rows_of(self, codes: Codes) -> Bools:
        """The rows that have an element with one of these codes; a new array."""
        found = np.zeros(len(self.kinds), np.bool_)
        found[self.owners[codes.of(self.codes)]] = True
        return found

    def _decided(self, part: Expression) -> Codes:
        """What follows ``$elemMatch``, decided for each different element."""
        test = predicate(part)
        values = self.dictionary.values()  # It may grow meanwhile.
        truth = np.zeros(FIRST_CODE + len(values), np.bool_)
        truth[NULL_CODE] = test(None)
        truth[FIRST_CODE:] = [test(value) for value in values]
        return truth_codes(truth)

    def _or_equal(self, found: Bools, values: Sequence[Any]) -> Bools:
        """Also the rows whose cell as a whole is equal to one of the values."""
        if any(value is None for value in values):
            found |= self.kinds != LIST_CELL
        for value in values:
            if bracket(value) == LIST:
                rows = np.flatnonzero((self.kinds == LIST_CELL) & (self.lengths == len(value)))
                for place, element in enumerate(value):
                    if not len(rows):
                        break
                    rows = rows[self._equal_to(element).of(self.codes[self.starts[rows] + place])]
                found[rows] = True
        return found

    def _equal_to(self, element: Any) -> Codes:
        if element is None:
            return Codes(((NULL_CODE, FIRST_CODE),))
        return self.dictionary.equal(element)

    def _compared(self, wanted: Sequence[Any]) -> Int64s:
        """Of each list the order to another one: below 0, 0, or above it."""
        order = np.zeros(len(self.kinds), np.int64)
        rows = np.flatnonzero(self.kinds == LIST_CELL)
        for place, element in enumerate(wanted):
            ends = self.lengths[rows] <= place
            order[rows[ends]] = -1
            rows = rows[~ends]
            codes = self.codes[self.starts[rows] + place]
            below = self.dictionary.below(element).of(codes)
            equal = self._equal_to(element).of(codes)
            order[rows] = np.where(below, -1, 1)
            order[rows[equal]] = 0
            rows = rows[equal]
        order[rows[self.lengths[rows] > len(wanted)]] = 1
        return order

    def _inside(self, leaf: Leaf) -> Bools:
        """A condition whose path goes on: by a number, into one element. (No element is an object,
        so there is no other way.)"""
        nothing = holds_for_nothing(leaf)
        found: Bools = (self.kinds != LIST_CELL) & nothing
        place = index_in_list(leaf.path[1:2])
        if place is None:
            return found
        rows = np.flatnonzero((self.kinds == LIST_CELL) & (self.lengths > place))
        if len(leaf.path) > 2:
            found[rows] = nothing
        elif not isinstance(leaf, Size | Element):
            codes = self.codes[self.starts[rows] + place]
            found[rows] = self.dictionary.matching(leaf).of(codes)
        return found
