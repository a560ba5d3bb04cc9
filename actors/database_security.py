"""The part of the database that answers ``admin`` where it is about API keys."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import trio

from treestore.model.security import ApiKey, ApiKeyInfo
from treestore.stores.operation import Operation
from treestore.stores.security.apikeys import KeyRequest
from treestore.stores.security.audit import outcome_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.database import Database


class SecurityPart:
    """Implements the keys of ``treestore.stores.admin.AdminHost`` for `Database`."""

    @property
    def _guarded(self) -> Database:
        return cast("Database", self)

    async def admin_create_key(
        self,
        scopes: Sequence[str],
        *,
        name: str,
        expires_at: datetime | None,
        rate_limit: float | None,
        token: str | None,
    ) -> ApiKey:
        """See ``admin.create_key``."""
        request = KeyRequest.of(scopes, name, expires_at, rate_limit)
        return await self._guarded.authority.create_key(request, token)

    async def admin_revoke_key(self, key_id: str) -> bool:
        """See ``admin.revoke_key``."""
        return await self._guarded.authority.revoke_key(key_id)

    async def admin_list_keys(self) -> list[ApiKeyInfo]:
        """See ``admin.list_keys``."""
        await trio.lowlevel.checkpoint()
        return self._guarded.authority.list_keys()

    async def audited_action(self, operation: Operation, arguments: dict[str, Any]) -> Any:
        """Do what an edge asks for, and enter it into the audit trail, however it ended."""
        authority = self._guarded.authority
        result: Any = None
        failure: Exception | None = None
        try:
            result = await operation.function(self, **arguments)
        except trio.Cancelled:
            authority.note_soon(operation.name, arguments, "cancelled")
            raise
        except Exception as error:
            failure = error
        outcome = "ok" if failure is None else outcome_of(failure)
        await authority.note(operation.name, arguments, outcome)
        if failure is None:
            return result
        try:
            raise failure
        finally:
            del failure  # It holds this frame, and the frame it.
