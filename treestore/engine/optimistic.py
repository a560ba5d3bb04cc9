"""Interactive transactions: a private tree on a snapshot, and what was read and written.

Operations run against a copy-on-write tree of their own, each command on a `WorkingTree` of its
own (so that a command that fails leaves nothing, and a stream goes on with the state that it was
opened on). What they read of the snapshot is noted in a `ReadSet`, what they change in the form of
the log's notes. At commit, in the writer's order, the read set is validated against everything
that was executed since the snapshot, and the notes are applied to the working tree as one command.

``docs/transactions.md`` has the invariants.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from treestore.engine import tree
from treestore.engine.node import Large, Ref
from treestore.engine.pagefile import PageFile
from treestore.engine.readset import ReadRange, ReadSet, WriteSet, read_ranges
from treestore.engine.snapshot import LeasedRead, Snapshot
from treestore.engine.transaction import ReadTransaction, WriteTransaction
from treestore.engine.working import BULK_ITEMS, WorkingTree
from treestore.errors import ResourceExhausted, TransactionConflict

if TYPE_CHECKING:
    from treestore.engine.engine import Engine

READS_MAX = 500_000
"""Keys and ranges that one transaction may read; about 100 bytes each."""

OWN_MAX = 100_000
"""Keys written by the transaction itself that are remembered, so that reading them is no read of
the snapshot. Beyond, such a read is noted like any other: at worst a conflict too many."""

READS_AT_ONCE = 5000
"""So many keys and ranges are put in order on the event loop."""

UNSEEN_BYTES_AT_ONCE = 256 << 10
"""So much that was written is looked at there."""

HELD_BYTES_AT_ONCE = 32 << 10
"""What takes more is freed on a thread; and so are ..."""

HELD_GROUPS_AT_ONCE = 100
"""... more groups than this."""

SORTED_RUN = 8
"""So many puts of ascending keys in a row are merged as a sorted run."""

BEYOND_ALL_KEYS = b"\xff" * 2048
"""Above the longest key."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class _Recording:
    """Notes what is read, unless the transaction wrote it itself."""

    __slots__ = ()

    reads: ReadSet
    own: set[bytes]
    """Keys whose contents are this transaction's doing."""

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

    def cursor(self, start: bytes, end: bytes | None) -> tree.Cursor:
        """See `ReadTransaction.cursor`."""
        return RecordingCursor(
            self.root,  # type: ignore[attr-defined]
            start,
            end,
            self._load,  # type: ignore[attr-defined]
            self._spend,  # type: ignore[attr-defined]
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

    __slots__ = ("own", "reads")


class RecordingLeasedRead(_Recording, LeasedRead):
    """A query or stream of an interactive transaction that may take as long as it does."""

    __slots__ = ("own", "reads")


class RecordingWrite(_Recording, WriteTransaction):
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

    def take_notes(self) -> tuple[list[bytes], list[Any], int]:
        """Full payloads, the notes after them, and about how long these are."""
        return self.payloads, self._notes, self._notes_size


class OptimisticTransaction:
    """One interactive transaction. Made by `Engine.optimistic`; closed by whoever made it.

    One call at a time, on any thread; `apply` is what the writer runs.

    Attributes:
        lease: the pinned state that it began on.
        root: its private tree.
        reads: what it read of the snapshot.
    """

    def __init__(self, engine: Engine, lease: Snapshot, window_id: int) -> None:
        self.lease = lease
        self.root: Ref = lease.state.root
        self.reads = ReadSet()
        self._engine = engine
        self._pages: PageFile = engine.pages
        self._window_id = window_id
        self._count = lease.state.count
        self._own: set[bytes] = set()
        self._stamp = 0
        self._time: datetime | None = None
        self._payloads: list[bytes] = []
        self._notes: list[Any] = []
        self._notes_size = 0
        self._payloads_size = 0
        self._size_bytes_max = engine.options.transaction_size_bytes_max
        self._validated: set[int] = set()
        """Numbers of sealed groups that `validate_ahead` found harmless."""
        self._settled = False
        self._dropped: list[WriteSet] = []
        """What of the window only this one needed."""
        self.closed = False

    @property
    def number(self) -> int:
        """Commit number of its snapshot."""
        return self.lease.number

    @property
    def size_bytes(self) -> int:
        """About how long its changes are in the log."""
        return self._payloads_size + self._notes_size

    @property
    def writes(self) -> bool:
        """Whether it changed anything so far."""
        return bool(self._payloads or self._notes)

    # -- operations -----------------------------------------------------------------------------

    def _clock(self) -> datetime:
        """One time for the whole transaction: when it was first asked for."""
        if self._time is None:
            self._time = self._engine.now()
        return self._time

    def query(self, budget: int, *, raw: bool) -> RecordingRead:
        """A read for the event loop; it sees what the commands so far wrote.

        Raises:
            SnapshotExpired: the lease was evicted.
        """
        self.lease.usable_root()
        txn = RecordingRead(self.root, self._pages, self._clock, budget=budget, raw=raw)
        txn.reads, txn.own = self.reads, self._own
        return txn

    def long_query(self, *, raw: bool, lease: Snapshot | None = None) -> RecordingLeasedRead:
        """A read that takes as long as it does, on any thread.

        Args:
            lease: another one on the same state, for a read that outlives this call.

        Raises:
            SnapshotExpired: the lease was evicted.
        """
        lease = lease or self.lease
        lease.usable_root()
        txn = RecordingLeasedRead(lease, self.root, self._pages, self._clock, raw=raw)
        # A stream may still read what a later command wrote over: then that is a read.
        txn.reads, txn.own = self.reads, (self._own if lease is self.lease else set())
        return txn

    def command(self, *, raw: bool) -> RecordingWrite:
        """Begin a command; `keep` it where it succeeds, or drop it.

        Raises:
            SnapshotExpired: the lease was evicted.
        """
        self.lease.usable_root()
        self._stamp -= 1  # No commit has a number below zero.
        working = WorkingTree(
            self.root, self._stamp, self._count, self._pages.shape, self._pages.load
        )
        txn = RecordingWrite(
            0,
            working,
            self._pages,
            self._clock,
            size_bytes_max=self._size_bytes_max,
            raw=raw,
        )
        txn.reads, txn.own, txn.written = self.reads, self._own, set()
        return txn

    def keep(self, command: RecordingWrite) -> None:
        """Go on from what a command wrote.

        Raises:
            ResourceExhausted: that is too much; the command is dropped.
        """
        payloads, notes, notes_size = command.take_notes()
        size = self.size_bytes + command.size_bytes + notes_size
        if size > self._size_bytes_max:
            raise ResourceExhausted(
                f"The transaction writes more than {self._size_bytes_max} bytes, the most that one "
                "may; split it, or raise the log's limit."
            )
        self.root = command.working.root
        self._count = command.working.count
        if len(self._own) < OWN_MAX:
            self._own |= command.written
        if payloads:
            if self._notes:
                self._payloads.append(_encode(self._notes))
            self._payloads += payloads
            self._payloads_size = size - notes_size
            self._notes = notes
            self._notes_size = notes_size
        else:
            self._notes += notes
            self._notes_size += notes_size

    def check_reads(self) -> None:
        """To be called after each operation.

        Raises:
            ResourceExhausted: it read too many keys and ranges one by one.
        """
        if self.reads.count > READS_MAX:
            raise ResourceExhausted(
                f"The transaction read more than {READS_MAX} keys and ranges one by one; scan "
                "ranges instead, or read on a snapshot what need not be validated."
            )

    # -- the end --------------------------------------------------------------------------------

    def settle(self) -> None:
        """No operation will run any more: get ready to be validated."""
        if not self._settled:
            self._settled = True
            self.reads.settle()

    @property
    def is_heavy(self) -> bool:
        """Whether validating it, or getting ready for that, is no work for the event loop."""
        reads = self.reads
        if reads.count > READS_AT_ONCE and not self._settled:
            return True
        engine = self._engine
        unseen = engine.window.unseen_bytes(
            self.number, engine.open_group_bytes, ranges=bool(reads.ranges)
        )
        return unseen > UNSEEN_BYTES_AT_ONCE

    def validate_ahead(self) -> None:
        """Validate against all groups that are sealed already, on any thread.

        What is found harmless here is not looked at again, so that the writer, which everybody
        waits for, has little left to do.

        Raises:
            TransactionConflict: something that was read was changed since.
        """
        self.settle()
        for writes in self._engine.window.sealed_since(self.number):
            self._check(writes)
            self._validated.add(writes.number)

    def validate(self) -> None:
        """Nothing that this read was changed by what was executed since its snapshot.

        Raises:
            TransactionConflict: something was, or it is not known any more.
        """
        engine = self._engine
        for writes in engine.window.since(self.number, engine.executed):
            if writes.number not in self._validated:
                self._check(writes)
                if not writes.number:
                    engine.window.saw_open(engine.open_group_bytes)

    def _check(self, writes: WriteSet) -> None:
        writes.index()
        if self.reads.meets(writes):
            raise TransactionConflict(
                "Another transaction changed what this one read, and was committed first; run it "
                "again."
            )

    def apply(self, txn: WriteTransaction) -> bool:
        """Validate, then make the changes as one command of the writer; always True.

        Raises:
            TransactionConflict: see `validate`.
            ResourceExhausted: there is no room.
        """
        self.settle()
        self.validate()
        changes = NetChanges()
        changes.take_before(self._notes)
        for payload in reversed(self._payloads):
            changes.take_before(_decode(payload))
        changes.apply(txn)
        return True

    def close(self) -> None:
        """It is over: let go of the snapshot and of the window; harmless when done twice."""
        if not self.closed:
            self.closed = True
            self._dropped = self._engine.window.end(self._window_id)
            self.lease.close()

    @property
    def holds_much(self) -> bool:
        """Whether, now that it is closed, freeing it is no work for the event loop."""
        dropped = self._dropped
        large = self.size_bytes > HELD_BYTES_AT_ONCE or len(dropped) > HELD_GROUPS_AT_ONCE
        return large or sum(writes.size_bytes for writes in dropped) > HELD_BYTES_AT_ONCE

    def let_go(self) -> None:
        """Free what it holds, bit by bit; on a thread, once it is closed.

        All at once, the private tree of a large transaction takes many milliseconds, in which no
        other thread runs.
        """
        dropped, self._dropped = self._dropped, []
        while dropped:
            dropped.pop().let_go()
        self._notes = []
        while self._payloads:
            self._payloads.pop()
        root, self.root = self.root, self.lease.state.root
        _empty(root)


class NetChanges:
    """What many notes come to: ranges that were removed, then the last change of each key.

    So nobody who follows the log sees a value that the transaction itself overwrote. The notes are
    taken from the last to the first.
    """

    def __init__(self) -> None:
        self.ranges: list[tuple[bytes, bytes | None]] = []
        """The last first."""
        self.puts: dict[bytes, bytes] = {}
        self.deletes: set[bytes] = set()
        self._lows: list[bytes] = []
        self._highs: list[bytes] = []

    def take_before(self, notes: list[Any]) -> None:
        """Notes of what was done before everything taken so far."""
        puts, deletes = self.puts, self.deletes
        for what, value in zip(notes[-2::-2], notes[::-2], strict=True):
            if not isinstance(what, bytes):
                self._remove(*what)
            elif what not in puts and what not in deletes and not self._removed_later(what):
                if value is None:
                    deletes.add(what)
                else:
                    puts[what] = value

    def _removed_later(self, key: bytes) -> bool:
        index = bisect_right(self._lows, key) - 1
        return index >= 0 and key < self._highs[index]

    def _remove(self, start: bytes, end: bytes | None) -> None:
        self.ranges.append((start, end))
        high = BEYOND_ALL_KEYS if end is None else end
        first, last = bisect_left(self._highs, start), bisect_right(self._lows, high)
        if first < last:
            start = min(start, self._lows[first])
            high = max(high, self._highs[last - 1])
        self._lows[first:last] = [start]
        self._highs[first:last] = [high]

    def apply(self, txn: WriteTransaction) -> None:
        """Make the changes."""
        for start, end in reversed(self.ranges):
            txn.delete_range(start, end)
        for key in self.deletes:
            txn.delete(key)
        # From the first to the last: many puts are of ascending keys.
        keys = reversed(self.puts)
        while some := sorted(islice(keys, BULK_ITEMS)):
            if len(some) >= SORTED_RUN:
                txn.put_sorted([(key, self.puts[key]) for key in some])
            else:
                for key in some:
                    txn.put(key, self.puts[key])


def _empty(ref: Ref) -> None:
    """Take the entries out of the private nodes below ``ref``, leaf by leaf."""
    node = ref.node
    if node is None or node.stamp >= 0:
        return
    for child in node.children or ():
        _empty(child)
    node.keys, node.values = [], []
    node.base = node.delta = node.index = ref.index = None
