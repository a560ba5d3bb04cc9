"""The page file: sealed runs of pages, read with verification and written by checkpoints only."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable

from treestore.engine import page as page_format
from treestore.engine.cache import NodeCache
from treestore.engine.disk import File
from treestore.engine.meta import SLOT_OFFSETS, Meta, encode_slot
from treestore.engine.node import Large, Node, Ref, Shape, decode_node
from treestore.errors import Unavailable

WRITE_SIZE_BYTES = 1 << 20
"""Adjacent pages are written together, up to this size."""

CUT_SIZE_BYTES = 32 << 20
"""The file is cut by this much at a time."""

_NODE_KINDS = (page_format.LEAF, page_format.BRANCH, page_format.LEAF_WITH_LARGE)


class PageFile:
    """Reads and writes runs; owns the file and the cache's fills.

    Reading is thread-safe. Writing happens in one thread at a time (the checkpoint's). After the
    first failed write or sync ``failed`` is set and nothing is written any more: what the medium
    holds is not known then, and trying again would turn a lost write into a silent one.
    """

    def __init__(self, file: File, shape: Shape, cache: NodeCache) -> None:
        self.file = file
        self.shape = shape
        self.cache = cache
        self.failed: BaseException | None = None
        self._lock = threading.Lock()
        self._size_lock = threading.Lock()
        self._wanted_pages = 0
        """What the file was asked to hold since it was last to be cut."""

    def read_run(
        self, page: int, pages: int, checksum: int, kinds: tuple[int, ...]
    ) -> tuple[int, int, memoryview]:
        """Kind, birth and payload of a verified run.

        Raises:
            CorruptionError: the run is not what its reference promises.
            Unavailable: the disk could not read it.
        """
        size = self.shape.page_size
        file = self.file
        # Before memory is taken for it: the numbers come from the medium as well.
        if pages != 1 and (page < 1 or pages < 1 or (page + pages) * size > file.size()):
            raise page_format.damaged(
                file.path, page * size, page, f"{pages} pages from it on are not in the file"
            )
        try:
            run = file.read_at(page * size, pages * size)
        except OSError as error:
            if error.errno != errno.EIO:
                raise Unavailable(f"Reading the store failed: {error}. Check the disk.") from error
            raise page_format.damaged(
                file.path, page * size, page, f"it cannot be read ({error})"
            ) from error
        return page_format.unseal(run, file.path, page, checksum, kinds, size)

    def read_node(self, page: int, checksum: int) -> Node:
        """A node from its page, past the cache."""
        kind, born, payload = self.read_run(page, 1, checksum, _NODE_KINDS)
        try:
            return decode_node(kind, born, payload, self.shape)
        except ValueError as error:
            raise page_format.damaged(
                self.file.path, page * self.shape.page_size, page, str(error)
            ) from error

    def load(self, ref: Ref) -> Node:
        """The node of ``ref``, from its page where it is not in memory."""
        node = ref.node
        if node is not None:
            return node
        node = self.read_node(ref.page, ref.checksum)
        self.cache.missed()
        with self._lock:
            # Another thread may have loaded it meanwhile; one copy is enough.
            if ref.node is not None:
                return ref.node
            ref.hot = True
            ref.node = node
        self.cache.admit(ref, node)
        return node

    def read_large(self, large: Large) -> bytes:
        """The bytes of a large value from its pages, past the cache."""
        parts: list[memoryview] = []
        for page, pages, checksum in large.extents:
            _, _, payload = self.read_run(page, pages, checksum, (page_format.LARGE,))
            parts.append(payload)
        data = b"".join(parts)
        if len(data) != large.length:
            raise page_format.damaged(
                self.file.path,
                large.page * self.shape.page_size,
                large.page,
                f"a value of {large.length} bytes has {len(data)}",
            )
        return data

    def load_large(self, large: Large) -> bytes:
        """The bytes of a large value."""
        data = large.node
        if data is not None:
            large.hot = True
            return data
        data = self.read_large(large)
        self.cache.missed()
        with self._lock:
            if large.node is not None:
                return large.node
            large.hot = True
            large.node = data
        self.cache.admit(large, data)
        return data

    def write_runs(self, runs: Iterable[tuple[int, bytes]]) -> int:
        """Write sealed runs ``(first page, bytes)``; adjacent ones together. Bytes written."""
        written = 0
        pending: list[bytes] = []
        start = end = size = 0
        for page, run in runs:
            if pending and (page != end or size + len(run) > WRITE_SIZE_BYTES):
                self._write(start, pending)
                pending, size = [], 0
            if not pending:
                start = page
            pending.append(run)
            size += len(run)
            end = page + len(run) // self.shape.page_size
            written += len(run)
        if pending:
            self._write(start, pending)
        return written

    def _write(self, page: int, buffers: list[bytes]) -> None:
        self.ensure_writable()
        try:
            self.file.write_at(page * self.shape.page_size, buffers)
        except OSError as error:
            self.failed = error
            raise

    def write_meta(self, meta: Meta) -> None:
        """Overwrite the older slot (not synced)."""
        self.ensure_writable()
        try:
            slot = encode_slot(meta, self.shape.page_size)
            self.file.write_at(SLOT_OFFSETS[meta.sequence % 2], [slot])
        except OSError as error:
            self.failed = error
            raise

    def sync(self) -> None:
        """Return once everything written is on the medium; a failure is final."""
        self.ensure_writable()
        try:
            self.file.sync()
        except OSError as error:
            self.failed = error
            raise

    def allocate(self, page_count: int) -> None:
        """Make the file hold ``page_count`` pages; `ENOSPC` leaves everything as it was."""
        with self._size_lock:
            self._wanted_pages = max(self._wanted_pages, page_count)
            self.file.allocate(page_count * self.shape.page_size)

    def shorten(self, page_count: int) -> None:
        """From now on `cut` may cut the file to ``page_count`` pages, and to what is allocated
        meanwhile. Neither slot reaches further, and no checkpoint runs until the cut is done."""
        with self._size_lock:
            self._wanted_pages = page_count

    def cut(self) -> bool:
        """Cut one piece off the file's end; False once it is as short as it may be.

        In pieces: `allocate` may wait for one on the event loop, and cutting a gigabyte takes
        tens of milliseconds. Not synced: undone by a crash, it leaves a longer file.
        """
        with self._size_lock:
            size = self.file.size()
            wanted = self._wanted_pages * self.shape.page_size
            if size <= wanted:
                return False
            self.file.truncate(max(wanted, size - CUT_SIZE_BYTES))
            return True

    def ensure_writable(self) -> None:
        """Raise `Unavailable` once a write or sync failed."""
        if self.failed is not None:
            raise Unavailable(
                f"{self.file.path} could not be written ({self.failed}); the store is read-only "
                "until it is opened again. Check the disk first."
            ) from self.failed
