"""Versions of policies, as every face of TreeStore returns them.

A `PolicyVersion` is also the record format, as in `treestore.model.documents`: a field may be added
with a default, none may be renamed.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

import attrs

from treestore.model.documents import Node

__all__ = ["FieldChange", "NodeChange", "PolicyVersion"]

Recording = Literal["created", "corrected", "retired", "superseded", "updated", "withdrawn"]


@attrs.frozen(kw_only=True)
class PolicyVersion:
    """One version of one policy, as it was recorded at one time.

    Attributes:
        policy_id: what it is a version of.
        version_id: unique within the policy.
        effective_from: first day it is in effect; None: since ever, or undated.
        effective_to: last day it is in effect (inclusive); None: without end, or undated. A
            version with neither is undated: it is in effect on no day.
        supersedes: the version that it took the place of, where it was created so.
        superseded_by: the version that took its place.
        description: free text.
        tags: in alphabetical order.
        created_by: who recorded it, as given.
        metadata: JSON-like facts, as given.
        has_document: whether a document is stored for it (in a past state: was, at that time).
        change: what was recorded: "created", "corrected" (recorded anew), "retired",
            "superseded", "updated" or "withdrawn" (only in a history).
        revision: number of the change within the policy; grows.
        recorded_at: when this was recorded (UTC); grows with the revision.
        created_at: when the version was first recorded, since it was last withdrawn (UTC).
    """

    policy_id: str
    version_id: str
    effective_from: date | None = None
    effective_to: date | None = None
    supersedes: str | None = None
    superseded_by: str | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    created_by: str = ""
    metadata: dict[str, Any] = attrs.field(factory=dict)
    has_document: bool = False
    change: Recording = "created"
    revision: int
    recorded_at: datetime
    created_at: datetime


@attrs.frozen(kw_only=True)
class FieldChange:
    """One field of a node in two versions.

    Attributes:
        name: of the field, as in `Node`.
        old: in the first version.
        new: in the second version.
    """

    name: str
    old: Any = None
    new: Any = None


@attrs.frozen(kw_only=True)
class NodeChange:
    """What became of one node between two versions.

    A node that moved and changed has two of these, the move first.

    Attributes:
        kind: "added", "removed", "changed" or "moved".
        node_id: in both versions.
        title: in the second version; of a removed node, in the first.
        parent_id: in the second version; of a removed node, in the first. None for a root.
        index: position among its siblings, likewise; 0 the first.
        old_parent_id: moved: the parent in the first version.
        old_index: moved: the position there.
        fields: changed: each field that differs.
        node: added, removed: the node.
    """

    kind: Literal["added", "removed", "changed", "moved"]
    node_id: str
    title: str = ""
    parent_id: str | None = None
    index: int = 0
    old_parent_id: str | None = None
    old_index: int | None = None
    fields: tuple[FieldChange, ...] = ()
    node: Node | None = None
