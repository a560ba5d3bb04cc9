"""Moving nodes: making clean ones dirty, with the same content, so that they get other pages.

A part of `WorkingTree` in a file of its own: functions on a tree under change, for the writer. See
``docs/space.md``. What is to be moved was chosen on another thread, on an older state
(``compaction.py``), so each move looks again, by key and page number, and does nothing where the
node has a new page, or none, by now.
"""

from __future__ import annotations

from bisect import bisect_right

import attrs

from treestore.engine import tree
from treestore.engine.node import Large, Node, Ref
from treestore.engine.pagefile import PageFile
from treestore.engine.split import cut_points, entry_sizes
from treestore.engine.working import WorkingTree


@attrs.frozen(eq=False)
class Move:
    """One thing to be moved, found by a key in it."""

    key: bytes
    leaves: int = 1
    """How many neighbouring leaves to write anew, as fewer; 1: move what lies in the tail on the
    way to the leaf, and it; 0: the branches only."""
    value: Large | None = None
    """The large value of ``key``, where that is what is to be moved."""
    data: bytes | None = None
    """Its bytes."""


def in_tail(cell: Ref | Large, cutoff: int) -> bool:
    """Whether what ``cell`` refers to has a page at or after ``cutoff``."""
    if isinstance(cell, Ref):
        return cell.page >= cutoff
    return any(start + pages > cutoff for start, pages, _ in cell.extents)


def move(working: WorkingTree, pages: PageFile, what: Move, cutoff: int) -> int:
    """Do one move; how many nodes and values that made dirty.

    Where a page cannot be read the tree holds what it held, and the moves before are whole.
    """
    if what.value is not None and what.data is not None:
        return _move_value(working, pages, what.key, what.value, what.data)
    if what.leaves > 1:
        return _rewrite(working, pages, what.key, what.leaves, cutoff)
    return _move_path(working, pages, what.key, cutoff, leaf=what.leaves == 1)


def _path(root: Ref, key: bytes, pages: PageFile) -> list[Ref]:
    """References from the root to the leaf of ``key``; the leaf itself is not loaded."""
    refs = [root]
    for _ in range(tree.height(root, pages.load) - 1):
        node = pages.load(refs[-1])
        assert node.children is not None
        refs.append(node.children[bisect_right(node.keys, key)])
    return refs


def _move_path(
    working: WorkingTree, pages: PageFile, key: bytes, cutoff: int, *, leaf: bool
) -> int:
    path = _path(working.root, key, pages)
    if not leaf:
        path.pop()
    while path and not in_tail(path[-1], cutoff):
        path.pop()
    for ref in path:
        pages.load(ref)
    moved = sum(1 for ref in path if ref.page)
    working.own_path(key, len(path))
    return moved


def _move_value(
    working: WorkingTree, pages: PageFile, key: bytes, value: Large, data: bytes
) -> int:
    cell = tree.get(working.root, key, pages.load)
    if not isinstance(cell, Large) or not cell.page or cell.extents != value.extents:
        return 0
    working.replace_large(key, data)
    return 1


def _rewrite(working: WorkingTree, pages: PageFile, key: bytes, count: int, cutoff: int) -> int:
    """Write ``count`` neighbouring leaves anew as fewer; where that saves none, just move them."""
    path = _path(working.root, key, pages)
    if len(path) < 2:
        return _move_path(working, pages, key, cutoff, leaf=True)
    parent = pages.load(path[-2])
    assert parent.children is not None
    first = bisect_right(parent.keys, key)
    refs = parent.children[first : first + count]
    leaves = [pages.load(ref) for ref in refs]
    sizes = [size for leaf in leaves for size in leaf_sizes(leaf, pages)]
    cuts = cut_points(sizes, pages.shape.capacity, ascending=False)
    if len(cuts) + 1 < len(leaves):
        working.rewrite_leaves(key, leaves, cuts, sizes)
        return len(leaves)
    # The lower bound of a leaf leads to it.
    bounds = [key, *parent.keys[first : first + len(refs) - 1]]
    wanted = [bound for bound, ref in zip(bounds, refs, strict=True) if in_tail(ref, cutoff)]
    for bound in wanted:
        working.own_path(bound, len(path))
    return len(wanted)


def leaf_sizes(leaf: Node, pages: PageFile) -> list[int]:
    """What each entry of a leaf takes of it."""
    leaf.settle()
    return entry_sizes(leaf, pages.shape)
