"""Documents and their nodes, as every face of TreeStore returns them.

The classes are also the record format: a stored record is the msgpack map of the fields by name,
in the order declared here, and the same bytes go over the wire. (A store writes records from
dicts: given a slotted attrs object, msgspec orders the fields as it likes.) A field may be added
with a default, before ``text``; none may be renamed.

A `Node` is decoded by the hundred, so it is a struct underneath (`treestore.model.attrs_struct`).
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import attrs
from msgspec import UNSET, UnsetType

from treestore.model.attrs_struct import attrs_struct

__all__ = ["UNSET", "Document", "Node", "UnsetType"]


@attrs_struct
@attrs.frozen(kw_only=True)
class Node:
    """One node of a document tree: a chapter, a section, a paragraph.

    Attributes:
        policy_id: the policy that the document belongs to.
        version_id: the version of the policy.
        node_id: unique within the document.
        parent_id: None for a root.
        title: "" where the source gave none.
        page_start: first page, as given; None where the source has no pages.
        page_end: last page (inclusive), as given; smaller than ``page_start`` where the source
            says so (such a node touches no page).
        summary: "" where the source gave none.
        section_path: the one given, else the position: "1.2.3" is the third child of the second
            child of the first root.
        depth: levels above; 0 for a root.
        child_ids: in document order.
        metadata: whatever else the source said about the node.
        text: the node's own text, without its children's; "" also where a read left it out.
    """

    policy_id: str
    version_id: str
    node_id: str
    parent_id: str | None = None
    title: str = ""
    page_start: int | None = None
    page_end: int | None = None
    summary: str = ""
    section_path: str = ""
    depth: int = 0
    child_ids: tuple[str, ...] = ()
    metadata: dict[str, Any] = attrs.field(factory=dict)
    # Last on purpose: a record without its text is a prefix of the record with it.
    text: str = ""


@attrs.frozen(kw_only=True)
class Document:
    """One version of one policy: the facts about its tree.

    Attributes:
        policy_id: what the document is a version of.
        version_id: unique within the policy.
        pageindex_doc_id: its id in PageIndex, where known.
        root_ids: the roots in document order (PageIndex gives a forest, not one tree).
        node_count: nodes in the whole forest.
        language: of the text, for full-text search.
        metadata: as given to ``store``.
        created_at: when the version was first stored (UTC).
        updated_at: when it was last stored or edited (UTC).
        effective_from: first day it is in effect; None: undated, or since ever.
        effective_to: last day it is in effect (inclusive); None: without end.
    """

    policy_id: str
    version_id: str
    pageindex_doc_id: str | None = None
    root_ids: tuple[str, ...] = ()
    node_count: int = 0
    language: str = "english"
    metadata: dict[str, Any] = attrs.field(factory=dict)
    created_at: datetime
    updated_at: datetime
    effective_from: date | None = None
    effective_to: date | None = None
