"""What bulk imports answer."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import attrs

from treestore.model.namespaces import DocumentId

BulkMode = Literal["best_effort", "all_or_nothing"]
"""Whether what can be stored is stored, or nothing where a line is rejected."""


@attrs.frozen(kw_only=True)
class RejectedLine:
    """A document that was not stored.

    Attributes:
        line: its line in the source, or (where there are no lines) its place; the first one is 1.
        error: why, in a sentence.
        id: of the document, where it has one.
    """

    line: int
    error: str
    id: DocumentId | None = None


@attrs.frozen(kw_only=True)
class BulkProgress:
    """How far an import is, as the store knows it.

    Attributes:
        import_id: its name; None for one that cannot be resumed.
        namespace: that it goes into.
        mode: ``best_effort`` or ``all_or_nothing``.
        lines: of the source, from its beginning, that are done.
        stored: documents of these that were stored (an id that came twice counts twice).
        rejected: lines of these that were not.
        rejections: which ones and why; at most 1,000. `bulk_write` tells of the lines of its
            batch, `bulk_begin` and `bulk_end` of all of them, `bulk_imports` of none.
        started_at: when it began (UTC); None for one that cannot be resumed.
    """

    import_id: str | None = None
    namespace: str = ""
    mode: BulkMode = "best_effort"
    lines: int = 0
    stored: int = 0
    rejected: int = 0
    rejections: tuple[RejectedLine, ...] = ()
    started_at: datetime | None = None


@attrs.frozen(kw_only=True)
class BulkReport:
    """What became of an import.

    Attributes:
        applied: whether what was stored is there. False only of an import in mode
            ``all_or_nothing`` of which a line was rejected: nothing of it is there.
        lines: of the source; empty ones included.
        stored: documents that were stored (an id that came twice counts twice).
        rejected: lines that were not.
        rejections: which ones and why, in their order, an earlier attempt's too; the first 1,000.
        resumed_at: lines that an earlier attempt had done already.
        seconds: that it took.
    """

    applied: bool
    lines: int
    stored: int
    rejected: int = 0
    rejections: tuple[RejectedLine, ...] = ()
    resumed_at: int = 0
    seconds: float = 0.0
