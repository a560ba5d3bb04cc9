"""The entries that an index holds of a document.

Each field of the index gives the encodings of everything that its path leads to, as a filter sees
it (`treestore.query.paths.spread`: a list stands for itself and for each of its elements), and null
where it leads to nothing. An entry is one encoding of each field; there is one for every
combination. So whatever the conditions of a filter ask of single values, a document that satisfies
them has an entry that does, or is absent from a sparse index.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any, Final

from treestore.errors import InvalidArgument
from treestore.query.expression import Path
from treestore.query.ordering import IndexInfo, encode
from treestore.query.paths import MISSING, compiled, spread

ENTRIES_MAX: Final = 10_000
"""Entries that one index holds of one document."""

_NULL: Final = encode(None)
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})

Entries = tuple[list[bytes], bool]
"""The encoded values of each entry, and whether the document makes the index a multikey one."""


def entries_of(index: IndexInfo) -> Callable[[Any], Entries]:
    """A function that gives the entries of a document: none twice, in no particular order.

    It raises `InvalidArgument` where they are more than `ENTRIES_MAX`.
    """
    fields = [_values_of(path, index.value_size_bytes_max) for path in index.fields]
    sparse = index.sparse
    if len(fields) == 1:
        (only,) = fields

        def of_one_field(document: Any) -> Entries:
            encodings, missing, multikey = only(document)
            if sparse and missing:
                return [], multikey
            if len(encodings) > ENTRIES_MAX:
                raise _too_many(index, len(encodings))
            return encodings, multikey

        if len(index.fields[0]) > 1:
            return of_one_field
        ((name,),) = index.fields
        size_bytes_max = index.value_size_bytes_max
        nothing: list[bytes] = [] if sparse else [_NULL]

        def of_one_field_at_the_top(document: Any) -> Entries:
            # What `of_one_field` gives, where it is simple.
            value = document.get(name, MISSING)
            if value.__class__ in _SCALARS:
                return [encode(value, size_bytes_max)], False
            if value is MISSING:
                return nothing.copy(), False
            return of_one_field(document)

        return of_one_field_at_the_top

    def of_all_fields(document: Any) -> Entries:
        found = [field(document) for field in fields]
        multikey = any(each[2] for each in found)
        if sparse and all(each[1] for each in found):
            return [], multikey
        if not multikey:
            return [b"".join([each[0][0] for each in found])], False
        count = prod(len(each[0]) for each in found)
        if count > ENTRIES_MAX:
            raise _too_many(index, count)
        return list(map(b"".join, product(*(each[0] for each in found)))), multikey

    if any(len(path) > 1 for path in index.fields):
        return of_all_fields
    names = [path[0] for path in index.fields]
    limit = index.value_size_bytes_max

    def of_fields_at_the_top(document: Any) -> Entries:
        # What `of_all_fields` gives, where it is simple.
        parts = []
        missing = 0
        for name in names:
            value = document.get(name, MISSING)
            if value.__class__ in _SCALARS:
                parts.append(encode(value, limit))
            elif value is MISSING:
                parts.append(_NULL)
                missing += 1
            else:
                return of_all_fields(document)
        if sparse and missing == len(names):
            return [], False
        return [b"".join(parts)], False

    return of_fields_at_the_top


def _too_many(index: IndexInfo, count: int) -> InvalidArgument:
    return InvalidArgument(
        f"The document has {count} entries in index {index.name!r:.80}; at most {ENTRIES_MAX}. Its "
        "lists are too long, or too many of them are indexed together."
    )


def _values_of(path: Path, size_bytes_max: int) -> Callable[[Any], tuple[list[bytes], bool, bool]]:
    """Of a document: the encodings at ``path``, whether there is no value, whether a list is."""
    values_at = compiled(path)

    def anywhere(document: Any) -> tuple[list[bytes], bool, bool]:
        values = spread(values_at(document))
        encodings = dict.fromkeys(encode(value, size_bytes_max) for value in values)
        missing = all(value is MISSING for value in values)
        multikey = _meets_list(document, path)
        return list(encodings) or [_NULL], missing, multikey

    def plainly(document: Any) -> tuple[list[bytes], bool, bool]:
        value = document
        for name in path:
            if value.__class__ is not dict:
                return anywhere(document)
            value = value.get(name, MISSING)
            if value is MISSING:
                return [_NULL], True, False
        if value.__class__ in _SCALARS or value.__class__ is dict:
            return [encode(value, size_bytes_max)], False, False
        return anywhere(document)

    return plainly


def _meets_list(value: Any, path: Path) -> bool:
    for name in path:
        if isinstance(value, list | tuple):
            return True
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return isinstance(value, list | tuple)
