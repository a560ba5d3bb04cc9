"""Interactive transactions: a private tree on a snapshot, and what was read and written.

Operations run against a copy-on-write tree of their own and an overlay of the latest changes
(``recording.py``), each command on an overlay or a `WorkingTree` of its own (so that a command that
fails leaves nothing, and a stream goes on with the state that it was opened on). What they read of
the snapshot is noted in a `ReadSet`, what they change in the overlay, and in the tree's case in the
form of the log's notes. At commit, in the writer's order, the read set is validated against
everything that was executed since the snapshot, and overlay and notes are applied to the working
tree as one command.

``docs/transactions.md`` has the invariants.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from treestore.engine.node import Ref
from treestore.engine.pagefile import PageFile
from treestore.engine.readset import ReadSet, WriteSet
from treestore.engine.recording import (
    OVERLAY_KEYS_MAX,
    OWN_MAX,
    Overlay,
    RecordingLeasedRead,
    RecordingRead,
    RecordingWrite,
    TreeWrite,
)
from treestore.engine.snapshot import Snapshot
from treestore.engine.transaction import PAYLOAD_SIZE_BYTES, WriteTransaction
from treestore.engine.working import BULK_ITEMS, WorkingTree
from treestore.errors import ResourceExhausted, TransactionConflict

if TYPE_CHECKING:
    from treestore.engine.engine import Engine

READS_MAX = 500_000
"""Keys and ranges that one transaction may read; about 100 bytes each."""

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


class OptimisticTransaction:
    """One interactive transaction. Made by `Engine.optimistic`; closed by whoever made it.

    One call at a time, on any thread; `apply` is what the writer runs.

    Attributes:
        lease: the pinned state that it began on.
        number: commit number of that state.
        root: its private tree.
        own: keys in that tree whose contents are the transaction's doing.
        overlay: changes since that tree.
        reads: what it read of the snapshot.
    """

    def __init__(self, engine: Engine, lease: Snapshot, window_id: int) -> None:
        self.lease = lease
        self.number = lease.number
        self.root: Ref = lease.state.root
        self.own: set[bytes] = set()
        self.overlay: Overlay = {}
        self.reads = ReadSet()
        self._engine = engine
        self._pages: PageFile = engine.pages
        self._window_id = window_id
        self._count = lease.state.count
        self._stamp = 0
        self._time: datetime | None = None
        self._payloads: list[bytes] = []
        self._notes: list[Any] = []
        self._notes_size = 0
        self._payloads_size = 0
        self._overlay_size = 0
        self._size_bytes_max = engine.options.transaction_size_bytes_max
        self._validated: set[int] = set()
        """Numbers of sealed groups that `validate_ahead` found harmless."""
        self._settled = False
        self._dropped: list[WriteSet] = []
        """What of the window only this one needed."""
        self.closed = False

    @property
    def size_bytes(self) -> int:
        """About how long its changes are in the log."""
        return self._payloads_size + self._notes_size + self._overlay_size

    @property
    def writes(self) -> bool:
        """Whether it changed anything so far."""
        return bool(self.overlay or self._notes or self._payloads)

    @property
    def mark(self) -> tuple[int, int]:
        """How far its notes go: another one for each change, once that is `merged`."""
        return len(self._payloads), len(self._notes)

    def notes_since(self, mark: tuple[int, int]) -> Iterator[tuple[Any, bytes | None]]:
        """What was changed after a `mark`; where much was, some of before it is given again."""
        payloads, notes = mark
        if payloads == len(self._payloads):
            rest = self._notes[notes:]
        else:
            rest = self._notes
            for payload in self._payloads[payloads:]:
                its = _decode(payload)
                yield from zip(its[0::2], its[1::2], strict=True)
        yield from zip(rest[0::2], rest[1::2], strict=True)

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
        return RecordingRead(self, self._pages, self._clock, budget=budget, raw=raw)

    def long_query(self, *, raw: bool, lease: Snapshot | None = None) -> RecordingLeasedRead:
        """A read that takes as long as it does, to be used on any thread.

        Args:
            lease: another one on the same state, for a read that outlives this call.

        Raises:
            SnapshotExpired: the lease was evicted.
        """
        lease = lease or self.lease
        lease.usable_root()
        txn = RecordingLeasedRead(lease, self.merged(), self._pages, self._clock, raw=raw)
        # A stream may still read what a later command wrote over: then that is a read.
        txn.reads, txn.own = self.reads, (self.own if lease is self.lease else set())
        return txn

    def command(self, *, raw: bool) -> RecordingWrite:
        """Begin a command; `keep` it where it succeeds, or drop it.

        Raises:
            SnapshotExpired: the lease was evicted.
        """
        self.lease.usable_root()
        return RecordingWrite(self, self._pages, self._clock, raw=raw)

    def tree_command(self, *, raw: bool) -> TreeWrite:
        """A command on a working tree of its own, over `merged`."""
        return self._command_on(self.merged(), raw)

    def _command_on(self, root: Ref, raw: bool) -> TreeWrite:
        self._stamp -= 1  # No commit has a number below zero.
        working = WorkingTree(root, self._stamp, self._count, self._pages.shape, self._pages.load)
        txn = TreeWrite(
            0,
            working,
            self._pages,
            self._clock,
            size_bytes_max=self._size_bytes_max,
            raw=raw,
        )
        txn.reads, txn.own, txn.written = self.reads, self.own, set()
        return txn

    def merged(self) -> Ref:
        """The private tree with the overlay merged into it: some milliseconds at most.

        Not while a call is under way on another thread, unless there is no overlay.
        """
        overlay = self.overlay
        if overlay:
            txn = self._command_on(self.root, False)
            txn.take(overlay)
            self.overlay, self._overlay_size = {}, 0
            self._take_tree(txn)
        return self.root

    def keep(self, command: RecordingWrite) -> None:
        """Go on from what a command wrote.

        Raises:
            ResourceExhausted: that is too much; the command is dropped.
        """
        tree = command.tree
        if tree is not None:
            self._check_size(tree.written_bytes)
            return self._take_tree(tree)
        self._check_size(command.size_bytes)
        self.overlay.update(command.overlay)
        self._overlay_size += command.size_bytes
        if len(self.overlay) > OVERLAY_KEYS_MAX or self._overlay_size > PAYLOAD_SIZE_BYTES:
            self.merged()

    def _check_size(self, more: int) -> None:
        if self.size_bytes + more > self._size_bytes_max:
            raise ResourceExhausted(
                f"The transaction writes more than {self._size_bytes_max} bytes, the most that one "
                "may; split it, or raise the log's limit."
            )

    def _take_tree(self, command: TreeWrite) -> None:
        payloads, notes, notes_size = command.take_notes()
        size = self.size_bytes + command.written_bytes
        self.root = command.working.root
        self._count = command.working.count
        if len(self.own) < OWN_MAX:
            self.own |= command.written
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
        reads = self.reads
        if len(reads.keys) + len(reads.ranges) > READS_MAX:
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
        reads, engine = self.reads, self._engine
        if len(reads.keys) + len(reads.ranges) > READS_AT_ONCE and not self._settled:
            return True
        if engine.window.size_bytes + engine.open_group_bytes <= UNSEEN_BYTES_AT_ONCE:
            return False
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
        self.reads.ascending()
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
        changes = NetChanges(self.overlay)
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

    So nobody who follows the log sees a value that the transaction itself overwrote. The overlay
    comes after all notes; these are taken from the last to the first.
    """

    def __init__(self, overlay: Overlay) -> None:
        self.ranges: list[tuple[bytes, bytes | None]] = []
        """The last first."""
        self.keys: Overlay = dict(reversed(overlay.items()))
        """Likewise."""
        self._lows: list[bytes] = []
        self._highs: list[bytes] = []

    def take_before(self, notes: list[Any]) -> None:
        """Notes of what was done before everything taken so far."""
        keys = self.keys
        for what, value in zip(notes[-2::-2], notes[::-2], strict=True):
            if not isinstance(what, bytes):
                self._remove(*what)
            elif what not in keys and not self._removed_later(what):
                keys[what] = value

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
        puts: list[tuple[bytes, bytes]] = []
        # From the first to the last: many puts are of ascending keys.
        for key, value in reversed(self.keys.items()):
            if value is None:
                txn.delete(key)
            else:
                puts.append((key, value))
        for first in range(0, len(puts), BULK_ITEMS):
            some = puts[first : first + BULK_ITEMS]
            if len(some) >= SORTED_RUN:
                txn.put_sorted(sorted(some))
            else:
                for key, value in some:
                    txn.put(key, value)


def _empty(ref: Ref) -> None:
    """Take the entries out of the private nodes below ``ref``, leaf by leaf."""
    node = ref.node
    if node is None or node.stamp >= 0:
        return
    for child in node.children or ():
        _empty(child)
    node.keys, node.values = [], []
    node.base = node.delta = node.index = ref.index = None
