"""TreeStore: the storage layer for applications that reason over documents.

async with treestore.open("data") as db: ...               # embedded, in a trio program
async with treestore.connect("127.0.0.1:7707") as db: ...  # a client, on trio and on asyncio
with treestore.connect_sync("127.0.0.1:7707") as db: ...   # a blocking client
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msgspec import UNSET

    from actors.database import Database
    from actors.database import open_database as open
    from actors.tuning import tune
    from treestore import errors
    from treestore.client import BlockingDatabase, RemoteDatabase, connect, connect_sync
    from treestore.model.changes import Change
    from treestore.model.documents import Document, Node
    from treestore.model.page import Page

__version__ = "0.1.0"

__all__ = [
    "UNSET",
    "BlockingDatabase",
    "Change",
    "Database",
    "Document",
    "Node",
    "Page",
    "RemoteDatabase",
    "__version__",
    "connect",
    "connect_sync",
    "errors",
    "open",
    "tune",
]

# Names are handed on when they are first asked for: a client need not load the engine, and the
# engine's own modules can import ``treestore.errors`` without loading everything else.
_LAZY = {
    "UNSET": ("msgspec", "UNSET"),
    "BlockingDatabase": ("treestore.client.blocking", "BlockingDatabase"),
    "Change": ("treestore.model.changes", "Change"),
    "Database": ("actors.database", "Database"),
    "Document": ("treestore.model.documents", "Document"),
    "Node": ("treestore.model.documents", "Node"),
    "Page": ("treestore.model.page", "Page"),
    "RemoteDatabase": ("treestore.client.remote", "RemoteDatabase"),
    "connect": ("treestore.client.remote", "connect"),
    "connect_sync": ("treestore.client.blocking", "connect_sync"),
    "errors": ("treestore.errors", None),
    "open": ("actors.database", "open_database"),
    "tune": ("actors.tuning", "tune"),
}


def __getattr__(name: str) -> Any:
    try:
        module_name, attribute = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module 'treestore' has no attribute {name!r}") from None
    module = importlib.import_module(module_name)
    return module if attribute is None else getattr(module, attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
