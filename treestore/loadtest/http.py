"""Collections over HTTP: one connection that is kept, and the calls of `db.collections` on it.

Small on purpose: what is measured is the server, on the same machine as likely as not.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import attrs
import h11
import msgspec
import trio

from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    TreeStoreError,
    Unavailable,
    from_code,
)
from treestore.loadtest.content import Json
from treestore.model.page import Page

RECEIVE_SIZE_BYTES = 256 * 1024
IDLE_S_MAX = 30.0
"""A connection that rested for longer is not used again: the server may be closing it just now."""

PORTS = {"http": 80, "https": 443}


@attrs.frozen
class HttpTarget:
    """Where a server's HTTP edge is.

    Attributes:
        host: name or address.
        port: of the edge.
        tls: speak TLS with this context.
        api_key: for every request.
        timeout_s: how long a call may take.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    api_key: str | None = None
    timeout_s: float = 30.0


def http_target(
    address: str, api_key: str | None, tls: ssl.SSLContext | None, timeout_s: float
) -> HttpTarget:
    """What ``host:port`` or a URL without a path means; TLS for ``https://`` and with ``tls``.

    Raises:
        InvalidArgument: it is neither.
    """
    scheme, _, rest = address.rpartition("://")
    scheme = scheme or ("http" if tls is None else "https")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port or PORTS[scheme]
        good = scheme in PORTS and rest.rstrip("/") == parts.netloc and "@" not in rest
    except (KeyError, ValueError):
        good, host, port = False, None, 0
    if not good or host is None:
        raise InvalidArgument(
            f"An address is host:port or https://host:port, not {address!r:.200}."
        )
    if scheme == "https" and tls is None:
        tls = ssl.create_default_context()
    return HttpTarget(host, port, tls, api_key, timeout_s)


