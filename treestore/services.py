"""Every service, bound to one caller: what ``db`` and a snapshot of it have in common."""

from __future__ import annotations

from typing import Generic

from treestore.stores.admin import Admin
from treestore.stores.documents.service import Documents
from treestore.stores.kv import KV
from treestore.stores.operation import A, Caller, M
from treestore.stores.versions.service import Versions


class Services(Generic[M, A]):
    """The services of a database, a snapshot or a client.

    Attributes:
        kv: plain keys and values.
        documents: document trees.
        versions: when each version of a policy is in effect.
        admin: looking after the store.
    """

    def __init__(self, caller: Caller) -> None:
        self.kv: KV[M, A] = KV(caller)
        self.documents: Documents[M, A] = Documents(caller)
        self.versions: Versions[M, A] = Versions(caller)
        self.admin: Admin[M, A] = Admin(caller)
