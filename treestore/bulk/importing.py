"""The import itself: reads the source, sends batches, gathers the report."""

from __future__ import annotations

import contextlib
import operator
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, cast

from treestore.bulk.lines import Batch
from treestore.bulk.sources import Source, open_source
from treestore.bulk.threads import in_thread
from treestore.errors import InvalidArgument, TreeStoreError
from treestore.model.bulk import BulkMode, BulkProgress, BulkReport, RejectedLine
from treestore.stores.composite import Steps
from treestore.stores.json_values import check_values, encode, not_json
from treestore.stores.namespaces.imports import REJECTIONS_MAX
from treestore.stores.namespaces.writing import documents_to_wire

Progress = Callable[[int, int | None], object]
"""Called after each batch, with the bytes of the source that were read, and all of them (None: not
known)."""


class Import:
    """One import, from its source into a namespace.

    ``steps`` is a `Steps` of the service, or anything with the operations that it names.
    """

    def __init__(self, steps: Any, name: str, source: Source, on_progress: Progress | None) -> None:
        self._steps = steps
        self._name = name
        self._source = source
        self._on_progress = on_progress
        self._import_id: str | None = None
        self._before = 0
        """Lines that an earlier attempt has done."""
        self._seen = 0
        self._stored = self._rejected = 0
        self._rejections: dict[int, RejectedLine] = {}

    async def run(self, mode: BulkMode, import_id: str | None) -> BulkReport:
        """Do it; see ``namespaces.bulk``."""
        began = time.monotonic()
        is_named = import_id is not None
        if import_id is None and mode != "best_effort":
            import_id = f"bulk-{time.time_ns():x}"
        if import_id is not None:
            known = await self._steps.bulk_begin(self._name, import_id, mode=mode)
            self._import_id, self._before = import_id, known.lines
            self._stored, self._rejected = known.stored, known.rejected
            self._tell(known.rejections)
        try:
            await self._write()
        except BaseException as error:
            if isinstance(error, TreeStoreError) and mode == "best_effort" and self._seen:
                self._add_progress(error)
            if import_id is not None and not is_named:
                # Cancelled, it is left behind: `bulk_imports` tells.
                await self._give_up(import_id)  # noqa: ASYNC102
            raise
        return BulkReport(
            applied=await self._end(mode),
            lines=self._seen,
            stored=self._stored,
            rejected=self._rejected,
            rejections=tuple(self._rejections.values()),
            resumed_at=self._before,
            seconds=time.monotonic() - began,
        )

    async def _write(self) -> None:
        source = self._source
        if source.pieces is not None:
            async for piece in source.pieces:
                for batch in source.feed(piece):
                    await self._take(batch)
            for batch in source.end():
                await self._take(batch)
        else:
            while (next_one := await self._read()) is not None:
                await self._take(next_one)
        if self._seen < self._before:
            raise InvalidArgument(
                f"Import {self._import_id!r:.100} has done {self._before} lines, and the source "
                f"has {self._seen}: it is not the one that the import began with."
            )

    def _add_progress(self, error: TreeStoreError) -> None:
        """Say in an error that ends the import what it leaves behind."""
        error.details |= {"lines": self._seen, "stored": self._stored}
        error.message += (
            f" The {self._seen:,} lines before that batch are done: {self._stored:,} documents are "
            "stored."
        )
        error.args = (error.message,)

    async def _read(self) -> Batch | None:
        """The next batch, read beside the event loop where there is one."""
        if self._steps.blocks:
            return self._source.read()
        return await in_thread(self._source.read)

    async def _take(self, batch: Batch) -> None:
        """Send a batch, where it is not done yet."""
        seen = self._seen + batch.count
        if seen > self._before:
            answer = await self._written(batch)
            if self._import_id is None:
                self._stored += answer.stored
                self._rejected += answer.rejected
            else:
                self._stored, self._rejected = answer.stored, answer.rejected
            self._tell(answer.rejections)
        self._seen = seen
        if self._on_progress is not None:
            self._on_progress(batch.read_bytes, self._source.size_bytes)

    def _tell(self, rejections: Sequence[RejectedLine]) -> None:
        """Gather the first rejected lines; an answer may tell of some again."""
        for one in rejections:
            if len(self._rejections) < REJECTIONS_MAX:
                self._rejections[one.line] = one

    async def _written(self, batch: Batch) -> BulkProgress:
        """What became of a batch."""
        write = partial(
            self._steps.bulk_write, self._name, first=batch.first, import_id=self._import_id
        )
        if batch.documents is None:
            return cast("BulkProgress", await write(lines=batch.lines))
        try:
            return cast("BulkProgress", await write(documents=batch.documents))
        except InvalidArgument:
            # Nothing of it is stored. Is there one among them that cannot be sent?
            documents = [_sendable(document) for document in batch.documents]
            if all(map(operator.is_, documents, batch.documents)):
                raise
        return cast("BulkProgress", await write(documents=documents))

    async def _end(self, mode: BulkMode) -> bool:
        """Whether what was stored is there."""
        if self._import_id is None:
            return True
        if mode == "all_or_nothing" and self._rejected:
            await self._steps.bulk_abort(self._name, self._import_id)
            return False
        await self._steps.bulk_end(self._name, self._import_id)
        return True

    async def _give_up(self, import_id: str) -> None:
        """Nobody knows this import's name: leave nothing of it behind, as far as that can be."""
        with contextlib.suppress(TreeStoreError):
            await self._steps.bulk_abort(self._name, import_id)


def _sendable(document: object) -> object:
    """A document, or why it cannot be sent, to be rejected under its number."""
    try:
        (travels,) = documents_to_wire([document])
        check_values(travels, "It")
        encode(travels)
    except InvalidArgument as error:
        return error.message
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return not_json(error, "It").message
    return document


async def bulk(
    steps: Steps,
    name: str,
    source: Any,
    *,
    format: Literal["ndjson", "parquet", "arrow"] | None = None,
    mode: BulkMode = "best_effort",
    import_id: str | None = None,
    on_progress: Progress | None = None,
) -> BulkReport:
    """Store many documents, as they come from a file or a stream.

    They are read where the caller is, and sent in batches of at most 1,000; memory does not grow
    with the source. What cannot be stored is rejected line by line, and told.

    Args:
        name: of the namespace.
        source: the path of a file (NDJSON, also as ``.gz``; with the extra ``arrow`` Parquet and
            Arrow files), a binary file that is open, NDJSON text as bytes, or an iterable
            (asynchronous, too) of documents or of NDJSON text in pieces of any size. A line is a
            document as `upsert` takes it.
        format: ``ndjson``, ``parquet`` or ``arrow``; None: by the file's suffix, else ``ndjson``.
        mode: ``best_effort`` stores every document that can be stored, batch by batch.
            ``all_or_nothing`` shows nothing before the end, then all at once, and nothing where a
            line was rejected.
        import_id: makes it resumable: called again with the same id and source after it was cut
            off, it goes on behind the last line that was stored (`bulk_imports` tells).
        on_progress: called after each batch with the bytes of the source that were read, and all
            of them (None where that is not known).

    Returns:
        What became of it, earlier attempts included, with the first 1,000 rejected lines.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: the source cannot be read.
        AlreadyExists: an import of that id is under way in the other mode.

    Cancellation: batches that were sent stay (in mode ``all_or_nothing`` unseen); with an
    ``import_id`` it can be gone on with, or given up with `bulk_abort`.
    """
    opened = open_source(source, format)
    try:
        return await Import(steps, name, opened, on_progress).run(mode, import_id)
    finally:
        opened.close()
