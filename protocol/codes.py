"""The stable error codes that travel in `Failure` and `Goodbye`.

They equal the codes of `treestore.errors` (tests/protocol/test_codes.py compares the two). This
package imports nothing of TreeStore, so that a client can be built from it alone.
"""

from __future__ import annotations

NOT_FOUND = "not_found"
ALREADY_EXISTS = "already_exists"
INVALID_ARGUMENT = "invalid_argument"
TRANSACTION_CONFLICT = "transaction_conflict"
SNAPSHOT_EXPIRED = "snapshot_expired"
FEED_EXPIRED = "feed_expired"
UNAUTHENTICATED = "unauthenticated"
PERMISSION_DENIED = "permission_denied"
RATE_LIMITED = "rate_limited"
RESOURCE_EXHAUSTED = "resource_exhausted"
DEADLINE_EXCEEDED = "deadline_exceeded"
OUTCOME_UNKNOWN = "outcome_unknown"
UNAVAILABLE = "unavailable"
CORRUPTION = "corruption"
RESTORE_INCOMPLETE = "restore_incomplete"
PROTOCOL_ERROR = "protocol_error"
INTERNAL = "internal"

ALL = frozenset(
    {
        NOT_FOUND,
        ALREADY_EXISTS,
        INVALID_ARGUMENT,
        TRANSACTION_CONFLICT,
        SNAPSHOT_EXPIRED,
        FEED_EXPIRED,
        UNAUTHENTICATED,
        PERMISSION_DENIED,
        RATE_LIMITED,
        RESOURCE_EXHAUSTED,
        DEADLINE_EXCEEDED,
        OUTCOME_UNKNOWN,
        UNAVAILABLE,
        CORRUPTION,
        RESTORE_INCOMPLETE,
        PROTOCOL_ERROR,
        INTERNAL,
    }
)
"""Every code of protocol version 1. A peer treats a code it does not know as ``internal``."""
