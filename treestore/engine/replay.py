"""Replay: the log after a crash, applied to the checkpointed tree.

The log was verified to its end before this begins, and nothing here asks what a change means:
replay is physical. Three things make it quick and keep its memory bounded:

* Only the last change of each key counts. The changes of many transactions are collected in a
  dict, sorted once, and merged leaf by leaf (`BulkTree`). A range that is removed is applied on
  the spot, after what was collected before it.
* When the collected changes take `EngineOptions.recovery_batch_bytes`, they go into the tree. In
  the middle of a transaction, too: nobody sees the tree before the end.
* When the tree's new pages take ``recovery_dirty_bytes``, a checkpoint is made at the end of a
  group. So memory is bounded, and recovery that is interrupted goes on from there the next time.

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

_decoder: msgspec.msgpack.Decoder[list[list[Any]]] = msgspec.msgpack.Decoder(list[list[Any]])


class Replay:
    """One replay, from the state of an engine that nobody uses yet."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batch_bytes = engine.options.recovery_batch_bytes
        page_size = engine.pages.shape.page_size
        self._dirty_pages_max = max(1, engine.options.recovery_dirty_bytes // page_size)
        self._tree: BulkTree | None = None
        self._changes: dict[bytes, bytes | None] = {}
        self._noted = self._noted_bytes = 0
        self._number = 0
        self._waiting = 0
        """Transactions that the engine does not know of yet."""
        self._waiting_bytes = 0
        self.transactions = 0
        self.checkpoints = 0

    def run(
        self,
        groups: Iterable[tuple[LogGroup, LogPosition]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Apply everything.

        Args:
            groups: what the log holds after the engine's state.
            progress: told now and then how many bytes of the log were applied.

        Raises:
            ValueError, TypeError: a payload is not what a transaction wrote.
        """
        position: LogPosition | None = None
        done = 0
        with _no_collector():
            for group, position in groups:
                for piece in group.pieces():
                    self._take(piece)
                    if self._memory_bytes() > self._batch_bytes:
                        self._merge()
                done += group.end - group.offset
                self._waiting_bytes += group.size
                if self._tree is not None and self._dirty_pages() > self._dirty_pages_max:
                    self._merge()
                    self._checkpoint(position)
                progress(done)
            self._merge()
        if position is not None:
            self._hand_over(position)

    def _take(self, piece: Piece) -> None:
        """Collect the changes of a piece of a group."""
        if piece.is_marker:
            return
        count = len(piece.ids)
        # Each payload is an array; an array header in front makes them an array of arrays.
        head = b"\xdd" + count.to_bytes(4, "big")
        notes = list(chain.from_iterable(_decoder.decode(b"".join((head, piece.payloads)))))
        self._number = piece.ids[-1]
        self._waiting += piece.commits
        whats, values = notes[::2], notes[1::2]
        before = len(self._changes)
        try:
            self._changes.update(zip(whats, values, strict=True))
        except TypeError:
            # A range is a list, which is no key. What came before it was collected already, and
            # is so once more.
            self._apply_ranges(whats, values)
            before = 0
        self._noted += len(self._changes) - before
        self._noted_bytes += len(piece.payloads) * (len(self._changes) - before) // len(whats)

    def _apply_ranges(self, whats: list[Any], values: list[Any]) -> None:
        changes = self._changes
        for what, value in zip(whats, values, strict=True):
            if isinstance(what, bytes):
                changes[what] = value
            else:
                start, end = what
                self._merge()
                self._working().delete_range(start, end)

    def _working(self) -> BulkTree:
        """The tree under change. One for everything between two checkpoints: nobody can see a
        state in between."""
        if self._tree is None:
            engine = self._engine
            self._tree = BulkTree(*engine.replay_state(), engine.pages.shape, engine.pages.load)
        return self._tree

    def _memory_bytes(self) -> int:
        return self._noted_bytes + CHANGE_MEMORY_BYTES * self._noted

    def _dirty_pages(self) -> int:
        return self._engine.dirty_pages + (self._tree.created if self._tree is not None else 0)

    def _merge(self) -> None:
        """Put what was collected into the tree."""
        changes = self._changes
        if changes:
            keys = sorted(changes)
            self._working().merge(keys, changes)
            changes.clear()
        self._noted = self._noted_bytes = 0

    def _hand_over(self, position: LogPosition) -> None:
        """Make what was applied the engine's durable state; the log holds it up to there."""
        self._engine.replayed(
            self._tree, self._number, position, self._waiting, self._waiting_bytes
        )
        self._tree = None
        self.transactions += self._waiting
        self._waiting = self._waiting_bytes = 0

    def _checkpoint(self, position: LogPosition) -> None:
        self._hand_over(position)
        # On a full disk it goes on in memory, as long as that lasts.
        with contextlib.suppress(ResourceExhausted):
            self.checkpoints += self._engine.checkpoint_now()


@contextlib.contextmanager
def _no_collector() -> Generator[None, None, None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
