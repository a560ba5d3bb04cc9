"""Errors as HTTP tells them: a status, and one form of JSON for all of them.

    {"error": {"code": "not_found", "message": "…", "details": {…}, "request_id": "…"}}

``code`` is that of `treestore.errors`, the same as on every edge. What HTTP alone knows (a method
that a path does not have, a body of the wrong type) is one of those too: a program that handles
``invalid_argument`` needs no list of the status codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from treestore.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TreeStoreError,
    Unauthenticated,
    Unavailable,
)

Headers = tuple[tuple[bytes, bytes], ...]

JSON = (b"content-type", b"application/json")

MESSAGE_SIZE_MAX = 4096
"""Characters of an error's message that are sent."""

STATUSES: Mapping[str, int] = {
    "invalid_argument": 400,
    "protocol_error": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "already_exists": 409,
    "transaction_conflict": 409,
    "snapshot_expired": 410,
    "feed_expired": 410,
    "rate_limited": 429,
    "internal": 500,
    "corruption": 500,
    "restore_incomplete": 500,
    "unavailable": 503,
    "deadline_exceeded": 504,
    # The write may have been applied: not 5xx with a retry in mind, but nothing else fits either.
    "outcome_unknown": 500,
    # No room for it now (507 is WebDAV's, and known to fewer clients).
    "resource_exhausted": 503,
}
"""The status of each code of `treestore.errors`. Those of 5xx other than 503 are not for sending
again; 503 and 429 say in ``Retry-After`` when to."""

FAULT = "A fault in TreeStore; the server's log has the details, under this request's id."

RETRY_AFTER_S = 1


class Problem(TreeStoreError):
    """An error with a status of its own.

    Attributes:
        status: in place of the one that belongs to the code.
        headers: to be sent with it.
    """

    def __init__(
        self, status: int, error: type[TreeStoreError], message: str, headers: Headers = ()
    ) -> None:
        super().__init__(message)
        self.kind = error.code
        self.status = status
        self.headers = headers


def status_of(error: TreeStoreError) -> int:
    """The HTTP status that tells of ``error``."""
    return error.status if isinstance(error, Problem) else STATUSES.get(error.code, 500)


def code_of(error: Exception) -> str:
    """The stable code of ``error``."""
    if isinstance(error, Problem):
        return error.kind
    return error.code if isinstance(error, TreeStoreError) else "internal"


def told(error: Exception, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body that tell of ``error``; nothing of what nobody foresaw."""
    if not isinstance(error, TreeStoreError):
        return 500, (), body_of("internal", FAULT, {}, request_id)
    status = status_of(error)
    headers: Headers = ()
    if isinstance(error, Problem):
        headers = error.headers
    elif status in (429, 503):
        headers = ((b"retry-after", str(retry_after_s(error)).encode()),)
    elif status == 401:
        headers = ((b"www-authenticate", b'ApiKey realm="TreeStore"'),)
    return status, headers, body_of(code_of(error), error.message, error.details, request_id)


def retry_after_s(error: TreeStoreError) -> int:
    """Whole seconds to wait before another attempt, at least 1 (the header has no fractions)."""
    seconds = error.details.get("retry_after_s", RETRY_AFTER_S)
    if isinstance(seconds, int | float) and 0 < seconds < math.inf:
        return math.ceil(seconds)
    return RETRY_AFTER_S


def body_of(code: str, message: str, details: Mapping[str, Any], request_id: str) -> bytes:
    """The JSON of an error. Never raises for what ``details`` hold."""
    if len(message) > MESSAGE_SIZE_MAX:
        message = message[:MESSAGE_SIZE_MAX] + "…"
    error = {"code": code, "message": message, "details": details, "request_id": request_id}
    try:
        return msgspec.json.encode({"error": error}) + b"\n"
    except Exception:  # Details that JSON cannot carry, or text that is not UTF-8.
        error["message"] = message.encode("utf-8", "replace").decode()
        error["details"] = {}
        return msgspec.json.encode({"error": error}) + b"\n"


KINDS: Mapping[int, type[TreeStoreError]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    408: InvalidArgument,
    413: ResourceExhausted,
    429: ResourceExhausted,
    501: Unavailable,
    503: Unavailable,
}


def problem(status: int, message: str, headers: Headers = ()) -> Problem:
    """An error that HTTP alone knows of."""
    return Problem(status, KINDS.get(status, InvalidArgument), message, headers)


def phrase(status: int) -> str:
    """``Not Found`` of 404."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
