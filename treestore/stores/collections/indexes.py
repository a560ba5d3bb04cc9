"""What an index holds of a document: pure functions of both."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, Final, Literal

import msgspec

from treestore.errors import InvalidArgument
from treestore.query import paths
from treestore.query.entries import Entries, entries_of
from treestore.query.expression import Path
from treestore.query.ordering import IndexInfo, end_of
from treestore.query.paths import MISSING
from treestore.query.values import order_key
from treestore.stores.collections.layout import Document, entries_prefix
from treestore.stores.json_values import shown

FIELDS_MAX: Final = 8
"""Fields of one index."""

INDEXES_MAX: Final = 64
"""Indexes of one collection."""

PATH_SIZE_MAX: Final = 1000
PATH_NAMES_MAX: Final = 100


State = Literal["building", "ready", "failed"]


class IndexRecord(msgspec.Struct):
    """An index, as its collection's record has it."""

    id: int
    name: str
    fields: list[str]
    unique: bool
    sparse: bool
    multikey: bool
    state: State
    error: str | None = None
    conflict: bool = False
    """Whether the build failed because two documents have equal values."""


class Index:
    """An index and how its entries are made.

    Attributes:
        record: as it is stored.
        info: what a planner knows of it.
        id, name, unique, multikey: of the record.
        fields: the dotted paths.
        ready: whether queries may use it.
        live: whether writers maintain it.
        prefix: what the keys of its entries begin with.
        entries: of a document: the keys of its entries but for `prefix` and the document's id, and
            whether it makes the index a multikey one. It raises `InvalidArgument` for a document
            that cannot be in this index.
    """

    __slots__ = (
        *(
            "_entries",
            "_follow",
            "entries",
            "fields",
            "id",
            "info",
            "live",
            "multikey",
            "name",
            "prefix",
        ),
        *("ready", "record", "unique"),
    )

    def __init__(self, record: IndexRecord) -> None:
        self.record = record
        self.id = record.id
        self.name = record.name
        self.fields = tuple(record.fields)
        self.unique = record.unique
        self.multikey = record.multikey
        self.ready = record.state == "ready"
        self.live = record.state != "failed"
        self.info = IndexInfo(
            id=record.id,
            name=record.name,
            fields=tuple(tuple(field.split(".")) for field in record.fields),
            unique=record.unique,
            sparse=record.sparse,
            multikey=record.multikey,
            ready=self.ready,
        )
        self.prefix = entries_prefix(record.id)
        self._follow = tuple(map(paths.compiled, self.info.fields))
        self._entries = entries_of(self.info)
        self.entries: Callable[[Document], Entries] = (
            self._entries if len(self.fields) == 1 else self._checked_entries
        )

    def _checked_entries(self, document: Document) -> Entries:
        """`entries` of several fields."""
        found = self._entries(document)
        if found[1]:
            self._check_lists(document)
        return found

    def split(self, key: bytes) -> tuple[bytes, bytes]:
        """The values of an entry's key, and the packed id at its end.

        Raises:
            ValueError: it is no key of an entry of this index.
        """
        limit = self.info.value_size_bytes_max
        start = at = len(self.prefix)
        for _ in self.fields:
            at = end_of(key, at, limit)
        return key[start:at], key[at:]

    def may_be_cut(self, entries: list[bytes]) -> bool:
        """Whether some of these entries may stand for other values than they show."""
        limit = self.info.value_size_bytes_max
        return any(len(entry) > limit for entry in entries)

    def _check_lists(self, document: Document) -> None:
        """Refuse a document in which two paths go through lists that the other does not."""
        fields = self.info.fields
        lists = [set(_lists_on(path, document)) for path in fields]
        for index, path in enumerate(fields):
            for other, other_path in enumerate(fields[:index]):
                own = lists[index] - _beginnings(other_path)
                if own and lists[other] - _beginnings(path):
                    raise InvalidArgument(
                        f"Index {shown(self.name)} cannot hold the document: "
                        f"{shown(self.fields[other])} and {shown(self.fields[index])} go through "
                        "different lists, and its entries would multiply. Index them apart."
                    )

    def values(self, document: Document) -> set[tuple[Any, ...]]:
        """What the document's entries stand for, uncut, as `order_key` compares it."""
        reached = [paths.spread(follow(document)) or [MISSING] for follow in self._follow]
        if self.info.sparse and all(value is MISSING for values in reached for value in values):
            return set()
        keys = [
            dict.fromkeys(order_key(None if value is MISSING else value) for value in values)
            for values in reached
        ]
        return set(product(*keys))

    def shown_values(self, document: Document) -> str:
        """The document's values, for a message."""
        parts = []
        for field, follow in zip(self.fields, self._follow, strict=True):
            values = [None if value is MISSING else value for value in follow(document)]
            parts.append(f"{field} {shown(values[0] if len(values) == 1 else values)}")
        return ", ".join(parts)


