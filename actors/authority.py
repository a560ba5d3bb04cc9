"""The authority: which API keys there are, who uses them, and what was administered.

The tree is the truth; here is a copy of its few key records, read when it is first asked for (so
that a damaged page of theirs keeps nobody from the rest of an embedded store) and again whenever a
group that changed one is published, before anybody is answered. So a revoked key is refused from
the moment on at which its revocation is durable, on open connections too.

The actor's own work, once a second: keys that expired are closed, new entries of the audit trail
are logged, and once a minute it is written which keys were used.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import attrs
import trio

from actors.audit_log import log_line
from actors.mail import Call
from actors.principal import Principal, expired, is_local, network_of
from actors.writer import Writer
from treestore.engine.engine import Engine
from treestore.engine.transaction import WriteTransaction
from treestore.errors import TreeStoreError, Unauthenticated
from treestore.loggers import get_logger
from treestore.model.security import ApiKey, ApiKeyInfo
from treestore.stores.security import apikeys, audit
from treestore.stores.security.apikeys import KeyRecord, KeyRequest
from treestore.stores.security.audit import Actor
from treestore.stores.security.bucket import Bucket
from treestore.stores.security.scopes import Grants, parse_scopes

log = get_logger("treestore.security")

TICK_S = 1.0
NOTE_USES_TICKS = 60
"""How often it is written which keys were used: this often at most, and not per request."""

PEERS_MAX = 10_000
"""Addresses whose requests are counted, where there are no keys."""

NO_LONGER_OPEN = "The server has API keys now; connect with one."


@attrs.frozen(kw_only=True)
class RateLimits:
    """Limits of a server, in requests a second; None: none.

    Attributes:
        rate: of each key that has no limit of its own; without keys, of each address.
        burst: requests at once after a quiet time; None: as many as in one second.
        total: of the whole server.
    """

    rate: float | None = None
    burst: float | None = None
    total: float | None = None


class _Entry(Call):
    """An entry of the trail: not taken back because nobody waits for it any more."""

    __slots__ = ()

    def cancel(self) -> bool:
        """See `Mail.cancel`."""
        return False


class Authority:
    """Decides who is who. Belongs to the event loop of its database."""

    def __init__(
        self, engine: Engine, writer: Writer, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._random_bytes = random_bytes
        self._seed: bytes | None = None
        self._records: dict[str, KeyRecord] = {}
        self._principals: dict[str, Principal] = {}
        self._peers: dict[tuple[bool, str], Principal] = {}
        self._changed_until = 0
        self._noted: dict[str, int] = {}
        self._used_at: dict[str, datetime] = {}
        self.limits = RateLimits()
        self._total: Bucket | None = None
        self.log_audit: Callable[[dict[str, Any]], None] = log_line
        """Where lines of the audit log go."""
        self._loaded = False
        self._logged: int | None = None

    # --- the records ---------------------------------------------------------------------------

    @property
    def required(self) -> bool:
        """Whether one needs a key: once there was one, for good."""
        self._ensure_loaded()
        return bool(self._records)

    def limit(self, limits: RateLimits) -> None:
        """Set the server's limits; for principals from now on."""
        self.limits = limits
        self._total = None if limits.total is None else self._bucket(limits.total)

    def published(self) -> None:
        """A group was published: see whether it changed a key."""
        if self._changed_until:
            if self._engine.durable.number >= self._changed_until:
                self._changed_until = 0
            # What cannot be read now is read before anybody is let in; until then nobody is.
            self._loaded = False
            try:
                self._load()
            except (TreeStoreError, OSError) as error:
                log.error("the API keys cannot be read", error=str(error))
                self._close_all("The API keys cannot be read.")

    def _close_all(self, why: str) -> None:
        closed = [*self._principals.values(), *self._peers.values()]
        self._principals, self._peers = {}, {}
        for principal in closed:
            principal.close(why)

    def _ensure_loaded(self) -> None:
        if not self._loaded:
            self._load()

    def _load(self) -> None:
        now = self._engine.now()
        was_open = not self._records
        records = {record.key_id: record for record in apikeys.records(self._engine.read())}
        self._records, self._loaded = records, True
        for key_id, principal in list(self._principals.items()):
            record = records.get(key_id)
            if record is None or record.status(now) != "active":
                del self._principals[key_id]
                principal.close(_refusal(record))
        if was_open and records:
            peers, self._peers = self._peers, {}
            for principal in peers.values():
                principal.close(NO_LONGER_OPEN)

    async def create_key(self, request: KeyRequest, token: str | None) -> ApiKey:
        """Make a key; durable when this returns."""
        token = self._random_bytes(16).hex() if token is None else apikeys.check_token(token)
        if self._seed is None:
            self._seed = self._random_bytes(32)
        new = apikeys.derive_key(self._seed, token, request)
        arguments = {"key_id": new.key_id, **attrs.asdict(request, recurse=False)}
        record: KeyRecord = await self._change(
            partial(apikeys.create, new=new, request=request), "admin.create_key", arguments
        )
        return ApiKey(
            key_id=record.key_id,
            secret=new.text,
            scopes=record.scopes,
            name=record.name,
            expires_at=record.expires_at,
            rate_limit=record.rate_limit,
        )

    async def revoke_key(self, key_id: str) -> bool:
        """Revoke a key; nobody uses it any more when this returns."""
        apikeys.check_key_id(key_id)
        changed: bool = await self._change(
            partial(apikeys.revoke, key_id=key_id), "admin.revoke_key", {"key_id": key_id}
        )
        return changed

    async def _change(
        self, change: Callable[[WriteTransaction], Any], operation: str, arguments: dict[str, Any]
    ) -> Any:
        """Run a command that changes key records; they are read again once it is durable, even
        if whoever asked for it does not wait so long."""
        actor = audit.ACTOR.get()

        def run(txn: WriteTransaction) -> Any:
            self._changed_until = max(self._changed_until, txn.number)
            result = change(txn)
            audit.append(txn, operation, actor, arguments)
            return result

        return await self._writer.execute(Call(run))

    def list_keys(self) -> list[ApiKeyInfo]:
        """Every key, the oldest first."""
        self._ensure_loaded()
        now = self._engine.now()
        self._look_at_uses(now)
        infos = [record.info(now) for record in self._records.values()]
        found = [
            attrs.evolve(info, last_used_at=self._used_at.get(info.key_id, info.last_used_at))
            for info in infos
        ]
        return sorted(found, key=lambda info: (info.created_at, info.key_id))

    # --- who is who ----------------------------------------------------------------------------

    def authenticate(self, api_key: str | None, peer: str = "") -> Principal:
        """Who somebody is that sends this key.

        Args:
            api_key: as it was sent; None: none was.
            peer: from where: ``address:port``. Without keys, who is not known to be on this
                machine may not make the first one.

        Raises:
            Unauthenticated: a key is needed, and this is none that counts.
            TreeStoreError: nobody can tell; let nobody in.
        """
        self._ensure_loaded()
        if not self._records:
            return self._peer(peer)
        if api_key is None:
            raise Unauthenticated("An API key is needed.")
        presented = apikeys.parse_key(api_key)
        record = self._records.get(presented.key_id) if presented else None
        # The same words for an unknown id and a wrong secret.
        unknown = Unauthenticated("The API key is not known.")
        if presented is None or record is None:
            raise unknown
        if not apikeys.is_secret_of(record, presented.secret):
            raise unknown
        if record.status(self._engine.now()) != "active":
            raise Unauthenticated(_refusal(record))
        principal = self._principals.get(record.key_id)
        if principal is None:
            principal = self._principals[record.key_id] = self._principal(record)
        principal.uses += 1
        return principal

    def _principal(self, record: KeyRecord) -> Principal:
        return Principal(
            key_id=record.key_id,
            grants=Grants(parse_scopes(record.scopes)),
            buckets=self._buckets(record.rate_limit or self.limits.rate),
            expires_at=record.expires_at,
            now=self._engine.now,
            local=True,
        )

    def _peer(self, peer: str) -> Principal:
        """Who is not asked for a key: everybody alike, unless their requests are counted."""
        local = is_local(peer)
        which = (local, "" if self.limits.rate is None else network_of(peer))
        principal = self._peers.get(which)
        if principal is None:
            if len(self._peers) >= PEERS_MAX:
                self._forget_peers()
            principal = self._peers[which] = Principal(
                buckets=self._buckets(self.limits.rate), local=local
            )
        return principal

    def _forget_peers(self) -> None:
        """Make room for other addresses: of those that have no connection the ones whose bucket is
        full, or, where all are busy, the older half."""
        now = trio.current_time()
        idle = {
            which
            for which, principal in self._peers.items()
            if not principal.connections and all(b.is_full(now) for b in principal.buckets)
        }
        for which in idle or list(self._peers)[: PEERS_MAX // 2]:
            # Who is connected goes on with the principal that it has; but it must be closed with
            # the others when there is a first key, so those stay.
            if not self._peers[which].connections:
                del self._peers[which]

    def _bucket(self, rate: float) -> Bucket:
        return Bucket(rate, rate if self.limits.burst is None else self.limits.burst)

    def _buckets(self, rate: float | None) -> list[Bucket]:
        buckets = [] if rate is None else [self._bucket(rate)]
        return buckets if self._total is None else [*buckets, self._total]

    # --- the trail -----------------------------------------------------------------------------

    async def note(self, operation: str, arguments: dict[str, Any], outcome: str) -> None:
        """Enter something that was done into the audit trail; the entry is durable on return.

        Cancellation: once the writer has taken the entry, it is made all the same.
        """
        call = _Entry(self._entry(operation, arguments, outcome))
        try:
            while not self._writer.submit(call):
                await self._writer.wait_room()
            await call.outcome()
        except TreeStoreError as error:
            self._log_alone(operation, arguments, outcome, error.message)

    def note_soon(self, operation: str, arguments: dict[str, Any], outcome: str) -> None:
        """The same for whoever cannot wait: it becomes durable soon."""
        call = _Entry(self._entry(operation, arguments, outcome))
        try:
            if self._writer.submit(call):
                return
            why = "The writer has no room for the entry."
        except TreeStoreError as error:
            why = error.message
        self._log_alone(operation, arguments, outcome, why)

    def _entry(
        self, operation: str, arguments: dict[str, Any], outcome: str
    ) -> Callable[[WriteTransaction], Any]:
        actor = audit.ACTOR.get()
        return partial(
            audit.append, operation=operation, actor=actor, arguments=arguments, outcome=outcome
        )

    def _log_alone(self, operation: str, arguments: dict[str, Any], outcome: str, why: str) -> None:
        """The store takes no entry: the log is what there is."""
        actor, shown = audit.ACTOR.get(), audit.described(arguments)
        self._log(operation, actor, shown, outcome, stored=False, why=why)

    def _log(
        self, operation: str, actor: Actor, arguments: dict[str, Any], outcome: str, **more: Any
    ) -> None:
        self.log_audit(
            {
                "operation": operation,
                "key_id": actor.key_id,
                "peer": actor.peer,
                "arguments": arguments,
                "outcome": outcome,
                **more,
            }
        )

    def log_new_entries(self) -> None:
        """Log what came into the audit trail: what is durable, and all of that."""
        txn = self._engine.read()
        last = audit.last_number(txn)
        if self._logged is None:
            self._logged = last  # Those before were logged when they were made.
        if last <= self._logged:
            return
        for entry in audit.entries_after(txn, self._logged):
            self._log(
                entry.operation,
                Actor(entry.peer, entry.key_id),
                entry.arguments,
                entry.outcome,
                number=entry.number,
                at=entry.at.isoformat(),
            )
        self._logged = last

    # --- the actor -----------------------------------------------------------------------------

    async def run(self) -> None:
        """The actor's task."""
        ticks = 0
        self.log_new_entries()
        while True:
            await trio.sleep(TICK_S)
            if self._engine.closed:
                return
            self._expire()
            self.log_new_entries()
            ticks += 1
            if ticks % NOTE_USES_TICKS == 0:
                await self.note_uses()

    def _expire(self) -> None:
        now = self._engine.now()
        for key_id, principal in list(self._principals.items()):
            if principal.expires_at is not None and principal.expires_at <= now:
                del self._principals[key_id]
                principal.close(expired(principal.expires_at))

    def _look_at_uses(self, now: datetime) -> None:
        for key_id, principal in self._principals.items():
            if principal.uses != self._noted.get(key_id, 0):
                self._noted[key_id] = principal.uses
                self._used_at[key_id] = now

    def log_rest(self) -> None:
        """Log what is left; the store closes."""
        try:
            self.log_new_entries()
        except (TreeStoreError, OSError) as error:
            log.warning("the end of the audit trail was not logged", error=str(error))

    async def note_uses(self) -> None:
        """Write when keys were used last, where that is news."""
        self._look_at_uses(self._engine.now())
        news = {
            key_id: used_at
            for key_id, used_at in self._used_at.items()
            if key_id in self._records and _is_news(self._records[key_id], used_at)
        }
        if not news or self._engine.failed is not None:
            return
        try:
            await self._writer.execute(Call(apikeys.note_uses, (news,)))
        except TreeStoreError as error:
            log.warning("the last use of API keys could not be noted", error=error.message)
            return
        for key_id, used_at in news.items():
            if key_id in self._records:
                record = attrs.evolve(self._records[key_id], last_used_at=used_at)
                self._records[key_id] = record


def _is_news(record: KeyRecord, used_at: datetime) -> bool:
    last = record.last_used_at
    return last is None or used_at - last >= apikeys.USE_STALE


def _refusal(record: KeyRecord | None) -> str:
    if record is None or record.revoked_at is not None:
        return "The API key was revoked."
    assert record.expires_at is not None
    return expired(record.expires_at)
