"""The part of the engine that minds the size of the page file: reserving room, giving it back.

Everything here is done on the owner's thread; see ``docs/space.md``.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from treestore.engine.freespace import FreeSpace
from treestore.engine.log import Log
from treestore.engine.meta import Meta
from treestore.engine.options import EngineOptions
from treestore.engine.pagefile import PageFile
from treestore.errors import ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from treestore.engine.checkpoint import Checkpoint

GROWTH_PAGES = 512
"""The page file grows by at least this many pages, and by an eighth of its size, at a time."""


class SpacePart:
    """Room in the page file, for `Engine`, which owns what is named here."""

    options: EngineOptions
    pages: PageFile
    log: Log
    free_space: FreeSpace
    slots: list[Meta]
    checkpoint: Checkpoint | None
    dirty_pages: int
    _room_pages: int
    _file_pages: int
    _pages_short: bool

    def pins(self) -> Sequence[int]:
        """See `Engine.pins`."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """See `Engine.fail`."""
        raise NotImplementedError

    def read_only(self) -> Unavailable:
        """See `Engine.read_only`."""
        raise NotImplementedError

    def _measure_room(self) -> None:
        """How many pages a checkpoint can use without asking the disk for more."""
        size = self.pages.file.size() // self.pages.shape.page_size
        self._file_pages = max(size, self.free_space.page_count)
        self._room_pages = (
            self.free_space.free_pages() + self._file_pages - self.free_space.page_count
        )

    @property
    def short_of_space(self) -> bool:
        """Whether the disk had no room when it was last asked, or the log's reserve is in use.

        Checkpoints then let go of everything that is not needed, at once; and where something is
        refused, one may help.
        """
        return self._pages_short or self.log.short or self.log.lacks_reserve

    def _grow(self, created: int = 0, frees: bool = True) -> None:
        """Reserve disk space for what is dirty, before it becomes more.

        Args:
            created: pages that the transaction to be committed makes dirty; 0 before it begins.
            frees: whether it frees space; before it begins it may.
        """
        dirty, headroom = self.dirty_pages + created, self.options.headroom_pages
        missing = dirty + headroom - self._room_pages
        step = max(missing, GROWTH_PAGES, self._file_pages // 8)
        if self._reserve(step) or self._reserve(missing):
            return
        if self.checkpoint is None and self.free_space.reclaim(self.pins()):
            # A snapshot was in the way when the last checkpoint looked.
            self._measure_room()
            if dirty + headroom <= self._room_pages:
                return
        # The headroom is there to be used by what frees space: half of it by commands, so that
        # the checkpoint has the other half for its list of free space. What one command needs is
        # not known when it begins.
        left = self._room_pages - dirty
        if not frees or left < headroom // (4 if created else 2):
            raise ResourceExhausted(
                "The disk is full: nothing more can be stored. Delete something, or free some "
                "space on the disk."
            )

    def _reserve(self, pages: int) -> bool:
        """Let the page file grow by ``pages``; False where the disk has no room for them."""
        try:
            self.pages.allocate(self._file_pages + pages)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                # The log hears of it too, and lets go of what it can. Its own next success says
                # nothing about pages, though.
                self._pages_short = self.log.short = True
                return False
            self.fail(error)
            raise self.read_only() from error
        self._pages_short = self.log.short = False
        self._file_pages += pages
        self._room_pages += pages
        return True

    @property
    def file_pages(self) -> int:
        """Pages that the page file has room for."""
        return self._file_pages

    def spare_pages(self) -> int:
        """Pages that are free, or were never used, beyond what should be kept at hand."""
        return self._room_pages - self.dirty_pages - self._reserve_pages()

    def move_room(self, created: int = 0) -> int:
        """Pages that a compaction may make dirty without taking them from anybody else.

        Args:
            created: what it made dirty since that was last booked.
        """
        return self._room_pages - self.dirty_pages - created - 2 * self.options.headroom_pages

    def _reserve_pages(self) -> int:
        """Room that a shortened file keeps, beside what is dirty: so that it need not grow again
        at once."""
        headroom = self.options.headroom_pages
        return headroom + headroom // 4 + self.free_space.page_count // 16

    def shorten(self) -> int:
        """Give up what the file has beyond the page counts of both slots, and some room.

        While no checkpoint runs; `PageFile.cut` then does it, on any thread.

        Returns:
            By how many pages the file may be cut.
        """
        free = self.free_space
        reach = max(free.page_count, *(meta.page_count for meta in self.slots))
        target = reach + max(0, self.dirty_pages + self._reserve_pages() - free.free_pages())
        surplus = self._file_pages - target
        if self.checkpoint is not None or surplus <= 0:
            return 0
        self._file_pages -= surplus
        self._room_pages -= surplus
        self.pages.shorten(target)
        return surplus
