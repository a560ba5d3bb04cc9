"""Seals columns: the rows of some others, or a choice of them, as byte sections.

The dictionaries are joined, what no chosen row has is left out, and the values are put in order; so
sealing what grew, and joining what was sealed without its dead rows, are the same. Work is cut into
short calls, between which other threads run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import msgspec
import numpy as np
from numpy.typing import NDArray

from treestore.search.columns.blobs import pack
from treestore.search.columns.column import LIST_CELL, Column, Lists, Plain
from treestore.search.columns.dictionary import Sorted
from treestore.search.columns.rows import Columns
from treestore.search.columns.runs import FloatRun, IntRun
from treestore.search.columns.sealed import SECTION, VERSION, Contents
from treestore.search.columns.statistics import ColumnStatistics
from treestore.search.columns.values import (
    FIRST_CODE,
    INT64_MAX,
    INT64_MIN,
    Int64s,
    Ints,
    identity,
    is_list_type,
    sortable,
    sorted_values,
)

Part = tuple[Columns, Int64s | None]
"""Columns, and the ordinals of the rows that are wanted, in their order; None: all."""


def seal(
    parts: Sequence[Part], types: Mapping[str, str], *, left_out: Iterable[str] = ()
) -> dict[str, bytes]:
    """Sections of the chosen rows of ``parts``, one part behind the other.

    Args:
        types: of the attributes to keep, by name: `treestore.model.namespaces.AttributeType`.
        left_out: attributes that rows may have, and that are not kept.

    Raises:
        treestore.search.columns.sealed.AttributeLeftOut: a part did not keep an attribute.
    """
    count = sum(columns.count if rows is None else len(rows) for columns, rows in parts)
    contents = Contents(VERSION, count, dict(types), sorted(left_out))
    sections = {SECTION: msgspec.msgpack.encode(contents)}
    for number, (name, type) in enumerate(types.items()):
        chosen = [(columns.column(name), rows) for columns, rows in parts]
        make = _seal_lists if is_list_type(type) else _seal_plain
        sections[f"{SECTION}.{number}"] = make(chosen, type)
    return sections


Chosen = Sequence[tuple[Column, Int64s | None]]


@attrs.frozen(eq=False)
class _Joined:
    """A dictionary of several: and of each of them, the code here of each code there."""

    dictionary: Sorted
    codes: list[NDArray[np.uint32]]


def _join(columns: Sequence[Column], codes: Sequence[Ints], with_moments: bool) -> _Joined:
    used = []
    for column, own in zip(columns, codes, strict=True):
        is_used = np.zeros(FIRST_CODE + len(column.dictionary), np.bool_)
        is_used[own] = True
        used.append(np.flatnonzero(is_used[FIRST_CODE:]))
    for join in (_join_ints, _join_floats):
        if (joined := join(columns, used)) is not None:
            return joined
    return _join_any(columns, used, with_moments)


def _join_ints(columns: Sequence[Column], used: Sequence[Int64s]) -> _Joined | None:
    """Where all values are ints of 64 bits: without making objects of them."""
    parts = [
        column.dictionary.numbers.ints[places]
        for column, places in zip(columns, used, strict=True)
        if (column.dictionary.numbers.kinds[places] == 1).all()
    ]
    if len(parts) < len(columns) or not any(map(len, parts)):
        return None
    values, new = np.unique(np.concatenate(parts), return_inverse=True)
    return _Joined(Sorted([IntRun(values)]), _split(columns, used, new))


def _join_floats(columns: Sequence[Column], used: Sequence[Int64s]) -> _Joined | None:
    """Likewise floats, as ints that have the same order."""
    parts = [
        sortable(column.dictionary.numbers.floats[places])
        for column, places in zip(columns, used, strict=True)
        if (column.dictionary.numbers.kinds[places] == 2).all()
    ]
    if len(parts) < len(columns) or not any(map(len, parts)):
        return None
    values, new = np.unique(np.concatenate(parts), return_inverse=True)
    floats = (values ^ ((values >> 63) & INT64_MAX)).view(np.float64)
    floats[values == INT64_MIN] = np.nan
    return _Joined(Sorted([FloatRun(floats)]), _split(columns, used, new))


def _split(
    columns: Sequence[Column], used: Sequence[Int64s], new: NDArray[Any]
) -> list[NDArray[np.uint32]]:
    """The places in a joined dictionary of the used values of all columns: a map for each."""
    maps, at = [], 0
    for column, places in zip(columns, used, strict=True):
        codes = np.arange(FIRST_CODE + len(column.dictionary), dtype=np.uint32)
        codes[places + FIRST_CODE] = new[at : at + len(places)] + FIRST_CODE
        at += len(places)
        maps.append(codes)
    return maps


def _join_any(columns: Sequence[Column], used: Sequence[Int64s], with_moments: bool) -> _Joined:
    found: dict[Any, Any] = {}
    all_keys: list[Any] = []
    for column, places in zip(columns, used, strict=True):
        values = column.dictionary.values()
        chosen = [values[at] for at in places.tolist()]
        keys = [each if each.__class__ is str else identity(each) for each in chosen]
        # Not in one call, which would keep other threads waiting; so in all that follows.
        for key, value in zip(keys, chosen, strict=True):
            found[key] = value  # noqa: PERF403 - an update is such a call
        all_keys += keys
    ordered = sorted_values(found.values())
    new: dict[Any, int] = {}
    for run in ordered:
        keys = run if run[0].__class__ is str else [identity(value) for value in run]
        for place, key in enumerate(keys, len(new)):
            new[key] = place  # noqa: PERF403 - likewise
    places_of_all = np.fromiter((new[key] for key in all_keys), np.int64, len(all_keys))
    return _Joined(
        Sorted.of(ordered, with_moments=with_moments), _split(columns, used, places_of_all)
    )


def _seal_plain(chosen: Chosen, type: str) -> bytes:
    columns = [column for column, _ in chosen]
    codes = []
    for column, rows in chosen:
        if not isinstance(column, Plain):
            raise TypeError("a column of lists cannot become one of single values")
        codes.append(column.codes if rows is None else column.codes[rows])
    joined = _join(columns, codes, type == "datetime")
    made = Plain(_new_codes(codes, joined), joined.dictionary)
    return _packed("plain", {"codes": made.codes}, made)


def _seal_lists(chosen: Chosen, type: str) -> bytes:
    columns: list[Column] = []
    kinds, lengths, codes = [], [], []
    for column, rows in chosen:
        lists = _as_lists(column)
        columns.append(lists)
        if rows is None:
            rows = np.arange(lists.count)
        own_lengths = lists.lengths[rows].astype(np.int64)
        kinds.append(lists.kinds[rows])
        lengths.append(own_lengths)
        # The places of all elements of the chosen rows, one row behind the other.
        before = np.cumsum(own_lengths) - own_lengths
        shift = np.repeat(lists.starts[rows].astype(np.int64) - before, own_lengths)
        codes.append(lists.codes[np.arange(len(shift)) + shift])
    joined = _join(columns, codes, type == "array<datetime>")
    lengths_all = np.concatenate([*lengths, np.zeros(0, np.int64)])
    starts = np.cumsum(lengths_all) - lengths_all
    made = Lists(
        kinds=np.concatenate([*kinds, np.zeros(0, np.uint8)]).astype(np.uint8),
        starts=starts,
        lengths=lengths_all.astype(np.uint32),
        codes=_new_codes(codes, joined),
        owners=np.repeat(np.arange(len(lengths_all), dtype=np.int32), lengths_all),
        dictionary=joined.dictionary,
    )
    arrays = {"kinds": made.kinds, "lengths": made.lengths, "codes": made.codes}
    return _packed("lists", arrays, made)


def _as_lists(column: Column) -> Lists:
    if isinstance(column, Lists):
        return column
    if isinstance(column, Plain) and not len(column.dictionary):
        # Of an attribute that no row has.
        zeros = np.zeros(column.count, np.int64)
        nothing = np.zeros(0, np.int32)
        kinds = column.codes.astype(np.uint8)
        return Lists(kinds, zeros, zeros, nothing, nothing, column.dictionary)
    raise TypeError("a column of single values cannot become one of lists")


def _new_codes(codes: Sequence[Ints], joined: _Joined) -> Ints:
    end = FIRST_CODE + len(joined.dictionary)
    dtype = np.uint8 if end <= 2**8 else np.uint16 if end <= 2**16 else np.uint32
    parts = [there[own].astype(dtype) for own, there in zip(codes, joined.codes, strict=True)]
    return np.concatenate([*parts, np.zeros(0, dtype)])


def _packed(form: str, cells: dict[str, NDArray[Any]], column: Plain | Lists) -> bytes:
    dictionary = column.dictionary
    assert isinstance(dictionary, Sorted)
    arrays = dict(cells)
    for number, run in enumerate(dictionary.runs):
        for name, array in run.arrays().items():
            arrays[f"run.{number}.{name}"] = array
    arrays |= ColumnStatistics.of(column).arrays()
    fields = {"form": form, "runs": [[run.kind, len(run)] for run in dictionary.runs]}
    return pack(fields, arrays)


assert LIST_CELL == 2  # Kinds of cells that have no list are the codes of plain ones.
