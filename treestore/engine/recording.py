"""What the calls of an interactive transaction see and change: every read of the snapshot is noted.

Changes of single keys gather in a dict, the *overlay*, which look-ups see first: so a transaction
that gets and puts a few keys copies no nodes. As soon as somebody goes over keys in order (a scan,
a cursor, a range), the overlay is merged into the transaction's private copy-on-write tree. Within
a command, too: it begins with an overlay of its own, and gets a tree when it needs one.

``optimistic.py`` has the transaction, which keeps or drops what a command did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from treestore.engine import tree
from treestore.engine.node import Large, Ref
from treestore.engine.pagefile import PageFile
from treestore.engine.readset import ReadRange, ReadSet, read_ranges
from treestore.engine.snapshot import LeasedRead
from treestore.engine.transaction import ReadTransaction, WriteTransaction, check_key

if TYPE_CHECKING:
    from treestore.engine.optimistic import OptimisticTransaction

OWN_MAX = 100_000
"""Keys written by the transaction itself that are remembered, so that reading them is no read of
the snapshot. Beyond, such a read is noted like any other: at worst a conflict too many."""

OVERLAY_KEYS_MAX = 256
"""Keys in an overlay; beyond, and ..."""

OVERLAY_VALUE_BYTES_MAX = 16 << 10
"""... for longer values, there is a tree. So merging it is short work for the event loop."""

Overlay = dict[bytes, "bytes | None"]
"""Key → new value; None: removed, there or not."""


class _Recording:
    """Notes what is read of the private tree, unless the transaction wrote it itself."""

    __slots__ = ()

    reads: ReadSet
    own: set[bytes]

    def get(self, key: bytes) -> bytes | None:
        """See `ReadTransaction.get`."""
        if key not in self.own:
            self.reads.keys.add(key)
        return super().get(key)  # type: ignore[misc, no-any-return]

    def batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """See `ReadTransaction.batches`."""
        batches = super().batches(start, end, reverse=reverse)  # type: ignore[misc]
        return read_ranges(batches, self.reads, start, end, reverse=reverse)

    def key_batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[list[bytes]]:
        """See `ReadTransaction.key_batches`."""
        batches = super().key_batches(start, end, reverse=reverse)  # type: ignore[misc]
        pairs = ((keys, keys) for keys in batches)
        for keys, _ in read_ranges(pairs, self.reads, start, end, reverse=reverse):
            yield keys

    def cursor(self, start: bytes, end: bytes | None, *, joined: bool = False) -> tree.Cursor:
        """See `ReadTransaction.cursor`."""
        spend = self._spend_joined if joined else self._spend  # type: ignore[attr-defined]
        return RecordingCursor(
            self.root,  # type: ignore[attr-defined]
            start,
            end,
            self._load,  # type: ignore[attr-defined]
            spend,
            self.reads,
        )


class RecordingCursor(tree.Cursor):
    """A cursor that notes the stretches between its skips."""

    __slots__ = ("_from", "_range", "_reads", "_until")

    def __init__(
        self,
        root: Ref,
        start: bytes,
        end: bytes | None,
        load: tree.Load,
        spend: Callable[[int], None],
        reads: ReadSet,
    ) -> None:
        super().__init__(root, start, end, load, spend)
        self._reads = reads
        self._until = end
        self._from = start
        """Everything before it was read or skipped."""
        self._range: ReadRange | None = None
        """What is being read, since the last skip."""

    def __iter__(self) -> RecordingCursor:
        return self

    def __next__(self) -> tuple[bytes, bytes | Large]:
        try:
            entry = super().__next__()
        except StopIteration:
            self._reached(self._until)
            raise
        self._reached(entry[0] + b"\0")
        return entry

    def batch(self) -> tuple[list[bytes], list[bytes | Large]]:
        """See `treestore.stores.access.Cursor.batch`."""
        keys, cells = super().batch()
        self._reached(keys[-1] + b"\0" if keys else self._until)
        return keys, cells

    def seek(self, key: bytes) -> None:
        """See `treestore.stores.access.Cursor.seek`."""
        super().seek(key)
        if key > self._from:
            self._from = key
            self._range = None

    def _reached(self, high: bytes | None) -> None:
        if self._range is None:
            self._range = self._reads.note_range(self._from, high)
        self._range.high = high
        if high is not None:
            self._from = high


class RecordingRead(_Recording, ReadTransaction):
    """A query of an interactive transaction, with a budget."""

    __slots__ = ("_owner", "own", "reads")

    def __init__(
        self,
        owner: OptimisticTransaction,
        pages: PageFile,
        clock: Callable[[], datetime],
        *,
        budget: int,
        raw: bool,
    ) -> None:
        ReadTransaction.__init__(self, owner.root, pages, clock, budget=budget, raw=raw)
        self._owner = owner
        self.reads, self.own = owner.reads, owner.own

    def get(self, key: bytes) -> bytes | None:
        """See `ReadTransaction.get`."""
        overlay = self._owner.overlay
        if key in overlay:
            self.budget -= 1
            return overlay[key]
        if key not in self.own:
            self.reads.keys.add(key)
        return ReadTransaction.get(self, key)

    def batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """See `ReadTransaction.batches`."""
        self.root = self._owner.merged()
        return super().batches(start, end, reverse=reverse)

    def key_batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[list[bytes]]:
        """See `ReadTransaction.key_batches`."""
        self.root = self._owner.merged()
        return super().key_batches(start, end, reverse=reverse)

    def cursor(self, start: bytes, end: bytes | None, *, joined: bool = False) -> tree.Cursor:
        """See `ReadTransaction.cursor`."""
        self.root = self._owner.merged()
        return super().cursor(start, end, joined=joined)


class RecordingLeasedRead(_Recording, LeasedRead):
    """A query or stream of an interactive transaction that may take as long as it does.

    Of the merged tree: later commands do not change what it sees.
    """

    __slots__ = ("own", "reads")


class TreeWrite(_Recording, WriteTransaction):
    """A command of an interactive transaction, on a working tree of its own."""

    __slots__ = ("own", "reads", "written")

    written: set[bytes]
    """Keys that this command wrote."""

    def get(self, key: bytes) -> bytes | None:
        """See `WriteTransaction.get`."""
        if key not in self.own and key not in self.written:
            self.reads.keys.add(key)
        return WriteTransaction.get(self, key)

    def put(self, key: bytes, value: bytes) -> None:
        """See `WriteTransaction.put`."""
        WriteTransaction.put(self, key, value)
        if len(self.written) < OWN_MAX:
            self.written.add(key)

    def put_sorted(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """See `WriteTransaction.put_sorted`."""
        WriteTransaction.put_sorted(self, self._noted(items))

    def _noted(self, items: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        iterator = iter(items)
        for item in islice(iterator, max(OWN_MAX - len(self.written), 0)):
            self.written.add(item[0])
            yield item
        yield from iterator

    def take(self, overlay: Overlay) -> None:
        """Make the changes of an overlay, which are no reads."""
        for key, value in overlay.items():
            if value is not None:
                WriteTransaction.put(self, key, value)
            elif not WriteTransaction.delete(self, key):
                # Put and removed by this transaction itself: it is to be gone in any case.
                self._note(key, len(key) + 6)
        self.written.update(overlay)

    def delete(self, key: bytes) -> bool:
        """See `WriteTransaction.delete`; its answer is a read."""
        if key not in self.own and key not in self.written:
            self.reads.keys.add(key)
        removed = WriteTransaction.delete(self, key)
        if removed and len(self.written) < OWN_MAX:
            self.written.add(key)
        return removed

    def delete_range(self, start: bytes, end: bytes | None) -> int:
        """See `WriteTransaction.delete_range`; its answer is a read of all of the range."""
        self.reads.note_range(start, end)
        return WriteTransaction.delete_range(self, start, end)

    @property
    def written_bytes(self) -> int:
        """About how long its changes are in the log."""
        return self.size_bytes + self._notes_size

    def take_notes(self) -> tuple[list[bytes], list[Any], int]:
        """Full payloads, the notes after them, and about how long these are."""
        return self.payloads, self._notes, self._notes_size


class RecordingWrite(ReadTransaction):
    """A command of an interactive transaction.

    Attributes:
        overlay: what it changed, as long as it has no tree.
        size_bytes: about how long that is in the log.
        tree: where it goes on, once it needs keys in order or writes much.
    """

    __slots__ = ("_owner", "overlay", "size_bytes", "tree")

    def __init__(
        self,
        owner: OptimisticTransaction,
        pages: PageFile,
        clock: Callable[[], datetime],
        *,
        raw: bool,
    ) -> None:
        ReadTransaction.__init__(self, owner.root, pages, clock, raw=raw)
        self._owner = owner
        self.overlay: Overlay = {}
        self.size_bytes = 0
        self.tree: TreeWrite | None = None

    def _grown(self) -> TreeWrite:
        """The tree, with what was changed so far."""
        grown = self.tree
        if grown is None:
            grown = self.tree = self._owner.tree_command(raw=self._raw)
            grown.take(self.overlay)
        return grown

    def get(self, key: bytes) -> bytes | None:
        """See `ReadTransaction.get`; the transaction's own writes included."""
        if self.tree is not None:
            return self.tree.get(key)
        if key in self.overlay:
            return self.overlay[key]
        owner = self._owner
        if key in owner.overlay:
            return owner.overlay[key]
        if key not in owner.own:
            owner.reads.keys.add(key)
        return ReadTransaction.get(self, key)

    def batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """See `ReadTransaction.batches`."""
        return self._grown().batches(start, end, reverse=reverse)

    def key_batches(
        self, start: bytes, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[list[bytes]]:
        """See `ReadTransaction.key_batches`."""
        return self._grown().key_batches(start, end, reverse=reverse)

    def cursor(self, start: bytes, end: bytes | None, *, joined: bool = False) -> tree.Cursor:
        """See `ReadTransaction.cursor`."""
        return self._grown().cursor(start, end, joined=joined)

    def put(self, key: bytes, value: bytes) -> None:
        """See `WriteTransaction.put`."""
        overlay = self.overlay
        if (
            self.tree is not None
            or len(value) > OVERLAY_VALUE_BYTES_MAX
            or len(overlay) >= OVERLAY_KEYS_MAX
        ):
            return self._grown().put(key, value)
        check_key(key, self._pages.shape)
        overlay[key] = value
        self.size_bytes += len(key) + len(value) + 6

    def put_sorted(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """See `WriteTransaction.put_sorted`."""
        self._grown().put_sorted(items)

    def delete(self, key: bytes) -> bool:
        """See `WriteTransaction.delete`; its answer is a read."""
        if self.tree is not None or len(self.overlay) >= OVERLAY_KEYS_MAX:
            return self._grown().delete(key)
        owner = self._owner
        if key in self.overlay:
            there = self.overlay[key] is not None
        elif key in owner.overlay:
            there = owner.overlay[key] is not None
        else:
            if key not in owner.own:
                owner.reads.keys.add(key)
            there = tree.get(self.root, key, self._load) is not None
        if not there:
            return False
        self.overlay[key] = None
        self.size_bytes += len(key) + 6
        return True

    def delete_range(self, start: bytes, end: bytes | None) -> int:
        """See `WriteTransaction.delete_range`; its answer is a read of all of the range."""
        return self._grown().delete_range(start, end)
