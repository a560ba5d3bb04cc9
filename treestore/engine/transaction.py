"""Transactions: what commands and queries see of the tree.

A `ReadTransaction` is a root and the means to load nodes. A `WriteTransaction` also has a
`WorkingTree` and writes down each mutation for the log. Both satisfy
``treestore.stores.access``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain, islice
from typing import Any, TypeVar

import msgspec

from treestore.engine import tree
from treestore.engine.node import Large, Node, Ref, Shape
from treestore.engine.pagefile import PageFile
from treestore.engine.working import BULK_ITEMS, WorkingTree
from treestore.errors import InvalidArgument, ResourceExhausted

T = TypeVar("T")

VALUE_SIZE_BYTES_MAX = 100 * 1000 * 1000
"""Longest value: 100 MB."""

PAYLOAD_SIZE_BYTES = 1 << 18
"""A transaction's log payloads are cut at about this size, so that no buffer grows without bound
and replay can work in pieces."""


FREEING_PUT_BYTES = 4096
"""What a transaction may store and still count as one that frees space: a delete also notes that
it was done, for callers who ask twice."""

UNLIMITED = 1 << 60
"""The budget of reads that may take as long as they do."""


ENTRIES_PER_LOOKUP = 4
"""A point look-up costs about as much as going over this many entries of a leaf."""

ENTRIES_PER_LOOKUP_CUT = 100
"""Cutting so many keys out of a leaf does; whoever looks at each pays for that."""

FEW_KEYS = 32
"""Keys that are cut out of the first leaf of several: often no more are wanted, and to cut one out
is to touch it, which takes as long as memory does."""

ESTIMATE_LOOKUPS = 2 + tree.SAMPLES
"""Ways from the root to a leaf that an estimate takes."""


JOINED_LEAF_COST = 4
"""A leaf whose values are only put together into an answer is two copies of a page, and new memory
for them, whatever its entries are ..."""

JOINED_ENTRIES_PER_LOOKUP = 32
"""... and as much as a look-up for so many of them."""

COPIED_BYTES_PER_LOOKUP = 16 << 10
"""Of a value with pages of its own, likewise."""

DECODED_BYTES_PER_LOOKUP = 2 << 10
"""Of an answer that is made into objects."""


class OverBudget(Exception):
    """A read needs more work than its caller allowed for; run it again elsewhere."""


class ReadTransaction:
    """One consistent state, for reading.

    Attributes:
        budget: leaves and look-ups that may still be spent before `OverBudget` is raised. The
            event loop gives a small budget, worker threads an endless one.
        root: the state.
        time: what `now` answered; None until it was asked.
    """

    __slots__ = ("_clock", "_load", "_pages", "_raw", "budget", "root", "time")

    def __init__(
        self,
        root: Ref,
        pages: PageFile,
        clock: Callable[[], datetime],
        *,
        budget: int = UNLIMITED,
        raw: bool = False,
    ) -> None:
        self.root = root
        self.budget = budget
        self._clock = clock
        self.time: datetime | None = None
        self._pages = pages
        self._load = pages.load
        self._raw = raw

    @property
    def now(self) -> datetime:
        """Time of the transaction: the clock when first asked, the same from then on."""
        if self.time is None:
            self.time = self._clock()
        return self.time

    def renew(self, root: Ref) -> None:
        """Make this a new transaction on ``root``; nothing of the last one may be in use.

        The budget goes on: it bounds the work of all transactions until it is set again.
        """
        self.root = root
        self.time = None

    def _spend(self, entries: int) -> None:
        """Pay for a leaf: the way there, and what is done with its entries."""
        self.budget -= 2 + entries // ENTRIES_PER_LOOKUP
        if self.budget < 0:
            self.over_budget()

    def _spend_joined(self, entries: int) -> None:
        """Pay for a leaf whose values are only put together."""
        self.budget -= JOINED_LEAF_COST + entries // JOINED_ENTRIES_PER_LOOKUP
        if self.budget < 0:
            self.over_budget()

    def spend(self, lookups: int) -> None:
        """Pay for work on what was read, beyond reading it."""
        self.budget -= lookups
        if self.budget < 0:
            self.over_budget()

    def over_budget(self) -> None:
        """The budget is used up.

        Raises:
            OverBudget: always, here.
        """
        raise OverBudget

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""
        self.budget -= 1
        if self.budget < 0:
            self.over_budget()
        # `tree.get` written out: on this path a call more is a tenth of the time.
        ref = self.root
        index = ref.index
        while index is None:
            node = ref.node or self._load(ref)
            children = node.children
            if children is None:
                index = ref.index_of(node)
                if index is None:
                    return self._get_changed(node, key)
                break
            ref = children[bisect_right(node.keys, key)]
            index = ref.index
        ref.hot = True
        cell = index.get(key)
        return cell if cell is None or isinstance(cell, bytes) else self.value(cell)

    def _get_changed(self, leaf: Node, key: bytes) -> bytes | None:
        """`get` in a leaf that was not settled when it was looked at."""
        delta = leaf.delta
        cell = None if delta is None else delta.get(key)
        if cell is None:
            cell = (leaf.base or leaf).indexed().get(key)
        return None if cell is None else self.value(cell)

    def value(self, cell: Any) -> bytes:
        """The bytes of a cell that a cursor gave."""
        if isinstance(cell, bytes):
            return cell
        assert isinstance(cell, Large)
        # A cold value is also as many reads as it has extents, about.
        self.budget -= (cell.node is None) + cell.length // COPIED_BYTES_PER_LOOKUP
        if self.budget < 0:
            self.over_budget()
        return self._pages.load_large(cell)

    def first(self, start: bytes, end: bytes | None) -> tuple[bytes, bytes] | None:
        """The first entry with ``start <= key < end``, or None."""
        budget = self.budget - 2
        if budget < 0:
            self.over_budget()
        # A cursor pays for all of a leaf that is ahead of it; here it is left after one entry.
        self.budget = UNLIMITED
        try:
            entry = next(self.cursor(start, end), None)
        finally:
            self.budget = budget
        return None if entry is None else (entry[0], self.value(entry[1]))

    def scan(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Every ``(key, value)`` with ``start <= key < end``, in order."""
        for keys, values in self.batches(start, end, reverse=reverse):
            yield from zip(keys, values, strict=True)

    def batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """What `scan` gives, as lists of keys and values, a leaf at a time."""
        walk = tree.leaves_reversed if reverse else tree.leaves
        for node, first, last in walk(self.root, start, end, self._load):
            self._spend(last - first)
            keys, cells = node.keys[first:last], node.values[first:last]
            values = [cell if isinstance(cell, bytes) else self.value(cell) for cell in cells]
            if reverse:
                keys.reverse()
                values.reverse()
            yield keys, values

    def key_batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[list[bytes]]:
        """The keys alone: a few, then a leaf at a time."""
        walk = tree.leaves_reversed if reverse else tree.leaves
        few = FEW_KEYS
        for node, first, last in walk(self.root, start, end, self._load):
            self.spend(2 + (last - first) // ENTRIES_PER_LOOKUP_CUT)
            if last - first > few:
                if reverse:
                    keys = node.keys[last - few : last]
                    last -= few
                    keys.reverse()
                else:
                    keys = node.keys[first : first + few]
                    first += few
                yield keys
            few = UNLIMITED
            keys = node.keys[first:last]
            if reverse:
                keys.reverse()
            yield keys

    def cursor(self, start: bytes, end: bytes | None, *, joined: bool = False) -> tree.Cursor:
        """A forward scan that can skip; ``joined``: see ``treestore.stores.access``."""
        spend = self._spend_joined if joined else self._spend
        return tree.Cursor(self.root, start, end, self._load, spend)

    def estimate(self, start: bytes, end: bytes | None) -> int:
        """About how many entries there are with ``start <= key < end``: see `tree.estimate`."""
        self.spend(ESTIMATE_LOOKUPS)
        return tree.estimate(self.root, start, end, self._load)

    def load(self, type_: type[T], record: bytes) -> T:
        """A stored record as part of an answer: decoded, or as it is for the wire."""
        if self._raw:
            return msgspec.Raw(record)  # type: ignore[return-value]
        size = len(record)
        if size > DECODED_BYTES_PER_LOOKUP:
            self.spend(size // DECODED_BYTES_PER_LOOKUP)
        return decoder_of(type_).decode(record)


def decoder_of(type_: type[T]) -> msgspec.msgpack.Decoder[T]:
    """A decoder for ``type_``, made once."""
    decoder = _decoders.get(type_)
    if decoder is None:
        decoder = _decoders[type_] = msgspec.msgpack.Decoder(type_)
    return decoder


_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


class WriteTransaction(ReadTransaction):
    """A command under way. Ended by the engine: committed into the open group, or dropped.

    Mutations are noted for the log as they are made: ``key, value`` for a put, ``key, None`` for a
    delete, ``[start, end], None`` for a range, in order.
    """

    __slots__ = (
        "_notes",
        "_notes_size",
        "_removed_size",
        "_shape",
        "doomed",
        "moves",
        "number",
        "payloads",
        "size_bytes",
        "size_bytes_max",
        "working",
    )

    def __init__(
        self,
        number: int,
        working: WorkingTree,
        pages: PageFile,
        clock: Callable[[], datetime],
        *,
        size_bytes_max: int,
        raw: bool = False,
        moves: bool = False,
    ) -> None:
        # What `ReadTransaction.__init__` does: the call is a tenth of what a small command costs.
        self.root = working.root
        self.budget = UNLIMITED
        self._clock = clock
        self.time = None
        self._pages = pages
        self._load = pages.load
        self._raw = raw
        self.number = number
        self.working = working
        self.doomed = False
        """What it was built on could not be written: it must not be committed."""
        self.moves = moves
        """It moves pages and changes no key (``treestore.engine.moving``)."""
        self.payloads: list[bytes] = []
        self.size_bytes = 0
        self.size_bytes_max = size_bytes_max
        self._shape: Shape = pages.shape
        self._notes: list[Any] = []
        self._notes_size = 0
        self._removed_size = 0

    @property
    def frees(self) -> bool:
        """Whether it removed something and stored next to nothing; to be asked after `finish`."""
        return self._removed_size > 0 and self.size_bytes - self._removed_size <= FREEING_PUT_BYTES

    def put(self, key: bytes, value: bytes) -> None:
        """Set ``key`` to ``value``."""
        if len(value) > self._shape.inline_size_bytes_max:
            self._check_value(value)
        if len(key) > self._shape.key_size_bytes_max or not key:
            check_key(key, self._shape)
        self.working.put(key, value)
        self.root = self.working.root
        self._notes.append(key)
        self._notes.append(value)
        self._notes_size += len(key) + len(value) + 6
        if self._notes_size > PAYLOAD_SIZE_BYTES:
            self._flush()

    def put_sorted(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Set many keys, given in ascending order without repeats."""
        iterator = iter(items)
        while pending := list(islice(iterator, BULK_ITEMS)):
            self._note_puts(pending)
            for _ in self.working.put_sorted(pending):
                self.root = self.working.root

    def _note_puts(self, items: list[tuple[bytes, bytes]]) -> None:
        """Check pairs and note them, all at once where they fit one payload."""
        keys, values = zip(*items, strict=True)
        key_sizes, value_sizes = list(map(len, keys)), list(map(len, values))
        if min(key_sizes) == 0 or max(key_sizes) > self._shape.key_size_bytes_max:
            for key in keys:
                check_key(key, self._shape)
        if max(value_sizes) > VALUE_SIZE_BYTES_MAX:
            for value in values:
                self._check_value(value)
        size = sum(key_sizes) + sum(value_sizes) + 6 * len(items)
        if self._notes_size + size <= 2 * PAYLOAD_SIZE_BYTES:
            self._notes += chain.from_iterable(items)
            self._notes_size += size
            if self._notes_size > PAYLOAD_SIZE_BYTES:
                self._flush()
            return
        for key, value in items:
            self._notes += (key, value)
            self._notes_size += len(key) + len(value) + 6
            if self._notes_size > PAYLOAD_SIZE_BYTES:
                self._flush()

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None; this transaction's own writes included."""
        # Not through leaf indexes: its own leaves still change.
        cell = tree.get(self.working.root, key, self._load)
        return None if cell is None else self.value(cell)

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; whether it was there."""
        if tree.get(self.working.root, key, self._pages.load) is None:
            return False
        self.working.delete(key)
        self.root = self.working.root
        self._note(key, len(key) + 6)
        return True

    def delete_range(self, start: bytes, end: bytes | None) -> int:
        """Remove every key with ``start <= key < end``; how many there were."""
        for _ in tree.leaves(self.working.root, start, end, self._pages.load):
            break
        else:
            return 0
        removed = self.working.delete_range(start, end)
        self.root = self.working.root
        self._note((start, end), len(start) + len(end or b"") + 9)
        return removed

    def _note(self, what: object, size: int) -> None:
        self._notes.append(what)
        self._notes.append(None)
        self._notes_size += size
        self._removed_size += size
        if self._notes_size > PAYLOAD_SIZE_BYTES:
            self._flush()

    def _flush(self) -> None:
        payload = _encoder.encode(self._notes)
        self.payloads.append(payload)
        self.size_bytes += len(payload)
        self._notes = []
        self._notes_size = 0
        if self.size_bytes > self.size_bytes_max:
            raise ResourceExhausted(
                f"The transaction writes more than {self.size_bytes_max} bytes, the most that one "
                "may; split it, or raise the log's limit."
            )

    def finish(self) -> list[bytes]:
        """The log payloads of everything that was changed; empty where nothing was."""
        if self._notes:
            self._flush()
        return self.payloads

    def _check_value(self, value: bytes) -> None:
        if len(value) > VALUE_SIZE_BYTES_MAX:
            raise InvalidArgument(
                f"A value of {len(value)} bytes; a value has at most {VALUE_SIZE_BYTES_MAX}."
            )


def check_key(key: bytes, shape: Shape) -> None:
    """A key is not empty, and fits into a node.

    Raises:
        InvalidArgument: it is, or does not.
    """
    limit = shape.key_size_bytes_max
    if not 0 < len(key) <= limit:
        raise InvalidArgument(f"A key of {len(key)} bytes; a key has 1 to {limit} bytes.")


_encoder = msgspec.msgpack.Encoder()
