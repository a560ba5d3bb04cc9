"""Replay: the log after a crash, applied to the checkpointed tree.

The log was verified to its end before this begins, and nothing here asks what a change means:
replay is physical. Three things make it quick and keep its memory bounded:

* Only the last change of each key counts. The changes of many transactions are collected in a
  dict, sorted once, and merged leaf by leaf (`BulkTree`). A range that is removed is applied on
  the spot, after what was collected before it.
* When the collected changes take `EngineOptions.recovery_batch_bytes`, they go into the tree. In
  the middle of a transaction, too: nobody sees the tree before the end.
* When the pages that this changed take ``recovery_dirty_bytes`` more than what the batch no longer
  takes, a checkpoint is made, in the middle of a batch, too. That is right because replay may be
  repeated: what a key has in the end is said by the last change of it in the log, whatever it had
  before, and a key that the log does not change is not touched. So a slot that is written in the
  middle of a batch names the position where the batch began, and how far the log must still reach
  (``replay_to_lsn``).

So memory is bounded, each page is written once a batch, and recovery that is interrupted begins
again at the batch it was in.

The garbage collector is off meanwhile: everything here is freed by reference counts.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Generator, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from treestore.engine.bulk import BulkTree
from treestore.engine.log import LogGroup, LogPosition, Piece
from treestore.errors import ResourceExhausted

if TYPE_CHECKING:
    from treestore.engine.engine import Engine

CHANGE_MEMORY_BYTES = 200
"""What a change takes beside its bytes: two objects and a place in a dict."""

PAGE_MEMORY = 2
"""How many times its size a page takes when decoded, with entries of about a hundred bytes."""

PROGRESS_BYTES = 1 << 20
"""How often somebody hears of progress."""

_VALUES = {bytes, type(None)}

_decoder: msgspec.msgpack.Decoder[list[list[Any]]] = msgspec.msgpack.Decoder(list[list[Any]])


class Replay:
    """One replay, from the state of an engine that nobody uses yet."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch_bytes = engine.options.recovery_batch_bytes
        self._dirty_bytes = engine.options.recovery_dirty_bytes
        self._page_memory_bytes = PAGE_MEMORY * engine.pages.shape.page_size
        self._tree: BulkTree | None = None
        self._changes: dict[bytes, bytes | None] = {}
        self._noted = self._noted_bytes = 0
        self._number = 0
        self._position = engine.durable.position
        """Up to here everything is in the tree."""
        self._lsn = self._position.lsn
        """The last record of which anything may be in the tree."""
        self._since = (0, 0)
        """Transactions and bytes of the log up to ``_position`` ..."""
        self._checkpointed = (0, 0)
        """... and up to the position of the newest slot."""
        self.transactions = 0
        self.bytes = 0
        self.checkpoints = 0

    def run(
        self,
        groups: Iterable[tuple[LogGroup, LogPosition]],
        progress: Callable[[int], None] = lambda done_bytes: None,
    ) -> None:
        """Apply everything; the engine then has it as its durable state.

        Args:
            groups: what the log holds after the engine's state.
            progress: told now and then how many bytes of the log were read.

        Raises:
            ValueError, TypeError: a payload is not what a transaction wrote.
        """
        position: LogPosition | None = None
        told = 0
        with _no_collector():
            for group, position in groups:
                for piece in group.pieces():
                    self._take(piece)
                    if self._memory_bytes() > self._batch_bytes:
                        self._merge()
                self.bytes += group.end - group.offset
                if self.bytes - told >= PROGRESS_BYTES:
                    told = self.bytes
                    progress(told)
                if not self._changes:
                    self._reached(position)
            self._merge()
            if position is not None:
                self._reached(position)
        self._hand_over()
        transactions, size = self._since
        self._engine.recovered(
            self._position, transactions - self._checkpointed[0], size - self._checkpointed[1]
        )

    def _reached(self, position: LogPosition) -> None:
        """Everything up to a position is in the tree."""
        self._position = position
        self._since = self.transactions, self.bytes

    def _take(self, piece: Piece) -> None:
        """Collect the changes of a piece of a group."""
        if piece.is_marker:
            return
        count = len(piece.ids)
        # Each payload is an array; an array header in front makes them an array of arrays.
        head = b"\xdd" + count.to_bytes(4, "big")
        notes = list(chain.from_iterable(_decoder.decode(b"".join((head, piece.payloads)))))
        self._number = piece.ids[-1]
        self._lsn = piece.lsn + count - 1
        self.transactions += piece.commits
        whats, values = notes[::2], notes[1::2]
        kinds = set(map(type, whats))
        if len(whats) != len(values) or not set(map(type, values)) <= _VALUES:
            raise ValueError("notes in the log that are no changes")
        before = len(self._changes)
        if kinds == {bytes}:
            self._changes.update(zip(whats, values, strict=True))
        elif kinds == {bytes, list} or kinds == {list}:
            self._apply_ranges(whats, values)
            before = 0
        else:
            raise ValueError("a key in the log that is no key")
        added = len(self._changes) - before
        self._noted += added
        self._noted_bytes += len(piece.payloads) * added // len(whats)

    def _apply_ranges(self, whats: list[Any], values: list[Any]) -> None:
        changes = self._changes
        for what, value in zip(whats, values, strict=True):
            if what.__class__ is bytes:
                changes[what] = value
                continue
            start, end = what
            if value is not None or not isinstance(start, bytes):
                raise ValueError("a range in the log that is no range")
            self._merge()
            self._working().delete_range(start, end)
            self._relieve(0)

    def _working(self) -> BulkTree:
        """The tree under change. One for everything between two checkpoints: nobody can see a
        state in between."""
        if self._tree is None:
            engine = self._engine
            self._tree = BulkTree(*engine.replay_state(), engine.pages.shape, engine.pages.load)
        return self._tree

    def _merge(self) -> None:
        """Put what was collected into the tree."""
        changes = self._changes
        keys = sorted(changes)
        each = self._memory_bytes() / max(1, len(keys))
        done = 0
        while done < len(keys):
            # What goes into the tree is no longer in the batch.
            spare = int(each * done)
            done = self._working().merge(keys, changes, done, self._pages_max(spare))
            self._relieve(int(each * done))
        self._noted = self._noted_bytes = 0

    def _memory_bytes(self) -> int:
        """About how much memory the collected changes take."""
        return self._noted_bytes + CHANGE_MEMORY_BYTES * self._noted

    def _pages_max(self, spare_bytes: int) -> int:
        return (self._dirty_bytes + spare_bytes) // self._page_memory_bytes

    def _relieve(self, spare_bytes: int) -> None:
        """Write what is dirty, if that is too much for the memory.

        Args:
            spare_bytes: memory that the batch no longer takes.
        """
        tree, engine = self._tree, self._engine
        if tree is None or tree.created <= self._pages_max(spare_bytes):
            return
        self._hand_over()
        try:
            self.checkpoints += engine.checkpoint_now()
            self._checkpointed = self._since
        except ResourceExhausted:
            # A full disk: it goes on in memory, as long as that lasts.
            self._dirty_bytes *= 2

    def _hand_over(self) -> None:
        """Make the tree as it is the engine's state."""
        tree, self._tree = self._tree, None
        if tree is not None:
            self._engine.replayed(tree, self._number, self._position, self._lsn)


@contextlib.contextmanager
def _no_collector() -> Generator[None, None, None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
