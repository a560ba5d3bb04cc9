"""A client and a session joined by streams in memory: no sockets, so the clock can jump."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from actors.listener import accept_any
from actors.memory import MemoryBudget
from actors.session import Session
from actors.wire import Counters, Methods, Shared, WireSettings
from treestore.client.remote import RemoteDatabase, connect


@asynccontextmanager
async def memory_database(host: Any, **options: Any) -> AsyncGenerator[RemoteDatabase]:
    """A client whose every connection is served by a session of its own."""
    settings = WireSettings()
    shared = Shared(
        host=host,
        settings=settings,
        authenticate=accept_any,
        budget=MemoryBudget(settings.memory_size_bytes_max),
        counters=Counters(),
        methods=Methods(),
    )
    async with trio.open_nursery() as nursery:

        async def open_memory_stream(_host: str, _port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(Session(shared, theirs, 1, "memory").run)
            return ours

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(trio, "open_tcp_stream", open_memory_stream)
            async with connect("memory:1", connections=1, **options) as db:
                yield db
        nursery.cancel_scope.cancel()
