"""What requests carry: bodies of JSON, lines of JSON, and query strings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
import trio
from litestar import Request

from actors.http.access import Context
from actors.http.problems import problem
from actors.http.settings import HttpSettings
from actors.memory import Account, MemoryBudget
from treestore.errors import InvalidArgument

T = TypeVar("T")

AnyRequest = Request[Any, Any, Any]

JSON_TYPES = ("application/json",)
LINES_TYPES = ("application/x-ndjson", "application/jsonl", "application/jsonlines")

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
        async for part in _parts(request):
            size += len(part)
            if size > limit:
                raise _too_long(limit)
            _charge(account, len(part))
            parts.append(part)
        return b"".join(parts)

    async def lines(self, request: AnyRequest) -> AsyncIterator[bytes]:
        """The lines of a body of JSON lines, as they come; empty ones are left out."""
        _expect(request, LINES_TYPES)
        limit = self._settings.body_size_bytes_max
        account = self._account(request)
        rest = b""
        async for part in _parts(request):
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                if line.strip():
                    yield line
            if len(rest) > limit:
                raise _too_long(limit, "line of the body")
            if not account.hold_input(len(rest)):
                raise _no_memory()
        if rest.strip():
            yield rest

    async def json(self, request: AnyRequest) -> Any:
        """The value that the body is."""
        return decode(await self.read(request), "body")

    def _account(self, request: AnyRequest) -> Account:
        context: Context = request.scope["state"]["context"]
        if context.account is None:
            context.account = Account(self.budget)
        return context.account


async def _parts(request: AnyRequest) -> AsyncIterator[bytes]:
    while True:
        message: Any = await request.receive()
        if message["type"] != "http.request":
            raise trio.BrokenResourceError("the peer went away within its request")
        if body := message.get("body", b""):
            yield body
        if not message.get("more_body", False):
            return


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
        return InvalidArgument(f"The {what} is not UTF-8: {error.reason} at {error.start}.")
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
