"""A data directory: creating, locking, opening and recovering it.

::

    DIR/LOCK      held exclusively while the store is open
    DIR/pages     the page file
    DIR/log/      the log's segments
    DIR/CREATING  only while a new store is being made
    DIR/ARCHIVE   which archive it keeps (``archiving.py``)
    DIR/TIMELINES in a restored store: its history (``backup/timelines.py``)

A new store is made in this order: CREATING (synced), the log, the page file under a temporary
name (synced), its rename to ``pages``, removal of CREATING. The rename is the moment of birth:
a crash before it leaves CREATING behind, and the next open clears away and begins again. A
directory without page file and without CREATING is never touched: it is somebody else's, or a
store whose page file was lost.
"""

from __future__ import annotations

import errno
from functools import partial

import attrs
import msgspec

from treestore.engine.archiving import archive_of
from treestore.engine.cache import NodeCache
from treestore.engine.check import rebuild_free_space
from treestore.engine.checkpoint import Checkpoint
from treestore.engine.decision import Row
from treestore.engine.disk import Disk, File, Lock
from treestore.engine.engine import Engine
from treestore.engine.freespace import FreeSpace, Retired
from treestore.engine.log import Log, LogIdentity, LogOptions, LogPosition, TornTail
from treestore.engine.meta import Meta, first_page, read_slots
from treestore.engine.node import NO_VALUES, Node, Ref, Shape
from treestore.engine.options import EngineOptions, Environment, OpenProgress
from treestore.engine.page import FREE_SPACE, PAGE_SIZE_BYTES_MAX, PAGE_SIZE_BYTES_MIN
from treestore.engine.pagefile import PageFile
from treestore.engine.replay import Replay
from treestore.engine.snapshot import State
from treestore.engine.verdict import TABLE
from treestore.errors import (
    CorruptionError,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    TreeStoreError,
    Unavailable,
)

LOCK = "LOCK"
PAGES = "pages"
PAGES_NEW = "pages.new"
LOG = "log"
CREATING = "CREATING"
NAMES = frozenset({LOCK, PAGES, PAGES_NEW, LOG, CREATING})
"""All that creating a store puts into its directory."""

_OURS = {LOCK, LOG, "lost+found"}
"""What may be in a directory without a store in it."""


@attrs.frozen
class OpenReport:
    """What opening found and did."""

    created: bool
    outcome: str
    """``clean``, or ``torn tail``: the log's unacknowledged end was cut off and saved aside."""
    replayed_transactions: int
    free_space_rebuilt: bool
    torn_tail: TornTail | None = None
    found: tuple[str, str] = ("", "")
    """Names of the rows of the two decision tables: the directory's and the log's."""


@attrs.frozen
class OpenStore:
    """An engine with the lock that belongs to it."""

    engine: Engine
    report: OpenReport
    lock: Lock

    def close(self) -> None:
        """Close the engine, then release the directory."""
        try:
            self.engine.close()
        finally:
            self.lock.release()


def open_engine(
    directory: str, options: EngineOptions, environment: Environment, *, create: bool = True
) -> OpenStore:
    """Open (or create) the store in ``directory`` and recover it.

    Raises:
        Unavailable: another process, or this one, has it open.
        InvalidArgument: the directory holds something else, or a newer format.
        NotFound: there is no store and ``create`` is False.
        CorruptionError: what is there cannot be trusted; the message names file and offset.
        PermissionDenied, ResourceExhausted: as the operating system says.
    """
    try:
        return _open(directory, options, environment, create)
    except OSError as error:
        raise _from_os(error, directory) from error


def _from_os(error: OSError, directory: str) -> TreeStoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(f"There is no room on the disk to open {directory}.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(
            f"{directory} cannot be written ({error}); give this user write permission."
        )
    if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR):
        return InvalidArgument(f"{directory} cannot be a data directory: {error}.")
    return Unavailable(f"{directory} cannot be opened: {error}.")


def _open(
    directory: str, options: EngineOptions, environment: Environment, create: bool
) -> OpenStore:
    disk = environment.disk
    names = disk.list(directory) if disk.exists(directory) else []
    _refuse(_look(directory, names, create), directory, names)
    if not disk.exists(directory):
        make_directories(disk, directory)
    try:
        lock = disk.lock(f"{directory}/{LOCK}")
    except BlockingIOError as error:
        raise Unavailable(
            f"{directory} is in use by another process (or is open in this one already). Connect "
            "to its server instead, or stop it first."
        ) from error
    try:
        # Once more: another process may have been at work until now.
        names = disk.list(directory)
        answers = _look(directory, names, create)
        row = _refuse(answers, directory, names)
        if row is not None:
            _create(disk, directory, options, environment)
            answers = _look(directory, disk.list(directory), create)
        elif disk.exists(f"{directory}/{CREATING}"):
            # The name of the page file is durable before the marker may go: whoever renamed it may
            # have died before the sync.
            disk.sync_directory(directory)
            disk.unlink(f"{directory}/{CREATING}")
            disk.sync_directory(directory)
        archive = archive_of(disk, directory, options.archive_directory)
        options = attrs.evolve(options, archive_directory=archive)
        engine, report = _recover(disk, directory, options, environment, answers, row)
        return OpenStore(engine, report, lock)
    except BaseException:
        lock.release()
        raise


