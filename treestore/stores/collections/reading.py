"""Reading documents by their ids."""

from __future__ import annotations

from typing import Any

from treestore.errors import NotFound
from treestore.stores.access import Read
from treestore.stores.collections.catalog import no_collection, opened
from treestore.stores.collections.layout import Document, collection_key, packed_id
from treestore.stores.json_values import shown


def get(txn: Read, name: str, id: str) -> dict[str, Any]:
    """A document.

    Raises:
        NotFound: there is no such collection, or no such document in it.
    """
    record = txn.get(collection_key(name))
    if record is None:
        raise no_collection(name)
    document = txn.get(opened(record).documents + packed_id(id))
    if document is None:
        raise no_document(name, id)
    return txn.load(Document, document)


def no_document(name: str, id: str) -> NotFound:
    """The error for a document that does not exist."""
    return NotFound(
        f"There is no document {shown(id)} in collection {shown(name)}.", collection=name, id=id
    )
