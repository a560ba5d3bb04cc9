"""Storing whole documents, and removing them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs
import msgspec
from msgspec import UNSET, UnsetType

from treestore.errors import InvalidArgument
from treestore.model.documents import Document
from treestore.model.versions import PolicyVersion
from treestore.search.names import check_language
from treestore.stores.access import Write
from treestore.stores.documents.build import Builder, Item, Top, let_go
from treestore.stores.documents.forest import link
from treestore.stores.documents.layout import AFTER, ORDINAL_GAP, Place, encode_ordinal
from treestore.stores.documents.policies import Day, decode_document, to_period
from treestore.stores.documents.shapes import DocumentSource, Shapes
from treestore.stores.documents.source import Entry, Heading, Structure, opened
from treestore.stores.json_values import JsonObject, check_metadata, encode, not_json
from treestore.stores.versions.book import stored_versions
from treestore.stores.versions.changing import (
    check_supersedes,
    checked_facts,
    document_deleted,
    document_stored,
)


def store(
    policy_id: str,
    version_id: str,
    structure: Structure,
    *,
    pageindex_doc_id: str | None = None,
    metadata: JsonObject | None = None,
    language: str = "english",
    effective_from: Day | None = None,
    effective_to: Day | None = None,
    supersedes: str | None = None,
    description: str | UnsetType = UNSET,
    tags: Sequence[str] | UnsetType = UNSET,
    created_by: str | UnsetType = UNSET,
) -> Callable[[Write], Document]:
    """Store a document: one version of a policy, whole and at once.

    Storing the same version again replaces it whole; readers see the old one or the new one.
    Nodes without an id get one as PageIndex gives them: four digits in reading order.

    Args:
        policy_id: 1 to 200 bytes of UTF-8.
        version_id: likewise.
        structure: PageIndex JSON in any of its shapes, or a flat list of nodes with ``node_id``
            and ``parent_id``; keys that TreeStore does not know are kept (on a node they appear
            in its ``metadata``), and ``get_structure`` gives them back. A node id has at most 256
            bytes, a tree at most 200 levels.
        pageindex_doc_id: by default the structure's own ``doc_id``, where it has one.
        metadata: JSON-like facts about the document.
        language: of the text, for full-text search (``docs/search.md`` lists them); else "none".
        effective_from: first day the version is in effect; None: undated, or since ever.
        effective_to: last day it is in effect (inclusive). With either day the version is
            recorded in the same transaction, as ``versions.create`` does. Where both are None and
            ``versions`` dated the version, those days stay.
        supersedes, description, tags, created_by: as in ``versions.create``; what is UNSET stays
            as it was. ``supersedes`` needs ``effective_from``.

    Raises:
        InvalidArgument: the structure is no tree, an id occurs twice, a parent is unknown, …; the
            message names the node. Or a day is none, an end lies before its start, …. Or there is
            no such language; the message lists them.
        NotFound: there is no version ``supersedes``.
    """
    place = Place(policy_id, version_id)
    if pageindex_doc_id is not None and not isinstance(pageindex_doc_id, str):
        raise InvalidArgument("pageindex_doc_id is a string or None.")
    check_language(language)
    metadata = check_metadata(metadata)
    period = to_period(effective_from, effective_to)
    check_supersedes(supersedes, version_id, period[0])
    facts = checked_facts(description, tags, created_by=created_by)
    heading, entries = opened(structure)
    prepared = _prepare(place, heading, entries)
    own_id = heading.document.get("doc_id")
    if pageindex_doc_id is None and isinstance(own_id, str):
        pageindex_doc_id = own_id
    prepared.fields = {
        "pageindex_doc_id": pageindex_doc_id,
        "metadata": metadata,
        "language": language,
    }
    prepared.record_version = partial(
        document_stored,
        policy_id=policy_id,
        version_id=version_id,
        period=period,
        supersedes=supersedes,
        facts=facts,
    )
    return prepared


@attrs.define
class _PreparedDocument:
    """A document ready to be stored; called with the transaction, it is."""

    place: Place
    items: list[Item]
    """All of its nodes' entries, ascending."""
    source: bytes
    root_ids: tuple[str, ...]
    node_count: int
    fields: dict[str, Any] = attrs.field(factory=dict)
    record_version: Callable[[Write], PolicyVersion] = attrs.field(init=False)
    """Notes what is known of the version."""

    def __call__(self, txn: Write) -> Document:
        place = self.place
        old = txn.get(place.document)
        if old is not None:
            remove_nodes(txn, place)
        version = self.record_version(txn)
        document = Document(
            policy_id=place.policy_id,
            version_id=place.version_id,
            root_ids=self.root_ids,
            node_count=self.node_count,
            created_at=txn.now if old is None else decode_document(old).created_at,
            updated_at=txn.now,
            effective_from=version.effective_from,
            effective_to=version.effective_to,
            **self.fields,
        )
        # The source before the nodes: that tells a feed of changes that all of them are new.
        txn.put(place.source, self.source)
        txn.put_sorted(self.items)
        txn.put(place.document, encode(document))
        return document

    def let_go(self) -> None:
        """Free the entries bit by bit; it cannot be stored any more."""
        let_go(self.items)


