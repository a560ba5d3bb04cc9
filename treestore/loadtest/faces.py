"""What users call: the same over TCP and HTTP, so that they need not know which it is."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar, cast

import attrs
import trio

from treestore.client.remote import RemoteDatabase, connect
from treestore.errors import PermissionDenied, RateLimited
from treestore.loadtest.content import Json
from treestore.loadtest.http import HttpCollections, http_target
from treestore.loadtest.plan import Plan
from treestore.model.page import Page

T = TypeVar("T")

CHECK_TIMEOUT_S = 3600.0

PATIENCE_S = 120.0
"""How long preparing and verifying put up with a rate limit for one call."""


class Collections(Protocol):
    """What of `db.collections` is used."""

    async def create(self, name: str, *, indexes: Any = ...) -> Any: ...
    async def drop(self, name: str) -> bool: ...
    async def insert(self, name: str, document: Json) -> str: ...
    async def insert_many(self, name: str, documents: list[Json]) -> list[str]: ...
    async def get(self, name: str, id: str) -> Json: ...
    async def replace(self, name: str, id: str, document: Json, *, upsert: bool = ...) -> bool: ...
    async def update(self, name: str, id: str, patch: Json) -> Json: ...
    async def delete(self, name: str, id: str) -> bool: ...
    async def delete_many(self, name: str, filter: Json) -> int: ...
    async def count(self, name: str, filter: Json | None = ...) -> int: ...
    async def find(
        self,
        name: str,
        filter: Json | None = ...,
        *,
        sort: Any = ...,
        limit: int | None = ...,
        cursor: str | None = ...,
    ) -> Page[Json]: ...


Groups = Callable[[str, Json, Json], Awaitable[Json]]
Transact = Callable[[Callable[[Collections], Awaitable[T]]], Awaitable[T]]


@attrs.frozen
class Face:
    """One connection to the server.

    Attributes:
        collections: the calls.
        aggregate: collection, aggregates, filter → their values over all documents it satisfies.
        transact: runs a function in a transaction, again after conflicts; None where there are no
            transactions of several calls (HTTP).
        indexes: collection, filter, sort → names of the indexes that answer such a query.
        check: `admin.check`: its errors; None where the API key does not allow it.
    """

    collections: Collections
    aggregate: Groups
    transact: Transact[Any] | None
    indexes: Callable[[str, Json, str | None], Awaitable[tuple[str, ...]]]
    check: Callable[[], Awaitable[list[str] | None]]


Open = Callable[[], AbstractAsyncContextManager[Face]]
"""Opens a connection of its own."""

TRANSACTION_ATTEMPTS = 100


def opener(
    plan: Plan, address: str, api_key: str | None = None, tls: ssl.SSLContext | None = None
) -> Open:
    """What opens connections to a server, by the protocol of the plan.

    Raises:
        InvalidArgument: the address is none.
    """
    if plan.protocol == "tcp":
        return lambda: _tcp(address, api_key, tls, plan.timeout_s)
    target = http_target(address, api_key, tls, plan.timeout_s)

    @asynccontextmanager
    async def http() -> AsyncGenerator[Face]:
        collections = HttpCollections(target)
        patient = HttpCollections(attrs.evolve(target, timeout_s=CHECK_TIMEOUT_S))
        try:
            yield _over_http(collections, patient)
        finally:
            with trio.CancelScope(shield=True):
                await collections.aclose()
                await patient.aclose()

    return http


def _over_http(collections: HttpCollections, patient: HttpCollections) -> Face:
    async def aggregate(name: str, aggregates: Json, filter: Json) -> Json:
        groups = await collections.group(name, None, aggregates, filter)
        return cast("Json", groups[0]["values"]) if groups else {}

    async def indexes(name: str, filter: Json, sort: str | None) -> tuple[str, ...]:
        arguments = {"name": name, "filter": filter, "sort": sort}
        found = await collections.operation("collections.explain", arguments)
        return tuple(found["plan"]["indexes"])

    async def check() -> list[str] | None:
        try:
            return list((await patient.operation("admin.check", {}))["errors"])
        except PermissionDenied:
            return None

    return Face(collections, aggregate, None, indexes, check)


@asynccontextmanager
async def _tcp(
    address: str, api_key: str | None, tls: ssl.SSLContext | None, timeout_s: float
) -> AsyncGenerator[Face]:
    options: dict[str, Any] = {"api_key": api_key, "tls": tls}
    async with connect(address, connections=1, timeout=timeout_s, **options) as db:
        yield _over_tcp(db, lambda: connect(address, timeout=CHECK_TIMEOUT_S, **options))


def _over_tcp(
    db: RemoteDatabase, patient: Callable[[], AbstractAsyncContextManager[RemoteDatabase]]
) -> Face:
    collections = cast("Collections", db.collections)

    async def aggregate(name: str, aggregates: Json, filter: Json) -> Json:
        groups = await db.collections.group(name, None, aggregates, filter)
        return groups[0].values if groups else {}

    async def transact(function: Callable[[Collections], Awaitable[T]]) -> T:
        return await db.run_transaction(
            lambda txn: function(cast("Collections", txn.collections)),
            attempts=TRANSACTION_ATTEMPTS,
        )

    async def indexes(name: str, filter: Json, sort: str | None) -> tuple[str, ...]:
        return (await db.collections.explain(name, filter, sort=sort)).plan.indexes

    async def check() -> list[str] | None:
        try:
            async with patient() as checking:
                return list((await checking.admin.check()).errors)
        except PermissionDenied:
            return None

    return Face(collections, aggregate, transact, indexes, check)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """``await call()``, again where a rate limit says so: for preparing and verifying, whose
    calls are no part of the load."""
    give_up = trio.current_time() + PATIENCE_S
    while True:
        try:
            return await call()
        except RateLimited as limited:
            if trio.current_time() > give_up:
                raise
            await trio.sleep(min(5.0, limited.retry_after_s or 0.1))
