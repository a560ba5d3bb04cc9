"""Looking at the parts of a store one by one, damaged or not."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from treestore.engine.node import Large, Node, Ref, decode_node
from treestore.engine.page import checksum_of
from treestore.engine.pagefile import PageFile
from treestore.engine.salvage.scan import NODE_KINDS, Run
from treestore.engine.salvage.walk import DEPTH_MAX
from treestore.errors import CorruptionError


@attrs.frozen
class OutlineNode:
    """A node of a tree.

    Attributes:
        page: where it is.
        depth: 1 for the root.
        kind: ``leaf`` or ``branch``; ``damaged``.
        low, high: the keys that belong there; None: no end.
        entries: of a leaf; children of a branch.
        large_values: of the entries of a leaf.
        fill: encoded size over page size.
        born: commit number.
        problem: what is wrong with a damaged one.
    """

    page: int
    depth: int
    kind: str
    low: bytes
    high: bytes | None
    entries: int = 0
    large_values: int = 0
    fill: float = 0.0
    born: int = 0
    problem: str | None = None


def outline(pages: PageFile, root: Ref) -> Iterator[OutlineNode]:
    """Every node of a tree, parents before children, from the first key to the last."""
    stack: list[tuple[Ref, bytes, bytes | None, int]] = [(root, b"", None, 1)]
    seen: set[int] = set()
    page_size = pages.shape.page_size
    while stack:
        ref, low, high, depth = stack.pop()
        try:
            if ref.page in seen or depth > DEPTH_MAX:
                raise CorruptionError(f"Page {ref.page} is reached twice: a cycle.")
            node = pages.read_node(ref.page, ref.checksum)
        except CorruptionError as error:
            yield OutlineNode(ref.page, depth, "damaged", low, high, problem=error.message)
            continue
        seen.add(ref.page)
        fill = node.size / page_size
        if node.children is None:
            large = sum(isinstance(cell, Large) for cell in node.values)
            yield OutlineNode(
                ref.page, depth, "leaf", low, high, len(node.keys), large, fill, node.stamp
            )
            continue
        yield OutlineNode(
            ref.page, depth, "branch", low, high, len(node.children), 0, fill, node.stamp
        )
        bounds = [low, *node.keys, high]
        for index in range(len(node.children) - 1, -1, -1):
            begin = bounds[index]
            assert begin is not None
            stack.append((node.children[index], begin, bounds[index + 1], depth + 1))


def node_of(pages: PageFile, run: Run) -> Node | None:
    """The node in a whole run; None where it holds something else.

    Raises:
        CorruptionError: its checksum is right and its content is no node.
    """
    if run.kind not in NODE_KINDS:
        return None
    kind, born, payload = pages.read_run(run.page, 1, run.checksum, NODE_KINDS)
    try:
        return decode_node(kind, born, payload, pages.shape)
    except ValueError as error:
        raise CorruptionError(f"Page {run.page} is no node: {error}.") from error


def stored_checksum(pages: PageFile, page: int) -> int:
    """The checksum that a page carries, right or wrong; 0 behind the end of the file."""
    raw = pages.file.read_at(page * pages.shape.page_size, 4)
    return checksum_of(raw) if len(raw) == 4 else 0
