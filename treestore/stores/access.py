"""What a store sees of the engine: one ordered map of bytes, read or written in a transaction.

Operations are plain functions whose first argument is a `Read` (queries, streams) or a `Write`
(commands). They never see files, tasks or sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Cursor(Protocol):
    """A position in a forward scan. Iterating gives ``(key, cell)`` in key order.

    A cell is either the value itself (``bytes``) or something that `Read.value` makes into it:
    skipping over a large value costs nothing.
    """

    def __iter__(self) -> Iterator[tuple[bytes, Any]]: ...

    def __next__(self) -> tuple[bytes, Any]: ...

    def batch(self) -> tuple[list[bytes], list[Any]]:
        """The next entries, as lists of keys and cells, up to the end of a leaf; empty at the end.

        They may be the tree's own lists: not to be changed. The fast way where most entries are
        wanted.
        """
        ...

    def seek(self, key: bytes) -> None:
        """Go on from the first key at or after ``key`` (only forwards)."""
        ...


class Read(Protocol):
    """One consistent state of the store."""

    @property
    def now(self) -> datetime:
        """The time of this transaction, timezone-aware UTC (injected, so tests can set it)."""
        ...

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""
        ...

    def scan(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Every ``(key, value)`` with ``start <= key < end`` (None: no end), in order."""
        ...

    def first(self, start: bytes, end: bytes | None) -> tuple[bytes, bytes] | None:
        """The first entry with ``start <= key < end``, or None: one look-up, as `get` is."""
        ...

    def batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """What `scan` gives, as lists of keys and values, a leaf at a time: the fast way."""
        ...

    def key_batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[list[bytes]]:
        """The keys of `batches` alone, a few at first, for next to nothing: what is done with each
        of them is to be paid for (`spend`), as it is done."""
        ...

    def cursor(self, start: bytes, end: bytes | None, *, joined: bool = False) -> Cursor:
        """A forward scan that can skip: see `Cursor`.

        Args:
            joined: the values are only put together, a leaf at a time; that costs a query less of
                its budget (see `spend`) than looking at each.
        """
        ...

    def value(self, cell: Any) -> bytes:
        """The bytes of a cell that a cursor gave."""
        ...

    def estimate(self, start: bytes, end: bytes | None) -> int:
        """About how many entries there are with ``start <= key < end``, at the price of a few
        look-ups. A guess, for plans: it counts as no read, and nothing may depend on it but how
        long something takes."""
        ...

    def spend(self, lookups: int) -> None:
        """Pay for work on what was read that takes as long as so many look-ups (two microseconds
        each): decoding and comparing by the thousand. A query that runs on the event loop and
        costs more than its budget goes on in a thread."""
        ...

    def load(self, type_: type[T], record: bytes) -> T:
        """A stored record as part of an answer.

        ``record`` is the msgpack of a model object (a map by field name), or of a list of them
        where ``type_`` is a list. An embedded caller gets
        the decoded object; on the way to the wire the bytes go out as they are, so an operation
        must not look inside what this returns. To look inside, decode the record itself.
        """
        ...


class Write(Read, Protocol):
    """A transaction under way: sees its own writes; nobody else does before the commit.

    Iterators and cursors must be used up, or dropped, before the next write: a write changes nodes
    of its own in place.
    """

    def put(self, key: bytes, value: bytes) -> None:
        """Set ``key`` to ``value``."""
        ...

    def put_sorted(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Set many keys, given in ascending order without repeats: the fast way to store much."""
        ...

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; whether it was there."""
        ...

    def delete_range(self, start: bytes, end: bytes | None) -> int:
        """Remove every key with ``start <= key < end``; how many there were."""
        ...
