"""The running database: the engine with its actors around it.

`open_database` starts them, `Database` is what edges (`actors.host.Host`) and the embedding
program talk to.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
import trio

from actors.archiver import Archiver
from actors.authority import Authority
from actors.backups import BackupPart
from actors.checkpointer import Checkpointer
from actors.compactor import Compactor
from actors.database_admin import AdminPart
from actors.database_host import HostPart
from actors.database_security import SecurityPart
from actors.dismantler import Dismantler
from actors.embedded import EmbeddedCaller, EmbeddedSnapshot, InlineReader
from actors.embedded_transaction import TransactionPart
from actors.feeds import FeedHub, FeedPart
from actors.housekeeper import Housekeeper
from actors.index_builder import IndexBuilder, IndexPart
from actors.indexer import Indexer
from actors.lease_keeper import LeaseKeeper
from actors.mail import WriterLimits
from actors.namespace_keeper import NamespaceKeeper, NamespacePart
from actors.namespace_segments import SegmentKeeper
from actors.namespace_texts import TextKeeper
from actors.namespace_views import NamespaceViews
from actors.overlay import Overlay
from actors.pace import Pace
from actors.reader import Reader
from actors.scrubber import Scrubber, ScrubOptions
from actors.supervisor import Supervisor
from actors.threads import WORKER_THREADS, Threads
from actors.writer import Writer
from treestore.engine.directory import OpenReport, OpenStore, open_engine
from treestore.engine.options import MEBIBYTE, EngineOptions, Environment, OpenProgress
from treestore.engine.realdisk import real_environment
from treestore.engine.snapshot import Snapshot
from treestore.errors import InvalidArgument, TreeStoreError, Unavailable
from treestore.loggers import get_logger
from treestore.services import Services
from treestore.stores.changes.service import Watching
from treestore.stores.deduplication import Sessions
from treestore.stores.namespaces.upkeep import UpkeepOptions
from treestore.stores.operation import Async, ReadWrite

log = get_logger("treestore.database")

READ_THREADS = 4
"""Long reads that run at a time; they share the interpreter, so more would not be faster."""

CACHE_SIZE_MB = 256

BACKGROUND_PAUSE_S = 0.0002
"""How long a checkpoint stands back, again and again, for the event loop: it takes twice as long,
which nobody notices, and readers beside it wait a tenth as long, which they would."""


class Database(
    Services[Async, ReadWrite],
    Watching[Async, ReadWrite],
    HostPart,
    AdminPart,
    BackupPart,
    SecurityPart,
    FeedPart,
    IndexPart,
    NamespacePart,
    TransactionPart,
):
    """An open store in this process. Made by `open_database`.

    Belongs to the event loop that opened it.
    """

    def __init__(
        self,
        store: OpenStore,
        limits: WriterLimits | None = None,
        threads: Threads = WORKER_THREADS,
        scrub: ScrubOptions | None = None,
        search_directory: str | None = None,
        namespaces: UpkeepOptions | None = None,
    ) -> None:
        caller = EmbeddedCaller(self)
        Services.__init__(self, caller)
        Watching.__init__(self, caller)
        self.inline_readers: list[InlineReader] = []
        self._closed = False
        self.store = store
        self.engine = store.engine
        self.threads = threads
        self.log_thread = threads.log_thread()
        self.writer = Writer(store.engine, self.log_thread, limits, threads)
        self.checkpointer = Checkpointer(
            store.engine,
            lambda succeeded: self.writer.poke(checkpoint_failed=not succeeded),
            lambda: store.engine.now().timestamp(),
            threads,
        )
        self.writer.need_checkpoint = self.checkpointer.ask
        self.feeds = FeedHub()
        self.authority = Authority(
            store.engine, self.writer, store.engine.environment.random.randbytes
        )
        self.writer.published = self._published
        self.archiver = Archiver.of(store.engine, self.writer.poke, threads)
        if self.archiver is not None:
            self.checkpointer.archive = self.archiver.make_room
        self.sessions = Sessions(store.engine.environment.clock_ns)
        self.housekeeper = Housekeeper(
            store.engine, self.log_thread, self.writer, self.sessions, threads
        )
        self.index_builder = IndexBuilder(store.engine, self.writer)
        self.namespace_keeper = NamespaceKeeper(store.engine, self.writer)
        self.lease_keeper = LeaseKeeper(store.engine, threads)
        self.dismantler = Dismantler(store.engine)
        self.read_limiter = trio.CapacityLimiter(READ_THREADS)
        self.pace = Pace()
        self.compactor = Compactor(
            store.engine, self.writer, self.checkpointer, threads, self.read_limiter
        )
        self.scrubber = Scrubber(
            store.engine,
            self.checkpointer,
            scrub or ScrubOptions(),
            lambda: store.engine.now().timestamp(),
            threads,
        )
        self.indexer = (
            None if search_directory is None else Indexer(store.engine, search_directory, threads)
        )
        self.namespace_views: NamespaceViews | None = None
        self.segment_keeper: SegmentKeeper | None = None
        self.text_keeper: TextKeeper | None = None
        if search_directory is not None:
            self._search_namespaces(search_directory, namespaces or UpkeepOptions())
        self.opened_at = trio.current_time()
        self.supervisor: Supervisor | None = None
        self._actors = trio.CancelScope()
        self._actors_ended = trio.Event()
        HostPart.__init__(self)
        TransactionPart.__init__(self)
        BackupPart.__init__(self)

    def _search_namespaces(self, directory: str, options: UpkeepOptions) -> None:
        engine, threads = self.engine, self.threads
        self.namespace_views = NamespaceViews(
            engine, directory, options.cache_size_bytes, self.threads.together
        )
        self.segment_keeper = SegmentKeeper(
            engine, self.writer, self.namespace_views, options, threads
        )
        self.text_keeper = TextKeeper(engine, self.namespace_views, threads)

    @property
    def report(self) -> OpenReport:
        """What opening found and did."""
        return self.store.report

    def _published(self) -> None:
        """A group was published: those who must know of it before anybody is answered."""
        self.authority.published()
        self.feeds.announce()

    @property
    def is_open(self) -> bool:
        """Whether calls are still taken."""
        return not self._closed

    def ensure_open(self) -> None:
        """Raise `Unavailable` once the database was closed."""
        if self._closed:
            raise Unavailable("The store is closed.")

    def reader(
        self, snapshot: Snapshot | None, *, raw: bool, overlay: Overlay | None = None
    ) -> Reader:
        """What an operation that waits reads with: a snapshot, or (None) the newest state; or
        that of a transaction, with what is written in it."""
        return Reader(self, snapshot, raw=raw, overlay=overlay)

    def snapshot(self) -> AbstractAsyncContextManager[EmbeddedSnapshot]:
        """The newest durable state, pinned for the length of the ``async with``.

        The services of the result read that one state, whatever is written meanwhile.
        """
        return self._snapshot()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncGenerator[EmbeddedSnapshot]:
        await trio.lowlevel.checkpoint()
        self.ensure_open()
        snapshot = self.engine.snapshot("embedded")
        try:
            yield EmbeddedSnapshot(self, snapshot)
        finally:
            snapshot.close()

    async def _run_writer(self) -> None:
        """The writer is not started again after a crash: nobody knows what it left half done."""
        try:
            await self.writer.run()
        except Exception as error:
            log.exception("the writer crashed; the store is read-only now")
            self.engine.fail(error)

    async def run_actors(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the actors until `stop`.

        Shielded: whatever is cancelled around the database, the writer finishes what was handed
        in, and no file is touched once the directory's lock is released.
        """
        try:
            with trio.CancelScope(shield=True) as self._actors:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_writer, name="actor writer")
                    self.supervisor = Supervisor(nursery)
                    self.supervisor.start("checkpointer", self.checkpointer.run)
                    self.supervisor.start("housekeeper", self.housekeeper.run)
                    self.supervisor.start("lease keeper", self.lease_keeper.run)
                    self.supervisor.start("dismantler", self.dismantler.run)
                    self.supervisor.start("index builder", self.index_builder.run)
                    self.supervisor.start("namespace keeper", self.namespace_keeper.run)
                    self.supervisor.start("compactor", self.compactor.run)
                    self.supervisor.start("transactions", self.transactions.run)
                    self.supervisor.start("authority", self.authority.run)
                    if self.archiver is not None:
                        self.supervisor.start("archiver", self.archiver.run)
                    if self.indexer is not None:
                        self.supervisor.start("indexer", self.indexer.run)
                    if self.segment_keeper is not None:
                        self.supervisor.start("segment keeper", self.segment_keeper.run)
                    if self.text_keeper is not None:
                        self.supervisor.start("text keeper", self.text_keeper.run)
                    if self.scrubber.options.rate_bytes_per_s:
                        self.supervisor.start("scrubber", self.scrubber.run)
                    task_status.started()
        finally:
            # However they ended: `stop` waits for this, shielded.
            self._actors_ended.set()

    async def stop(self) -> None:
        """Finish what was handed in, make a last checkpoint, close everything.

        Not interrupted by cancellation: what was asked to be durable becomes so.
        """
        if self._closed:
            return
        with trio.CancelScope(shield=True):
            await self.authority.note_uses()
            await self.writer.stop()
            self.authority.log_rest()
            self._closed = True
            self.transactions.close()
            self.feeds.announce()
            for reader in self.inline_readers:
                reader.forbid()
            await self.stop_backup()
            if self.engine.failed is None:
                with contextlib.suppress(TreeStoreError, OSError):
                    await self.checkpointer.checkpoint()
            self._actors.cancel()
            await self._actors_ended.wait()
            if self.archiver is not None:
                await self.archiver.finish()
            if self.indexer is not None:
                await self.indexer.finish()
            for _ in range(READ_THREADS):
                # Reads that are still in threads use the file.
                await self.read_limiter.acquire_on_behalf_of(object())
            await self.log_thread.stop()
            await self.threads.run(self.store.close)


