"""How a node was written: which of its keys say what, and how to write it like that again.

PageIndex's formats name the same facts differently (``start_index``, ``page_start``,
``page_index``; ``nodes``, ``child_nodes``). A *shape* is the ordered list of a node's keys; a
document has few, kept in one table, and a node stores the number of its shape. A `Plan` is a
shape understood: the *role* each key plays. Keys without a role are facts of their own and go to
``Node.metadata``.

A node's source record is the msgpack array ``[shape, overrides?, position?]``. ``overrides`` holds
values that the node's fields cannot give back (``null`` for a title, a depth that is not true);
an edit of the field drops them. ``position`` is the place in a flat list that was not in document
order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from treestore.errors import InvalidArgument
from treestore.model.documents import Node
from treestore.stores.json_values import encode

CHILDREN_KEYS: Final = ("nodes", "child_nodes", "children")

ROLES: Final[dict[str, tuple[str, ...]]] = {
    "node_id": ("node_id",),
    "parent_id": ("parent_id",),
    "title": ("title",),
    "page_start": ("start_index", "page_start", "page_index", "physical_index"),
    "page_end": ("end_index", "page_end"),
    "summary": ("summary", "prefix_summary"),
    "text": ("text",),
    "children": CHILDREN_KEYS,
    "section_path": ("section_path",),
    "metadata": ("metadata",),
}
"""For each role the keys that play it, the best first. A second one is a fact of its own."""

DERIVED: Final = frozenset({"policy_id", "version_id", "depth", "child_ids"})
"""Keys whose value follows from the document; stored only where it differs."""

SINGLE_PAGE_KEYS: Final = frozenset({"page_index", "physical_index"})
"""Keys that give first and last page at once, where there is no other key for the last."""

NAMES: Final = {
    "node_id": "node_id",
    "parent_id": "parent_id",
    "title": "title",
    "page_start": "start_index",
    "page_end": "end_index",
    "summary": "summary",
    "text": "text",
    "children": "nodes",
    "section_path": "section_path",
    "metadata": "metadata",
}
"""The key for a role in a document whose nodes have not used another one."""


class Plan:
    """A shape understood."""

    __slots__ = (
        "children",
        "derived",
        "keys",
        "metadata",
        "node_id",
        "number",
        "page_end",
        "page_start",
        "parent_id",
        "roles",
        "section_path",
        "single_page",
        "source",
        "summary",
        "text",
        "title",
        "unknown",
    )

    def __init__(self, keys: tuple[str, ...], flat: bool, number: int) -> None:
        self.keys = keys
        self.number = number
        self.source = encode([number])
        """The source record of a node with nothing special."""
        self.roles: dict[str, str] = {}
        """Role of each key that plays one."""
        for role, names in ROLES.items():
            name = next((name for name in names if name in keys), None)
            if role == "children" and flat:
                name = None
            setattr(self, role, name)
            if name is not None:
                self.roles[name] = role
        self.derived = tuple(key for key in keys if key in DERIVED)
        self.unknown = frozenset(k for k in keys if k not in self.roles and k not in DERIVED)
        self.single_page = self.page_end is None and self.page_start in SINGLE_PAGE_KEYS

    node_id: str | None
    parent_id: str | None
    title: str | None
    page_start: str | None
    page_end: str | None
    summary: str | None
    text: str | None
    children: str | None
    section_path: str | None
    metadata: str | None


class DocumentSource(msgspec.Struct, array_like=True):
    """What `get_structure` needs of a document beside its nodes."""

    wrapper: str
    """What was stored: "list" (of nodes), "document" (a dict holding the list under ``key``),
    "tree" (a dict holding one node under ``key``) or "node" (a dict that is the one root)."""
    key: str
    flat: bool
    """The list is flat, with parent ids."""
    ordered: bool
    """A flat list is to be given back in document order; else by the nodes' positions."""
    document: msgspec.Raw
    """The dict around the nodes, with null under ``key``."""
    shapes: list[tuple[str, ...]]
    next_number: int
    """From here on, numbers have not been used for node ids that TreeStore gave."""


