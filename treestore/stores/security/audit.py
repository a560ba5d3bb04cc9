"""The audit trail: what was done to the store, by whom, in the store itself.

``51 (8 bytes, big-endian: number)`` → the msgpack map of an `AuditEntry`. Numbers ascend without
gaps, so a removed entry shows; the latest `ENTRIES_MAX` are kept. A command's entry is written in
the command's own transaction: there is no drop without its entry, and no entry of a drop that was
rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import date, datetime
from typing import Any, Final

import attrs
import msgspec

from treestore.errors import TreeStoreError
from treestore.model.page import Page
from treestore.model.security import AuditEntry
from treestore.stores.access import Read, Write
from treestore.stores.keys import Keyspace, successor
from treestore.stores.operation import Operation
from treestore.stores.records.fields import to_count
from treestore.stores.records.listing import Cursors

ENTRIES_MAX: Final = 10_000
LIMIT_MAX: Final = 1_000
TEXT_SIZE_MAX: Final = 200
"""Characters of an argument that are kept."""

LIST_MAX: Final = 20
"""Items of a list that are kept."""

_START: Final = Keyspace.AUDIT
_END: Final = successor(Keyspace.AUDIT)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AuditEntry).decode


@attrs.frozen
class Actor:
    """Who does something.

    Attributes:
        peer: from where.
        key_id: with which API key; empty: with none.
    """

    peer: str = "embedded"
    key_id: str = ""


EMBEDDED: Final = Actor()

ACTOR: ContextVar[Actor] = ContextVar("treestore_actor", default=EMBEDDED)
"""Who does what this task does. An edge sets it once per connection, or per request: the tasks
that it starts inherit it."""


def described(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as far as they belong into a log: names and numbers, no content."""
    shown: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "token" or value is None or value is msgspec.UNSET:
            continue
        if isinstance(value, list | tuple | set | frozenset):
            texts = [_short(one) for one in list(value)[:LIST_MAX]]
            if all(text is not None for text in texts):
                shown[name] = texts
        elif (short := _short(value)) is not None:
            shown[name] = short
    return shown


def _short(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        # What msgpack has no number for.
        return value if not isinstance(value, int) or abs(value) < 1 << 63 else str(value)
    if isinstance(value, str):
        return value[:TEXT_SIZE_MAX].encode("utf-8", "replace").decode()
    if isinstance(value, date | datetime):
        return value.isoformat()
    return None


def append(
    txn: Write, operation: str, actor: Actor, arguments: Mapping[str, Any], outcome: str = "ok"
) -> AuditEntry:
    """Add an entry, and forget the oldest beyond `ENTRIES_MAX`."""
    last = next(txn.scan(_START, _END, reverse=True), None)
    number = 1 if last is None else int.from_bytes(last[0][1:], "big") + 1
    entry = AuditEntry(
        at=txn.now,
        number=number,
        operation=operation,
        key_id=actor.key_id,
        peer=actor.peer,
        arguments=described(arguments),
        outcome=outcome,
    )
    txn.put(_place(number), _encode(entry))
    if number > ENTRIES_MAX:
        txn.delete_range(_START, _place(number - ENTRIES_MAX + 1))
    return entry


def _place(number: int) -> bytes:
    return _START + number.to_bytes(8, "big")


def audited_here(operation: Operation) -> Callable[..., Any]:
    """The function of an operation; of an audited command one that also writes the entry, in the
    same transaction, with whoever this task acts for."""
    function = operation.function
    if not operation.audited:
        return function
    actor = ACTOR.get()

    def run(txn: Write, *args: Any, **kwargs: Any) -> Any:
        result = function(txn, *args, **kwargs)
        names = operation.parameters.__struct_fields__
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        append(txn, operation.name, actor, arguments)
        return result

    return run


def outcome_of(error: BaseException) -> str:
    """An error as an entry's outcome."""
    return error.code if isinstance(error, TreeStoreError) else "internal"


def entries_after(txn: Read, number: int) -> list[AuditEntry]:
    """Entries with a higher number, ascending."""
    return [_decode(value) for _, value in txn.scan(_place(number + 1), _END)]


def last_number(txn: Read) -> int:
    """The latest entry's number; 0 where there is none."""
    last = next(txn.scan(_START, _END, reverse=True), None)
    return 0 if last is None else int.from_bytes(last[0][1:], "big")


def audit(txn: Read, *, limit: int = 100, cursor: str | None = None) -> Page[AuditEntry]:
    """What was done to the store, the latest first: keys made and revoked, checkpoints,
    compactions, backups, and everything else that is administration.

    The latest 10,000 entries are kept; a server's audit log (``serve --audit-log``) has them all.

    Args:
        limit: at most this many, 1 to 1,000.
        cursor: ``next_cursor`` of the page before.
    """
    to_count(limit, "limit", 1, LIMIT_MAX)
    cursors = Cursors(("admin.audit",))
    end = _END if cursor is None else _START + cursors.position(cursor)
    items: list[AuditEntry] = []
    position = b""
    for key, value in txn.scan(_START, end, reverse=True):
        if len(items) == limit:
            return Page(items, cursors.after(position))
        items.append(txn.load(AuditEntry, value))
        position = key[1:]
    return Page(items, None)


def check_audit(txn: Read) -> list[str]:
    """What is wrong with the stored trail, a sentence each; empty when all is well."""
    problems: list[str] = []
    before: int | None = None
    for key, value in txn.scan(_START, _END):
        number = int.from_bytes(key[1:], "big")
        try:
            agrees = _decode(value).number == number and len(key) == 9
        except (msgspec.MsgspecError, ValueError):
            agrees = False
        if not agrees:
            problems.append(f"Entry {number} of the audit trail cannot be read.")
        if before is not None and number != before + 1:
            problems.append(f"The audit trail has nothing between {before} and {number}.")
        before = number
    return problems
