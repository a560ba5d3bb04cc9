"""The clients: for trio and asyncio programs, and for those without an event loop.

What is decided without any input or output is in ``calls``, ``breaker`` and ``connection``; the
rules of sending a request again in ``pool``; streams and services in ``stream`` and ``remote``.
``trio_…`` and ``asyncio_…`` add the waiting; ``portal`` and ``blocking`` the other threads.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treestore.client.blocking import BlockingDatabase, BlockingSnapshot, connect_sync
    from treestore.client.remote import RemoteDatabase, RemoteSnapshot, connect

__all__ = [
    "BlockingDatabase",
    "BlockingSnapshot",
    "RemoteDatabase",
    "RemoteSnapshot",
    "connect",
    "connect_sync",
]

# Handed on when first asked for: a server uses this package's `duplex` and has no need of asyncio.
_MODULES = {
    "BlockingDatabase": "blocking",
    "BlockingSnapshot": "blocking",
    "RemoteDatabase": "remote",
    "RemoteSnapshot": "remote",
    "connect": "remote",
    "connect_sync": "blocking",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'treestore.client' has no attribute {name!r}")
    return getattr(importlib.import_module(f"treestore.client.{_MODULES[name]}"), name)
