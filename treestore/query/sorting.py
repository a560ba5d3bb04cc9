"""Orders of documents: sorting by fields, then by id.

Documents are sorted by the value at a path, in the order of `treestore.query.values`: null,
numbers, strings, objects, lists, booleans. Of several values the least counts, or, descending, the
greatest: a list stands for its elements, and an empty one comes before everything else. No value
counts as null. What is equal in all fields is in the order of its ids, in the direction of the last
field; so every order is total, and the reverse of the one with all directions turned round.

A document's place in an order is its *position*: bytes that sort ascending, whatever the
directions. They end with its id. Of each value `SORT_VALUE_SIZE_BYTES_MAX` bytes count.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from treestore.errors import InvalidArgument, ResourceExhausted
from treestore.query.expression import Path
from treestore.query.ordering import encode, end_of
from treestore.query.paths import compiled

SORT_FIELDS_MAX: Final = 8
"""Fields to sort by."""

SORT_VALUE_SIZE_BYTES_MAX: Final = 480
"""Values that agree in so many bytes of their encodings count as equal when they are sorted."""

SORT_SIZE_BYTES_MAX: Final = 64 << 20
"""Memory that sorting one query's documents may take."""

PATH_SIZE_MAX: Final = 1000
NAMES_MAX: Final = 100

ID: Final = "_id"

_NULL: Final = encode(None)
EMPTY_LIST: Final = b"\x01"
"""Before every encoding of a value."""

_RUN: Final = 4096
"""Positions that are sorted in one call; more would stop the other threads for too long."""

_ENTRY_OVERHEAD: Final = 150
"""Memory of an entry beside its bytes."""

_INVERTED: Final = bytes(255 - byte for byte in range(256))


def inverted(data: bytes) -> bytes:
    """Bytes that sort the other way round, where none is the beginning of another."""
    return data.translate(_INVERTED)


@attrs.frozen
class Order:
    """An order of documents. Made by `parse_sort`.

    Attributes:
        fields: paths and whether each is descending; without the id.
        id_descending: the direction of the ids of documents that are equal in all fields.
    """

    fields: tuple[tuple[Path, bool], ...] = ()
    id_descending: bool = False

    @property
    def names(self) -> frozenset[str]:
        """Fields at the top of a document that its place depends on."""
        return frozenset(path[0] for path, _ in self.fields)

    def check_position(self, position: bytes) -> None:
        """Raise `ValueError` unless this could be a position."""
        at = 0
        for _, descending in self.fields:
            data = inverted(position) if descending else position
            if data[at : at + 1] == EMPTY_LIST:
                at += 1
            else:
                at = end_of(data, at, SORT_VALUE_SIZE_BYTES_MAX)
        packed_id = inverted(position[at:]) if self.id_descending else position[at:]
        if (
            len(packed_id) < 3
            or packed_id[:1] != b"\x07"
            or packed_id.find(b"\0") + 1 != len(packed_id)
        ):
            raise ValueError("a position ends with an id")

    def position_of(self) -> Callable[[Any, bytes], bytes]:
        """A function that gives the position of a document with a packed id."""
        makers = [_value_key(path, descending) for path, descending in self.fields]
        if self.id_descending:
            return lambda document, packed_id: (
                b"".join([make(document) for make in makers]) + inverted(packed_id)
            )
        if len(makers) == 1:
            (only,) = makers
            return lambda document, packed_id: only(document) + packed_id
        return lambda document, packed_id: b"".join([make(document) for make in makers]) + packed_id


def _value_key(path: Path, descending: bool) -> Callable[[Any], bytes]:
    """The encoding of the value that counts; inverted where descending."""
    values_at = compiled(path)
    limit = SORT_VALUE_SIZE_BYTES_MAX

    def key(document: Any) -> bytes:
        values: list[Any] = []
        empty = False
        for value in values_at(document):
            if not isinstance(value, list | tuple):
                values.append(value)
            elif value:
                values += value
            else:
                empty = True
        if len(values) == 1 and not empty:
            encoded = encode(values[0], limit)
        else:
            encodings = [encode(value, limit) for value in values]
            if empty:
                encodings.append(EMPTY_LIST)
            encodings = encodings or [_NULL]
            encoded = max(encodings) if descending else min(encodings)
        return inverted(encoded) if descending else encoded

    return key


# --- reading what users write ----------------------------------------------------------------

SortFields = str | Sequence[str | tuple[str, int] | list[Any]] | Mapping[str, int]


def parse_sort(sort: Any) -> Order:
    """The order that ``sort`` names.

    Args:
        sort: a path (``"-"`` in front: descending), a list of paths or of ``(path, 1 or -1)``, or
            an object of paths and 1 or -1. None: by id.

    Raises:
        InvalidArgument: it is none of these; the sentence says what is wrong.
    """
    fields: list[tuple[Path, bool]] = []
    seen: set[Path] = set()
    for name, descending in _pairs(sort):
        path = parse_path(name, "sort")
        if path in seen:
            raise InvalidArgument(f"sort has the field {name!r:.60} twice.")
        seen.add(path)
        if path == (ID,):
            # No two are equal in it: what follows makes no difference.
            return Order(tuple(fields), descending)
        fields.append((path, descending))
    if len(fields) > SORT_FIELDS_MAX:
        raise InvalidArgument(f"sort has {len(fields)} fields; at most {SORT_FIELDS_MAX}.")
    return Order(tuple(fields), bool(fields) and fields[-1][1])


