"""Bugs to be planted in the service, each of them one that somebody could write.

The simulation is worth what it finds: `test_planted_bugs` plants each of these and sees that the
judge speaks up within a bounded number of seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest

from actors.database_host import HostPart
from actors.feeds import Follower
from actors.host import Done, Submission
from actors.mail import Mail
from actors.writer import Writer
from treestore.client.pool import Pool
from treestore.client.watch import Place
from treestore.engine.bulk import BulkTree
from treestore.engine.checkpoint import Checkpoint
from treestore.engine.engine import Engine
from treestore.engine.group import Group
from treestore.engine.log import Log, LogFailed, LogPosition, Transaction, recovery
from treestore.engine.log.follower import LogFollower
from treestore.engine.log.group import Piece
from treestore.engine.log.position import Tip
from treestore.engine.log.segment import Segment
from treestore.engine.optimistic import OptimisticTransaction
from treestore.engine.pagefile import PageFile
from treestore.engine.readset import ReadRange, ReadSet, WriteSet
from treestore.engine.recording import RecordingWrite
from treestore.engine.replay import Replay
from treestore.engine.snapshot import Snapshot, State
from treestore.engine.transaction import WriteTransaction
from treestore.engine.window import Window
from treestore.errors import TreeStoreError
from treestore.stores.deduplication import Deduplication, Sessions
from treestore.stores.operation import Operation

Plant = Callable[[pytest.MonkeyPatch], None]


def publish_before_sync(patch: pytest.MonkeyPatch) -> None:
    """Readers see a group while it is on its way to the log."""
    send = Writer._send

    def sends(self: Writer, group: Group, mails: list[Mail]) -> None:
        engine = self.engine
        engine.durable = State(group.root, group.number, group.count, engine.durable.position)
        send(self, group, mails)

    patch.setattr(Writer, "_send", sends)


def acknowledge_before_sync(patch: pytest.MonkeyPatch) -> None:
    """The log writes a group and does not wait until it is on the medium."""
    write = Log._write

    def writes(self: Log, segment: Segment, *rest: Any) -> None:
        file, sync = segment.file, segment.file.sync
        file.sync = lambda: None  # type: ignore[method-assign]
        try:
            write(self, segment, *rest)
        finally:
            file.sync = sync  # type: ignore[method-assign]

    patch.setattr(Log, "_write", writes)


def forget_an_answer(patch: pytest.MonkeyPatch) -> None:
    """Every second answer is not remembered, so that a retry is applied again."""
    run = Sessions.run

    def runs(self: Sessions, txn: Any, request: Deduplication, *rest: Any) -> bytes:
        answer = run(self, txn, request, *rest)
        if request.sequence % 2 == 0:
            txn.delete(request.session + b"\x01" + request.sequence.to_bytes(8, "big"))
        return answer

    patch.setattr(Sessions, "run", runs)


def skip_the_fence(patch: pytest.MonkeyPatch) -> None:
    """What recovery replayed is served although it may be in the page cache only."""

    def publish(disk: Any, directory: str, segment: Segment) -> None:
        path = f"{directory}/{segment.header.sequence:016x}.log"
        disk.rename(segment.path, path)
        disk.sync_directory(directory)
        segment.path = segment.file.path = path

    patch.setattr(recovery, "publish", publish)


def read_what_is_not_published(patch: pytest.MonkeyPatch) -> None:
    """Queries read the tree that commands are being run on."""
    query_now = HostPart.query_now

    def query(self: HostPart, operation: Any, parameters: Any, snapshot: Any = None) -> Any:
        engine = self._database.engine
        durable = engine.durable
        engine.durable = State(engine._root, durable.number, engine._count, durable.position)
        try:
            return query_now(self, operation, parameters, snapshot)
        finally:
            engine.durable = durable

    patch.setattr(HostPart, "query_now", query)


def lose_a_change_in_replay(patch: pytest.MonkeyPatch) -> None:
    """Recovery replays all but the last change of each batch."""
    merge = BulkTree.merge

    def merges(self: BulkTree, keys: list[bytes], *rest: Any) -> int:
        return merge(self, keys[:-1] if len(keys) > 1 else keys, *rest) + (len(keys) > 1)

    patch.setattr(BulkTree, "merge", merges)


def drop_the_last_command_in_replay(patch: pytest.MonkeyPatch) -> None:
    """Recovery replays all of a group but the last command."""
    take = Replay._take

    def takes(self: Replay, piece: Piece) -> None:
        count = len(piece.ids) - 1
        if piece.is_marker or count < 0:
            take(self, piece)
        elif count:
            head = b"\xdd" + (count + 1).to_bytes(4, "big")
            notes = msgspec.msgpack.decode(head + bytes(piece.payloads))[:-1]
            payloads = b"".join(map(msgspec.msgpack.encode, notes))
            take(self, attrs.evolve(piece, ids=piece.ids[:-1], payloads=memoryview(payloads)))

    patch.setattr(Replay, "_take", takes)


def apply_a_batch_in_halves(patch: pytest.MonkeyPatch) -> None:
    """A batch is two transactions, one after the other."""
    submit = HostPart.submit

    def submits(
        self: HostPart,
        operation: Operation,
        parameters: Any,
        done: Done,
        *,
        deduplication: Deduplication | None = None,
        **rest: Any,
    ) -> Submission | None:
        if operation.name != "kv.batch":
            return submit(self, operation, parameters, done, deduplication=deduplication, **rest)
        half = len(parameters.puts) // 2
        first = msgspec.structs.replace(parameters, puts=parameters.puts[:half], deletes=[])
        second = msgspec.structs.replace(parameters, puts=parameters.puts[half:])

        def then(result: bytes | TreeStoreError) -> None:
            failed = isinstance(result, TreeStoreError)
            if failed or not submit(self, operation, second, done, deduplication=deduplication):
                done(result)

        return submit(self, operation, first, then, **rest)

    patch.setattr(HostPart, "submit", submits)


def serve_a_stale_root(patch: pytest.MonkeyPatch) -> None:
    """A snapshot shows the state before the newest."""
    publish, snapshot = Engine.publish, Engine.snapshot
    before: dict[Engine, State] = {}

    def publishes(self: Engine, group: Group, position: LogPosition) -> None:
        before[self] = self.durable
        publish(self, group, position)

    def opens(self: Engine, owner: str = "") -> Snapshot:
        if owner.startswith("session") and self in before:
            return self.pin(before[self], owner)
        return snapshot(self, owner)

    patch.setattr(Engine, "publish", publishes)
    patch.setattr(Engine, "snapshot", opens)


def flip_before_the_pages_are_synced(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint's slot names pages that may not be on the medium."""
    run, sync = Checkpoint._run, PageFile.sync
    waiting: set[PageFile] = set()

    def runs(self: Checkpoint) -> Any:
        waiting.add(self._pages)
        return run(self)

    def syncs(self: PageFile) -> None:
        if self in waiting:
            waiting.discard(self)
            self.ensure_writable()
            return
        sync(self)

    patch.setattr(Checkpoint, "_run", runs)
    patch.setattr(PageFile, "sync", syncs)


