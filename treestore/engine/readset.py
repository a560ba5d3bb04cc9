"""What an interactive transaction read of its snapshot, and what a group of commits wrote.

A `ReadSet` holds keys (whether they were there or not) and ranges (as far as iterations really
went). A `WriteSet` holds the keys and ranges that the transactions of one group changed. The
transaction may be committed where its read set meets no write set of a commit after its snapshot;
see ``docs/transactions.md``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from treestore.engine.log import Transaction

KEY_MEMORY_BYTES = 100
"""What a key or range takes beside its bytes: an object or two and a place in a set."""

_decode = msgspec.msgpack.Decoder(list[Any]).decode


class ReadRange:
    """A stretch of keys that was gone through: ``low <= key < high``.

    It grows with the iteration that reads it, at either end.
    """

    __slots__ = ("high", "low")

    def __init__(self, low: bytes, high: bytes | None) -> None:
        self.low = low
        self.high = high
        """None: no end."""

    @property
    def empty(self) -> bool:
        """Whether it holds no key."""
        return self.high is not None and self.low >= self.high


class ReadSet:
    """The keys and ranges whose contents one transaction has seen."""

    __slots__ = ("_merged", "_sorted", "keys", "ranges")

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.ranges: list[ReadRange] = []
        self._merged: tuple[list[bytes], list[bytes | None]] | None = None
        self._sorted: list[bytes] | None = None

    def note_range(self, low: bytes, high: bytes | None) -> ReadRange:
        """Note a range; whoever goes on with it moves its ends."""
        found = ReadRange(low, high)
        self.ranges.append(found)
        return found

    def settle(self) -> None:
        """Nothing more is read: get ready for `meets`, which may then be called on any thread."""
        self._sorted = None
        self._merged = self._merge() if self.ranges else None

    def ascending(self) -> list[bytes]:
        """The keys, in order: needed where a range was removed."""
        found = self._sorted
        if found is None:
            found = self._sorted = sorted(self.keys)
        return found

    def _merge(self) -> tuple[list[bytes], list[bytes | None]]:
        lows: list[bytes] = []
        highs: list[bytes | None] = []
        for part in sorted((r for r in self.ranges if not r.empty), key=lambda r: r.low):
            if lows and (highs[-1] is None or part.low <= highs[-1]):
                last = highs[-1]
                if last is not None and (part.high is None or part.high > last):
                    highs[-1] = part.high
                continue
            lows.append(part.low)
            highs.append(part.high)
        return lows, highs

    def meets(self, writes: WriteSet) -> bool:
        """Whether any of ``writes``, which must be indexed, changed what was read."""
        # Most read a few keys, and most groups remove no range: a look at the keys is all.
        return (
            self._key_was_written(writes)
            or (bool(writes.ranges) and self._key_was_in_a_removed_range(writes))
            or (self._merged is not None and self._range_was_written(writes))
        )

    def _key_was_written(self, writes: WriteSet) -> bool:
        return not self.keys.isdisjoint(writes.keys)

    def _key_was_in_a_removed_range(self, writes: WriteSet) -> bool:
        keys = self.ascending()
        for start, end in writes.ranges:
            index = bisect_left(keys, start)
            if index < len(keys) and (end is None or keys[index] < end):
                return True
        return False

    def _range_was_written(self, writes: WriteSet) -> bool:
        assert self._merged is not None
        lows, highs = self._merged
        if not lows:
            return False
        if len(writes.keys) <= len(lows):
            written = any(_holds(lows, highs, key) for key in writes.keys)
        else:
            written = any(
                _any_between(writes.ascending(), low, high)
                for low, high in zip(lows, highs, strict=True)
            )
        return written or any(_overlaps(lows, highs, *removed) for removed in writes.ranges)


def _holds(lows: Sequence[bytes], highs: Sequence[bytes | None], key: bytes) -> bool:
    """Whether ``key`` is in one of the ranges, which ascend and do not touch."""
    index = bisect_right(lows, key) - 1
    if index < 0:
        return False
    high = highs[index]
    return high is None or key < high


def _any_between(keys: Sequence[bytes], low: bytes, high: bytes | None) -> bool:
    index = bisect_left(keys, low)
    return index < len(keys) and (high is None or keys[index] < high)


def _overlaps(
    lows: Sequence[bytes], highs: Sequence[bytes | None], start: bytes, end: bytes | None
) -> bool:
    """Whether the range from ``start`` to ``end`` and one of the others have a key in common."""
    if end is not None and start >= end:
        return False
    if _holds(lows, highs, start):
        return True
    index = bisect_left(lows, start)
    return index < len(lows) and (end is None or lows[index] < end)


class WriteSet:
    """What the transactions of one group changed.

    Made without looking at them: that is done when a transaction is first to be validated against
    it. The log payloads tell everything (see ``WriteTransaction``).

    Attributes:
        number: commit number of the group; 0 while it is open.
        size_bytes: about what it takes in memory.
        count: transactions in it.
        keys, ranges: what they changed; there once it was indexed.
    """

    __slots__ = (
        *("_ascending", "_indexed", "_transactions", "count"),
        *("keys", "number", "ranges", "size_bytes"),
    )

    keys: set[bytes]
    ranges: list[tuple[bytes, bytes | None]]
    _ascending: list[bytes] | None

    def __init__(self, transactions: list[Transaction], number: int, size_bytes: int) -> None:
        # One of these is made for every group: what most never need is made by `index`.
        self.number = number
        self.count = count = len(transactions)
        self.size_bytes = size_bytes + KEY_MEMORY_BYTES * count
        self._transactions = transactions
        self._indexed = 0

    def seal(self, number: int, size_bytes: int) -> None:
        """Nothing is added to the group any more."""
        self.count = count = len(self._transactions)
        self.size_bytes = size_bytes + KEY_MEMORY_BYTES * count
        self.number = number

    def is_ready(self, *, ranges: bool) -> bool:
        """Whether `index`, and with ``ranges`` `ascending`, would find nothing to do."""
        indexed = self._indexed == len(self._transactions)
        return indexed and not (ranges and self._ascending is None)

    def index(self) -> None:
        """Look at what came since the last call. On any thread, once the group is sealed.

        Two threads may do it at the same time: both find the same, and nobody ever sees less than
        what was there before.
        """
        transactions = self._transactions
        first, end = self._indexed, len(transactions)
        if first == end:
            return
        keys: set[bytes] = self.keys if first else set()
        ranges: list[tuple[bytes, bytes | None]] = self.ranges if first else []
        for transaction in transactions[first:end]:
            for payload in transaction.payloads:
                _add(_decode(payload), keys, ranges)
        self.keys, self.ranges, self._ascending = keys, ranges, None
        if self.number:
            # Sealed: the values are not needed any more.
            self._transactions, end = [], 0
        self._indexed = end

    def let_go(self) -> None:
        """Free the index bit by bit, once nobody uses it; on a thread."""
        if self._indexed or not self._transactions:
            keys, self._ascending = self.keys, None
            while keys:
                keys.pop()

    def ascending(self) -> list[bytes]:
        """The indexed keys, in order."""
        found = self._ascending
        if found is None:
            found = self._ascending = sorted(self.keys)
        return found


def _add(notes: list[Any], keys: set[bytes], ranges: list[tuple[bytes, bytes | None]]) -> None:
    """What the notes change."""
    whats = notes[0::2]
    if None in notes[1::2]:
        for what in whats:
            if isinstance(what, list):
                start, end = what
                ranges.append((start, end))
            else:
                keys.add(what)
    else:
        keys.update(whats)


def read_ranges(
    batches: Iterator[tuple[list[bytes], list[bytes]]],
    reads: ReadSet,
    start: bytes,
    end: bytes | None,
    *,
    reverse: bool,
) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """The same batches, cut so that little more is noted as read than the caller takes.

    A caller that wants one key takes one, not a leaf of them: the first batch has one entry, each
    further one twice as many as the one before.
    """
    seen: ReadRange | None = None
    size = 1
    for keys, values in batches:
        first = 0
        while first < len(keys):
            last = min(first + size, len(keys))
            part = keys[first:last], values[first:last]
            if reverse:
                if seen is None:
                    seen = reads.note_range(part[0][-1], end)
                seen.low = part[0][-1]
            else:
                if seen is None:
                    seen = reads.note_range(start, start)
                seen.high = part[0][-1] + b"\0"
            yield part
            first = last
            size *= 2
    if seen is None:
        reads.note_range(start, end)
    else:
        seen.low, seen.high = start, end