def to_pairs(sort: Any) -> list[tuple[str, int]]:
    """The fields as they go over the wire.

    Raises:
        InvalidArgument: see `parse_sort`.
    """
    return [(name, -1 if descending else 1) for name, descending in _pairs(sort)]


def _pairs(sort: Any) -> list[tuple[str, bool]]:
    if sort is None:
        return []
    if isinstance(sort, str):
        return [_named(sort)]
    if isinstance(sort, Mapping):
        return [(name, _descending(direction)) for name, direction in sort.items()]
    if not isinstance(sort, list | tuple):
        raise InvalidArgument(
            f'sort is a path like "-year", a list of them or of (path, 1 or -1), or an object like '
            f'{{"year": -1}}, not {type(sort).__name__}.'
        )
    pairs: list[tuple[str, bool]] = []
    for field in sort:
        if isinstance(field, list | tuple):
            if len(field) != 2:
                raise InvalidArgument("A field in sort is a path, or a path and 1 or -1.")
            pairs.append((field[0], _descending(field[1])))
        elif isinstance(field, Mapping):
            pairs += [(name, _descending(direction)) for name, direction in field.items()]
        else:
            pairs.append(_named(field))
    return pairs


def _named(field: Any) -> tuple[str, bool]:
    if isinstance(field, str) and field[:1] in ("-", "+"):
        return field[1:], field[0] == "-"
    return field, False


def _descending(direction: Any) -> bool:
    if direction in ("asc", "desc"):
        return bool(direction == "desc")
    if isinstance(direction, bool) or direction not in (1, -1):
        raise InvalidArgument(
            f"A direction in sort is 1 (ascending) or -1 (descending), not {direction!r:.40}."
        )
    return bool(direction == -1)


def parse_path(name: Any, where: str) -> Path:
    """A dotted path.

    Raises:
        InvalidArgument: it is none; the sentence begins with ``where``.
    """
    if not isinstance(name, str):
        raise InvalidArgument(f"{where}: a path is a string, not {type(name).__name__}.")
    if len(name) > PATH_SIZE_MAX or name.count(".") >= NAMES_MAX:
        raise InvalidArgument(
            f"{where}: a path has at most {PATH_SIZE_MAX} characters and {NAMES_MAX} names."
        )
    path = tuple(name.split("."))
    if not all(path) or any(part.startswith("$") for part in path):
        raise InvalidArgument(
            f"{where}: {name!a:.60} is no path; its names are not empty and do not begin with $."
        )
    return path


# --- sorting in bounded memory ---------------------------------------------------------------


class Sorter:
    """Puts items in the order of their positions, in bounded memory.

    Args:
        count: how many of the first are wanted; None: all.

    Raises:
        ResourceExhausted: from `add`: they take more than `SORT_SIZE_BYTES_MAX`.
    """

    def __init__(self, count: int | None) -> None:
        self._count = count
        self._items: list[tuple[bytes, bytes]] = []
        self._runs: list[list[tuple[bytes, bytes]]] = []
        self._size_bytes = 0
        self.bound: bytes | None = None
        """Nothing from this position on is wanted any more."""

    def add(self, position: bytes, packed_id: bytes) -> None:
        """Take in another item."""
        bound = self.bound
        if bound is not None and position >= bound:
            return
        self._items.append((position, packed_id))
        self._size_bytes += len(position) + len(packed_id) + _ENTRY_OVERHEAD
        if self._size_bytes > SORT_SIZE_BYTES_MAX:
            self._shrink()
            if self._size_bytes > SORT_SIZE_BYTES_MAX:
                raise ResourceExhausted(
                    f"Sorting takes more than {SORT_SIZE_BYTES_MAX >> 20} MiB of memory; ask for "
                    "fewer documents with limit or a narrower filter, or make an index on the "
                    "fields to sort by."
                )
        if len(self._items) >= _RUN:
            self._end_run()

    def _end_run(self) -> None:
        self._items.sort()
        self._runs.append(self._items)
        self._items = []
        count = self._count
        if count is not None and sum(map(len, self._runs)) >= 2 * count + _RUN:
            self._shrink()

    def _shrink(self) -> None:
        """Keep what is wanted only."""
        count = self._count
        if count is None:
            return
        kept: list[tuple[bytes, bytes]] = []
        for item in self.sorted():
            kept.append(item)
            if len(kept) == count:
                self.bound = item[0]
                break
        self._runs, self._items = [kept], []
        self._size_bytes = sum(
            len(position) + len(packed_id) + _ENTRY_OVERHEAD for position, packed_id in kept
        )

    def sorted(self) -> Iterator[tuple[bytes, bytes]]:
        """Positions and packed ids in order, none twice, those that are wanted first."""
        self._items.sort()
        runs = [*self._runs, self._items]
        last = b""
        for item in self._items if len(runs) == 1 else heapq.merge(*runs):
            if item[0] != last:
                last = item[0]
                yield item