def _beginnings(path: Path) -> set[Path]:
    return {path[:end] for end in range(1, len(path) + 1)}


def _lists_on(path: Path, document: Document) -> list[Path]:
    """The beginnings of a path that lead to a list."""
    return [
        path[:end]
        for end in range(1, len(path) + 1)
        if any(isinstance(value, list | tuple) for value in paths.compiled(path[:end])(document))
    ]


# --- definitions -----------------------------------------------------------------------------


class Definition(msgspec.Struct, frozen=True):
    """An index as a user asks for it."""

    name: str
    fields: tuple[str, ...]
    unique: bool
    sparse: bool

    @classmethod
    def of(
        cls, fields: Any, unique: Any = False, sparse: Any = False, name: Any = None
    ) -> Definition:
        """Checked.

        Raises:
            InvalidArgument: it is none.
        """
        chosen = checked_fields(fields)
        for what, flag in (("unique", unique), ("sparse", sparse)):
            if not isinstance(flag, bool):
                raise InvalidArgument(f"{what} is True or False, not {shown(flag)}.")
        if name is None:
            name = ",".join(chosen)
        elif not isinstance(name, str) or not 0 < len(name) <= PATH_SIZE_MAX:
            raise InvalidArgument(
                f"The name of an index is a string of 1 to {PATH_SIZE_MAX} characters, not "
                f"{shown(name)}."
            )
        _check_unicode(name)
        return cls(name, chosen, unique, sparse)

    @classmethod
    def parse(cls, index: Any) -> Definition:
        """Of a path, a list of paths, or a dict with ``fields`` and options."""
        if not isinstance(index, dict):
            return cls.of(index)
        known = {"fields", "unique", "sparse", "name"}
        if not index.keys() <= known or "fields" not in index:
            raise InvalidArgument(
                f"An index is given by fields, unique, sparse and name, not {shown(index)}."
            )
        return cls.of(**index)

    def record(self, id: int, state: State) -> IndexRecord:
        """Of a new index."""
        return IndexRecord(
            id, self.name, list(self.fields), self.unique, self.sparse, multikey=False, state=state
        )

    def describes(self, record: IndexRecord) -> bool:
        """Whether an index is just what is asked for."""
        return (
            record.fields == list(self.fields)
            and record.unique == self.unique
            and record.sparse == self.sparse
        )


def checked_fields(fields: Any) -> tuple[str, ...]:
    """The paths of an index."""
    if isinstance(fields, str):
        fields = [fields]
    if not isinstance(fields, list | tuple) or not 0 < len(fields) <= FIELDS_MAX:
        raise InvalidArgument(
            f"The fields of an index are a path or a list of 1 to {FIELDS_MAX} paths, not "
            f"{shown(fields)}."
        )
    for field in fields:
        _check_field(field)
    if len(set(fields)) < len(fields):
        raise InvalidArgument(f"An index has no field twice: {shown(fields)}.")
    return tuple(fields)


def _check_field(field: Any) -> None:
    if not isinstance(field, str):
        raise InvalidArgument(f"A field of an index is a path, not {shown(field)}.")
    names = field.split(".")
    if len(field) > PATH_SIZE_MAX or len(names) > PATH_NAMES_MAX:
        raise InvalidArgument(
            f"The path {shown(field)} is too long: at most {PATH_SIZE_MAX} characters and "
            f"{PATH_NAMES_MAX} names."
        )
    if not all(names) or any(name.startswith("$") for name in names):
        raise InvalidArgument(
            f"The path {shown(field)} is none: names joined by dots, none of them empty nor "
            "beginning with $."
        )
    if names[0] == "_id":
        raise InvalidArgument(
            "_id needs no index: documents are in its order, and so are equal entries of an index."
        )
    _check_unicode(field)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{shown(text)} holds half of a surrogate pair, which is no character."
        ) from None
