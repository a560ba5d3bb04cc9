"""Storing whole documents, and removing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from treestore.errors import InvalidArgument
from treestore.model.documents import Document
from treestore.stores.access import Write
from treestore.stores.documents.build import Builder, Top
from treestore.stores.documents.forest import link
from treestore.stores.documents.layout import (
    AFTER,
    ORDINAL_GAP,
    Place,
    encode,
    encode_ordinal,
)
from treestore.stores.documents.policies import (
    Day,
    VersionEntry,
    decode_document,
    find_entry,
    read_entries,
    to_period,
    write_entries,
)
from treestore.stores.documents.shapes import DocumentSource, Shapes
from treestore.stores.documents.source import Heading, Structure, opened
from treestore.stores.documents.values import check_metadata, not_json


def store(
    policy_id: str,
    version_id: str,
    structure: Structure,
    *,
    pageindex_doc_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    language: str = "english",
    effective_from: Day | None = None,
    effective_to: Day | None = None,
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
        language: of the text, for full-text search.
        effective_from: first day the version is in effect; None: undated, or since ever.
        effective_to: last day it is in effect (inclusive). Where both are None and
            ``versions.create`` dated the version, those days stay.

    Raises:
        InvalidArgument: the structure is no tree, an id occurs twice, a parent is unknown, …; the
            message names the node.
    """
    place = Place(policy_id, version_id)
    if pageindex_doc_id is not None and not isinstance(pageindex_doc_id, str):
        raise InvalidArgument("pageindex_doc_id is a string or None.")
    if not isinstance(language, str) or not language:
        raise InvalidArgument('language is the name of a language, such as "english".')
    metadata = check_metadata(metadata)
    first, last = to_period(effective_from, effective_to)
    heading, entries = opened(structure)
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
    if pageindex_doc_id is None and isinstance(heading.document.get("doc_id"), str):
        pageindex_doc_id = heading.document["doc_id"]
    items = list(builder.items())
    root_ids = tuple(forest.ids[root] for root in forest.roots)
    node_count = len(forest.ids)
    del entries, structure, forest, builder

    def apply(txn: Write) -> Document:
        old = txn.get(place.document)
        versions = read_entries(txn, policy_id)
        entry = find_entry(versions, version_id)
        if old is not None:
            remove_nodes(txn, place)
        if entry is None:
            entry = VersionEntry(version_id)
        else:
            # Recorded anew: from now on it is the latest of its policy.
            versions.remove(entry)
        versions.append(entry)
        entry.stored = True
        if not (entry.declared and first is None and last is None):
            entry.effective_from, entry.effective_to = first, last
        document = Document(
            policy_id=policy_id,
            version_id=version_id,
            pageindex_doc_id=pageindex_doc_id,
            root_ids=root_ids,
            node_count=node_count,
            language=language,
            metadata=metadata,
            created_at=txn.now if old is None else decode_document(old).created_at,
            updated_at=txn.now,
            effective_from=entry.effective_from,
            effective_to=entry.effective_to,
        )
        txn.put_sorted(iter(items))
        txn.put(place.document, encode(document))
        txn.put(place.source, encode(source))
        write_entries(txn, policy_id, versions)
        return document

    return apply


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

    What ``versions.create`` declared about the version stays.
    """
    place = Place(policy_id, version_id)
    if not txn.delete(place.document):
        return False
    remove_nodes(txn, place)
    txn.delete(place.source)
    versions = read_entries(txn, policy_id)
    entry = find_entry(versions, version_id)
    if entry is not None:
        entry.stored = False
        if not entry.declared:
            versions.remove(entry)
    write_entries(txn, policy_id, versions)
    return True


def delete_policy(txn: Write, policy_id: str) -> bool:
    """Remove the documents of all the policy's versions; returns whether there were any."""
    stored = [entry.version_id for entry in read_entries(txn, policy_id) if entry.stored]
    for version_id in stored:
        delete(txn, policy_id, version_id)
    return bool(stored)
