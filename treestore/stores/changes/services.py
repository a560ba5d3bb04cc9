"""The table: whose keys read as changes, and how; and what a feed may ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from treestore.errors import InvalidArgument
from treestore.stores.access import Read
from treestore.stores.changes.decoding import Decoder, Entities, KeyValues
from treestore.stores.collections.changes import CollectionChanges, collection_names
from treestore.stores.documents.changes import DocumentChanges
from treestore.stores.documents.layout import packed_name
from treestore.stores.keys import Keyspace
from treestore.stores.namespaces.changes import NamespaceChanges, namespace_names


@attrs.frozen(kw_only=True)
class Selection:
    """Which changes a feed gives.

    Attributes:
        service: only those of this service.
        policy_id: only those of this policy.
        collection: only those of this collection or namespace.
        prefix: only keys of ``kv`` that begin with it.
        values: whether changes of ``kv`` carry the new value.
    """

    service: str | None = None
    policy_id: str | None = None
    collection: str | None = None
    prefix: bytes | None = None
    values: bool = False

    def __attrs_post_init__(self) -> None:
        if self.service is not None and self.service not in DECODERS:
            known = ", ".join(sorted(DECODERS))
            raise InvalidArgument(
                f"service {self.service!r:.80} has no changes to watch; those that have: {known}."
            )
        if self.policy_id is not None:
            packed_name("policy_id", self.policy_id)
        if self.collection is not None:
            packed_name("collection", self.collection)
        if self.prefix is not None and not isinstance(self.prefix, bytes):
            raise InvalidArgument(f"prefix is bytes, not {type(self.prefix).__name__}.")
        if not isinstance(self.values, bool):
            raise InvalidArgument(f"values is True or False, not {self.values!r:.40}.")
        if not self.services:
            raise InvalidArgument(
                "No change can be of all that was asked for at once: prefix is for kv, policy_id "
                "for documents and versions, collection for collections and namespaces."
            )

    @property
    def services(self) -> list[str]:
        """The services that can have such changes."""
        found = list(DECODERS) if self.service is None else [self.service]
        for name, able in _FILTERS.items():
            if getattr(self, name) is not None:
                found = [service for service in found if service in able]
        return found

    def decoders(self, txn: Read) -> dict[str, Decoder]:
        """Service → a decoder for one feed, which may look at the newest state first."""
        return {service: DECODERS[service](self, txn) for service in self.services}


_FILTERS: Final = {
    "policy_id": ("documents", "versions"),
    "collection": ("collections", "namespaces"),
    "prefix": ("kv",),
}
"""Filter → the services whose changes have what it asks for."""


DecoderMaker = Callable[[Selection, Read], Decoder]


def _entities(kinds: dict[bytes, tuple[str, tuple[str, ...]]]) -> DecoderMaker:
    def decoder(selection: Selection, _txn: Read) -> Decoder:
        return Entities(kinds, policy_id=selection.policy_id, collection=selection.collection)

    return decoder


_VERSIONS: Final[dict[bytes, tuple[str, tuple[str, ...]]]] = {
    Keyspace.VERSIONS: ("version", ("policy_id", "version_id")),
}
_METADATA: Final[dict[bytes, tuple[str, tuple[str, ...]]]] = {
    Keyspace.TOOL_RESULTS: ("tool_result", ()),
    Keyspace.TRAJECTORIES: ("trajectory", ()),
    Keyspace.CROSS_REFERENCES_OUT: ("cross_reference", ()),
    Keyspace.CONTRADICTIONS: ("contradiction", ()),
    Keyspace.ENTITY_METADATA: ("metadata", ()),
}
_PROMPTS: Final[dict[bytes, tuple[str, tuple[str, ...]]]] = {
    Keyspace.PROMPTS: ("prompt", ()),
    Keyspace.PROMPT_USAGE: ("usage", ()),
}

DECODERS: Final[dict[str, DecoderMaker]] = {
    "kv": lambda selection, _: KeyValues(
        Keyspace.KV, prefix=selection.prefix, values=selection.values
    ),
    "documents": lambda selection, _: DocumentChanges(policy_id=selection.policy_id),
    "versions": _entities(_VERSIONS),
    "metadata": _entities(_METADATA),
    "prompts": _entities(_PROMPTS),
    "collections": lambda selection, txn: CollectionChanges(
        collection_names(txn), collection=selection.collection
    ),
    "namespaces": lambda selection, txn: NamespaceChanges(
        namespace_names(txn), collection=selection.collection
    ),
}
"""Service → what makes its decoder. Services without one have no changes to watch."""


def readers_by_keyspace(decoders: dict[str, Decoder]) -> dict[int, tuple[str, Decoder, bool]]:
    """First byte of a key → the service, its decoder and whether that remembers anything."""
    return {
        keyspace: (service, decoder, decoder.remembers)
        for service, decoder in decoders.items()
        for keyspace in decoder.keyspaces
    }
