"""The views of a database's namespaces: made when the first query needs them.

What they are is in ``docs/namespaces.md``, "The view". Importing what searches takes a moment, so
that is not done before.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import attrs

from treestore.engine.changes import notes_of
from treestore.engine.engine import Engine
from treestore.loggers import get_logger
from treestore.search.together import Together, one_by_one

if TYPE_CHECKING:
    from treestore.stores.namespaces.live.files import SegmentFolder
    from treestore.stores.namespaces.live.loading import DamagedSegment
    from treestore.stores.namespaces.live.view import View
    from treestore.stores.namespaces.live.views import Views

log = get_logger("treestore.namespace_views")

FOLDER = Path("search", "namespaces")
"""In the data directory; ``segments`` and ``texts`` are in it."""


@attrs.frozen(kw_only=True)
class ViewStatistics:
    """A snapshot of the views' numbers.

    Attributes:
        loaded: views.
        size_bytes: that they take, mapped files included.
        budget_bytes: the most that they are to take.
        queries: answered from views.
        hits: of these, those that found the view loaded.
        queries_from_tree: answered by looking at every document.
        loads: of views.
        evicted: views that were let go of, to keep the budget.
        segments: in loaded views.
        tail_rows: in loaded views, rows that no segment holds.
    """

    loaded: int = 0
    size_bytes: int = 0
    budget_bytes: int = 0
    queries: int = 0
    hits: int = 0
    queries_from_tree: int = 0
    loads: int = 0
    evicted: int = 0
    segments: int = 0
    tail_rows: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits of all queries, 0 to 1; 1 where there were none."""
        return self.hits / self.queries if self.queries else 1.0


class NamespaceViews:
    """Of one engine. Any thread.

    Attributes:
        path: of the folder.
        damaged: segments whose files cannot be used, by their namespaces' numbers, until the keeper
            has seen to them.
    """

    def __init__(
        self,
        engine: Engine,
        directory: str,
        size_bytes_max: int,
        together: Together = one_by_one,
    ) -> None:
        """Where they will be.

        Args:
            engine: whose states are viewed.
            directory: the database's.
            size_bytes_max: of the views that stay loaded, mapped files included.
            together: does parts of queries' work.
        """
        # Absolute: the process may change its directory.
        self.path = Path(directory).absolute() / FOLDER
        self.damaged: dict[int, list[DamagedSegment]] = {}
        self._engine = engine
        self._together = together
        self._size_bytes_max = size_bytes_max
        self._lock = threading.Lock()
        self._made: Views | None = None

    @property
    def segments(self) -> SegmentFolder:
        """The folder of segments' files."""
        from treestore.stores.namespaces.live.files import SegmentFolder

        return SegmentFolder(self.segments_path, UUID(bytes=self._engine.identity.database_uuid))

    @property
    def segments_path(self) -> Path:
        """Where that is."""
        return self.path / "segments"

    @property
    def texts_path(self) -> Path:
        """Where full-text indexes are: a folder for each namespace, by its number."""
        return self.path / "texts"

    def tidy(self) -> None:
        """Keep the budget, and let go of views that are not as fast as they could be."""
        if self._made is not None:
            self._made.forget_incomplete()
            self._made.shrink()

    @property
    def made(self) -> Views | None:
        """The views, if any query needed them yet."""
        return self._made

    def views(self) -> Views:
        """The views."""
        with self._lock:
            if self._made is None:
                from treestore.stores.namespaces.live.views import Views

                engine = self._engine
                self._made = Views(
                    lambda after, until: notes_of(engine.log.groups_after(after, until)),
                    self.segments.open,
                    size_bytes_max=self._size_bytes_max,
                    together=self._together,
                    damaged=self._note_damaged,
                    lost=_note_lost,
                )
            return self._made

    def statistics(self) -> ViewStatistics:
        """The numbers now."""
        if self._made is None:
            return ViewStatistics(budget_bytes=self._size_bytes_max)
        its, views = self._made.counters, self._made.follower.views()
        return ViewStatistics(
            loaded=len(views),
            size_bytes=sum(view.size_bytes() for view in views),
            budget_bytes=self._size_bytes_max,
            queries=its.queries,
            hits=its.hits,
            queries_from_tree=its.queries_from_tree,
            loads=its.loads,
            evicted=its.evicted,
            segments=sum(len(view.sealed_parts()) for view in views),
            tail_rows=sum(
                len(part.content)
                for view in views
                for part in view.newest.parts
                if part.segment is None
            ),
        )

    def _note_damaged(self, number: int, damaged: list[DamagedSegment]) -> None:
        self.damaged[number] = damaged
        for one in damaged:
            log.error("a segment of a namespace is damaged", namespace=number, why=one.why)


def _note_lost(view: View) -> None:
    log.warning("a view of a namespace is loaded again", namespace=view.number, why=view.lost)
