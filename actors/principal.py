"""Who asks: what a connection, or an HTTP request, may do, and how often.

An edge calls `Authority.authenticate` once (per connection, or per request), and then, for each
request, `Principal.take` and `Principal.allow`. Everything is decided at once, without waiting.

Cost: a request of a key that is free to do it, has no rate limit and no expiry, costs the edge a
look-up in `Principal.free` in place of the one that it makes anyway. Everything else is 1 to 3 µs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
import trio

from treestore.errors import PermissionDenied, RateLimited, Unauthenticated
from treestore.stores.operation import Operation
from treestore.stores.security.audit import Actor
from treestore.stores.security.bucket import Bucket
from treestore.stores.security.rules import resources_of, right_of
from treestore.stores.security.scopes import EVERYTHING, Grants, KeyRange, Names, Scope

ALL: Final = Grants([Scope("admin", None)])
"""What one may without keys."""

FIRST_KEY: Final = "admin.create_key"
"""What only this machine may do while there are no keys."""

_ALWAYS, _NEVER, _DEPENDS = "always", "never", "depends"


class Principal:
    """A key that is in use, or a peer of a server without keys.

    Shared by all connections of the key (of the address): the rate limit is theirs together.

    Attributes:
        key_id: the key's; empty without one.
        free: operations that need no further look, by name; what stands there is the edge's own.
            Emptied when the principal is closed.
        uses: requests so far.
        closed: why nothing is allowed any more; None: it is.
    """

    def __init__(
        self,
        *,
        key_id: str = "",
        grants: Grants = ALL,
        buckets: Sequence[Bucket] = (),
        expires_at: datetime | None = None,
        now: Callable[[], datetime] | None = None,
        local: bool = True,
    ) -> None:
        self.key_id = key_id
        self.grants = grants
        self.buckets = tuple(buckets)
        self.expires_at = expires_at
        self.local = local
        self.free: dict[str, Any] = {}
        self.uses = 0
        self.closed: str | None = None
        self._now = now
        self._decisions: dict[str, str] = {}
        self._ends: dict[object, Callable[[str], None]] = {}

    def actor(self, peer: str) -> Actor:
        """Who the audit trail says it was."""
        return Actor(peer, self.key_id)

    # --- its life ------------------------------------------------------------------------------

    def attach(self, owner: object, end: Callable[[str], None]) -> None:
        """Have ``end`` called, with a sentence, when nothing is allowed any more."""
        self._ends[owner] = end

    def detach(self, owner: object) -> None:
        """That is no longer wanted."""
        self._ends.pop(owner, None)

    @property
    def connections(self) -> int:
        """Who is attached."""
        return len(self._ends)

    def close(self, why: str) -> None:
        """Allow nothing from now on, and tell all who are attached."""
        if self.closed is not None:
            return
        self.closed = why
        self.free.clear()
        ends, self._ends = self._ends, {}
        for end in ends.values():
            end(why)

    def ensure_valid(self) -> None:
        """Raise `Unauthenticated` once it is revoked or expired."""
        at = self.expires_at
        if at is not None and self._now is not None and at <= self._now():
            self.close(expired(at))
        if self.closed is not None:
            raise Unauthenticated(self.closed)

    # --- requests ------------------------------------------------------------------------------

    def take(self) -> None:
        """Account for one request; before anything of it is done.

        Raises:
            RateLimited: there were too many; ``retry_after_s`` says when there may be another.
            Unauthenticated: the key was revoked, or expired.
        """
        self.ensure_valid()
        self.uses += 1
        if not self.buckets:
            return
        now = trio.current_time()
        for at, bucket in enumerate(self.buckets):
            wait_s = bucket.take(now)
            if wait_s:
                for taken in self.buckets[:at]:
                    taken.give_back()
                raise RateLimited(
                    f"Too many requests; send this one again in {wait_s:.3g} s. Nothing was done.",
                    retry_after_s=wait_s,
                )

    def is_free(self, operation: Operation) -> bool:
        """Whether the operation may go into `free`: always allowed, not counted, never to end but
        by `close`."""
        return (
            not self.buckets
            and self.closed is None
            and self.expires_at is None
            and self._decide(operation) == _ALWAYS
        )

    def allow(self, operation: Operation, arguments: msgspec.Struct | Mapping[str, Any]) -> None:
        """Return where the operation may be done.

        Args:
            arguments: its parameters as they travel: the operation's struct, or a mapping.

        Raises:
            PermissionDenied: the key's scopes do not allow it; says which one would.
            Unauthenticated: the key was revoked, or expired.
        """
        self.ensure_valid()
        decision = self._decide(operation)
        if decision == _ALWAYS:
            return
        right = right_of(operation)
        if decision == _NEVER:
            raise self._denied(operation, right)
        for resource in resources_of(operation, arguments):
            if not self.grants.covers(right, resource):
                raise self._denied(operation, right, resource)

    def _decide(self, operation: Operation) -> str:
        decision = self._decisions.get(operation.name)
        if decision is None:
            decision = self._decisions[operation.name] = self._decided(operation)
        return decision

    def _decided(self, operation: Operation) -> str:
        if not self.local and operation.name == FIRST_KEY:
            return _NEVER
        right = right_of(operation)
        if self.grants.is_free(right):
            return _ALWAYS
        return _DEPENDS if self.grants.has_any(right) else _NEVER

    def _denied(
        self, operation: Operation, right: str, resource: Names | KeyRange | None = None
    ) -> PermissionDenied:
        if not self.key_id:
            return PermissionDenied(
                "The first API key is made on the server's own machine: with treestore key create "
                "--data DIR while the server is stopped, or --connect over loopback."
            )
        scope = right
        if isinstance(resource, KeyRange):
            scope = f"{right}:kv/… for all keys of the range; give a prefix"
        elif resource is not None and resource != EVERYTHING:
            scope = str(Scope("write" if right == "write" else "read", resource))
        return PermissionDenied(
            f"API key {self.key_id} does not allow {operation.name} here: it needs the scope "
            f"{scope:.300}."
        )


def expired(at: datetime) -> str:
    """The sentence of a key that has expired."""
    return f"The API key expired at {at.isoformat()}."


def is_local(peer: str) -> bool:
    """Whether a peer, ``address:port``, is on this machine."""
    if peer == "no socket":
        return True  # Within this process.
    address = _address(peer)
    return address is not None and address.is_loopback


def network_of(peer: str) -> str:
    """What a rate limit without keys is for: an address, or the /64 of an IPv6 one, since who has
    one address there has all of them."""
    address = _address(peer)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address.packed, 64), strict=False))
    return peer if address is None else str(address)


@lru_cache(maxsize=1024)
def _address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    host = peer.rpartition(":")[0] or peer
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped
