"""Making a backup: a walk over one pinned state that copies each run it reaches."""

from __future__ import annotations

import os.path

import attrs

from treestore.engine import page as page_format
from treestore.engine.backup.index import Index, Run
from treestore.engine.backup.manifest import (
    INDEX,
    NAMES,
    PAGES,
    Backup,
    ChunkedWriter,
    FileEntry,
    Manifest,
    Parent,
    open_chain,
)
from treestore.engine.backup.timelines import History, history_of
from treestore.engine.engine import Engine
from treestore.engine.log import LogPosition
from treestore.engine.meta import Meta
from treestore.engine.node import Large, Ref, decode_node
from treestore.engine.options import Environment
from treestore.engine.pagefile import PageFile
from treestore.engine.snapshot import Snapshot, State
from treestore.engine.unfinished import begin_directory, finish_directory, remove_tree
from treestore.errors import InvalidArgument, Unavailable

SLICE_SIZE_BYTES = 1 << 20
"""Copied by one `BackupCopy.step`."""

SLICE_RUNS = 256
"""Looked at by one step, copied or not (`BackupCopy.slice_runs`)."""

SYNC_SIZE_BYTES = 8 << 20
"""Synced at a time: a log's sync waits behind what is on its way to the same medium."""

RUNS_BEFORE_PAUSE = 16

_NODES = (page_format.LEAF, page_format.BRANCH, page_format.LEAF_WITH_LARGE)


@attrs.frozen
class Source:
    """What is copied: one checkpointed state, pinned, and whose it is."""

    pages: PageFile
    meta: Meta
    history: History
    pin: Snapshot

    @classmethod
    def of(cls, engine: Engine) -> Source:
        """The newest checkpointed state of an engine; the caller closes the pin.

        On the engine's owner's thread while no checkpoint runs: one that began before might not
        know of the pin.

        Raises:
            Unavailable: the store is closed.
            CorruptionError: the store's history of timelines is damaged.
        """
        assert engine.checkpoint is None
        meta = engine.slots[0]
        if meta.replay_to_lsn > meta.log_position[0]:
            # Written in the middle of a recovery: no state that anybody has seen.
            raise Unavailable("The store has no checkpoint since it was recovered; make one first.")
        directory = os.path.dirname(engine.pages.file.path)
        history = history_of(engine.environment.disk, directory, engine.identity)
        root = Ref(None, meta.root_page, meta.root_checksum)
        position = LogPosition.from_tuple(meta.log_position)
        state = State(root, meta.number, meta.key_count, position)
        # However long it takes: a backup ends by itself.
        pin = engine.pin(state, "backup", evictable=False)
        return cls(engine.pages, meta, history, pin)


@attrs.frozen
class CopyProgress:
    """How far a backup is.

    Attributes:
        pages: pages looked at.
        pages_copied: of them, those that were written: the others are in the parent.
        pages_total: an upper bound of ``pages``.
        size_bytes: written.
    """

    pages: int
    pages_copied: int
    pages_total: int
    size_bytes: int


class BackupCopy:
    """One backup under way: `step` until it returns False, then `seal`, then `publish`.

    Any thread, one at a time. After an error, or to give up: `abort`.
    """

    def __init__(
        self, environment: Environment, source: Source, path: str, parent_path: str | None = None
    ) -> None:
        """Check everything that can be checked, and make the directory.

        Raises:
            AlreadyExists: ``path`` is there and not an empty directory.
            InvalidArgument: it cannot be made, or the parent is of another timeline or store.
            NotFound, CorruptionError: the parent is no whole backup.
        """
        self.path = path
        self.slice_runs = SLICE_RUNS
        self._environment = environment
        self._disk = environment.disk
        self._source = source
        self._chain = open_chain(self._disk, parent_path) if parent_path is not None else []
        self._ensure_parent()
        for backup in self._chain:
            # Whoever made it may have died before its name was on the medium.
            self._disk.sync_directory(os.path.dirname(backup.path) or ".")
        self._known = self._chain[0].index(len(self._chain)) if self._chain else Index()
        self._index = Index()
        self._todo: list[tuple[int, int, int, bool]] = [
            (source.meta.root_page, 1, source.meta.root_checksum, False)
        ]
        """First page, pages, checksum, whether a piece of a large value; the next one last."""
        self._began_ns = environment.clock_ns()
        self._looked = self._copied = self._unsynced = 0
        self._unfinished: str = begin_directory(self._disk, path, NAMES.__contains__)
        self._out = ChunkedWriter(self._disk, f"{self._unfinished}/{PAGES}")

    def _ensure_parent(self) -> None:
        if not self._chain:
            return
        parent, history = self._chain[0], self._source.history
        if parent.manifest.history.database_uuid != history.database_uuid:
            raise InvalidArgument(
                f"{parent.path} is a backup of another database; make a full backup."
            )
        if (
            parent.manifest.history != history
            or parent.manifest.commit_number > self._source.meta.number
        ):
            raise InvalidArgument(
                f"{parent.path} is of timeline {parent.manifest.timeline} and the store of "
                f"timeline {history.last.number}: it was restored since. Make a full backup."
            )

    @property
    def progress(self) -> CopyProgress:
        """How far it is."""
        # Everything but what is free: retired pages count, so it is an upper bound.
        total = max(self._looked, self._source.meta.page_count)
        size = self._out.size
        return CopyProgress(self._looked, self._copied, total, size)

    def step(self) -> bool:
        """Copy about a megabyte; whether there is more to do.

        Raises:
            CorruptionError: a page is not as it was written.
            OSError: the disk refused something.
        """
        pieces: list[bytes] = []
        size = runs = 0
        while self._todo and size < SLICE_SIZE_BYTES and runs < self.slice_runs:
            run = self._visit(*self._todo.pop())
            if run is not None:
                pieces.append(run)
                size += len(run)
            runs += 1
            if not runs % RUNS_BEFORE_PAUSE:
                self._environment.pause()
        self._out.write(b"".join(pieces))
        self._unsynced += size
        if self._unsynced >= SYNC_SIZE_BYTES:
            self._out.file.sync()
            self._unsynced = 0
        return bool(self._todo)

    def _visit(self, page: int, pages: int, checksum: int, large: bool) -> bytes | None:
        """Enter a run, and what it refers to; its bytes where they have to be copied."""
        file, size = self._source.pages.file, self._source.pages.shape.page_size
        self._looked += pages
        known = self._known.find(page)
        if known is not None and (known.page, known.pages, known.checksum) == (
            *(page, pages, checksum),
        ):
            # Its birth, too, for a page may have been used again, and a checksum has 32 bits.
            head = page_format.peek(file.read_at(page * size, page_format.HEADER_SIZE))
            if (head.page, head.checksum, head.born) == (page, checksum, known.born):
                self._index.add(attrs.evolve(known, source=known.source + 1))
                if head.kind in (page_format.BRANCH, page_format.LEAF_WITH_LARGE):
                    self._enter(file.read_at(page * size, size), page, checksum)
                return None
        run = file.read_at(page * size, pages * size)
        born = self._enter(run, page, checksum, large)
        self._index.add(Run(page, born, self._copied, checksum, pages, 0))
        self._copied += pages
        return run

    def _enter(self, run: bytes, page: int, checksum: int, large: bool = False) -> int:
        """Verify a run and note what it refers to; its birth."""
        pages = self._source.pages
        size = pages.shape.page_size
        kinds = (page_format.LARGE,) if large else _NODES
        kind, born, payload = page_format.unseal(run, pages.file.path, page, checksum, kinds, size)
        if kind not in (page_format.BRANCH, page_format.LEAF_WITH_LARGE):
            return born
        try:
            node = decode_node(kind, born, payload, pages.shape)
        except ValueError as error:
            raise page_format.damaged(pages.file.path, page * size, page, str(error)) from error
        if node.children is not None:
            for child in reversed(node.children):
                self._todo.append((child.page, 1, child.checksum, False))
        for value in node.values:
            if isinstance(value, Large):
                self._todo.extend((*extent, True) for extent in value.extents)
        return born

    def seal(self) -> Backup:
        """Write index and manifest. It is whole then, but not under its name yet."""
        pages = self._out.finish()
        self._index.sort()
        writer = ChunkedWriter(self._disk, f"{self._unfinished}/{INDEX}")
        for piece in self._index.encode():
            writer.write(piece)
        manifest = self._manifest((writer.finish(), pages)).write(self._disk, self._unfinished)
        self._disk.sync_directory(self._unfinished)
        return Backup(self._disk, self._unfinished, manifest)

    def _manifest(self, files: tuple[FileEntry, ...]) -> Manifest:
        meta = self._source.meta
        parent = None
        if self._chain:
            known = self._chain[0]
            place = os.path.normpath(known.path)
            parent = Parent(known.manifest.backup_id, known.manifest.checksum, place)
        return Manifest(
            backup_id=self._environment.random.randbytes(16).hex(),
            parent=parent,
            history=self._source.history,
            commit_number=meta.number,
            key_count=meta.key_count,
            root_page=meta.root_page,
            root_checksum=meta.root_checksum,
            page_size_bytes=self._source.pages.shape.page_size,
            page_count=meta.page_count,
            log_position=LogPosition.from_tuple(meta.log_position),
            created_at_ns=self._began_ns,
            files=files,
        )

    def publish(self) -> None:
        """Give it its name: from now on it counts."""
        finish_directory(self._disk, self._unfinished)

    def abort(self) -> None:
        """Clear away what was written."""
        self._out.file.close()
        if self._disk.exists(self._unfinished):
            remove_tree(self._disk, self._unfinished)
