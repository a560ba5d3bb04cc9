"""NDJSON, cut into batches of whole lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

LINE_SIZE_BYTES_MAX: Final = 16 << 20
"""Of one line: about a document of 16,384 dimensions with megabytes of text."""

LEFT_OUT: Final = (
    f'"A line of more than {LINE_SIZE_BYTES_MAX >> 20} MiB, which was left out. Is this NDJSON?"'
).encode()
"""Stands in its place, to be rejected under its number; what is too long is never kept."""

BATCH_SIZE_BYTES: Final = 2 << 20
"""A batch ends with the line that makes it so long ..."""

BATCH_LINES: Final = 1000
"""... or with this many lines."""

_MARK: Final = b"\xef\xbb\xbf"


@attrs.frozen
class Batch:
    """Some documents that follow each other in the source.

    Attributes:
        first: number of the first one: its line, or (where there are no lines) its place, from 1.
        count: lines, empty ones included, or documents.
        lines: NDJSON text of whole lines; None where there are ``documents``.
        documents: as ``namespaces.upsert`` takes them; None where there are ``lines``.
        read_bytes: how much of the source was read for this batch and those before.
    """

    first: int
    count: int
    lines: bytes | None = None
    documents: list[object] | None = None
    read_bytes: int = 0


class LineCutter:
    """Takes NDJSON in pieces of any size and gives batches of whole lines.

    Memory: what is not given yet, which is less than a batch, a line and a piece.
    """

    def __init__(
        self, *, batch_lines: int = BATCH_LINES, batch_size_bytes: int = BATCH_SIZE_BYTES
    ) -> None:
        self._lines_max = batch_lines
        self._size_max = batch_size_bytes
        self._pending = bytearray()
        self._searched = 0
        """Of ``_pending``: there is no end of a line before this, since the batch's last one."""
        self._whole = 0
        """Of ``_pending``: whole lines, ``_count`` of them."""
        self._count = 0
        self._next = 1
        self._read = 0
        self._begun = False
        self._skipping = False
        """The line at the end of ``_pending`` is too long: what comes up to its end is dropped."""

    @property
    def pending_bytes(self) -> int:
        """What was fed and not given yet."""
        return len(self._pending)

    def feed(self, piece: bytes | bytearray | memoryview) -> Iterator[Batch]:
        """The batches that ``piece`` completes."""
        self._read += len(piece)
        self._pending += piece
        # As long as it may be the beginning of a mark there is no end of a line in it.
        if not self._begun and not _MARK.startswith(self._pending):
            self._begun = True
            if self._pending.startswith(_MARK):
                del self._pending[: len(_MARK)]
                self._searched = 0
        while True:
            end = self._pending.find(b"\n", self._searched)
            size = (len(self._pending) if end < 0 else end) - self._whole
            if self._skipping or size > LINE_SIZE_BYTES_MAX:
                end = self._leave_out(size, ends=end >= 0)
            if end < 0:
                self._searched = len(self._pending)
                return
            self._searched = self._whole = end + 1
            self._count += 1
            if self._count >= self._lines_max or self._whole >= self._size_max:
                yield self._taken()

    def _leave_out(self, size: int, *, ends: bool) -> int:
        """Drop what there is of a line that is too long; where it ends then, -1 if it does not."""
        self._skipping = not ends
        self._pending[self._whole : self._whole + size] = LEFT_OUT if ends else b""
        return self._whole + len(LEFT_OUT) if ends else -1

    def end(self) -> Iterator[Batch]:
        """The last batch, where there is something left: a line may lack its end."""
        if self._pending == _MARK and not self._begun:
            self._pending.clear()
        if self._skipping:
            self._skipping = False
            self._pending += LEFT_OUT
        if len(self._pending) > self._whole:
            self._whole = len(self._pending)
            self._count += 1
        if self._count:
            yield self._taken()

    def _taken(self) -> Batch:
        batch = Batch(
            self._next, self._count, bytes(self._pending[: self._whole]), read_bytes=self._read
        )
        del self._pending[: self._whole]
        self._next += self._count
        self._count = self._whole = self._searched = 0
        return batch