def _options(
    cache_size_mb: int,
    watch_retention_mb: int,
    archive_dir: str | None,
    archive_interval_s: float,
) -> EngineOptions:
    if not isinstance(cache_size_mb, int) or cache_size_mb < 1:
        raise InvalidArgument(f"cache_size_mb is a number of MiB, not {cache_size_mb!r}.")
    if not isinstance(watch_retention_mb, int) or watch_retention_mb < 0:
        raise InvalidArgument(
            f"watch_retention_mb is a number of MiB, 0 or more, not {watch_retention_mb!r}."
        )
    if not archive_interval_s > 0:
        raise InvalidArgument(f"archive_interval_s is above 0, not {archive_interval_s!r}.")
    return EngineOptions(
        cache_size_bytes=cache_size_mb * MEBIBYTE,
        log_retention_bytes=watch_retention_mb * MEBIBYTE,
        archive_directory=os.path.abspath(archive_dir) if archive_dir else archive_dir,
        archive_interval_s=archive_interval_s,
    )


@asynccontextmanager
async def open_database(
    directory: str | os.PathLike[str],
    *,
    cache_size_mb: int = CACHE_SIZE_MB,
    watch_retention_mb: int = 0,
    create: bool = True,
    archive_dir: str | None = None,
    archive_interval_s: float = 60.0,
    options: EngineOptions | None = None,
    limits: WriterLimits | None = None,
    environment: Environment | None = None,
    threads: Threads = WORKER_THREADS,
    progress: Callable[[OpenProgress], None] | None = None,
    scrub: ScrubOptions | None = None,
    search_index: bool = True,
    namespaces: UpkeepOptions | None = None,
) -> AsyncGenerator[Database]:
    """Open (or create) the store in ``directory`` and run its actors for the ``async with``.

    Args:
        directory: the data directory; made where it does not exist, unless ``create`` is False.
        cache_size_mb: budget of the node cache in MiB, as decoded in memory.
        watch_retention_mb: log to keep for feeds that fell behind, in MiB (``docs/watch.md``).
        archive_dir: copy the log there, piece by piece (``docs/backup.md``). It must exist, and the
            store remembers it. None: as it was; "": from now on to nowhere.
        archive_interval_s: how often the log's segment in use is copied, in seconds.
        options: all engine settings; those above then do not count.
        environment: the outside world, where it is not the real one.
        progress: told, on a worker thread, how far the recovery of a long log has come.
        scrub: how eagerly stored data are verified; by default 4 MiB a second, once an hour.
        search_index: keep indexes for searching; not where ``environment`` is given.
        namespaces: sizes of namespaces' segments, and of what stays loaded of them.

    Resource handling:
        Owns the directory's lock, the files and the actors. Leaving the block waits for what was
        handed in, makes a checkpoint and closes all of it, whatever the body raised, and raises
        just that.

    Error handling:
        Raises what `open_engine` does. A background actor that fails never cancels the body:
        calls then raise `Unavailable`.
    """
    search_directory = os.fspath(directory) if search_index and environment is None else None
    given = cache_size_mb, watch_retention_mb, archive_dir, archive_interval_s
    options = options or _options(*given)
    environment = environment or attrs.evolve(
        real_environment(), pause=lambda: time.sleep(BACKGROUND_PAUSE_S)
    )
    if progress is not None:
        environment = attrs.evolve(environment, progress=progress)
    opening = partial(open_engine, os.fspath(directory), options, environment, create=create)
    # Not interruptible: a thread that cannot be abandoned either opens the store or raises.
    store = await threads.run(opening)
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            database = Database(store, limits, threads, scrub, search_directory, namespaces)
            with trio.CancelScope(shield=True):
                await nursery.start(database.run_actors)
            try:
                yield database
            except BaseException as error:  # noqa: ASYNC103
                # Not through the nursery, which would wrap it into a group.
                raised = error
            await database.stop()
    except BaseExceptionGroup:
        if raised is None:
            raise
    if raised is not None:
        raise raised
