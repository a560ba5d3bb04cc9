"""Ids that a store gives to its records: in order of time, never twice.

An id is 20 hexadecimal digits: 15 for the record's moment in microseconds since the year 1, and 5
that number the records of one moment. Ids order as text as their records do in time. In a key it
is a datetime and an int, so that a period of time is a run of keys.

The number follows the highest that is taken at that moment, so an id depends on nothing but the
transaction: run again, it gives the same. Two transactions that give ids at different moments have
read none of the same keys.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from treestore.errors import InvalidArgument, ResourceExhausted
from treestore.stores.access import Write
from treestore.stores.keys import pack, unpack_one

_EPOCH: Final = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NUMBER_MAX: Final = 16**5 - 1
_is_id = re.compile(r"[0-9a-f]{20}", re.ASCII).fullmatch


def new_id(txn: Write, keyspace: bytes, at: datetime) -> str:
    """An id for a record of this moment, stored under ``keyspace`` and the id."""
    moment = keyspace + pack(at)
    last = next(txn.scan(moment, moment + b"\xff", reverse=True), None)
    number = 0
    if last is not None:
        taken, _ = unpack_one(last[0], len(moment))
        assert isinstance(taken, int)
        number = taken + 1
    if number > _NUMBER_MAX:
        raise ResourceExhausted(
            f"{_NUMBER_MAX + 1} records are of the moment {at.isoformat()}, the most there can be; "
            f"give the others another time."
        )
    return f"{(at - _EPOCH) // _MICROSECOND:015x}{number:05x}"


def key_of(id: str, what: str) -> bytes:
    """An id as key elements.

    Raises:
        InvalidArgument: it is none that a store gives; the sentence begins with ``what``.
    """
    if not isinstance(id, str) or not _is_id(id):
        raise InvalidArgument(f"{what} {id!r:.40} is no id that the store gave.")
    try:
        return pack(moment_of(id), int(id[15:], 16))
    except OverflowError:
        raise InvalidArgument(f"{what} {id!r:.40} is no id that the store gave.") from None


def moment_of(id: str) -> datetime:
    """The moment of the record that has this id."""
    return _EPOCH + int(id[:15], 16) * _MICROSECOND


def id_at(key: bytes, at: int) -> tuple[str, int]:
    """The id whose elements begin at ``at``, and where the next element begins.

    Raises:
        ValueError: there is none.
    """
    moment, at = unpack_one(key, at)
    number, at = unpack_one(key, at)
    if not isinstance(moment, datetime) or not isinstance(number, int):
        raise ValueError("a key has no id where one belongs")
    return f"{(moment - _EPOCH) // _MICROSECOND:015x}{number:05x}", at


def check_ids(ids: Any, what: str) -> list[str]:
    """A list of ids; `InvalidArgument` where it is none."""
    if isinstance(ids, str) or not isinstance(ids, list | tuple):
        raise InvalidArgument(f"{what} is a list of ids.")
    for id in ids:
        key_of(id, what)
    return list(ids)
