"""API keys and the audit trail, as the ``admin`` operations answer them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class ApiKey:
    """A new API key. Nothing but this object ever holds its secret in clear.

    Attributes:
        key_id: names the key in listings, in the audit trail and for ``revoke_key``.
        secret: what a client sends: ``ts_<key id>_<256 random bits>``. It is shown this once; the
            store keeps a salted hash. Left out of ``repr``.
        scopes: what it may do, in normal form.
        name: what people call it.
        expires_at: when it stops to work, UTC; None: never.
        rate_limit: requests a second; None: the server's own limit holds.
    """

    key_id: str
    secret: str = attrs.field(repr=False)
    scopes: tuple[str, ...]
    name: str = ""
    expires_at: datetime | None = None
    rate_limit: float | None = None


@attrs.frozen(kw_only=True)
class ApiKeyInfo:
    """What may be shown of an API key.

    Attributes:
        key_id: names it.
        name: what people call it.
        scopes: what it may do.
        status: ``active``, ``expired`` or ``revoked``.
        created_at: UTC.
        expires_at: when it stops to work; None: never.
        revoked_at: when it was revoked; None: it was not.
        last_used_at: when it was last used, to about a minute; None: never, as far as is known.
        rate_limit: requests a second; None: the server's own limit holds.
    """

    key_id: str
    name: str
    scopes: tuple[str, ...]
    status: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    rate_limit: float | None = None


@attrs.frozen(kw_only=True)
class AuditEntry:
    """Something administrative that was done, or tried.

    Attributes:
        at: when it ended, UTC.
        number: counts the entries of a store, from 1.
        operation: ``admin.backup``, ``collections.drop``, ….
        key_id: the API key that it was done with; empty where there was none.
        peer: from where: an address, or ``embedded`` for the process that has the store open.
        arguments: of the operation, as far as they are short and no content.
        outcome: ``ok``, or the code of the error that it ended in.
    """

    at: datetime
    number: int
    operation: str
    key_id: str
    peer: str
    arguments: dict[str, Any]
    outcome: str
