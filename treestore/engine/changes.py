"""What the log says was changed: the notes of its transactions, physical as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from treestore.engine.log import LogGroup, LogPosition

_decoder: msgspec.msgpack.Decoder[list[list[Any]]] = msgspec.msgpack.Decoder(list[list[Any]])


def notes_of(
    groups: Iterable[tuple[LogGroup, LogPosition]],
) -> Iterator[tuple[list[tuple[Any, bytes | None]], LogPosition]]:
    """The notes of each piece of each group, and the position after the group.

    A note is ``(key, value)`` for a put, ``(key, None)`` for a delete and ``([start, end], None)``
    for a range, in order.
    """
    for group, position in groups:
        for piece in group.pieces():
            if piece.is_marker:
                continue
            head = b"\xdd" + len(piece.ids).to_bytes(4, "big")
            for notes in _decoder.decode(b"".join((head, piece.payloads))):
                yield list(zip(notes[::2], notes[1::2], strict=True)), position
