"""How much is stored."""

from __future__ import annotations

import msgspec

from treestore.stores.access import Read
from treestore.stores.keys import Keyspace, successor, unpack_one


class _Count(msgspec.Struct):
    """The one field of a document that is looked at."""

    node_count: int


_decode = msgspec.msgpack.Decoder(_Count).decode


def count_documents(txn: Read) -> tuple[int, int, int]:
    """Policies with a document, documents, and their nodes.

    Reads one record a document.
    """
    policies = documents = nodes = 0
    last = b""
    for key, record in txn.scan(Keyspace.DOCUMENTS, successor(Keyspace.DOCUMENTS)):
        _, end = unpack_one(key, 1)
        if key[:end] != last:
            last = key[:end]
            policies += 1
        documents += 1
        nodes += _decode(record).node_count
    return policies, documents, nodes
