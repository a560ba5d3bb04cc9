"""The tree that commands are changing: copy-on-write with a private stamp.

A node that carries the tree's stamp belongs to it and is edited in place; any other node on the
way is copied first, once. Dropping the `WorkingTree` therefore undoes everything it did.

The short commands of one group share a `WorkingTree`, so that the root and the branches are copied
once a group and not once a command. Such a command is rolled back by its undo log: the changes it
made, backwards. A long command has a tree of its own.

``superseded`` collects the references (to nodes and large values) that this tree no longer needs,
each with its commit number of birth; the engine turns them into retired pages once the group
is durable, or forgets them when it is dropped.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from operator import lt

from treestore.engine.node import (
    DELTA_MAX,
    ENTRY_OVERHEAD,
    NO_VALUES,
    Large,
    Node,
    Ref,
    Shape,
)
from treestore.engine.split import cut_points, entry_sizes, middle, separator
from treestore.engine.tree import Load

BULK_ITEMS = 2048
"""Items that a sorted bulk store merges in one step: a bound on the work between two chances for
another thread to run."""

FEW = 3
"""So few keys of a sorted store for one leaf are put one by one: that need not copy the leaf's
lists (see rule 4 in ``node.py``)."""

Steps = list[tuple[Node, int]]
"""Owned branches from the root down, and which child was entered."""


Undo = list[tuple[bytes, "bytes | Large | None"]]
"""Keys that were changed, and the cell each had before (None: it was absent)."""


def ascending(keys: list[bytes]) -> bool:
    """Whether every key is above the one before it."""
    return all(map(lt, keys, islice(keys, 1, None)))


class WorkingTree:
    """A tree under change.

    Attributes:
        root: the current root.
        stamp: the first command's commit number; no other tree ever uses it.
        count: number of keys in the tree.
        created: about how many more pages the next checkpoint must write because of this
            tree: copies of clean nodes, new nodes, pages of large values.
        created_large: the part of that which large values have
        undo: where each change notes what was there before; None: it is not noted.
    """

    __slots__ = (
        *("_load", "_shape", "count", "created", "created_large"),
        *("root", "stamp", "superseded", "undo"),
    )

    def __init__(self, root: Ref, stamp: int, count: int, shape: Shape, load: Load) -> None:
        self.root = root
        self.stamp = stamp
        self.count = count
        self.created = 0
        self.created_large = 0
        self.superseded: list[tuple[Ref | Large, int]] = []
        self.undo: Undo | None = None
        self._shape = shape
        self._load = load

    # -- owning -------------------------------------------------------------------------------

    def _own_root(self) -> Node:
        ref = self.root
        node = ref.node or self._load(ref)
        if node.stamp != self.stamp:
            self.superseded.append((ref, node.stamp))
            if ref.page:
                self.created += 1
            leaf = node.children is None
            node = node.overlay(self.stamp) if leaf else node.copy(self.stamp)
            self.root = Ref(node)
        return node

    def _own_child(self, parent: Node, index: int) -> Node:
        children = parent.children
        assert children is not None
        ref = children[index]
        node = ref.node or self._load(ref)
        if node.stamp != self.stamp:
            self.superseded.append((ref, node.stamp))
            if ref.page:
                self.created += 1
            node = node.copy(self.stamp)
            children[index] = Ref(node)
        return node

    def _descend(self, key: bytes, steps: Steps) -> Node:
        """The owned leaf where ``key`` belongs, perhaps not settled yet; owned branches are
        appended to ``steps``."""
        stamp = self.stamp
        node = self._own_root()
        children = node.children
        while children is not None:
            index = bisect_right(node.keys, key)
            ref = children[index]
            child = ref.node or self._load(ref)
            if child.stamp != stamp:
                self.superseded.append((ref, child.stamp))
                if ref.page:
                    self.created += 1
                leaf = child.children is None
                child = child.overlay(stamp) if leaf else child.copy(stamp)
                children[index] = Ref(child)
            steps.append((node, index))
            node = child
            children = node.children
        return node

    def _cell(self, value: bytes) -> bytes | Large:
        if len(value) <= self._shape.inline_size_bytes_max:
            return value
        pages = 1 + len(value) // (self._shape.page_size - 64)
        # A page more for the heads of its runs, should it be cut into several.
        pages += pages > 1
        self.created += pages
        self.created_large += pages
        return Large(value, len(value), self.stamp)

    def _drop(self, cell: bytes | Large) -> None:
        if cell.__class__ is Large:
            assert isinstance(cell, Large)
            self.superseded.append((cell, cell.born))

    # -- single keys --------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes) -> None:
        """Set one key."""
        if len(value) > self._shape.inline_size_bytes_max:
            self._put(key, self._cell(value), self._shape.large_cell_size)
        else:
            self._put(key, value, len(value))

    def _put(
        self, key: bytes, cell: bytes | Large, size: int, found: tuple[Node, Steps] | None = None
    ) -> None:
        """Set one key to a cell that takes ``size`` bytes in a leaf, perhaps ``found`` before."""
        if found is None:
            steps: Steps = []
            leaf = self._descend(key, steps)
        else:
            leaf, steps = found
        shape = self._shape
        before = leaf.size
        delta = leaf.delta
        if delta is not None and len(delta) >= DELTA_MAX:
            leaf.settle()
            delta = None
        old = None
        if delta is not None:
            old = delta.get(key)
            base = leaf.base
            assert base is not None
            if old is None:
                index = bisect_left(base.keys, key)
                if index < len(base.keys) and base.keys[index] == key:
                    old = base.values[index]
            delta[key] = cell
        else:
            keys = leaf.keys
            index = bisect_left(keys, key)
            if index < len(keys) and keys[index] == key:
                old = leaf.values[index]
                leaf.values[index] = cell
            else:
                keys.insert(index, key)
                leaf.values.insert(index, cell)
        self._account(leaf, key, size, old)
        if leaf.size > shape.capacity:
            leaf.settle()
            self._split(leaf, steps)
        elif leaf.size < before and leaf.size < shape.minimum:
            # Only where it shrank: the last leaf of an ascending load is small on purpose.
            leaf.settle()
            self._refill(leaf, steps)

    def _account(self, leaf: Node, key: bytes, size: int, old: bytes | Large | None) -> None:
        """Book a put of ``size`` bytes in place of ``old``."""
        if old is not None:
            leaf.size += size - self._shape.value_size(old)
            if old.__class__ is not bytes:
                self._drop(old)
        else:
            leaf.size += len(key) + size + ENTRY_OVERHEAD
            self.count += 1
        if self.undo is not None:
            self.undo.append((key, old))

    def delete(self, key: bytes) -> None:
        """Remove one key that is known to be there."""
        steps: Steps = []
        leaf = self._descend(key, steps)
        leaf.settle()
        index = bisect_left(leaf.keys, key)
        if index == len(leaf.keys) or leaf.keys[index] != key:
            raise AssertionError("delete of a key that is not there")
        self._cut(leaf, index, index + 1)
        if leaf.size < self._shape.minimum:
            self._refill(leaf, steps)

    def _cut(self, leaf: Node, first: int, last: int) -> None:
        value_size = self._shape.value_size
        removed = leaf.values[first:last]
        leaf.size -= (
            sum(map(len, leaf.keys[first:last]))
            + sum(map(value_size, removed))
            + ENTRY_OVERHEAD * (last - first)
        )
        for cell in removed:
            if cell.__class__ is not bytes:
                self._drop(cell)
        if self.undo is not None:
            self.undo.extend(zip(leaf.keys[first:last], removed, strict=True))
        del leaf.keys[first:last]
        del leaf.values[first:last]
        self.count -= last - first

    def roll_back(self) -> None:
        """Undo everything in ``undo``, backwards; keys and values are then as they were.

        ``superseded`` must hold what this command superseded and nothing older.
        """
        undo, self.undo = self.undo or [], None
        for key, cell in reversed(undo):
            if cell is None:
                self.delete(key)
            else:
                self._put(key, cell, self._shape.value_size(cell))
        # A large value that was dropped since is back, or was new and never had a page. Nodes
        # stay superseded: the copies that took their place are what was changed back.
        self.superseded = [entry for entry in self.superseded if isinstance(entry[0], Ref)]

    # -- many keys ----------------------------------------------------------------------------

    def delete_range(self, start: bytes, end: bytes | None) -> int:
        """Remove ``start <= key < end``, leaf by leaf; how many keys that were."""
        before = self.count
        while True:
            steps: Steps = []
            leaf = self._descend(start, steps)
            leaf.settle()
            keys = leaf.keys
            first = bisect_left(keys, start)
            last = len(keys) if end is None else bisect_left(keys, end)
            bound = self._upper_bound(steps)
            if first < last:
                whole = first == 0 and last == len(keys)
                self._cut(leaf, first, last)
                if whole and steps:
                    self._remove_leaf(steps)
                elif leaf.size < self._shape.minimum:
                    self._refill(leaf, steps)
            if bound is None or (end is not None and bound >= end):
                return before - self.count
            # What is left of this leaf ends before ``start``, or it is gone: go on to its right.
            start = max(start, bound)

    def _upper_bound(self, steps: Steps) -> bytes | None:
        """The separator to the right of the leaf that ``steps`` lead to; None for the last."""
        for node, index in reversed(steps):
            if index < len(node.keys):
                return node.keys[index]
        return None

    def _remove_leaf(self, steps: Steps) -> None:
        """Take the (owned, emptied) child that ``steps`` lead to out of its parent."""
        parent, index = steps.pop()
        children = parent.children
        assert children is not None
        if len(children) == 1:
            # Only below a root that is about to collapse; an empty leaf stays in its place.
            return
        del children[index]
        at = max(index - 1, 0)
        parent.size -= self._shape.child_size(len(parent.keys[at]))
        parent.keys = [*parent.keys[:at], *parent.keys[at + 1 :]]
        self._refill(parent, steps)

    def put_sorted(self, items: Iterable[tuple[bytes, bytes]]) -> Iterator[int]:
        """Merge ascending items into the tree, in bounded steps; yields after each step.

        Raises:
            ValueError: the keys do not ascend (the tree is then half changed: roll back).
        """
        iterator = iter(items)
        last_key = b""
        while pending := list(islice(iterator, BULK_ITEMS)):
            keys = [key for key, _ in pending]
            values = [value for _, value in pending]
            if keys[0] <= last_key or not ascending(keys):
                raise ValueError("keys of a sorted store must ascend")
            last_key = keys[-1]
            first = 0
            while first < len(keys):
                first = self._put_run(keys, values, first)
            yield len(keys)

    def _put_run(self, keys: list[bytes], values: list[bytes], first: int) -> int:
        """Put those of the ascending keys from ``first`` on that belong to one leaf; where the
        next leaf's begin."""
        steps: Steps = []
        leaf = self._descend(keys[first], steps)
        bound = self._upper_bound(steps)
        last = len(keys) if bound is None else bisect_left(keys, bound, first)
        if last - first <= FEW:
            cell = self._cell(values[first])
            self._put(keys[first], cell, self._shape.value_size(cell), (leaf, steps))
            for index in range(first + 1, last):
                self.put(keys[index], values[index])
            return last
        leaf.settle()
        before = leaf.size
        self._merge(leaf, keys[first:last], values[first:last])
        if leaf.size > self._shape.capacity:
            self._split(leaf, steps)
        elif leaf.size < min(self._shape.minimum, before):
            self._refill(leaf, steps)
        return last

    def _merge(self, leaf: Node, new_keys: list[bytes], new_values: list[bytes]) -> None:
        """Put ascending keys, all within the leaf's bounds, into it; it may grow beyond a page."""
        keys, values = leaf.keys, leaf.values
        shape = self._shape
        index = bisect_left(keys, new_keys[0])
        if index == len(keys) or keys[index] > new_keys[-1]:
            sizes = list(map(len, new_values))
            cells: list[bytes | Large] = [*new_values]
            if max(sizes) > shape.inline_size_bytes_max:
                cells = [self._cell(value) for value in new_values]
                sizes = list(map(shape.value_size, cells))
            keys[index:index] = new_keys
            values[index:index] = cells
            leaf.size += sum(map(len, new_keys)) + sum(sizes) + ENTRY_OVERHEAD * len(new_keys)
            self.count += len(new_keys)
            if self.undo is not None:
                self.undo.extend((key, None) for key in new_keys)
            return
        undo, inline_max = self.undo, shape.inline_size_bytes_max
        grown = 0
        for key, value in zip(new_keys, new_values, strict=True):
            # `_cell` and `_account` written out: this runs for every entry of every index.
            index = bisect_left(keys, key, index)
            new: bytes | Large = value
            size = len(value)
            if size > inline_max:
                new, size = self._cell(value), shape.large_cell_size
            if index < len(keys) and keys[index] == key:
                old = values[index]
                values[index] = new
                grown += size - shape.value_size(old)
                self._drop(old)
                if undo is not None:
                    undo.append((key, old))
            else:
                keys.insert(index, key)
                values.insert(index, new)
                grown += len(key) + size + ENTRY_OVERHEAD
                self.count += 1
                if undo is not None:
                    undo.append((key, None))
        leaf.size += grown

    # -- splitting ----------------------------------------------------------------------------

    def _split(self, node: Node, steps: Steps) -> None:
        """Cut an oversize owned node into several; the parents likewise, up to a new root."""
        shape = self._shape
        while node.size > shape.capacity:
            last_leaf = node.children is None and all(
                index == len(branch.keys) for branch, index in steps
            )
            sizes = entry_sizes(node, shape)
            cuts = cut_points(sizes, shape.capacity, ascending=last_leaf)
            cut = self._cut_leaf if node.children is None else self._cut_branch
            parts = cut(node, cuts, sizes)
            self.created += len(parts)
            if steps:
                parent, index = steps.pop()
            else:
                parent, index = Node([], NO_VALUES, [self.root], self.stamp, shape.child_size(0)), 0
                self.root = Ref(parent)
                self.created += 1
            self._take_in(parent, index, parts)
            node = parent

    def _take_in(self, parent: Node, index: int, parts: list[tuple[bytes, Ref]]) -> None:
        """Put what was cut off the child ``index`` of an owned branch behind it."""
        assert parent.children is not None
        keys = parent.keys
        parent.keys = [*keys[:index], *(key for key, _ in parts), *keys[index:]]
        parent.children[index + 1 : index + 1] = [ref for _, ref in parts]
        parent.size += sum(self._shape.child_size(len(key)) for key, _ in parts)

    def _cut_leaf(self, node: Node, cuts: list[int], sizes: list[int]) -> list[tuple[bytes, Ref]]:
        """Cut a settled leaf; separator and reference of each part but the first."""
        parts: list[tuple[bytes, Ref]] = []
        keys, values = node.keys, node.values
        for first, last in zip(cuts, [*cuts[1:], len(keys)], strict=True):
            size = sum(sizes[first:last])
            part = Node(keys[first:last], values[first:last], None, self.stamp, size)
            parts.append((separator(keys[first - 1], keys[first]), Ref(part)))
            node.size -= size
        del keys[cuts[0] :], values[cuts[0] :]
        return parts

    def _cut_branch(self, node: Node, cuts: list[int], sizes: list[int]) -> list[tuple[bytes, Ref]]:
        """Cut a branch; the separators move up to the parent."""
        parts: list[tuple[bytes, Ref]] = []
        keys, children = node.keys, node.children
        assert children is not None
        first_child = self._shape.child_size(0)
        for first, last in zip(cuts, [*cuts[1:], len(children)], strict=True):
            size = sum(sizes[first:last])
            node.size -= size
            part = Node(
                keys[first : last - 1],
                NO_VALUES,
                children[first:last],
                self.stamp,
                size - sizes[first] + first_child,
            )
            parts.append((keys[first - 1], Ref(part)))
        node.keys = keys[: cuts[0] - 1]
        del children[cuts[0] :]
        return parts

    # -- merging ------------------------------------------------------------------------------

    def _refill(self, node: Node, steps: Steps) -> None:
        """Merge a too empty owned node with a neighbour, or even them out; then its parents."""
        minimum = self._shape.minimum
        while steps and node.size < minimum:
            parent, index = steps.pop()
            children = parent.children
            assert children is not None
            if len(children) == 1:
                break
            at = index - 1 if index > 0 else index
            left, right = self._pair(parent, at)
            key = parent.keys[at]
            if left.size + right.size + self._joint(left, key) <= self._shape.capacity:
                self._join(parent, at, left, right)
            else:
                self._even_out(parent, at, left, right, steps)
                return
            node = parent
        self._collapse()

    def _pair(self, parent: Node, at: int) -> tuple[Node, Node]:
        """Children ``at`` and ``at + 1``, owned on the left, as they are on the right."""
        assert parent.children is not None
        left = self._own_child(parent, at)
        ref = parent.children[at + 1]
        right = ref.node or self._load(ref)
        left.settle()
        right.settle()
        return left, right

    def _joint(self, left: Node, key: bytes) -> int:
        """What joining adds: the right branch's first child gets a key, the one between them."""
        if left.children is None:
            return 0
        return self._shape.child_size(len(key)) - self._shape.child_size(0)

    def _join(self, parent: Node, at: int, left: Node, right: Node) -> None:
        """Append ``right`` to ``left`` and take it out of the parent."""
        assert parent.children is not None
        key = parent.keys[at]
        ref = parent.children[at + 1]
        if right.stamp != self.stamp:
            self.superseded.append((ref, right.stamp))
        left.size += right.size + self._joint(left, key)
        if left.children is None:
            left.keys += right.keys
            left.values += right.values
        else:
            assert right.children is not None
            left.keys = [*left.keys, key, *right.keys]
            left.children += right.children
        parent.keys = [*parent.keys[:at], *parent.keys[at + 1 :]]
        del parent.children[at + 1]
        parent.size -= self._shape.child_size(len(key))

    def _even_out(self, parent: Node, at: int, left: Node, right: Node, steps: Steps) -> None:
        """Move entries between two neighbours so that both are about equally full."""
        assert parent.children is not None
        self._join(parent, at, left, right)
        sizes = entry_sizes(left, self._shape)
        at_entry = middle([0, *accumulate(sizes)])
        cut = self._cut_leaf if left.children is None else self._cut_branch
        ((key, ref),) = cut(left, [at_entry], sizes)
        self._take_in(parent, at, [(key, ref)])
        self.created += 1
        # A longer separator than before may not fit into the parent any more.
        if parent.size > self._shape.capacity:
            self._split(parent, steps)

    def _collapse(self) -> None:
        """A root branch with a single child is replaced by that child."""
        while True:
            root = self.root.node or self._load(self.root)
            if root.children is None or len(root.children) > 1:
                return
            if root.stamp != self.stamp:
                self.superseded.append((self.root, root.stamp))
            self.root = root.children[0]

    # -- moving (see moving.py) -----------------------------------------------------------------

    def own_path(self, key: bytes, levels: int) -> None:
        """Own the first ``levels`` nodes on the way to ``key``, with the content they have."""
        if not levels:
            return
        node = self._own_root()
        for _ in range(levels - 1):
            children = node.children
            assert children is not None
            index = bisect_right(node.keys, key)
            ref = children[index]
            child = ref.node or self._load(ref)
            if child.stamp != self.stamp:
                self.superseded.append((ref, child.stamp))
                if ref.page:
                    self.created += 1
                leaf = child.children is None
                child = child.overlay(self.stamp) if leaf else child.copy(self.stamp)
                children[index] = Ref(child)
            node = child

    def replace_large(self, key: bytes, data: bytes) -> None:
        """Give the large value of ``key`` a reference without pages; ``data`` are its bytes."""
        leaf = self._descend(key, [])
        leaf.settle()
        index = bisect_left(leaf.keys, key)
        self._drop(leaf.values[index])
        leaf.values[index] = self._cell(data)

    def rewrite_leaves(
        self, key: bytes, leaves: list[Node], cuts: list[int], sizes: list[int]
    ) -> None:
        """Put the entries of neighbouring leaves of one branch into one and cut it.

        Args:
            key: in the first of them.
            leaves: as they are now, loaded.
            cuts: the entries, counted over all, before which to cut; fewer than the leaves.
            sizes: of all entries.
        """
        steps: Steps = []
        leaf = self._descend(key, steps)
        leaf.settle()
        parent, index = steps[-1]
        for right in leaves[1:]:
            right.settle()
            self._join(parent, index, leaf, right)
        if not cuts and leaf.size < self._shape.minimum:
            self._refill(leaf, steps)
            return
        steps.pop()
        if cuts:
            parts = self._cut_leaf(leaf, cuts, sizes)
            self.created += len(parts)
            self._take_in(parent, index, parts)
        if parent.size > self._shape.capacity:
            self._split(parent, steps)
        else:
            self._refill(parent, steps)
