"""The import itself: reads the source, sends batches, gathers the report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from treestore.bulk.lines import Batch
from treestore.bulk.sources import Source, open_source
from treestore.errors import InvalidArgument, TreeStoreError
from treestore.model.bulk import BulkMode, BulkProgress, BulkReport, RejectedLine

REJECTIONS_MAX: Final = 1000

Progress = Callable[[int, int | None], object]
"""Called after each batch, with the bytes of the source that were read, and all of them (None: not
known)."""


class Imports(Protocol):
    """What is asked of the ``namespaces`` service; all of it awaited."""

    def bulk_begin(self, name: str, import_id: str, *, mode: BulkMode) -> Awaitable[BulkProgress]:
        """See the service."""
        ...

    def bulk_write(self, name: str, **batch: Any) -> Awaitable[BulkProgress]:
        """See the service."""
        ...

    def bulk_end(self, name: str, import_id: str) -> Awaitable[BulkProgress]:
        """See the service."""
        ...

    def bulk_abort(self, name: str, import_id: str) -> Awaitable[bool]:
        """See the service."""
        ...


InThread = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]
"""Runs what may wait for a disk."""


class Import:
    """One import, from its source into a namespace."""

    def __init__(
        self, service: Imports, name: str, source: Source, on_progress: Progress | None
    ) -> None:
        self._service = service
        self._name = name
        self._source = source
        self._on_progress = on_progress
        self._import_id: str | None = None
        self._before = 0
        """Lines that an earlier attempt has done."""
        self._seen = 0
        self._stored = self._rejected = 0
        self._rejections: list[RejectedLine] = []

    async def run(self, in_thread: InThread, mode: BulkMode, import_id: str | None) -> BulkReport:
        """Do it; see ``namespaces.bulk``."""
        began = time.monotonic()
        is_named = import_id is not None
        if import_id is None and mode != "best_effort":
            import_id = f"bulk-{time.time_ns():x}"
        if import_id is not None:
            known = await self._service.bulk_begin(self._name, import_id, mode=mode)
            self._import_id, self._before = import_id, known.lines
            self._stored, self._rejected = known.stored, known.rejected
        try:
            await self._write(in_thread)
        except BaseException:
            if import_id is not None and not is_named:
                await self._give_up(import_id)
            raise
        return BulkReport(
            applied=await self._end(mode),
            lines=self._seen,
            stored=self._stored,
            rejected=self._rejected,
            rejections=tuple(self._rejections),
            resumed_at=self._before,
            seconds=time.monotonic() - began,
        )

    async def _write(self, in_thread: InThread) -> None:
        source = self._source
        if source.pieces is not None:
            async for piece in source.pieces:
                for batch in source.feed(piece):
                    await self._take(batch)
            for batch in source.end():
                await self._take(batch)
        else:
            while (next_one := await in_thread(source.read)) is not None:
                await self._take(next_one)
        if self._seen < self._before:
            raise InvalidArgument(
                f"Import {self._import_id!r:.100} has done {self._before} lines, and the source "
                f"has {self._seen}: it is not the one that the import began with."
            )

    async def _take(self, batch: Batch) -> None:
        """Send a batch, where it is not done yet."""
        self._seen += batch.count
        if self._seen > self._before:
            answer = await self._service.bulk_write(
                self._name,
                first=batch.first,
                lines=batch.lines,
                documents=batch.documents,
                import_id=self._import_id,
            )
            if self._import_id is None:
                self._stored += answer.stored
                self._rejected += answer.rejected
            else:
                self._stored, self._rejected = answer.stored, answer.rejected
            room = REJECTIONS_MAX - len(self._rejections)
            self._rejections += answer.rejections[:room]
        if self._on_progress is not None:
            self._on_progress(batch.read_bytes, self._source.size_bytes)

    async def _end(self, mode: BulkMode) -> bool:
        """Whether what was stored is there."""
        if self._import_id is None:
            return True
        if mode == "all_or_nothing" and self._rejected:
            await self._service.bulk_abort(self._name, self._import_id)
            return False
        await self._service.bulk_end(self._name, self._import_id)
        return True

    async def _give_up(self, import_id: str) -> None:
        """Nobody knows this import's name: leave nothing of it behind, as far as that can be."""
        with contextlib.suppress(TreeStoreError):
            await self._service.bulk_abort(self._name, import_id)


async def import_documents(
    service: Imports,
    in_thread: InThread,
    name: str,
    source: Any,
    *,
    format: str | None = None,
    mode: BulkMode = "best_effort",
    import_id: str | None = None,
    on_progress: Progress | None = None,
) -> BulkReport:
    """See ``namespaces.bulk``."""
    opened = open_source(source, format)
    try:
        return await Import(service, name, opened, on_progress).run(in_thread, mode, import_id)
    finally:
        opened.close()