def _look(directory: str, names: list[str], create: bool) -> dict[str, bool]:
    """The facts that the directory's names give."""
    return {
        "pages": PAGES in names,
        "creating": CREATING in names,
        "foreign": bool(set(names) - _OURS),
        "log": LOG in names,
        "may_create": create,
    }


def _refuse(answers: dict[str, bool], directory: str, names: list[str]) -> Row | None:
    """The row that says to create a store; None where there is one to be opened.

    Raises:
        TreeStoreError: the row refuses.
    """
    row = TABLE.decide(answers)
    if row is not None and row.error is not None:
        foreign = "".join(map(repr, sorted(set(names) - _OURS)[:1]))
        raise row.refusal(
            {"file": f"{directory}/{PAGES}", "offset": 0},
            directory=directory,
            name=foreign,
        )
    return row


def make_directories(disk: Disk, directory: str) -> None:
    """Create ``directory`` and its missing ancestors, each made durable in its parent.

    The last one that was there already is made durable, too: a process that died may have created
    it and not come to the sync.
    """
    missing = [directory]
    while (parent := _parent(missing[-1])) and not disk.exists(parent):
        missing.append(parent)
    if parent:
        _sync_entry(disk, parent)
    for path in reversed(missing):
        disk.make_directory(path)
        disk.sync_directory(_parent(path) or ".")


def _sync_entry(disk: Disk, path: str) -> None:
    """Make the name of a directory that exists durable, where this user may do that."""
    try:
        disk.sync_directory(_parent(path) or ".")
    except PermissionError:
        pass  # Whoever made it had other rights than we have: it is none of ours.


def _parent(path: str) -> str:
    head, separator, _ = path.rstrip("/").rpartition("/")
    return head or separator


def _create(disk: Disk, directory: str, options: EngineOptions, environment: Environment) -> None:
    page_size = options.page_size_bytes
    if not PAGE_SIZE_BYTES_MIN <= page_size <= PAGE_SIZE_BYTES_MAX or page_size & (page_size - 1):
        raise InvalidArgument(
            f"page_size_bytes is a power of two from {PAGE_SIZE_BYTES_MIN} to "
            f"{PAGE_SIZE_BYTES_MAX}, not {page_size}."
        )
    log_directory = f"{directory}/{LOG}"
    if disk.exists(f"{directory}/{CREATING}"):
        _clear(disk, directory)
    else:
        marker = disk.open(f"{directory}/{CREATING}", create=True)
        marker.sync()
        marker.close()
    # Before anything else may exist: a log without CREATING is a store that lost its pages. Also
    # where an earlier process made it: that one may not have come to the sync.
    disk.sync_directory(directory)
    _sync_entry(disk, directory)
    disk.make_directory(log_directory)
    disk.sync_directory(directory)
    identity = LogIdentity(environment.random.randbytes(16), timeline=1)
    log = Log.create(
        disk,
        log_directory,
        identity,
        log_options(options),
        clock_ns=environment.clock_ns,
        random=environment.random,
    )
    file = disk.open(f"{directory}/{PAGES_NEW}", create=True)
    shape = Shape(page_size)
    pages = PageFile(file, shape, NodeCache(0))
    root = Ref(Node([], NO_VALUES, None, 0, 0))
    engine = Engine(
        options=options,
        environment=environment,
        identity=identity,
        pages=pages,
        log=log,
        free_space=FreeSpace(first_page(page_size)),
        slots=[],
        state=State(root, 0, 0, log.position),
    )
    engine.slots = [Checkpoint(engine).run()]
    # Both slots from the first day: one damaged byte must never cost a store.
    Checkpoint(engine, repeat=True).run()
    engine.close()
    disk.rename(f"{directory}/{PAGES_NEW}", f"{directory}/{PAGES}")
    disk.sync_directory(directory)
    disk.unlink(f"{directory}/{CREATING}")
    disk.sync_directory(directory)