def reuse_pinned_pages(patch: pytest.MonkeyPatch) -> None:
    """Pages are used again although a snapshot still needs them."""

    def pins(self: Engine) -> list[int]:
        return sorted({meta.number for meta in self.slots})

    patch.setattr(Engine, "pins", pins)


def answer_before_sync(patch: pytest.MonkeyPatch) -> None:
    """Callers are answered when their group is sent to the log."""
    send = Writer._send

    def sends(self: Writer, group: Group, mails: list[Mail]) -> None:
        for mail in mails:
            mail.end()
        send(self, group, [])

    patch.setattr(Writer, "_send", sends)


def skip_the_range_check(patch: pytest.MonkeyPatch) -> None:
    """A transaction is validated by the keys that it read, not by the ranges."""
    patch.setattr(ReadSet, "_range_was_written", lambda self, writes: False)


def validate_a_stale_read_set(patch: pytest.MonkeyPatch) -> None:
    """What a transaction read after its first write is not validated."""
    command, settle = OptimisticTransaction.command, OptimisticTransaction.settle
    early: dict[OptimisticTransaction, tuple[set[bytes], list[ReadRange]]] = {}

    def commands(self: OptimisticTransaction, *, raw: bool) -> RecordingWrite:
        early.setdefault(self, (set(self.reads.keys), list(self.reads.ranges)))
        return command(self, raw=raw)

    def settles(self: OptimisticTransaction) -> None:
        if self in early:
            self.reads.keys, self.reads.ranges = early.pop(self)
        settle(self)

    patch.setattr(OptimisticTransaction, "command", commands)
    patch.setattr(OptimisticTransaction, "settle", settles)


