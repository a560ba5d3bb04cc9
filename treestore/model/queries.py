"""What the ``queries`` operations answer."""

from __future__ import annotations

import functools
from typing import Any, Literal

import attrs
import msgspec

from treestore.model.documents import Document, Node
from treestore.model.metadata import Contradiction, CrossReference
from treestore.model.versions import PolicyVersion

Reason = Literal["cross_reference", "keyword", "sibling", "see_also", "context"]
"""Why a node belongs together with another, in the order in which they count."""

REASONS: tuple[Reason, ...] = ("cross_reference", "keyword", "sibling", "see_also", "context")


@attrs.frozen(kw_only=True)
class RelatedNode:
    """A node that belongs together with the one asked for.

    Attributes:
        node: which.
        reason: why: the first of the reasons that hold.
        detail: more of it: the relation of a cross reference (with "from" or "to"), the place of a
            sibling or of a context ("parent", "child", "next", "previous"); "" where there is none.
        score: of the full-text search, for "keyword"; else None.
    """

    node: Node
    reason: Reason
    detail: str = ""
    score: float | None = None


# Not `attrs.evolve`, which takes as long as decoding four of them: references are structs.
_replace: Any = msgspec.structs.replace


@attrs.frozen(kw_only=True)
class EnrichedDocument:
    """A document with what is known of it, all of one state.

    Attributes:
        document: the facts about its tree.
        version: when it is in effect, and how it came about.
        nodes: in document order, or as asked.
        references: that nodes of the policy make, then those made to them, each once: one between
            two of its nodes is among the first. References are between policies' nodes, whatever
            the version. `cross_references` has them by node.
        contradictions: with evidence in this version (or in the policy, where no version is
            named), in the order in which they were stored.
    """

    document: Document
    version: PolicyVersion | None = None
    nodes: list[Node] = attrs.field(factory=list)
    references: tuple[CrossReference, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()

    @functools.cached_property
    def cross_references(self) -> dict[str, tuple[CrossReference, ...]]:
        """The references by node_id, in the order of ``nodes``: those that a node makes, then those
        made to it, with their ``direction``. One between two nodes of the document stands under
        both; what this version's nodes have no part in is left out, and so are nodes without any.
        """
        policy_id = self.document.policy_id
        node_ids = [node.node_id for node in self.nodes]
        found: dict[str, list[CrossReference]] = {}
        for reference in self.references:
            if reference.source_policy_id == policy_id:
                found.setdefault(reference.source_node_id, []).append(reference)
        for reference in self.references:
            if reference.target_policy_id == policy_id:
                turned = _replace(reference, direction="in")
                found.setdefault(reference.target_node_id, []).append(turned)
        return {node_id: tuple(found[node_id]) for node_id in node_ids if node_id in found}
