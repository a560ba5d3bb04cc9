"""Requests as nearly all are, read and answered without h11.

h11 checks a protocol step by step, which costs more than everything else about a short request.
So what comes in one piece and in the plainest form is read by one pattern here. The rules:

1. A `Plain` request is one that h11 reads alike, byte for byte, and leaves the connection ready for
   the next one after. What is not certainly so goes to h11 as it came: a head in pieces, a body
   that is not here yet, something behind it, any header that is about the connection itself
   (``Transfer-Encoding``, ``Expect``, ``Upgrade``, …), letters beyond ASCII, any fault.
2. So h11 decides about everything hostile, and this file refuses nothing.
3. An answer whose length is known leaves from here, the same bytes that h11 would make of it. For
   any other, `Plain.raw` is given to h11 after all, and that frames it.

Patterns are possessive: they never go back, so what a head costs grows with its length alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import attrs

Headers = list[tuple[bytes, bytes]]

_NAME = rb"[-!#$%&'*+.^_`|~0-9a-zA-Z]++"
_VALUE = rb"[\x21-\x7e]++(?: ++[\x21-\x7e]++)*+"
_HEAD = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (/[\x21-\x7e]*+) HTTP/1\.1\r\n"
    rb"((?:" + _NAME + rb": " + _VALUE + rb"\r\n)++)\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,9}\Z")

_OF_CONNECTION: Final = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})
"""Headers of either side that change how the connection goes on."""

BODYLESS: Final = frozenset({204, 304})
"""Statuses whose answers have no body."""

STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
    if status >= 200
}


@attrs.define(eq=False)
class Plain:
    """A request that came whole.

    Attributes:
        headers: names in lower case.
        body: all of it.
        raw: the bytes that it was read from.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: bytes
    raw: bytes
    http_version: bytes = b"1.1"


class PlainReader:
    """Reads the requests of one connection.

    Args:
        head_size_bytes_max: a longer head goes to h11.
    """

    __slots__ = ("_block", "_found", "_head_size_bytes_max")

    def __init__(self, head_size_bytes_max: int) -> None:
        self._head_size_bytes_max = head_size_bytes_max
        # A client sends the same headers again and again.
        self._block = b""
        self._found: tuple[Headers, int] | None = None

    def read(self, data: bytes) -> Plain | None:
        """The request that ``data`` are, all of them; None where that is for h11 to say."""
        head = _HEAD.match(data)
        if head is None:
            return None
        body_at = head.end()
        if body_at > self._head_size_bytes_max:
            return None
        method, target, block = head.groups()
        if block != self._block:
            self._block, self._found = block, _fields(block)
        if self._found is None:
            return None
        headers, length = self._found
        if len(data) - body_at != length:
            return None
        return Plain(method, target, headers.copy(), data[body_at:], data)


def _fields(block: bytes) -> tuple[Headers, int] | None:
    """The headers of a head, and the length of the body; None where h11 is to look at them."""
    headers: Headers = []
    hosts = 0
    length = -1
    for line in block.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        name = name.lower()
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if length >= 0 or not _LENGTH.match(value):
                return None
            length = int(value)
        elif name in _OF_CONNECTION and (name != b"connection" or value.lower() != b"keep-alive"):
            return None
        headers.append((name, value))
    return (headers, max(length, 0)) if hosts == 1 else None


def plain_answer(
    status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, headless: bool
) -> bytes | None:
    """The bytes of an answer; None where h11 is to make them.

    Args:
        headless: it is answered to HEAD, and has no body whatever its headers say.
    """
    line = STATUS_LINES.get(status)
    if line is None:
        return None
    parts = [line]
    length: bytes | None = None
    count = 1
    for name, value in headers:
        if name == b"content-length" and length is None:
            length = value
        elif name == b"content-length" or name in _OF_CONNECTION:
            return None
        count += 1
        parts += (name, b": ", value, b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != count or head.count(b"\r") != count or b"\0" in head:
        return None  # No header of ours has a line end in it: h11 refuses such.
    if status in BODYLESS:
        return None if length is not None else head + b"\r\n"
    if length is None or length != b"%d" % len(body):
        return None
    return head + b"\r\n" if headless else b"".join((head, b"\r\n", body))
