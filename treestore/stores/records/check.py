"""Verifies records, their indexes and their statistics against each other, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from treestore.stores.access import Read
from treestore.stores.keys import successor
from treestore.stores.records.ids import id_at

PROBLEMS_MAX = 100
"""Problems told of one check; one cause often shows in many places."""


class Indexed(Protocol):
    """What is to be known of a record."""

    def index_keys(self) -> list[bytes]:
        """Every key of an index that leads to it."""
        ...


def check_indexes(
    txn: Read,
    name: str,
    records: Iterator[tuple[bytes, Indexed]],
    indexes: Sequence[bytes],
    find: Callable[[str], Indexed | None],
) -> Iterator[str]:
    """What is wrong between records and the indexes that lead to them.

    Every record has its entries, and there are no more entries than that. Memory does not grow
    with the records.

    Args:
        records: all of them, each with its key.
        indexes: the indexes' keyspaces; their keys end with an id.
        find: the record with an id.
    """
    entries = 0
    for key, record in records:
        for entry in record.index_keys():
            entries += 1
            if txn.get(entry) is None:
                yield f"The {name} at key {key.hex()} lacks its entry {entry.hex()}."
    found = sum(len(keys) for index in indexes for keys, _ in txn.batches(index, successor(index)))
    if found == entries:
        return
    for index in indexes:
        for key, _ in txn.scan(index, successor(index)):
            owner = find(_id_of(key))
            if owner is None or key not in owner.index_keys():
                yield f"Key {key.hex()} leads to no {name}."


def _id_of(key: bytes) -> str:
    """The id that an index's key ends with: a moment of nine bytes, and a number."""
    for at in range(len(key) - 10, 0, -1):
        try:
            id, end = id_at(key, at)
        except (ValueError, IndexError, OverflowError):
            continue
        if end == len(key):
            return id
    return ""


def check_statistics(
    txn: Read, name: str, space: bytes, decode: Callable[[bytes], Any], expected: dict[bytes, Any]
) -> Iterator[str]:
    """What is wrong with rows of statistics that should be as ``expected``."""
    left = dict(expected)
    for key, record in txn.scan(space, successor(space)):
        if left.pop(key, None) != decode(record):
            yield f"The {name} at key {key.hex()} are not those of its records."
    for key in left:
        yield f"The {name} at key {key.hex()} are missing."


def readable(name: str, check: Callable[[], Iterator[str]]) -> list[str]:
    """The problems of a check, at most `PROBLEMS_MAX`; what cannot be read is one as well."""
    problems: list[str] = []
    try:
        for problem in check():
            problems.append(problem)
            if len(problems) == PROBLEMS_MAX:
                break
    except (msgspec.DecodeError, ValueError, IndexError, AssertionError, OverflowError) as error:
        problems.append(f"A record of {name} cannot be read: {error}.")
    return problems
