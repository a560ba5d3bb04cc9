"""A store out of the pages of a backup: what a restore and a verification have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import attrs

from treestore.engine.backup.index import Index
from treestore.engine.backup.manifest import Manifest
from treestore.engine.backup.replay import Entry
from treestore.engine.backup.timelines import TIMELINES, History, Timeline, write_history
from treestore.engine.cache import NodeCache
from treestore.engine.check import CheckReport, check_engine
from treestore.engine.directory import LOG, PAGES, log_options, open_engine
from treestore.engine.engine import Engine
from treestore.engine.freespace import FreeSpace
from treestore.engine.log import Log, LogGroup, LogIdentity, LogOptions, LogPosition, Piece
from treestore.engine.log import format as fmt
from treestore.engine.log.position import Tip
from treestore.engine.node import Ref, Shape
from treestore.engine.options import EngineOptions, Environment
from treestore.engine.pagefile import PageFile
from treestore.engine.replay import Replay
from treestore.engine.snapshot import State
from treestore.engine.unfinished import remove_tree
from treestore.errors import CorruptionError

SCRATCH = "log.replay"
"""The log of the engine that replays: it stays empty, and is removed."""

_SCRATCH_OPTIONS = LogOptions(segment_size_bytes_min=1 << 14, segment_size_bytes_max=1 << 14)


def start_of(tip: Tip) -> LogPosition:
    """The position at which a log that follows ``tip`` begins."""
    return LogPosition(tip.lsn, tip.group, tip.chain, tip.time_ns, 1, 1, fmt.BLOCK_BYTES)


class _Batch:
    """Transactions as a group of the log, as far as `Replay` looks at one."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries
        self.offset = 0
        self.end = sum(len(payload) for entry in entries for payload in entry.payloads)

    def pieces(self) -> Iterator[Piece]:
        """See `LogGroup.pieces`."""
        entries = self._entries
        payloads = [payload for entry in entries for payload in entry.payloads]
        sizes = [(entry.transaction_id, len(entry.payloads)) for entry in entries]
        yield Piece(
            entries[-1].tip.lsn - len(payloads) + 1,
            tuple(number for number, count in sizes for _ in range(count)),
            tuple(map(len, payloads)),
            tuple(
                kind
                for _, count in sizes
                for kind in (*(count - 1) * (fmt.KIND_DATA,), fmt.KIND_COMMIT)
            ),
            memoryview(b"".join(payloads)),
            True,
        )


class Founding:
    """Makes a data directory, in which the page file is laid out already, a store.

    `replay` any number of times, then `finish`; `close` in any case.
    """

    def __init__(
        self,
        environment: Environment,
        directory: str,
        manifest: Manifest,
        index: Index,
        identity: LogIdentity,
        options: EngineOptions,
    ) -> None:
        """Begin; ``identity`` is that of the new store."""
        self._options = attrs.evolve(options, page_size_bytes=manifest.page_size_bytes)
        self._environment = environment
        self._directory = directory
        self._identity = identity
        disk = environment.disk
        pages = PageFile(
            disk.open(f"{directory}/{PAGES}"),
            Shape(manifest.page_size_bytes),
            NodeCache(options.cache_size_bytes),
        )
        self._tip = manifest.log_position.tip
        log = Log.create(
            disk,
            f"{directory}/{SCRATCH}",
            self._identity,
            _SCRATCH_OPTIONS,
            clock_ns=environment.clock_ns,
            random=environment.random,
        )
        free = index.free(manifest.page_count, manifest.page_size_bytes)
        self._engine = Engine(
            options=self._options,
            environment=environment,
            identity=self._identity,
            pages=pages,
            log=log,
            free_space=FreeSpace(manifest.page_count, free),
            slots=[],
            state=State(
                Ref(None, manifest.root_page, manifest.root_checksum),
                manifest.commit_number,
                manifest.key_count,
                start_of(self._tip),
            ),
        )

    def replay(self, entries: list[Entry]) -> None:
        """Apply transactions, at least one, and write what they changed to the page file.

        Raises:
            CorruptionError: they do not fit the state.
        """
        tip = entries[-1].tip
        try:
            batch = cast("LogGroup", _Batch(entries))
            Replay(self._engine).run([(batch, start_of(tip))])
        except (ValueError, TypeError) as error:
            raise CorruptionError(
                f"The archive does not fit the backup ({error}).", file=self._directory
            ) from error
        self._tip = tip
        self._engine.checkpoint_now()

    def finish(self, history: History) -> None:
        """Both slots, the log and the history of the new store; all is synced on return."""
        engine, environment, directory = self._engine, self._environment, self._directory
        disk = environment.disk
        engine.checkpoint_now()
        again = engine.begin_checkpoint(repeat=True)
        if again is not None:
            try:
                again.run()
            finally:
                engine.finish_checkpoint()
        engine.close()
        remove_tree(disk, f"{directory}/{SCRATCH}")
        log = Log.create(
            disk,
            f"{directory}/{LOG}",
            self._identity,
            log_options(self._options),
            clock_ns=environment.clock_ns,
            random=environment.random,
            follows=self._tip,
        )
        log.close()
        write_history(disk, f"{directory}/{TIMELINES}", history)
        disk.sync_directory(directory)

    def close(self) -> None:
        """Close the files; harmless when done twice."""
        self._engine.close()


def open_and_check(
    environment: Environment,
    directory: str,
    options: EngineOptions,
    progress: Callable[[int], None] | None = None,
) -> CheckReport:
    """Open a store as any is opened, check all of it, and close it.

    Raises:
        CorruptionError: something is wrong.
    """
    # An engine of its own: nothing that founding still had in memory may count.
    store = open_engine(directory, options, environment, create=False)
    try:
        report = check_engine(store.engine, progress)
    finally:
        store.close()
    if not report.ok:
        raise CorruptionError(
            f"What was made does not pass the check: {report.errors[0]}",
            file=directory,
            errors=report.errors[:20],
        )
    return report


def successor(history: History, number: int, tip: Tip, environment: Environment) -> History:
    """``history`` with a new timeline that leaves it at ``tip``."""
    fresh = Timeline(
        number,
        environment.random.randbytes(16).hex(),
        history.last.number,
        tip.lsn,
        tip.time_ns,
        environment.clock_ns(),
    )
    return attrs.evolve(history, timelines=(*history.timelines, fresh))