def _prepare(place: Place, heading: Heading, entries: Iterator[Entry]) -> _PreparedDocument:
    forest = link(entries, by_id=heading.flat)
    shapes = Shapes(heading.flat)
    builder = Builder(place, shapes)
    tops = [
        Top(encode_ordinal((i + 1) * ORDINAL_GAP), None, 0, str(i + 1))
        for i in range(len(forest.roots))
    ]
    builder.add(forest, tops, keep_positions=not forest.ordered)
    source = DocumentSource(
        heading.wrapper,
        heading.key,
        heading.flat,
        forest.ordered,
        msgspec.Raw(_document(heading)),
        shapes.table(),
        forest.next_number,
    )
    root_ids = tuple(forest.ids[root] for root in forest.roots)
    return _PreparedDocument(place, builder.items(), _encoded(source), root_ids, len(forest.ids))


def _encoded(source: DocumentSource) -> bytes:
    try:
        return encode(source)
    except UnicodeEncodeError as error:
        raise not_json(error) from None


def _document(heading: Heading) -> bytes:
    try:
        check_metadata(heading.document, "The document")
        return encode(heading.document)
    except (TypeError, OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise not_json(error) from None


def remove_nodes(txn: Write, place: Place) -> None:
    """Remove every node of a document, with all that leads to them."""
    for prefix in (place.nodes, place.ids, place.pages):
        txn.delete_range(prefix, prefix + AFTER)


def delete(txn: Write, policy_id: str, version_id: str) -> bool:
    """Remove one version's document; returns whether there was one.

    What ``versions`` declared of the version stays. Days that came with the document alone are
    taken back with it; ``versions.history`` and ``versions.as_of`` with an earlier ``known_at``
    still know them.
    """
    place = Place(policy_id, version_id)
    if not txn.delete(place.document):
        return False
    remove_nodes(txn, place)
    txn.delete(place.source)
    document_deleted(txn, policy_id, version_id)
    return True


def delete_policy(txn: Write, policy_id: str) -> bool:
    """Remove the documents of all the policy's versions; returns whether there were any.

    As `delete` of each. With them go the cross references that the policy's nodes make and the
    free metadata of entity type "policy" with its id. What others recorded about it stays:
    references to its nodes, tool results, trajectories, contradictions. ``versions.erase`` then
    forgets what was recorded of its versions.
    """
    # Here, since metadata is built upon documents.
    from treestore.stores.metadata.removal import forget_policy

    stored = stored_versions(txn, policy_id)
    for version_id in stored:
        delete(txn, policy_id, version_id)
    forget_policy(txn, policy_id)
    return bool(stored)