def _clear(disk: Disk, directory: str) -> None:
    """Remove what an interrupted creation left."""
    log_directory = f"{directory}/{LOG}"
    if disk.exists(log_directory):
        for name in disk.list(log_directory):
            disk.unlink(f"{log_directory}/{name}")
        disk.sync_directory(log_directory)
    if disk.exists(f"{directory}/{PAGES_NEW}"):
        disk.unlink(f"{directory}/{PAGES_NEW}")
        disk.sync_directory(directory)


def log_options(options: EngineOptions) -> LogOptions:
    """The log's part of the engine's options."""
    return LogOptions(
        segment_size_bytes_min=options.log_segment_size_bytes_min,
        segment_size_bytes_max=options.log_segment_size_bytes_max,
        size_bytes_max=options.log_size_bytes_max,
        retention_bytes=options.log_retention_bytes,
        archived=bool(options.archive_directory),
    )


def _recover(
    disk: Disk,
    directory: str,
    options: EngineOptions,
    environment: Environment,
    answers: dict[str, bool],
    created: Row | None,
) -> tuple[Engine, OpenReport]:
    file = disk.open(f"{directory}/{PAGES}")
    try:
        # What the last process wrote may still be only in the page cache: make it durable first.
        file.sync()
        disk.sync_directory(directory)
        row, slots, page_size = _choose_slot(file, answers)
        pages = PageFile(file, Shape(page_size), NodeCache(options.cache_size_bytes))
        newest = slots[0]
        root = Ref(None, newest.root_page, newest.root_checksum)
        free_space, rebuilt = _free_space(pages, slots)
        identity = LogIdentity(newest.database_uuid, newest.timeline)
        start = LogPosition.from_tuple(newest.log_position)
        log, recovered = Log.open(
            disk,
            f"{directory}/{LOG}",
            identity,
            log_options(options),
            start,
            clock_ns=environment.clock_ns,
            random=environment.random,
            reach_lsn=newest.replay_to_lsn,
            progress=partial(_report, environment, "verifying"),
        )
        engine = Engine(
            options=options,
            environment=environment,
            identity=identity,
            pages=pages,
            log=log,
            free_space=free_space,
            slots=slots,
            state=State(root, newest.number, newest.key_count, start),
        )
        replay = Replay(engine)
        try:
            total = log.live_size_bytes()
            replay.run(
                recovered.groups,
                lambda done: _report(environment, "replaying", done, total),
            )
        except (ValueError, TypeError) as error:
            raise CorruptionError(
                f"The log in {directory}/{LOG} does not fit the page file ({error}). Restore a "
                "backup.",
                file=f"{directory}/{LOG}",
                offset=0,
            ) from error
        engine.regain_reserve()
        _report(environment, "done", 0, 0)
    except BaseException:
        file.close()
        raise
    found = (created or row).name, recovered.row.name
    torn = recovered.outcome if isinstance(recovered.outcome, TornTail) else None
    return engine, OpenReport(
        created is not None, recovered.row.name, replay.transactions, rebuilt, torn, found
    )


def _report(environment: Environment, phase: str, done_bytes: int, total_bytes: int) -> None:
    environment.progress(OpenProgress(phase, done_bytes, total_bytes))


def _choose_slot(file: File, answers: dict[str, bool]) -> tuple[Row, list[Meta], int]:
    """The row for the page file, its valid slots with the newest first, and the page size.

    Raises:
        TreeStoreError: the row refuses.
    """
    details: dict[str, object] = {"file": file.path, "offset": 0}
    try:
        slots, page_size = read_slots(file)
    except (InvalidArgument, CorruptionError) as error:
        known = isinstance(error, CorruptionError)
        row = TABLE.decided({**answers, "known": known, "slot": False})
        raise row.refusal(details, problem=error.message) from error
    size, wanted = file.size(), slots[0].page_count * page_size
    row = TABLE.decided(
        {
            **answers,
            "known": True,
            "slot": True,
            "whole": size >= wanted,
            "both_slots": len(slots) == 2,
        }
    )
    if row.error is not None:
        details["offset"] = size
        raise row.refusal(details, **details, wanted=wanted)
    return row, slots, page_size


def _free_space(pages: PageFile, slots: list[Meta]) -> tuple[FreeSpace, bool]:
    """The free space as the newest slot's checkpoint left it; from a walk if its list is bad."""

    newest = slots[0]
    try:
        parts = [
            bytes(pages.read_run(page, count, checksum, (FREE_SPACE,))[2])
            for page, count, checksum in newest.free_runs
        ]
        starts, counts, retired = msgspec.msgpack.decode(
            b"".join(parts), type=tuple[list[int], list[int], list[Retired]]
        )
        free_space = FreeSpace.restore(newest.page_count, starts, counts)
        free_space.retired = retired
    except (CorruptionError, ValueError):
        return rebuild_free_space(pages, slots), True
    return free_space, False
