"""What a session says of its requests, once they are answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from actors.observability.requests import ABANDONED, CANCELLED
from actors.session_work import Command, Task
from protocol.messages import Request

if TYPE_CHECKING:
    from actors.session import Session


def report_at_once(session: Session, request: Request, duration_s: float) -> None:
    """Count a request that was answered while it was taken."""
    failed, session._answers.failed = session._answers.failed, None
    requests = session._shared.requests
    requests.ended(session.number, request.id, request.method, duration_s, failed)


def report(session: Session, entry: Command | Task, *, abandoned: bool = False) -> None:
    """Count a request that had to wait, and whose answer was queued, or (``abandoned``) that has
    nobody to get it."""
    if not entry.began:
        return  # It was answered while it was taken: `report_at_once` counts it.
    failed, session._answers.failed = session._answers.failed, None
    if abandoned:
        failed = (ABANDONED, "")
    elif failed is not None and entry.cancelled:
        failed = (CANCELLED, "")
    session._shared.requests.ended(
        session.number,
        entry.id,
        entry.method,
        time.perf_counter() - entry.began,
        failed,
        endless=type(entry) is Task and entry.endless,
    )
