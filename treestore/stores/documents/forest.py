"""A structure's nodes, linked: who is whose child, in which order, under which id."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from treestore.errors import InvalidArgument
from treestore.stores.documents.layout import DEPTH_MAX
from treestore.stores.documents.source import Entry, too_deep
from treestore.stores.json_values import shown


class Forest:
    """Nodes by their number in the order they were given.

    Attributes:
        maps: each node as it was written; an entry may be dropped once it is used.
        ids: each node's id, given or assigned.
        parents: number of each node's parent; -1 for a root.
        children: numbers of the children, for nodes that have some.
        roots: numbers of the roots.
        anchors: for roots whose parent is outside, that parent's id.
        depths: levels below the root.
        order: the numbers in reading order.
        ordered: whether reading order is the order they were given in.
        next_number: the first number not used for an id.
    """

    def __init__(self) -> None:
        self.maps: list[dict[str, Any] | None] = []
        self.ids: list[str] = []
        self.parents: list[int] = []
        self.children: dict[int, list[int]] = {}
        self.roots: list[int] = []
        self.anchors: dict[int, str] = {}
        self.depths: list[int] = []
        self.order: Sequence[int] = ()
        self.ordered = True
        self.next_number = 0

    def part(self, roots: list[int]) -> Forest:
        """The trees of some of the roots; shares the nodes with this forest."""
        part = copy.copy(self)
        part.roots = roots
        order: list[int] = []
        stack = roots[::-1]
        while stack:
            number = stack.pop()
            order.append(number)
            stack.extend(reversed(self.children.get(number, ())))
        part.order = order
        return part

    def child_ids(self, number: int) -> list[str]:
        """The ids of a node's children, in order."""
        return [self.ids[child] for child in self.children.get(number, ())]


def _nobody(node_id: str) -> bool:
    return False


def link(
    entries: Iterable[Entry],
    *,
    by_id: bool,
    first_number: int = 0,
    exists: Callable[[str], bool] = _nobody,
    positions: Sequence[int | None] = (),
) -> Forest:
    """Link nodes by their depth and, where ``by_id``, the topmost ones by their ``parent_id``.

    Args:
        entries: the nodes with their depths, parents before their nested children.
        by_id: whether a topmost node's ``parent_id`` says where it belongs.
        first_number: where the numbers for assigned ids begin.
        exists: whether the document that the nodes go into has such an id already: it can be a
            parent, and cannot be used again.
        positions: wanted index among its siblings of each topmost node, for those under a parent
            among ``entries``.

    Raises:
        InvalidArgument: an id twice, an unknown parent, a cycle; names the node.
    """
    forest = Forest()
    _take_in(forest, entries)
    numbers = _take_ids(forest, first_number, exists)
    tops = forest.roots
    if by_id:
        _link_by_id(forest, numbers, tops, exists, positions)
        _walk(forest)
    else:
        forest.order = range(len(forest.maps))
    return forest


def _take_in(forest: Forest, entries: Iterable[Entry]) -> None:
    last = [-1] * DEPTH_MAX
    for number, (depth, node) in enumerate(entries):
        if depth >= DEPTH_MAX:
            raise too_deep()
        last[depth] = number
        forest.maps.append(node)
        forest.depths.append(depth)
        if depth:
            parent = last[depth - 1]
            forest.parents.append(parent)
            siblings = forest.children.get(parent)
            if siblings is None:
                forest.children[parent] = [number]
            else:
                siblings.append(number)
        else:
            forest.parents.append(-1)
            forest.roots.append(number)


def _take_ids(forest: Forest, first_number: int, exists: Callable[[str], bool]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    missing = False
    for number, node in enumerate(forest.maps):
        assert node is not None
        node_id = node.get("node_id")
        if node_id is None or (isinstance(node_id, str) and not node_id):
            forest.ids.append("")
            missing = True
            continue
        if not isinstance(node_id, str):
            raise InvalidArgument(
                f"A node_id is a string, not {shown(node_id)} (node number {number + 1})."
            )
        if node_id in numbers or exists(node_id):
            raise InvalidArgument(
                f"The node id {shown(node_id)} occurs twice; ids are unique within a document.",
                node_id=node_id,
            )
        numbers[node_id] = number
        forest.ids.append(node_id)
    forest.next_number = first_number + len(forest.ids)
    if missing:
        _assign_ids(forest, numbers, first_number, exists)
    return numbers


def _assign_ids(
    forest: Forest, numbers: dict[str, int], first_number: int, exists: Callable[[str], bool]
) -> None:
    """Ids as PageIndex gives them: four digits, counting in reading order."""
    spare = forest.next_number
    for number, node_id in enumerate(forest.ids):
        if node_id:
            continue
        new = f"{first_number + number:04d}"
        while new in numbers or exists(new):
            new = f"{spare:04d}"
            spare += 1
        numbers[new] = number
        forest.ids[number] = new
    forest.next_number = spare


def _link_by_id(
    forest: Forest,
    numbers: dict[str, int],
    tops: list[int],
    exists: Callable[[str], bool],
    positions: Sequence[int | None],
) -> None:
    forest.roots = []
    for place, number in enumerate(tops):
        node = forest.maps[number]
        assert node is not None
        parent_id = node.get("parent_id")
        if parent_id is None or parent_id == "":
            forest.roots.append(number)
            continue
        if not isinstance(parent_id, str):
            raise InvalidArgument(
                f"The parent_id of node {shown(forest.ids[number])} is a string or null, "
                f"not {shown(parent_id)}."
            )
        parent = numbers.get(parent_id)
        if parent is None:
            if not exists(parent_id):
                raise InvalidArgument(
                    f"Node {shown(forest.ids[number])} names the parent {shown(parent_id)}, "
                    f"which does not exist.",
                    node_id=forest.ids[number],
                )
            forest.roots.append(number)
            forest.anchors[number] = parent_id
            continue
        forest.parents[number] = parent
        siblings = forest.children.setdefault(parent, [])
        position = positions[place] if positions else None
        if position is not None and position > len(siblings):
            raise InvalidArgument(
                f"Node {shown(forest.ids[number])} has the index {position}, but its parent has "
                f"{len(siblings)} children so far."
            )
        siblings.insert(len(siblings) if position is None else position, number)


def _walk(forest: Forest) -> None:
    """Depths and reading order; finds what hangs together in a circle."""
    order: list[int] = []
    stack = [(number, 0) for number in reversed(forest.roots)]
    while stack:
        number, depth = stack.pop()
        if depth >= DEPTH_MAX:
            raise too_deep()
        order.append(number)
        forest.depths[number] = depth
        stack.extend((child, depth + 1) for child in reversed(forest.children.get(number, ())))
    if len(order) < len(forest.maps):
        reached = set(order)
        number = next(n for n in range(len(forest.maps)) if n not in reached)
        seen = set()
        while number not in seen:
            seen.add(number)
            number = forest.parents[number]
        raise InvalidArgument(
            f"Node {shown(forest.ids[number])} is its own ancestor through parent_id.",
            node_id=forest.ids[number],
        )
    forest.ordered = order == list(range(len(order)))
    forest.order = order