class Shapes:
    """The table of a document's shapes, growing as nodes are read."""

    def __init__(self, flat: bool, shapes: Iterable[tuple[str, ...]] = ()) -> None:
        self.flat = flat
        self.plans: list[Plan] = []
        self.names: dict[str, str] = {}
        """The key for a role, as this document used it first."""
        self._numbers: dict[tuple[str, ...], Plan] = {}
        for keys in shapes:
            self._add(tuple(keys))

    def plan(self, keys: tuple[str, ...]) -> Plan:
        """The plan for a node with these keys."""
        plan = self._numbers.get(keys)
        return self._add(keys) if plan is None else plan

    def _add(self, keys: tuple[str, ...]) -> Plan:
        for key in keys:
            if not isinstance(key, str):
                raise InvalidArgument(f"A node has the key {key!r}; keys are strings.")
        plan = self._numbers[keys] = Plan(keys, self.flat, len(self.plans))
        self.plans.append(plan)
        for key, role in plan.roles.items():
            self.names.setdefault(role, key)
        return plan

    def table(self) -> list[tuple[str, ...]]:
        """The shapes by number, as they are stored."""
        return [plan.keys for plan in self.plans]


def make_source(plan: Plan, overrides: dict[str, Any] | None, position: int | None = None) -> bytes:
    """A node's source record."""
    if position is not None:
        return encode([plan.number, overrides or None, position])
    return encode([plan.number, overrides]) if overrides else plan.source


def section_given(plan: Plan, source: list[Any]) -> bool:
    """Whether the node's section_path was given rather than counted."""
    if plan.section_path is None:
        return False
    return len(source) == 1 or not source[1] or plan.section_path not in source[1]


def derived_value(node: Node, key: str) -> Any:
    """What a key of `DERIVED` holds for ``node``."""
    value = getattr(node, key)
    return list(value) if key == "child_ids" else value


def write_node(
    node: Node, plan: Plan, overrides: dict[str, Any], names: dict[str, str], flat: bool
) -> dict[str, Any]:
    """The node as it was written, edits since then included.

    The value under its children's key is an empty list, for the caller to fill.
    """
    out: dict[str, Any] = {}
    metadata = node.metadata
    for key in plan.keys:
        if key in overrides:
            out[key] = overrides[key]
        elif (role := plan.roles.get(key)) is None:
            if key in DERIVED:
                out[key] = derived_value(node, key)
            elif key in metadata:
                out[key] = metadata[key]
        elif role == "children":
            out[key] = []
        elif role == "metadata":
            out[key] = {k: v for k, v in metadata.items() if k not in plan.unknown}
        else:
            out[key] = getattr(node, role)
    _add_missing(out, node, plan, names, flat)
    return out


def _add_missing(
    out: dict[str, Any], node: Node, plan: Plan, names: dict[str, str], flat: bool
) -> None:
    """What edits gave the node and its shape has no key for."""
    for role in ("title", "page_start", "summary", "text"):
        value = getattr(node, role)
        if getattr(plan, role) is None and value not in ("", None):
            out[names.get(role, NAMES[role])] = value
    implied = node.page_start if plan.single_page else None
    if plan.page_end is None and node.page_end != implied:
        usual = "page_end" if names.get("page_start") == "page_start" else "end_index"
        out[names.get("page_end", usual)] = node.page_end
    if flat and plan.parent_id is None and node.parent_id is not None:
        out["parent_id"] = node.parent_id
    if plan.children is None and node.child_ids and not flat:
        out[names.get("children", NAMES["children"])] = []
    own = plan.unknown
    if plan.metadata is None and not node.metadata.keys() <= own:
        taken = out.keys() | ROLE_OF.keys() | DERIVED
        nested: dict[str, Any] = {}
        for key, value in node.metadata.items():
            if key in taken and key not in own:
                nested[key] = value
            elif key not in own:
                out[key] = value
        if nested:
            out["metadata"] = nested


ROLE_OF: Final = {key: role for role, keys in ROLES.items() for key in keys}
"""The role that a key can play."""


def renamed(node: dict[str, Any], flat: bool, names: dict[str, str]) -> dict[str, Any]:
    """``node`` with the key names that a document uses, for a node put in later.

    Its ``parent_id`` is left out: a flat list says it anew, a nested one not at all.
    """
    plan = Plan(tuple(node), flat, 0)
    new: dict[str, Any] = {}
    for key, value in node.items():
        role = plan.roles.get(key)
        if role == "parent_id":
            continue
        name = key if role is None else names.get(role, key)
        new[key if name != key and name in node else name] = value
    if plan.single_page and names.get("page_start", "page_index") not in SINGLE_PAGE_KEYS:
        # The document says both ends, so one key for both does not do.
        assert plan.page_start is not None
        new.setdefault(names.get("page_end", "end_index"), node[plan.page_start])
    return new


def without_overrides(source: list[Any], keys: Iterable[str]) -> list[Any]:
    """``source`` without what it says about ``keys``."""
    if len(source) == 1 or not source[1]:
        return source
    left = {key: value for key, value in source[1].items() if key not in set(keys)}
    return [source[0], left or None, *source[2:]]
