"""What requests are known by."""

from __future__ import annotations

import os
import re

_USABLE = re.compile(rb"[A-Za-z0-9._:/+=@,;-]{1,128}\Z")


def new_request_id() -> str:
    """An id that no other request has."""
    return os.urandom(12).hex()


def request_id_of(given: bytes | None) -> str:
    """The id that the client gave, where it is fit for logs and headers; else a new one."""
    if given is not None and _USABLE.match(given):
        return given.decode("ascii")
    return new_request_id()
