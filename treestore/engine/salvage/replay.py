"""Applying the log to what was salvaged, with nothing taken for granted.

Recovery replays a log onto exactly the state that it continues. Here the state has holes, and a
part of the log may concern only some keys. Every record says what is true of a key from then on,
whatever was there before. So a sequence of groups without a gap gives the right value of each key
that it touches, and it does no harm to begin earlier than needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from treestore.engine.log.format import KIND_COMMIT, KIND_SYNCED
from treestore.engine.salvage.logmap import Stretch
from treestore.engine.salvage.walk import Ranges
from treestore.engine.transaction import WriteTransaction

_decoder: msgspec.msgpack.Decoder[list[Any]] = msgspec.msgpack.Decoder(list[Any])

Change = tuple[bytes, bytes | None] | tuple[tuple[bytes, bytes | None], None]
"""A key and its new value (None: it is removed); or a range that is removed."""


def transactions(run: list[Stretch], after: int, until: int) -> Iterator[list[bytes]]:
    """The payloads of each transaction in a run, of records ``after < lsn <= until``."""
    payloads: list[bytes] = []
    for stretch in run:
        if stretch.tip.lsn <= after or stretch.before.lsn >= until:
            continue
        for record in stretch.records():
            if not after < record.lsn <= until or record.kind == KIND_SYNCED:
                continue
            payloads.append(record.payload)
            if record.kind == KIND_COMMIT:
                yield payloads
                payloads = []


def changes(payload: bytes) -> Iterator[Change]:
    """What a log payload says was changed, in order.

    Raises:
        ValueError: it is no log payload.
    """
    notes = _decoder.decode(payload)
    if len(notes) % 2:
        raise ValueError("an odd number of notes in a log payload")
    for what, value in zip(notes[::2], notes[1::2], strict=True):
        if isinstance(what, bytes) and (value is None or isinstance(value, bytes)):
            yield what, value
        elif isinstance(what, list) and len(what) == 2 and value is None:
            yield (what[0], what[1]), None
        else:
            raise ValueError("a note in a log payload is neither a put nor a delete")


def apply(txn: WriteTransaction, change: Change, scope: Ranges | None) -> int:
    """Apply one change to the keys in ``scope`` (None: to all); how many keys it concerned."""
    what, value = change
    if isinstance(what, tuple):
        parts = [(what[0], what[1])] if scope is None else scope.parts_of((what[0], what[1]))
        return sum(txn.delete_range(low, high) for low, high in parts)
    if scope is not None and what not in scope:
        return 0
    if value is None:
        return int(txn.delete(what))
    txn.put(what, value)
    return 1
