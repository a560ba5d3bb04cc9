"""The views of a database's namespaces: made when the first query needs them.

What they are is in ``docs/namespaces.md``, "The view". Importing what searches takes a moment, so
that is not done before.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from treestore.engine.changes import notes_of
from treestore.engine.engine import Engine

if TYPE_CHECKING:
    from treestore.stores.namespaces.live.files import SegmentFolder
    from treestore.stores.namespaces.live.loading import DamagedSegment
    from treestore.stores.namespaces.live.view import View
    from treestore.stores.namespaces.live.views import Views

log = structlog.get_logger("treestore.namespace_views")

FOLDER = Path("search", "namespaces")
"""In the data directory; ``segments`` and ``texts`` are in it."""


class NamespaceViews:
    """Of one engine. Any thread.

    Attributes:
        path: of the folder.
        damaged: segments whose files cannot be used, by their namespaces' numbers, until the keeper
            has seen to them.
    """

    def __init__(self, engine: Engine, directory: str) -> None:
        # Absolute: the process may change its directory.
        self.path = Path(directory).absolute() / FOLDER
        self.damaged: dict[int, list[DamagedSegment]] = {}
        self._engine = engine
        self._lock = threading.Lock()
        self._made: Views | None = None

    @property
    def segments(self) -> SegmentFolder:
        """The folder of segments' files."""
        from treestore.stores.namespaces.live.files import SegmentFolder

        return SegmentFolder(
            self.path / "segments", UUID(bytes=self._engine.identity.database_uuid)
        )

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
                    damaged=self._note_damaged,
                    lost=_note_lost,
                )
            return self._made

    def _note_damaged(self, number: int, damaged: list[DamagedSegment]) -> None:
        self.damaged[number] = damaged
        for one in damaged:
            log.error("a segment of a namespace is damaged", namespace=number, why=one.why)


def _note_lost(view: View) -> None:
    log.warning("a view of a namespace is loaded again", namespace=view.number, why=view.lost)
