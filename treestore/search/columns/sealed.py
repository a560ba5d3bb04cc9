"""Sealed columns: immutable, of named byte sections, one for each attribute.

A section is looked at when a filter first names its attribute: it may be a part of a mapped file.
What it holds is checked for consistency then (`ColumnsDamaged`); that the bytes are those that were
written is for the file's checksums to say.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from treestore.query.expression import Equal, Exists, Expression, In, Range
from treestore.search.columns.blobs import Buffer, ColumnsDamaged, unpack
from treestore.search.columns.column import LIST_CELL, Column, Leaf, Lists, Plain
from treestore.search.columns.dictionary import Sorted
from treestore.search.columns.rows import Columns
from treestore.search.columns.runs import load_run
from treestore.search.columns.statistics import ColumnStatistics, Estimate, estimate_of
from treestore.search.columns.values import FIRST_CODE, NULL_CODE, Bools, Ints

VERSION: Final = 1
"""Of the sections."""

SECTION: Final = "columns"
"""The section that lists the others, which are ``columns.0`` and so on."""

CACHE_SIZE_BYTES_MAX: Final = 4 << 20
"""Bitmaps that are kept for the conditions asked for last, of one segment."""


class Contents(msgspec.Struct, forbid_unknown_fields=True):
    """The section `SECTION`.

    Attributes:
        count: how many rows.
        types: of the attributes that there are columns of, in the order of their sections.
        left_out: attributes whose values were not kept, as they were not filterable.
    """

    version: int
    count: int
    types: dict[str, str]
    left_out: list[str]


class AttributeLeftOut(LookupError):
    """The attribute was not filterable when the rows were sealed: seal them again."""


class SealedColumns(Columns):
    """The attributes of rows that do not change any more. Any thread may read.

    Args:
        sections: what `treestore.search.columns.sealing.seal` gave: bytes, or views of a mapped
            file.

    Raises:
        ColumnsDamaged: they are none; also when an attribute is first asked for.
    """

    def __init__(self, sections: Mapping[str, Buffer]) -> None:
        if SECTION not in sections:
            raise ColumnsDamaged("there are no columns here")
        try:
            contents = msgspec.msgpack.decode(sections[SECTION], type=Contents)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ColumnsDamaged(f"the list of columns is damaged: {error}") from None
        if contents.version != VERSION:
            raise ColumnsDamaged(f"the columns are of version {contents.version}, not {VERSION}")
        self.count = contents.count
        self.types: Mapping[str, str] = contents.types
        self._left_out = frozenset(contents.left_out)
        self._sections: dict[str, Buffer] = {}
        for number, name in enumerate(contents.types):
            if (section := sections.get(f"{SECTION}.{number}")) is None:
                raise ColumnsDamaged(f"the column {name!a:.80} is missing")
            self._sections[name] = section
        self._loaded: dict[str, tuple[Column, ColumnStatistics]] = {}
        self._masks: OrderedDict[Leaf, Bools] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._sections)

    def column(self, name: str) -> Column:
        return self._load(name)[0]

    def statistics(self, name: str) -> ColumnStatistics:
        """What is known of an attribute without looking at its rows."""
        return self._load(name)[1]

    def _load(self, name: str) -> tuple[Column, ColumnStatistics]:
        found = self._loaded.get(name)
        if found is not None:
            return found
        section = self._sections.get(name)
        if section is not None:
            # Two threads may do this at a time: both get the same.
            found = load_column(section, self.count)
        elif name in self._left_out:
            raise AttributeLeftOut(name)
        else:
            column = self.absent()
            found = column, ColumnStatistics.of(column)
        self._loaded[name] = found
        return found

    def estimate(self, expression: Expression) -> Estimate:
        return estimate_of(expression, self.statistics, self.count)

    def check(self) -> None:
        """Look at every column.

        Raises:
            ColumnsDamaged: one is not as it should be.
        """
        for name in self._sections:
            load_column(self._sections[name], self.count)

    def mask(self, leaf: Leaf) -> Bools:
        column = self.column(leaf.path[0])
        if isinstance(column, Plain) and _is_quick(leaf, column):
            # As quick as looking for it, and it needs no memory.
            return column.mask(leaf)
        with self._lock:
            known = self._masks.get(leaf)
            if known is not None:
                self._masks.move_to_end(leaf)
                self.hits += 1
                return known
            self.misses += 1
        made = column.mask(leaf)
        made.flags.writeable = False
        with self._lock:
            self._masks[leaf] = made
            while len(self._masks) > 1 and len(self._masks) * self.count > CACHE_SIZE_BYTES_MAX:
                self._masks.popitem(last=False)
        return made


def _is_quick(leaf: Leaf, column: Plain) -> bool:
    if isinstance(leaf, Equal | Range | Exists):
        return True
    return isinstance(leaf, In) and len(leaf.values) <= 3 and len(column.dictionary) > 0


def load_column(section: Buffer, count: int) -> tuple[Column, ColumnStatistics]:
    """The column of a section.

    Raises:
        ColumnsDamaged: it is none of so many rows.
    """
    fields, arrays = unpack(section)
    try:
        dictionary = _load_dictionary(fields, arrays)
        column = _load_cells(fields["form"], arrays, dictionary, count)
        return column, ColumnStatistics.load(column, arrays)
    except (KeyError, TypeError) as error:
        raise ColumnsDamaged(f"the header of a column is damaged: {error!r}") from None
    except ColumnsDamaged:
        raise
    except ValueError as error:
        raise ColumnsDamaged(str(error)) from None


def _load_dictionary(fields: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Sorted:
    runs = []
    for number, (kind, size) in enumerate(fields["runs"]):
        mark = f"run.{number}."
        own = {
            name.removeprefix(mark): array
            for name, array in arrays.items()
            if name.startswith(mark)
        }
        run = load_run(kind, own)
        if len(run) != size:
            raise ColumnsDamaged("a dictionary has not as many values as it says")
        runs.append(run)
    return Sorted(runs)


def _load_cells(
    form: str, arrays: dict[str, NDArray[Any]], dictionary: Sorted, count: int
) -> Column:
    codes = _array(arrays, "codes")
    if len(codes) and int(codes.max()) >= FIRST_CODE + len(dictionary):
        raise ColumnsDamaged("a column has a code that its dictionary has not")
    if form == "plain":
        if len(codes) != count:
            raise ColumnsDamaged(f"a column has {len(codes)} rows, not {count}")
        return Plain(codes, dictionary)
    kinds, lengths = _array(arrays, "kinds"), _array(arrays, "lengths")
    if form != "lists" or len(kinds) != count or len(lengths) != count:
        raise ColumnsDamaged(f"a column of lists has not {count} rows")
    if int(lengths.sum(dtype=np.int64)) != len(codes) or (lengths[kinds != LIST_CELL] != 0).any():
        raise ColumnsDamaged("the lists of a column do not fill its elements")
    if len(codes) and int(codes.min()) < NULL_CODE:
        raise ColumnsDamaged("an element of a list is missing")
    starts = np.zeros(count, np.int64)
    np.cumsum(lengths[:-1], out=starts[1:]) if count else None
    return Lists(
        kinds=kinds,
        starts=starts,
        lengths=lengths,
        codes=codes,
        owners=np.repeat(np.arange(count, dtype=np.int32), lengths),
        dictionary=dictionary,
    )


def _array(arrays: dict[str, NDArray[Any]], name: str) -> Ints:
    array = arrays[name]
    if array.dtype.kind != "u":
        raise ColumnsDamaged(f"the array {name} of a column is of a wrong type")
    return array
