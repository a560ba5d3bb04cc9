"""The errors that TreeStore raises.

Every error is a `TreeStoreError` with a stable ``code``: the string that travels over every edge
(TCP, HTTP) and that a client turns back into the same class. A message is one sentence or two
that tell a person what happened and what to do about it.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TreeStoreError(Exception):
    """Base of everything that TreeStore raises on purpose.

    Attributes:
        code: stable name of the kind of error, the same on every edge.
        message: the sentence for people; also ``str(error)``.
        details: extra facts for programs, JSON-like; empty for most errors.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class NotFound(TreeStoreError):
    """What was asked for does not exist (at the snapshot that was read)."""

    code = "not_found"


class AlreadyExists(TreeStoreError):
    """What should be created is there already."""

    code = "already_exists"


class InvalidArgument(TreeStoreError):
    """The request can never succeed as it is; change it before sending it again."""

    code = "invalid_argument"


class TransactionConflict(TreeStoreError):
    """Another transaction changed what this one read; run it again."""

    code = "transaction_conflict"


class SnapshotExpired(TreeStoreError):
    """The snapshot was evicted or its connection is gone; open a new one.

    Attributes:
        cursor: for a scan that was cut off, where to go on on a new snapshot: the ``start`` of a
            forward scan, the ``end`` of a reverse one; every item before it was delivered. None
            where nothing was delivered, and for everything that is no scan. Also in ``details``.
    """

    code = "snapshot_expired"

    def __init__(self, message: str, *, cursor: bytes | None = None, **details: Any) -> None:
        if cursor is not None:
            details["cursor"] = cursor
        super().__init__(message, **details)
        self.cursor = cursor


class FeedExpired(SnapshotExpired):
    """A feed of changes cannot go on from that position: the log was trimmed beyond it, or the
    position is of another database or another history (before a restore). Read anew from a
    snapshot, then watch from its ``position``.

    ``details`` have ``first_lsn`` and ``last_lsn``, the lowest and highest ``from_lsn`` that works
    now, and ``position``, the one that was asked for.
    """

    code = "feed_expired"


class Unauthenticated(TreeStoreError):
    """An API key is needed, and none was given, or one that is unknown, revoked or expired."""

    code = "unauthenticated"


class PermissionDenied(TreeStoreError):
    """The API key, or the operating system, does not allow this."""

    code = "permission_denied"


class RateLimited(TreeStoreError):
    """Too many requests; nothing was done. Wait and send it again.

    Attributes:
        retry_after_s: seconds after which it may be sent again; None: nobody said. Also in
            ``details``.
    """

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_s: float | None = None, **details: Any) -> None:
        if retry_after_s is not None:
            details["retry_after_s"] = retry_after_s
        super().__init__(message, **details)
        self.retry_after_s = retry_after_s


class ResourceExhausted(TreeStoreError):
    """A limit was met (size, memory, disk, connections); nothing was changed."""

    code = "resource_exhausted"


class DeadlineExceeded(TreeStoreError):
    """The deadline passed before the work was done; nothing was changed."""

    code = "deadline_exceeded"


class OutcomeUnknown(TreeStoreError):
    """A write may or may not have been applied; read before writing again."""

    code = "outcome_unknown"


class Unavailable(TreeStoreError):
    """The service cannot do this now (stopping, read-only, unreachable); try again later."""

    code = "unavailable"


class CorruptionError(TreeStoreError):
    """Stored bytes are not what was written; ``details`` name the file and offset."""

    code = "corruption"


class RestoreIncomplete(TreeStoreError):
    """A restore cannot reach the point that was asked for; ``details`` say how far it can go:
    ``reached_lsn`` and ``reached_time`` (ISO 8601)."""

    code = "restore_incomplete"


class ProtocolError(TreeStoreError):
    """The peer sent something that the protocol does not allow."""

    code = "protocol_error"


class InternalError(TreeStoreError):
    """A fault in TreeStore itself; the server's log has the traceback."""

    code = "internal"


BY_CODE: dict[str, type[TreeStoreError]] = {
    cls.code: cls
    for cls in (
        NotFound,
        AlreadyExists,
        InvalidArgument,
        TransactionConflict,
        SnapshotExpired,
        FeedExpired,
        Unauthenticated,
        PermissionDenied,
        RateLimited,
        ResourceExhausted,
        DeadlineExceeded,
        OutcomeUnknown,
        Unavailable,
        CorruptionError,
        RestoreIncomplete,
        ProtocolError,
        InternalError,
    )
}


def from_code(code: str, message: str, details: dict[str, Any] | None = None) -> TreeStoreError:
    """The error that ``code`` names, as received from an edge.

    An unknown code (from a newer server) becomes an `InternalError` whose message keeps the code.
    """
    cls = BY_CODE.get(code)
    if cls is None:
        return InternalError(f"{message} (unknown error code {code!r})", **(details or {}))
    return cls(message, **(details or {}))
