"""What requests carry: bodies of JSON, lines of JSON, and query strings."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
import trio

from actors.http.access import Context
from actors.http.problems import problem
from actors.http.requests import AnyRequest
from actors.http.settings import HttpSettings
from actors.memory import Account, MemoryBudget
from treestore.errors import InvalidArgument

T = TypeVar("T")

JSON_TYPES = ("application/json",)
LINES_TYPES = ("application/x-ndjson", "application/jsonl", "application/jsonlines")

_WHOLE = re.compile(r"-?[0-9]{1,18}\Z")

QUERY_SIZE_MAX = 100
"""Parameters of a query string; there is no path with a tenth of that."""


def media_type(request: AnyRequest) -> str:
    """The type of the body, without parameters, in lower case; "" where none is said."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_lines(request: AnyRequest) -> bool:
    """Whether the body is said to be lines of JSON."""
    return media_type(request) in LINES_TYPES


def wants_lines(request: AnyRequest) -> bool:
    """Whether the answer is to be lines of JSON."""
    accept = request.headers.get("accept", "").lower()
    return any(name in accept for name in LINES_TYPES)


class Bodies:
    """Reads bodies within the edge's limits."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self.budget = MemoryBudget(settings.memory_size_bytes_max)

    async def read(self, request: AnyRequest) -> bytes:
        """The whole body, which is to be JSON.

        Raises:
            Problem: 413 where it is too long, 415 where it is said to be something else, 503 where
                there is no memory for it.
        """
        _expect(request, JSON_TYPES)
        limit = self._settings.body_size_bytes_max
        declared = request.headers.get("content-length", "0")
        if len(declared) > 18 or int(declared) > limit:
            raise _too_long(limit)
        account = self._account(request)
        parts: list[bytes] = []
        size = 0
        while (part := await _next_part(request)) is not None:
            size += len(part)
            if size > limit:
                raise _too_long(limit)
            _charge(account, len(part))
            parts.append(part)
        return b"".join(parts)

    def lines(self, request: AnyRequest) -> BodyLines:
        """The lines of a body of JSON lines, as they come; empty ones are left out.

        Raises:
            Problem: 415 where it is said to be something else.
        """
        _expect(request, LINES_TYPES)
        limit = self._settings.body_size_bytes_max
        return BodyLines(request, limit, self._account(request))

    def parts(self, request: AnyRequest, kept_bytes: Callable[[], int]) -> BodyParts:
        """A body of JSON lines, in parts as they come.

        Args:
            request: the request.
            kept_bytes: how much of the parts before is still in memory.

        Raises:
            Problem: 415 where it is said to be something else.
        """
        _expect(request, LINES_TYPES)
        limit = self._settings.body_size_bytes_max
        return BodyParts(request, limit, self._account(request), kept_bytes)

    async def json(self, request: AnyRequest) -> Any:
        """The value that the body is."""
        return decode(await self.read(request), "body")

    def _account(self, request: AnyRequest) -> Account:
        context: Context = request.scope["state"]["context"]
        if context.account is None:
            context.account = Account(self.budget)
        return context.account


class BodyLines(AsyncIterator[bytes]):
    """See `Bodies.lines`. Raises a `Problem` (413) for a line that is too long."""

    def __init__(self, request: AnyRequest, size_bytes_max: int, account: Account) -> None:
        self._request = request
        self._size_bytes_max = size_bytes_max
        self._account = account
        self._whole: deque[bytes] = deque()
        self._rest: list[bytes] = []
        self._rest_size_bytes = 0
        self._ended = False

    async def __anext__(self) -> bytes:
        while True:
            while self._whole:
                line = self._whole.popleft()
                if line.strip():
                    return line
            if self._ended:
                raise StopAsyncIteration
            await self._read()

    async def _read(self) -> None:
        part = await _next_part(self._request)
        if part is None:
            self._ended = True
            self._whole.append(b"".join(self._rest))
            return
        first, *others = part.split(b"\n")
        self._rest.append(first)
        self._rest_size_bytes += len(first)
        if others:
            self._whole.append(b"".join(self._rest))
            self._whole.extend(others[:-1])
            self._rest = [others[-1]]
            self._rest_size_bytes = len(others[-1])
        if self._rest_size_bytes > self._size_bytes_max:
            raise _too_long(self._size_bytes_max, "line of the body")
        if not self._account.hold_input(self._rest_size_bytes):
            raise _no_memory()


class BodyParts(AsyncIterator[bytes]):
    """See `Bodies.parts`. Raises a `Problem` (413) where more is kept than a line may be long."""

    def __init__(
        self,
        request: AnyRequest,
        size_bytes_max: int,
        account: Account,
        kept_bytes: Callable[[], int],
    ) -> None:
        self._request = request
        self._size_bytes_max = size_bytes_max
        self._account = account
        self._kept_bytes = kept_bytes

    async def __anext__(self) -> bytes:
        kept = self._kept_bytes()
        if kept > self._size_bytes_max:
            raise _too_long(self._size_bytes_max, "line of the body")
        if not self._account.hold_input(kept):
            raise _no_memory()
        part = await _next_part(self._request)
        if part is None:
            raise StopAsyncIteration
        return part


async def _next_part(request: AnyRequest) -> bytes | None:
    """More of a body; None at its end."""
    while True:
        message: Any = await request.receive()
        if message["type"] != "http.request":
            raise trio.BrokenResourceError("the peer went away within its request")
        if body := message.get("body", b""):
            return bytes(body)
        if not message.get("more_body", False):
            return None


def _expect(request: AnyRequest, types: tuple[str, ...]) -> None:
    found = media_type(request)
    if found not in types and not (types is JSON_TYPES and found.endswith("+json")):
        said = f"is said to be {found:.100}" if found else "comes without a Content-Type"
        raise problem(415, f"The body {said}; send it with Content-Type: {types[0]}.")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise problem(415, f"The body's Content-Encoding is {encoding:.40}; send it plain.")


def _charge(account: Account, size_bytes: int) -> None:
    if not account.reserve(size_bytes):
        raise _no_memory()


def _no_memory() -> Exception:
    return problem(503, "The server has no memory for this body now; try again later.")


def _too_long(limit: int, what: str = "body") -> Exception:
    return problem(413, f"The {what} is longer than {limit} bytes, which is the most allowed.")


def decode(data: bytes, what: str) -> Any:
    """A JSON value.

    Raises:
        InvalidArgument: it says where ``what`` is wrong.
    """
    try:
        return msgspec.json.decode(data)
    except Exception as error:
        raise wrong(what, error) from None


def wrong(what: str, error: Exception) -> InvalidArgument:
    """The sentence for JSON that cannot be read, or not be used."""
    if isinstance(error, RecursionError):
        return InvalidArgument(f"The {what} is nested too deeply.")
    if isinstance(error, UnicodeDecodeError):
        return InvalidArgument(f"The {what} is not UTF-8 ({error.reason}).")
    if isinstance(error, msgspec.ValidationError):
        return InvalidArgument(f"The {what} does not fit: {error}.")
    if isinstance(error, msgspec.DecodeError):
        return InvalidArgument(f"The {what} is not JSON: {error}.")
    return InvalidArgument(f"The {what} cannot be used: {error}.")


def query_of(request: AnyRequest, known: tuple[str, ...]) -> dict[str, str]:
    """The parameters of the query string.

    Raises:
        InvalidArgument: one is unknown, given twice or not UTF-8.
    """
    raw = request.scope["query_string"]
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_SIZE_MAX,
        )
    except ValueError as error:
        text = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "wrong"
        raise InvalidArgument(f"The query string is {text}: {error}.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            listed = ", ".join(known) or "none"
            text = f"There is no query parameter {name[:100]!r} here; there is: {listed}."
            raise InvalidArgument(text)
        if name in found:
            raise InvalidArgument(f"The query parameter {name} is given twice.")
        found[name] = value
    return found


def json_parameters(query: Mapping[str, str], names: tuple[str, ...]) -> dict[str, Any]:
    """Those of ``names`` that the query has, each decoded from JSON."""
    return {
        name: decode(query[name].encode("utf-8", "surrogatepass"), f"query parameter {name}")
        for name in names
        if name in query
    }


def number_parameters(query: Mapping[str, str], names: tuple[str, ...]) -> dict[str, int]:
    """Those of ``names`` that the query has, each a whole number."""
    found = {}
    for name in names:
        if name in query:
            if not _WHOLE.match(query[name]):
                raise InvalidArgument(f"{name} is a whole number, not {query[name]!r:.40}.")
            found[name] = int(query[name])
    return found


def flag_parameter(query: Mapping[str, str], name: str) -> bool:
    """Whether the query has ``name=true``."""
    value = query.get(name, "false")
    if value not in ("true", "false"):
        raise InvalidArgument(f"{name} is true or false, not {value!r:.40}.")
    return value == "true"
