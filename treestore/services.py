"""Every service, bound to one caller: what ``db``, snapshots and transactions have in common."""

from __future__ import annotations

from typing import Generic

from treestore.stores.admin import Admin
from treestore.stores.agents.service import Agents
from treestore.stores.collections.service import Collections
from treestore.stores.documents.service import Documents
from treestore.stores.kv import KV
from treestore.stores.metadata.service import Metadata
from treestore.stores.namespaces.service import Namespaces
from treestore.stores.operation import A, Caller, M
from treestore.stores.prompts.service import Prompts
from treestore.stores.queries.service import Queries
from treestore.stores.versions.service import Versions


class Stores(Generic[M, A]):
    """The services that read and write what is stored: all that a transaction has.

    Attributes:
        kv: plain keys and values.
        documents: document trees.
        versions: when each version of a policy is in effect.
        metadata: what is known beside the documents.
        prompts: prompts in their versions, and their use.
        collections: JSON documents with secondary indexes.
        namespaces: documents found by vectors, words and filters.
        queries: reads across the stores.
        agents: recording what agents do.
    """

    def __init__(self, caller: Caller) -> None:
        self.kv: KV[M, A] = KV(caller)
        self.documents: Documents[M, A] = Documents(caller)
        self.versions: Versions[M, A] = Versions(caller)
        self.metadata: Metadata[M, A] = Metadata(caller)
        self.prompts: Prompts[M, A] = Prompts(caller)
        self.collections: Collections[M, A] = Collections(caller)
        self.namespaces: Namespaces[M, A] = Namespaces(caller)
        self.queries: Queries[M, A] = Queries(caller)
        self.agents: Agents[M, A] = Agents(caller)


class Services(Stores[M, A]):
    """The services of a database, a snapshot or a client.

    Attributes:
        admin: looking after the store.
    """

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller)
        self.admin: Admin[M, A] = Admin(caller)