def validate_against_what_is_durable_only(patch: pytest.MonkeyPatch) -> None:
    """The group on its way to the log, and the commands after it, are left out."""
    since = Window.since

    def sinces(self: Window, number: int, executed: list[Transaction]) -> list[WriteSet]:
        return [found for found in since(self, number, []) if found.number <= self._durable]

    patch.setattr(Window, "since", sinces)


def take_no_notice_of_what_a_delete_found(patch: pytest.MonkeyPatch) -> None:
    """Whether a key was there that a transaction removed counts as nothing that it read."""

    def delete(self: RecordingWrite, key: bytes) -> bool:
        return WriteTransaction.delete(self._grown(), key)

    patch.setattr(RecordingWrite, "delete", delete)


def take_a_lost_commit_for_none(patch: pytest.MonkeyPatch) -> None:
    """Where the answer to a commit is lost, the client takes it for not applied."""

    async def settled(self: Pool, method: str, params: msgspec.Raw, sequence: int) -> msgspec.Raw:  # noqa: ASYNC124
        return msgspec.Raw(b"\xc2")

    patch.setattr(Pool, "settled", settled)


def show_changes_before_sync(patch: pytest.MonkeyPatch) -> None:
    """Feeds are woken when a group is written, and read to the log's end, synced or not."""
    wake: dict[Log, Callable[[], None]] = {}
    send = Writer._send

    def sends(self: Writer, group: Group, mails: list[Mail]) -> None:
        wake[self.engine.log] = self.published
        send(self, group, mails)

    def writes(self: Log, segment: Segment, pieces: list[bytes], after: Tip, _: int) -> None:
        padded = segment.write(pieces, sum(map(len, pieces)))
        segment.advance(after, padded)
        if self in wake:
            wake[self]()
        try:
            segment.file.sync()
        except OSError as error:
            self._failed = error
            raise LogFailed(error) from error

    def shown(self: Follower) -> int:
        return self._database.engine.log.position.lsn

    patch.setattr(Writer, "_send", sends)
    patch.setattr(Log, "_write", writes)
    patch.setattr(Follower, "_shown_lsn", shown)


def skip_at_the_border_of_a_segment(patch: pytest.MonkeyPatch) -> None:
    """A feed that goes on in the next segment begins there behind its first group."""
    read = LogFollower._read_groups

    def reads(self: LogFollower, segment: Segment, place: Any, stop: int, *rest: Any) -> int:
        entries, _ = rest
        crossed = place[0] == 4096 and self.lsn == segment.header.follows.lsn > 0
        before = len(entries)
        size = read(self, segment, place, stop, *rest)
        if crossed and entries[before:]:
            first = entries[before].commit_lsn
            entries[before:] = [one for one in entries[before:] if one.commit_lsn != first]
        return size

    patch.setattr(LogFollower, "_read_groups", reads)


def forget_where_a_feed_was(patch: pytest.MonkeyPatch) -> None:
    """A client that lost its connection watches on from the newest state."""

    def requests(self: Place[Any]) -> msgspec.Raw:
        start = self._parameters if self.position is None else None
        return self._encode(start or msgspec.structs.replace(self._parameters, from_lsn=None))

    patch.setattr(Place, "request", requests)


PLANTS: tuple[Plant, ...] = (
    show_changes_before_sync,
    skip_at_the_border_of_a_segment,
    forget_where_a_feed_was,
    publish_before_sync,
    acknowledge_before_sync,
    forget_an_answer,
    skip_the_fence,
    read_what_is_not_published,
    lose_a_change_in_replay,
    drop_the_last_command_in_replay,
    apply_a_batch_in_halves,
    serve_a_stale_root,
    flip_before_the_pages_are_synced,
    reuse_pinned_pages,
    answer_before_sync,
    skip_the_range_check,
    validate_a_stale_read_set,
    validate_against_what_is_durable_only,
    take_no_notice_of_what_a_delete_found,
    take_a_lost_commit_for_none,
)
