"""Sending a stream's items as far as the client's credit goes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from actors.host import EncodedStream
from actors.session_work import Task
from protocol.errors import MessageTooLarge
from protocol.limits import KIB
from protocol.messages import StreamEnd, StreamItems
from treestore.client.duplex import Duplex
from treestore.errors import ResourceExhausted

BATCH_SIZE_BYTES = 256 * KIB
"""Items of a stream that travel in one message."""

BATCH_COUNT = 1024
"""Likewise, by number."""


async def send_stream(
    task: Task,
    opening: AbstractAsyncContextManager[EncodedStream],
    duplex: Duplex,
    send: Callable[[Any], Any],
    pause_size_bytes: int,
) -> None:
    """Send all items, and the end.

    Args:
        send: makes the bytes of a message.
        pause_size_bytes: nothing is read while the client has this much output to take.

    Raises:
        ResourceExhausted: an item is too long to send.
    """
    async with opening as source:
        while True:
            await task.wait_for_credit()
            await duplex.wait_below(pause_size_bytes)
            size_max = min(task.credit_bytes, BATCH_SIZE_BYTES)
            batch = await source.next_batch(size_max, BATCH_COUNT)
            if batch is None:
                break
            task.credit_bytes -= sum(map(len, batch))
            items = StreamItems(task.id, [msgspec.Raw(item) for item in batch])
            try:
                duplex.append(send(items), task.id)
            except MessageTooLarge as error:
                raise ResourceExhausted(f"An item is too long to send. {error}") from None
            duplex.flush_soon()
    duplex.append(send(StreamEnd(task.id)), task.id)