class HttpCollections:
    """The calls of `db.collections`, with the same errors. One at a time."""

    def __init__(self, target: HttpTarget) -> None:
        self._target = target
        self._stream: trio.abc.Stream | None = None
        self._h11 = h11.Connection(h11.CLIENT)
        self._used = -IDLE_S_MAX

    # -- the calls --------------------------------------------------------------------------

    async def create(self, name: str, *, indexes: Any = ()) -> Any:
        """Make a collection."""
        return await self._json("POST", "/collections", {"name": name, "indexes": list(indexes)})

    async def drop(self, name: str) -> bool:
        """Remove one; whether it was there."""
        return await self._there("DELETE", _path(name))

    async def insert(self, name: str, document: Json) -> str:
        """Store a new document."""
        answer = await self._json("POST", _documents(name), document)
        return str(answer["id"])

    async def insert_many(self, name: str, documents: list[Json]) -> list[str]:
        """Store new documents, all or none."""
        answer = await self._json("POST", _documents(name), documents)
        return list(answer["ids"])

    async def get(self, name: str, id: str) -> Json:
        """A document."""
        found: Json = await self._json("GET", _documents(name, id), write=False)
        return found

    async def replace(self, name: str, id: str, document: Json, *, upsert: bool = False) -> bool:
        """Put another document in the place of one; whether it is new."""
        path = _documents(name, id) + ("?upsert=true" if upsert else "")
        return await self._json("PUT", path, document) is not None

    async def update(self, name: str, id: str, patch: Json) -> Json:
        """Change a document; as it is then."""
        changed: Json = await self._json("PATCH", _documents(name, id), patch)
        return changed

    async def delete(self, name: str, id: str) -> bool:
        """Remove a document; whether it was there."""
        return await self._there("DELETE", _documents(name, id))

    async def delete_many(self, name: str, filter: Json) -> int:
        """Remove what satisfies a filter; how many."""
        query = urlencode({"filter": _text(filter)})
        return int((await self._json("DELETE", f"{_documents(name)}?{query}"))["deleted"])

    async def find(
        self,
        name: str,
        filter: Json | None = None,
        *,
        sort: Any = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[Json]:
        """Documents that satisfy a filter."""
        asked = {"filter": filter, "sort": sort, "limit": limit, "cursor": cursor}
        body = {name: value for name, value in asked.items() if value is not None}
        answer = await self._json("POST", f"{_path(name)}/query", body, write=False)
        return Page(answer["items"], answer["next_cursor"])

    async def count(self, name: str, filter: Json | None = None) -> int:
        """How many satisfy a filter."""
        query = "" if filter is None else "?" + urlencode({"filter": _text(filter)})
        return int((await self._json("GET", f"{_path(name)}/count{query}", write=False))["count"])

    async def group(
        self, name: str, by: str | None, aggregates: Json, filter: Json | None = None
    ) -> list[Json]:
        """Aggregates of groups, each with ``by`` and ``values``."""
        arguments = {"name": name, "by": by, "aggregates": aggregates, "filter": filter}
        groups: list[Json] = await self.operation("collections.group", arguments)
        return groups

    async def operation(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Any operation that only reads."""
        return await self._json("POST", f"/v1/ops/{name}", arguments, write=False)

    # -- one request ------------------------------------------------------------------------

    async def _there(self, method: str, path: str) -> bool:
        try:
            await self._json(method, path)
        except NotFound:
            return False
        return True

    async def _json(self, method: str, path: str, body: Any = None, *, write: bool = True) -> Any:
        """The answer's JSON, None where it has none; an error of the server is raised."""
        data = b"" if body is None else msgspec.json.encode(body)
        sent = False
        with trio.move_on_after(self._target.timeout_s):
            try:
                stream = await self._connected()
                request = self._request(method, path, data, body is not None)
                sent = True
                await stream.send_all(request)
                status, answer = await self._answer(stream)
            except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
                await self.aclose()
                raise _lost(f"The connection was lost: {error}.", write and sent) from error
            except BaseException:
                await self.aclose()
                raise
            self._used = trio.current_time()
            return _value(status, answer)
        if write and sent:
            raise OutcomeUnknown("No answer came in time; the write may have been applied.")
        raise DeadlineExceeded("No answer came in time.")

    async def _connected(self) -> trio.abc.Stream:
        if self._stream is not None:
            rested = trio.current_time() - self._used > IDLE_S_MAX
            if not rested and self._h11.our_state is h11.DONE:
                self._h11.start_next_cycle()
                return self._stream
            await self.aclose()
        target = self._target
        stream: trio.abc.Stream = await trio.open_tcp_stream(target.host, target.port)
        if target.tls is not None:
            stream = trio.SSLStream(
                stream, target.tls, server_hostname=target.host, https_compatible=True
            )
        self._stream = stream
        self._h11 = h11.Connection(h11.CLIENT)
        return stream

    def _request(self, method: str, path: str, data: bytes, has_body: bool) -> bytes:
        headers = [("host", self._target.host), ("accept", "application/json")]
        if self._target.api_key is not None:
            headers.append(("x-api-key", self._target.api_key))
        if has_body:
            headers.append(("content-type", "application/json"))
            headers.append(("content-length", str(len(data))))
        head = self._h11.send(h11.Request(method=method, target=path, headers=headers))
        body = self._h11.send(h11.Data(data=data)) if data else b""
        end = self._h11.send(h11.EndOfMessage())
        return b"".join((head or b"", body or b"", end or b""))

    async def _answer(self, stream: trio.abc.Stream) -> tuple[int, bytes]:
        status, parts = 0, []
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(bytes(await stream.receive_some(RECEIVE_SIZE_BYTES)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return status, b"".join(parts)
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("it was closed without an answer")

    async def aclose(self) -> None:
        """Close the connection; the next call opens another one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)


def _lost(what: str, unknown: bool) -> TreeStoreError:
    if unknown:
        return OutcomeUnknown(what + " The write may have been applied.")
    return Unavailable(what, not_begun=True)


def _value(status: int, answer: bytes) -> Any:
    try:
        value: Any = msgspec.json.decode(answer) if answer else None
        if status < 400:
            return value
        told = value["error"]
        error = from_code(told["code"], told["message"], told["details"])
    except (msgspec.DecodeError, TypeError, KeyError):
        # Whoever answers is not a TreeStore, or tampers with what it says.
        raise OutcomeUnknown(f"An answer with status {status} is no JSON of TreeStore's.") from None
    raise error


def _path(name: str) -> str:
    return f"/collections/{quote(name, safe='')}"


def _documents(name: str, id: str | None = None) -> str:
    path = f"{_path(name)}/documents"
    return path if id is None else f"{path}/{quote(id, safe='')}"


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
