"""Records and index entries from linked nodes."""

from __future__ import annotations

import re
from heapq import merge
from typing import Any, Final

import attrs

from treestore.errors import InvalidArgument
from treestore.stores.documents.forest import Forest
from treestore.stores.documents.layout import (
    DEPTH_MAX,
    HEAD,
    ORDINAL_GAP,
    PATH_SIZE_BYTES_MAX,
    TEXT,
    Place,
    encode_ordinal,
    make_record,
    packed_node_id,
)
from treestore.stores.documents.pages import PAGE_MAX, page_item
from treestore.stores.documents.shapes import Plan, Shapes, make_source
from treestore.stores.documents.source import too_deep
from treestore.stores.json_values import (
    SCALARS,
    check_json,
    check_metadata,
    encode,
    not_json,
    shown,
)

_PHYSICAL_INDEX = re.compile(r"<?physical_index_(\d{1,18})>?")

Item = tuple[bytes, bytes]

STEP_ITEMS: Final = 4096
"""Items that are sorted, or let go of, at a time: about half a millisecond."""


@attrs.frozen
class Top:
    """Where a root of a forest goes in the document."""

    path: bytes
    parent_id: str | None
    depth: int
    section: str
    """Its position, such as "1.2.3"."""


def check_text(value: Any, what: str) -> str:
    """A string; `InvalidArgument` for anything else."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} is a string, not {value!r:.60}.")
    return value


def check_page(value: Any, what: str) -> int | None:
    """A page number as an int; None stays None."""
    if isinstance(value, int) and not isinstance(value, bool):
        if -PAGE_MAX <= value <= PAGE_MAX:
            return int(value)
    elif value is None:
        return None
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    elif isinstance(value, str) and (match := _PHYSICAL_INDEX.fullmatch(value)):
        return int(match[1])
    raise InvalidArgument(f"{what} is a page number or null, not {value!r:.60}.")


def sort_in_steps(items: list[Item]) -> None:
    """Sort so that other threads can run in between: one call of ``sort`` keeps the interpreter
    until it is done, 50 ms for the ids of a long document."""
    for at in range(0, len(items), STEP_ITEMS):
        items[at : at + STEP_ITEMS] = sorted(items[at : at + STEP_ITEMS])
    seams = range(STEP_ITEMS, len(items), STEP_ITEMS)
    if any(items[at - 1] > items[at] for at in seams):
        items[:] = merge(*(items[at : at + STEP_ITEMS] for at in (0, *seams)))


def let_go(items: list[Item]) -> None:
    """Empty a list, likewise."""
    while items:
        del items[-STEP_ITEMS:]


class Builder:
    """Collects the sorted entries of one document, or of nodes to be put into one.

    Attributes:
        nodes: records and texts, ascending.
        ids: `NODE_IDS` entries, in reading order.
        pages: `PAGES` entries, in reading order.
    """

    def __init__(self, place: Place, shapes: Shapes) -> None:
        self.place = place
        self.shapes = shapes
        self.nodes: list[Item] = []
        self.ids: list[Item] = []
        self.pages: list[Item] = []

    def items(self) -> list[Item]:
        """Everything in ascending order."""
        sort_in_steps(self.ids)
        sort_in_steps(self.pages)
        return [*self.nodes, *self.ids, *self.pages]

    def add(self, forest: Forest, tops: list[Top], *, keep_positions: bool) -> None:
        """All nodes of ``forest``, whose roots go to ``tops`` (in the same order).

        Args:
            keep_positions: store the place in the list, because it is not the reading order.
                Nodes are let go of as they are used: a forest is added once.
        """
        top_of = dict(zip(forest.roots, tops, strict=True))
        paths = [b""] * (DEPTH_MAX + 1)
        sections = [""] * (DEPTH_MAX + 1)
        counts = [0] * (DEPTH_MAX + 1)
        top = Top(b"", None, 0, "")  # replaced at once: the first node is a root
        ordinals: list[bytes] = []
        for number in forest.order:
            level = forest.depths[number]
            if level == 0:
                top = top_of[number]
                path, section, parent_id = top.path, top.section, top.parent_id
                depth = top.depth
            else:
                at = counts[level]
                if at == len(ordinals):
                    ordinals.append(encode_ordinal((at + 1) * ORDINAL_GAP))
                counts[level] = at + 1
                path = paths[level - 1] + ordinals[at]
                section = f"{sections[level - 1]}.{at + 1}"
                parent_id = forest.ids[forest.parents[number]]
                depth = top.depth + level
            paths[level], sections[level], counts[level + 1] = path, section, 0
            if depth >= DEPTH_MAX or len(path) > PATH_SIZE_BYTES_MAX:
                raise too_deep()
            node = forest.maps[number]
            assert node is not None
            forest.maps[number] = None
            where = Top(path, parent_id, depth, section)
            position = number if keep_positions else None
            node_id = forest.ids[number]
            try:
                self._add(node, node_id, where, forest.child_ids(number), position)
            except InvalidArgument as error:
                raise InvalidArgument(f"Node {shown(node_id)}: {error.message}") from None
            except (TypeError, OverflowError, UnicodeEncodeError, RecursionError) as error:
                raise not_json(error, f"Node {shown(node_id)}") from None

    def _add(
        self,
        node: dict[str, Any],
        node_id: str,
        where: Top,
        child_ids: list[str],
        position: int | None,
    ) -> None:
        plan = self.shapes.plan(tuple(node))
        fields, overrides = _fields(node, plan)
        given = None if plan.node_id is None else node[plan.node_id]
        if plan.node_id is not None and given != node_id:
            overrides[plan.node_id] = given
        if plan.parent_id is not None and node[plan.parent_id] != where.parent_id:
            check_json(node[plan.parent_id], '"parent_id"')
            overrides[plan.parent_id] = node[plan.parent_id]
        if plan.children is not None and not child_ids and node[plan.children] is None:
            overrides[plan.children] = None
        place = self.place
        head = {
            "policy_id": place.policy_id,
            "version_id": place.version_id,
            "node_id": node_id,
            "parent_id": where.parent_id,
            "title": fields["title"],
            "page_start": fields["page_start"],
            "page_end": fields["page_end"],
            "summary": fields["summary"],
            "section_path": fields["section_path"] or where.section,
            "depth": where.depth,
            "child_ids": child_ids,
            "metadata": fields["metadata"],
            "text": "",
        }
        for key in plan.derived:
            if node[key] != head[key] or type(node[key]) is not type(head[key]):
                check_json(node[key], f'"{key}"')
                overrides[key] = node[key]
        source = make_source(plan, overrides, position)
        record, long_text = make_record(encode(head)[:-1], encode(fields["text"]), source)
        path = where.path
        self.nodes.append((place.nodes + path + HEAD, record))
        if long_text is not None:
            self.nodes.append((place.nodes + path + TEXT, long_text))
        self.ids.append((place.ids + packed_node_id(node_id), path))
        entry = page_item(place, path, head["page_start"], head["page_end"])
        if entry is not None:
            self.pages.append(entry)


def _fields(node: dict[str, Any], plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that ``node`` gives, checked, and what they cannot give back."""
    overrides: dict[str, Any] = {}
    fields: dict[str, Any] = {"page_start": None, "page_end": None, "metadata": {}}
    for role, key in (
        ("title", plan.title),
        ("summary", plan.summary),
        ("text", plan.text),
        ("section_path", plan.section_path),
    ):
        value = "" if key is None else node[key]
        if value is None or (role == "section_path" and value == ""):
            if key is not None:
                overrides[key] = value
            value = ""
        elif type(value) is not str:
            value = check_text(value, f'"{key}"')
        fields[role] = value
    for role, key in (("page_start", plan.page_start), ("page_end", plan.page_end)):
        if key is not None:
            fields[role] = page = check_page(node[key], f'"{key}"')
            if page != node[key]:
                overrides[key] = node[key]
    if plan.single_page:
        fields["page_end"] = fields["page_start"]
    if plan.unknown or plan.metadata is not None:
        fields["metadata"] = _metadata(node, plan, overrides)
    return fields, overrides


def _metadata(node: dict[str, Any], plan: Plan, overrides: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for key, value in node.items():
        if key in plan.unknown:
            metadata[key] = value
            if type(value) not in SCALARS:
                check_json(value, f'"{key}"')
    if plan.metadata is not None:
        given = node[plan.metadata]
        if given is None:
            overrides[plan.metadata] = None
            return metadata
        check_metadata(given, '"metadata"')
        clashes = metadata.keys() & given.keys()
        if clashes:
            # Both are kept: the field shows the one, the source the other.
            overrides.update((key, node[key]) for key in clashes)
            overrides[plan.metadata] = given
        metadata.update(given)
    return metadata
