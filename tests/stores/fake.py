"""A transaction over a sorted list, in place of the engine's."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

KEY_SIZE_BYTES_MAX = 1020

BATCH = 5
"""Entries that a cursor gives at a time: few, so that skipping often leads beyond them."""


@cache
def decoder(type_: Any) -> msgspec.msgpack.Decoder:
    return msgspec.msgpack.Decoder(type_)


class FakeCell:
    """A value that has to be asked for."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class FakeCursor:
    def __init__(self, txn: FakeWrite, start: bytes, end: bytes | None) -> None:
        self._txn = txn
        self._at = bisect_left(txn.keys, start)
        self._end = end

    def __iter__(self) -> FakeCursor:
        return self

    def __next__(self) -> tuple[bytes, Any]:
        keys = self._txn.keys
        if self._at >= len(keys):
            raise StopIteration
        key = keys[self._at]
        if self._end is not None and key >= self._end:
            raise StopIteration
        self._at += 1
        self._txn.visited += 1
        return key, FakeCell(self._txn.data[key])

    def batch(self) -> tuple[list[bytes], list[Any]]:
        pairs = list(islice(self, BATCH))
        return [key for key, _ in pairs], [cell for _, cell in pairs]

    def seek(self, key: bytes) -> None:
        self._at = bisect_left(self._txn.keys, key, self._at)


class FakeWrite:
    """`access.Write` over a dict and a sorted list of its keys.

    Attributes:
        visited: keys that cursors gave, so that a test can see what was skipped.
        values_read: cells that were resolved.
    """

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []
        self.now = datetime(2024, 5, 1, 12, tzinfo=UTC)
        self.visited = 0
        self.values_read = 0

    def tick(self) -> None:
        """A second passes."""
        self.now += timedelta(seconds=1)

    # Read

    def get(self, key: bytes) -> bytes | None:
        assert len(key) <= KEY_SIZE_BYTES_MAX
        return self.data.get(key)

    def scan(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        first = bisect_left(self.keys, start)
        last = len(self.keys) if end is None else bisect_left(self.keys, end)
        keys = self.keys[first:last]
        for key in reversed(keys) if reverse else keys:
            yield key, self.data[key]

    def first(self, start: bytes, end: bytes | None) -> tuple[bytes, bytes] | None:
        return next(self.scan(start, end), None)

    def batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        for key, value in self.scan(start, end, reverse=reverse):
            yield [key], [value]

    def key_batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[list[bytes]]:
        for key, _ in self.scan(start, end, reverse=reverse):
            yield [key]

    def cursor(self, start: bytes, end: bytes | None, *, joined: bool = False) -> FakeCursor:
        return FakeCursor(self, start, end)

    def value(self, cell: Any) -> bytes:
        self.values_read += 1
        return cell.data

    def estimate(self, start: bytes, end: bytes | None) -> int:
        last = len(self.keys) if end is None else bisect_left(self.keys, end)
        return max(last - bisect_left(self.keys, start), 0)

    def spend(self, lookups: int) -> None:
        assert lookups >= 0

    def load(self, type_: type[T], record: bytes) -> T:
        result: T = decoder(type_).decode(record)  # type: ignore[arg-type]
        return result

    # Write

    def put(self, key: bytes, value: bytes) -> None:
        assert 0 < len(key) <= KEY_SIZE_BYTES_MAX
        assert isinstance(value, bytes)
        if key not in self.data:
            self.keys.insert(bisect_left(self.keys, key), key)
        self.data[key] = value

    def put_sorted(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        last = b""
        new = []
        for key, value in items:
            assert last < key, "put_sorted needs ascending keys"
            assert len(key) <= KEY_SIZE_BYTES_MAX
            assert isinstance(value, bytes)
            last = key
            if key not in self.data:
                new.append(key)
            self.data[key] = value
        self.keys += new
        self.keys.sort()

    def delete(self, key: bytes) -> bool:
        if self.data.pop(key, None) is None:
            return False
        del self.keys[bisect_left(self.keys, key)]
        return True

    def delete_range(self, start: bytes, end: bytes | None) -> int:
        first = bisect_left(self.keys, start)
        last = len(self.keys) if end is None else bisect_left(self.keys, end)
        for key in self.keys[first:last]:
            del self.data[key]
        del self.keys[first:last]
        return last - first


class FakeStore:
    """Calls operations as an embedded store does: what fails changes nothing."""

    def __init__(self) -> None:
        self.txn = FakeWrite()

    def time(self) -> datetime:
        """The time of the last command."""
        return self.txn.now

    def is_empty(self) -> bool:
        """Whether there is no key at all."""
        return not self.txn.data

    def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """A command or a query."""
        before = (dict(self.txn.data), list(self.txn.keys))
        self.txn.tick()
        try:
            return function(self.txn, *args, **kwargs)
        except BaseException:
            self.txn.data, self.txn.keys = before
            raise

    def prepared(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """A command in two stages."""
        return self.run(function(*args, **kwargs))
