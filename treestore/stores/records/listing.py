"""Pages of records: an index is gone through from where the page before ended.

A cursor holds the last key of its page, so what others write meanwhile neither hides a record nor
shows one twice. It also holds a checksum of the listing it belongs to.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs
from crc32c import crc32c

from treestore.errors import InvalidArgument
from treestore.model.page import Page
from treestore.stores.access import Read
from treestore.stores.json_values import encode
from treestore.stores.records.fields import LIMIT_MAX, to_count, to_flag
from treestore.stores.records.moments import Period

T = TypeVar("T")

LOOKED_AT_MAX: Final = 20_000
"""Records that one page looks at; where it gives fewer than its limit, there may be more."""


@attrs.frozen
class Cursors:
    """Cursors of one listing, told from those of others by what it lists.

    Attributes:
        scope: name and parameters of the listing.
    """

    scope: tuple[Any, ...]

    def _checksum(self) -> bytes:
        value: int = crc32c(encode(self.scope))
        return value.to_bytes(4, "big")

    def after(self, position: bytes) -> str:
        """The cursor of a page whose last item is at ``position``."""
        return base64.urlsafe_b64encode(self._checksum() + position).decode().rstrip("=")

    def position(self, cursor: Any) -> bytes:
        """The position in a cursor.

        Raises:
            InvalidArgument: it is no cursor, or another listing's.
        """
        try:
            raw = base64.b64decode(
                cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True
            )
        except (AttributeError, UnicodeEncodeError, binascii.Error):
            raw = b""
        if len(raw) <= 4:
            raise InvalidArgument("The cursor is none that a listing gave; start without one.")
        if raw[:4] != self._checksum():
            raise InvalidArgument(
                "The cursor belongs to a listing with other parameters; start without one."
            )
        return raw[4:]


def list_records(
    txn: Read,
    *,
    index: bytes,
    period: Period,
    scope: tuple[Any, ...],
    limit: int,
    cursor: str | None,
    newest_first: bool,
    load: Callable[[bytes, bytes], T | None],
) -> Page[T]:
    """One page of an index whose keys are ``index`` and an id.

    Args:
        load: of the rest of a key, the packed id, and its value, the item; None leaves it out.
    """
    to_count(limit, "limit", 1, LIMIT_MAX)
    to_flag(newest_first, "newest_first")
    cursors = Cursors((*scope, newest_first))
    start, end = period.bounds(index)
    if cursor is not None:
        last = index + cursors.position(cursor)
        if newest_first:
            end = min(end, last)
        else:
            start = max(start, last + b"\0")
    items: list[T] = []
    position = b""
    for looked_at, (key, value) in enumerate(_scan(txn, start, end, newest_first)):
        if len(items) == limit or looked_at == LOOKED_AT_MAX:
            return Page(items, cursors.after(position))
        position = key[len(index) :]
        txn.spend(2)
        item = load(position, value)
        if item is not None:
            items.append(item)
    return Page(items, None)


def _scan(txn: Read, start: bytes, end: bytes, newest_first: bool) -> Any:
    return iter(()) if start >= end else txn.scan(start, end, reverse=newest_first)
