"""The engine: the tree, its log and its page file, behind begin/commit/seal/publish.

Synchronous and deterministic. Threads: one *owner* at a time calls everything that is not said to
be free of threads; the actors see to that. The life of a write:

    begin -> WriteTransaction -> commit (or rollback)      the working tree moves on
    seal -> Group                                          everything committed since the last seal
    append(group)                                          any one thread: write and sync the log
    publish(group, position)                               readers see it; callers are answered

``working`` (what the next command sees) runs ahead of ``durable`` (what readers see) by the groups
that are not synced yet. When the log fails, ``durable`` stays for reading and nothing is written
any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from treestore.engine.checkpoint import Checkpoint
from treestore.engine.freespace import FreeSpace, Retired
from treestore.engine.group import Group, Superseded, retired_pages
from treestore.engine.leases import LeaseBooks, Leases
from treestore.engine.log import Log, LogIdentity, LogPosition, Transaction
from treestore.engine.meta import Meta
from treestore.engine.node import Ref
from treestore.engine.optimistic import OptimisticTransaction
from treestore.engine.options import EngineOptions, Environment
from treestore.engine.pagefile import PageFile
from treestore.engine.remains import Remains
from treestore.engine.snapshot import Snapshot, State
from treestore.engine.space import SpacePart
from treestore.engine.transaction import UNLIMITED, ReadTransaction, WriteTransaction
from treestore.engine.window import Window
from treestore.engine.working import WorkingTree
from treestore.errors import ResourceExhausted, Unavailable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Engine(SpacePart):
    """One open store. Made by ``treestore.engine.directory.open_engine``."""

    def __init__(
        self,
        *,
        options: EngineOptions,
        environment: Environment,
        identity: LogIdentity,
        pages: PageFile,
        log: Log,
        free_space: FreeSpace,
        slots: Sequence[Meta],
        state: State,
    ) -> None:
        self.options = options
        self.environment = environment
        self.identity = identity
        self.pages = pages
        self.log = log
        self.free_space = free_space
        self.slots = list(slots)
        """Valid meta slots, the newest first."""
        self.durable = state
        self.checkpoint: Checkpoint | None = None
        self.checkpoints = 0
        self.failed: BaseException | None = None
        self.closed = False
        self.log_bytes_since_checkpoint = 0
        self.transactions_since_checkpoint = 0
        self.dirty_pages = 0
        """About how many pages the next checkpoint must write."""
        self._root = state.root
        self._count = state.count
        self._number = state.number
        self._next_number = state.number + 1
        self._open: WriteTransaction | None = None
        self._shared: WorkingTree | None = None
        """The tree that the short commands of the open group change, one after the other."""
        self._transactions: list[Transaction] = []
        self._superseded: list[Superseded] = []
        self._group_bytes = 0
        self._group_frees = True
        """Whether each transaction of the open group frees space."""
        self._group_dirty_pages = 0
        self._published_dirty_pages = 0
        """The part of ``dirty_pages`` that the next checkpoint's state will contain."""
        self._published: list[tuple[list[Superseded], int]] = []
        """What published groups superseded and which group that was; the next checkpoint turns it
        into retired pages, on its own thread."""
        self._freed = False
        """Whether a group that frees space was published since the last checkpoint began."""
        self.abandoned = 0
        """How often groups were given up."""
        self._moved = False
        """Whether the open group has moves of pages."""
        self.leases = Leases(pages)
        self.window = Window(options.window_transactions_max, options.window_size_bytes_max)
        """What interactive transactions are validated against."""
        self.remains: Remains | None = None
        """Where old states go, if somebody takes them apart."""
        self._room_pages = 0
        self._pages_short = False
        """Whether the page file could not grow when it was last tried."""
        self._file_pages = free_space.page_count
        free_space.reclaim(self.pins())
        self._measure_room()

    # -- reading --------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The injected wall-clock time, UTC."""
        return _EPOCH + timedelta(microseconds=self.environment.clock_ns() // 1000)

    def read(self, *, budget: int = UNLIMITED, raw: bool = False) -> ReadTransaction:
        """A transaction on the newest durable state, to be used up before the owner publishes
        again: on the owner's thread, without a break. Anything longer takes a `snapshot`."""
        return ReadTransaction(self.durable.root, self.pages, self.now, budget=budget, raw=raw)

    def snapshot(self, owner: str = "", *, evictable: bool = True) -> Snapshot:
        """Lease the newest durable state; the caller closes it.

        Args:
            owner: who reads, for people.
            evictable: False for work of the store itself that ends by itself.
        """
        self._ensure_open()
        return self.leases.open(self.durable, self.now, owner, evictable=evictable)

    def pin(self, state: State, owner: str, *, evictable: bool = True) -> Snapshot:
        """Lease a state that is pinned already, or is the newest, once more; see `snapshot`."""
        return self.leases.open(state, self.now, owner, evictable=evictable)

    def optimistic(self, owner: str) -> OptimisticTransaction:
        """Begin an interactive transaction on the newest durable state; the caller closes it."""
        lease = self.snapshot(owner)
        return OptimisticTransaction(self, lease, self.window.begin(lease.number))

    @property
    def executed(self) -> list[Transaction]:
        """The transactions of the open group."""
        return self._transactions

    def snapshots(self) -> list[Snapshot]:
        """Open leases, the oldest first."""
        return self.leases.listed()

    def pins(self) -> list[int]:
        """Commit numbers whose pages must stay: leases and both meta slots."""
        return sorted({*self.leases.numbers(), *(meta.number for meta in self.slots)})

    def pinned(self) -> list[int]:
        """Commit numbers of leases."""
        return self.leases.numbers()

    def lease_books(self, numbers: Iterable[int], others: Iterable[int] = ()) -> LeaseBooks:
        """What leases with these numbers keep from being reused, ready to be counted.

        Args:
            others: numbers of leases whose pages do not count, like the slots'.
        """
        retired = [*self.free_space.retired, *self.leases.unwritten()]
        slots = [*others, *(meta.number for meta in self.slots)]
        return LeaseBooks(retired, self._published[:], numbers, slots)

    # -- writing --------------------------------------------------------------------------------

    def begin(
        self, *, raw: bool = False, long: bool = False, moves: bool = False
    ) -> WriteTransaction:
        """Begin a command on the working tree; exactly one at a time.

        Args:
            raw: its answers go to the wire as they are stored.
            long: it may change much, and on another thread: it gets a tree of its own, and rolling
                it back costs nothing. Short ones share a tree and note each change instead.
            moves: it only moves pages, and never is a reason for the file to grow.

        Raises:
            Unavailable: the store is closed, or read-only after a failure.
            ResourceExhausted: the page file could not be grown for what is dirty already.
        """
        self._ensure_open()
        if self.failed is not None:
            raise self.read_only()
        if self._open is not None:
            raise AssertionError("a transaction is open already")
        if not moves and self.dirty_pages + self.options.headroom_pages > self._room_pages:
            self._grow()
        number = self._next_number
        self._next_number += 1
        working = self._shared
        if working is None or long:
            working = WorkingTree(
                self._root, number, self._count, self.pages.shape, self.pages.load
            )
            self._shared = None if long else working
        if not long:
            working.undo = []
        self._open = WriteTransaction(
            number,
            working,
            self.pages,
            self.now,
            size_bytes_max=self.options.transaction_size_bytes_max,
            raw=raw,
            moves=moves,
        )
        return self._open

    def commit(self, transaction: WriteTransaction) -> bool:
        """Put a finished command into the open group; whether it changed anything.

        Raises:
            ResourceExhausted: the transaction is too large, or the disk is full and it does not
                free space; it is rolled back.
        """
        if transaction is not self._open:
            raise AssertionError("commit of a transaction that is not open")
        if self.failed is not None:
            raise self.read_only()
        if transaction.doomed:
            raise ResourceExhausted(
                "The disk is full: what this was built on could not be written. Nothing was "
                "changed."
            )
        payloads = transaction.finish()
        if payloads and (
            self.dirty_pages + transaction.working.created + self.options.headroom_pages
            > self._room_pages
        ):
            try:
                self._grow(transaction.working.created, transaction.frees)
            except BaseException:
                self.rollback(transaction)
                raise
        self._open = None
        if not payloads:
            self._take_moves(transaction)
            return False
        self._take(transaction.working)
        if transaction.number > self._number:
            self._number = transaction.number
        self._transactions.append(Transaction(transaction.number, payloads))
        self._group_bytes += transaction.size_bytes
        self._group_frees = self._group_frees and transaction.frees
        return True

    def _take(self, working: WorkingTree) -> None:
        """Go on from a working tree as it is now.

        The root's number is never below a stamp of its nodes, not even one that only a command
        that was rolled back used: pins are compared with births.
        """
        if working.stamp > self._number:
            self._number = working.stamp
        self._root = working.root
        self._count = working.count
        if working.superseded:
            self._superseded += working.superseded
            working.superseded = []
        if working.created or working.created_large:
            self.dirty_pages += working.created
            self._group_dirty_pages += working.created
            working.created = working.created_large = 0

    def _take_moves(self, transaction: WriteTransaction) -> None:
        """Go on from what a command moved, if it did: no key changed, so nothing is logged."""
        if transaction.moves:
            self._take(transaction.working)
            # A number of its own, so that the next checkpoint has something to do.
            self._number = max(self._number, transaction.number)
            self._moved = True

    def rollback(self, transaction: WriteTransaction) -> None:
        """Drop a command: nothing of it remains."""
        if transaction is not self._open:
            return
        self._open = None
        working = transaction.working
        if working is not self._shared:
            return
        if transaction.moves:
            # Each move is whole: nothing is to be undone.
            self._take_moves(transaction)
            return
        try:
            working.roll_back()
        except BaseException as error:
            # Half undone: nothing may be built on this tree.
            self.fail(error)
            raise
        # Its nodes may stay, with their old content; its large values do not.
        working.created -= working.created_large
        self._take(working)

    @property
    def open_group_bytes(self) -> int:
        """Payload bytes that wait to be sealed."""
        return self._group_bytes

    @property
    def has_open_group(self) -> bool:
        """Whether anything was committed or moved since the last seal."""
        return bool(self._transactions) or self._moved

    def seal(self) -> Group | None:
        """Take everything committed since the last call; None where there is nothing."""
        if not self.has_open_group:
            return None
        # From here on its nodes are never changed again.
        self._shared = None
        self.window.sealed(self._transactions, self._number, self._group_bytes)
        group = Group(
            self._transactions,
            self._superseded,
            self._root,
            self._number,
            self._count,
            self._group_bytes,
            self._group_dirty_pages,
            self._group_frees and bool(self._transactions),
        )
        self._group_frees = True
        self._moved = False
        self._transactions = []
        self._superseded = []
        self._group_bytes = 0
        self._group_dirty_pages = 0
        return group

    def append(self, group: Group) -> LogPosition:
        """Write and sync a group; may run in another thread, one group after the other.

        One that only moves pages is durable already: it says the same as the one before.

        Raises:
            ResourceExhausted: the log is full and nothing was written; append it again later.
            LogFailed: a write or sync failed; call `fail`.
        """
        if not group.transactions:
            return self.durable.position
        return self.log.append(group.transactions, use_reserve=group.frees)

    def publish(self, group: Group, position: LogPosition) -> None:
        """Make a synced group visible to readers."""
        before = self.durable
        self.durable = State(group.root, group.number, group.count, position)
        self.window.published(group.number)
        self.log_bytes_since_checkpoint += group.size_bytes
        self.transactions_since_checkpoint += len(group.transactions)
        self._freed = self._freed or group.frees
        self._published_dirty_pages += group.dirty_pages
        superseded, group.superseded = group.superseded, []
        count = len(superseded)
        if self.checkpoint is None:
            # What has no page yet never gets one. Under a checkpoint, that is not known yet.
            self.leases.note_unwritten(superseded, group.number)
            superseded = [entry for entry in superseded if entry[0].page]
        self._published.append((superseded, group.number))
        if self.remains is not None:
            # Now that what was superseded is let go of: its references count.
            self.remains.add(before, count, listed=self.checkpoint is not None)

    @property
    def superseded_since_checkpoint(self) -> Sequence[tuple[list[Superseded], int]]:
        """What the newest checkpoint has and the newest state does without: a restart reads it. It
        grows at its end, and is another list after the next checkpoint began."""
        return self._published

    def take_superseded(self) -> list[tuple[list[Superseded], int]]:
        """What published groups superseded since the last call."""
        published, self._published = self._published, []
        return published

    def retired(self) -> list[Retired]:
        """All retired pages, those included that the next checkpoint will book."""
        return [*self.free_space.retired, *retired_pages(self._published)]

    def write_now(self, transaction: WriteTransaction) -> bool:
        """Commit, sync and publish at once, for callers without actors (tools, tests)."""
        changed = self.commit(transaction)
        group = self.seal()
        if group is not None:
            try:
                position = self.append(group)
            except BaseException as error:
                self.fail(error)
                raise
            self.publish(group, position)
        return changed

    def fail(self, error: BaseException) -> None:
        """The log or page file failed: from now on the store is read-only."""
        if self.failed is None:
            self.failed = error
        self.window.abandoned(self.durable.number)
        self._transactions = []
        self._superseded = []
        self._moved = False

    def abandon(self) -> None:
        """Forget everything that is not durable: a group could not be written, and was not.

        Only while no group is on its way. A transaction that is open cannot be committed any more.
        """
        self.abandoned += 1
        if self._open is not None:
            self._open.doomed = True
        self.window.abandoned(self.durable.number)
        self._root = self.durable.root
        self._count = self.durable.count
        self._number = self.durable.number
        self.dirty_pages = self._published_dirty_pages
        self._group_dirty_pages = 0
        self._transactions = []
        self._superseded = []
        self._group_bytes = 0
        self._group_frees = True
        self._moved = False
        self._shared = None

    def read_only(self) -> Unavailable:
        """The error for whoever wants to write after a failure."""
        return Unavailable(
            f"The store is read-only since writing failed ({self.failed}). Check the disk, then "
            "restart: recovery brings back every acknowledged write."
        )

    def _ensure_open(self) -> None:
        if self.closed:
            raise Unavailable("The store is closed.")

    # -- checkpoints ----------------------------------------------------------------------------

    def checkpoint_due(self) -> bool:
        """Whether enough was written since the last checkpoint began."""
        return (
            self.log_bytes_since_checkpoint >= self.options.checkpoint_log_size_bytes
            or self.transactions_since_checkpoint >= self.options.checkpoint_records
            or (self.short_of_space and self._checkpoint_helps())
        )

    def _checkpoint_helps(self) -> bool:
        """Whether, on a full disk, a checkpoint gives back space that is wanted at once."""
        headroom = self.options.headroom_pages
        left = self._room_pages - self.dirty_pages
        used = left < headroom - headroom // 8 and self.dirty_pages > headroom // 8
        return self.log.lacks_reserve or used or (self._freed and left < 2 * headroom)

    def begin_checkpoint(self, *, repeat: bool = False, settle: bool = False) -> Checkpoint | None:
        """Start a checkpoint of the newest durable state; None where there is nothing to do.

        ``run`` it in any one thread, then call `finish_checkpoint`.

        Args:
            repeat: where nothing changed since the last one, bring the older slot up to the newer
                so that all of the log before it can go. Implied on a full disk.
            settle: write both slots, so that what only the older one reached is free at once.
                Likewise.
        """
        self._ensure_open()
        if self.checkpoint is not None:
            raise AssertionError("a checkpoint is running already")
        unchanged = bool(self.slots) and self.durable.number == self.slots[0].number
        repeat = repeat or self.short_of_space
        if unchanged and not (repeat and self.slots[-1].log_position != self._wanted_position()):
            return None
        self.pages.ensure_writable()
        self._freed = False
        self.checkpoint = Checkpoint(self, repeat=unchanged, twice=settle)
        self._counted = (
            self.log_bytes_since_checkpoint,
            self.transactions_since_checkpoint,
            0 if unchanged else self._published_dirty_pages,
        )
        return self.checkpoint

    def _wanted_position(self) -> tuple[int, ...]:
        """Log position of the older slot once both say the same; with one slot, never there."""
        return self.slots[0].log_position if len(self.slots) > 1 else ()

    def finish_checkpoint(self) -> LogPosition | None:
        """End the running checkpoint, whether it succeeded or not.

        Returns:
            The position that the log may be trimmed to; None where nothing was checkpointed.
        """
        checkpoint = self.checkpoint
        assert checkpoint is not None
        self.checkpoint = None
        if checkpoint.meta is None:
            if self.pages.failed is not None:
                self.fail(self.pages.failed)
            return None
        log_bytes, transactions, dirty = self._counted
        self.log_bytes_since_checkpoint -= log_bytes
        self.transactions_since_checkpoint -= transactions
        self.dirty_pages -= dirty
        self._published_dirty_pages -= dirty
        older = self.slots[:1] if checkpoint.older is None else [checkpoint.older]
        self.slots = [checkpoint.meta, *older]
        self.checkpoints += 1
        self._measure_room()
        if self.dirty_pages + 2 * self.options.headroom_pages <= self._room_pages:
            self._pages_short = False
        return LogPosition.from_tuple(self.slots[-1].log_position)

    def checkpoint_now(self, *, settle: bool = False) -> bool:
        """Run a whole checkpoint here; whether there was anything to do."""
        checkpoint = self.begin_checkpoint(settle=settle)
        if checkpoint is None:
            return False
        try:
            checkpoint.run()
        finally:
            position = self.finish_checkpoint()
        if position is not None:
            self.log.trim(position)
        return True

    def regain_reserve(self) -> None:
        """Where opening the log on a full disk took its reserve, get it back (at open only)."""
        if not self.log.lacks_reserve:
            return
        with contextlib.suppress(ResourceExhausted):
            self.checkpoint_now()
        self.log.trim(LogPosition.from_tuple(self.slots[-1].log_position))

    # -- the end --------------------------------------------------------------------------------

    def replay_state(self) -> tuple[Ref, int, int]:
        """Root, stamp and key count for a tree that replay changes (at open only)."""
        return self._root, self._number + 1, self._count

    def replayed(
        self, working: WorkingTree, number: int, position: LogPosition, replay_to_lsn: int
    ) -> None:
        """Take a tree that replay changed as the durable state (at open only).

        Args:
            working: the tree; it must not be changed any more.
            number: commit number of the last transaction in it.
            position: where the log stands after what is wholly in it.
            replay_to_lsn: last record of which anything may be in it.
        """
        self._number = max(self._number, number)
        self._take(working)
        self._next_number = self._number + 1
        superseded = [entry for entry in self._superseded if entry[0].page]
        self._superseded = []
        self._published.append((superseded, self._number))
        self._published_dirty_pages += self._group_dirty_pages
        self._group_dirty_pages = 0
        self.durable = State(self._root, self._number, self._count, position, replay_to_lsn)

    def recovered(self, position: LogPosition, transactions: int, size_bytes: int) -> None:
        """The log is replayed up to ``position`` (at open only).

        Args:
            position: the log's end; behind the last transaction a marker may follow.
            transactions, size_bytes: how much lies behind the newest slot's position.
        """
        if self.slots and self._number == self.slots[0].number and transactions:
            # The last checkpoint of the replay has all of this but the position. Without another
            # number, the next one would find nothing to do, and this log could never go.
            self._number += 1
            self._next_number = self._number + 1
        self.durable = State(self._root, self._number, self._count, position)
        self.transactions_since_checkpoint = transactions
        self.log_bytes_since_checkpoint = size_bytes

    def close(self) -> None:
        """Close files without a checkpoint; what is durable stays so."""
        if self.closed:
            return
        self.closed = True
        self.log.close()
        self.pages.file.close()
