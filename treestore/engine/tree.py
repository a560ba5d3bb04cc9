"""Reading a tree: point look-ups, ranges in both directions, skipping cursors.

All functions start from a root `Ref` and see exactly the state it stands for, whatever the
writer does meanwhile, since nodes reachable from a handed-on root never change.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from treestore.engine.node import Large, Node, Ref

Load = Callable[[Ref], Node]
Leaf = tuple[Node, int, int]
"""A leaf and the slice of its entries that is wanted: first index, end index."""


def get(root: Ref, key: bytes, load: Load) -> bytes | Large | None:
    """The cell of ``key``, or None."""
    ref = root
    node = ref.node or load(ref)
    children = node.children
    while children is not None:
        ref = children[bisect_right(node.keys, key)]
        node = ref.node or load(ref)
        children = node.children
    ref.hot = True
    delta = node.delta
    if delta is not None:
        cell = delta.get(key)
        if cell is not None:
            return cell
        node = node.base or node
    keys = node.keys
    index = bisect_left(keys, key)
    if index < len(keys) and keys[index] == key:
        return node.values[index]
    return None


def height(root: Ref, load: Load) -> int:
    """Levels of the tree, 1 for a leaf alone. All leaves are equally deep."""
    levels = 1
    node = root.node or load(root)
    while node.children is not None:
        levels += 1
        ref = node.children[0]
        node = ref.node or load(ref)
    return levels


Path = list[tuple[list[Ref], int]]
"""From the root down: the children of each branch and which of them was entered."""


def descend(root: Ref, key: bytes | None, load: Load, path: Path) -> Node:
    """The leaf where ``key`` belongs (None: the last leaf), its path appended to ``path``."""
    ref = root
    node = ref.node or load(ref)
    children = node.children
    while children is not None:
        ref.hot = True
        index = len(children) - 1 if key is None else bisect_right(node.keys, key)
        path.append((children, index))
        ref = children[index]
        node = ref.node or load(ref)
        children = node.children
    ref.hot = True
    node.settle()
    return node


def _neighbour(path: Path, step: int, load: Load) -> Node | None:
    """The next leaf to the right (``step`` 1) or left (-1); None after the last one."""
    while path:
        children, index = path.pop()
        index += step
        if 0 <= index < len(children):
            break
    else:
        return None
    while True:
        path.append((children, index))
        ref = children[index]
        ref.hot = True
        node = ref.node or load(ref)
        if node.children is None:
            node.settle()
            return node
        children = node.children
        index = 0 if step > 0 else len(children) - 1


def leaves(root: Ref, start: bytes, end: bytes | None, load: Load) -> Iterator[Leaf]:
    """The leaves that hold ``start <= key < end``, left to right, with the wanted slices."""
    path: Path = []
    node: Node | None = descend(root, start, load, path)
    first = bisect_left(node.keys, start) if node is not None else 0
    while node is not None:
        keys = node.keys
        if end is not None and keys and keys[-1] >= end:
            last = bisect_left(keys, end)
            if first < last:
                yield node, first, last
            return
        if first < len(keys):
            yield node, first, len(keys)
        first = 0
        node = _neighbour(path, 1, load)


def leaves_reversed(root: Ref, start: bytes, end: bytes | None, load: Load) -> Iterator[Leaf]:
    """The same leaves, right to left; the slices still count from the left."""
    path: Path = []
    node: Node | None = descend(root, end, load, path)
    last = bisect_left(node.keys, end) if node is not None and end is not None else None
    while node is not None:
        keys = node.keys
        stop = len(keys) if last is None else last
        if keys and keys[0] < start:
            first = bisect_left(keys, start)
            if first < stop:
                yield node, first, stop
            return
        if stop:
            yield node, 0, stop
        last = None
        node = _neighbour(path, -1, load)


SAMPLES = 3
"""Ways from the root to a leaf, beside those to both ends, that an estimate looks at."""


def estimate(root: Ref, start: bytes, end: bytes | None, load: Load) -> int:
    """About how many entries there are with ``start <= key < end``: O(height).

    Exact within one leaf, or two that lie side by side. Otherwise what lies between the leaves of
    both ends is calculated from branches, as if those that were not looked at were like those that
    were: the ones on the ways to both ends, and on a few between.
    """
    if end is not None and start >= end:
        return 0
    low: Path = []
    high: Path = []
    first_leaf = descend(root, start, load, low)
    last_leaf = descend(root, end, load, high)
    first = bisect_left(first_leaf.keys, start)
    last = len(last_leaf.keys) if end is None else bisect_left(last_leaf.keys, end)
    fork = next(
        (d for d, (one, other) in enumerate(zip(low, high, strict=True)) if one != other), None
    )
    if fork is None:
        return max(last - first, 0)
    sizes = [len(first_leaf.keys), len(last_leaf.keys)]
    # For each level below the fork, how many children the branches there have.
    fans = [[len(low[d][0]), len(high[d][0])] for d in range(fork + 1, len(low))]
    children, left = low[fork]
    right = high[fork][1]
    for number in range(1, SAMPLES + 1):
        at = left + (right - left) * number // (SAMPLES + 1)
        if left < at < right:
            _sample(children[at], fans, sizes, number, load)
    # From the leaves up: what a subtree holds whose root is on that level.
    held = sum(sizes) / len(sizes)
    between = 0.0
    for depth in range(len(low) - 1, fork, -1):
        between += held * (len(low[depth][0]) - low[depth][1] - 1 + high[depth][1])
        fan = fans[depth - fork - 1]
        held *= sum(fan) / len(fan)
    between += held * (right - left - 1)
    return len(first_leaf.keys) - first + last + round(between)


def _sample(ref: Ref, fans: list[list[int]], sizes: list[int], number: int, load: Load) -> None:
    """Note the sizes of the nodes on one way down."""
    node = ref.node or load(ref)
    for fan in fans:
        children = node.children
        assert children is not None
        fan.append(len(children))
        ref = children[len(children) * number // (SAMPLES + 1)]
        node = ref.node or load(ref)
    node.settle()
    sizes.append(len(node.keys))


class Cursor:
    """A forward scan that can skip (see ``treestore.stores.access.Cursor``).

    ``spend`` is called for each leaf with the number of entries ahead in it, so that a long scan
    can be cut short.
    """

    __slots__ = ("_end", "_index", "_load", "_node", "_path", "_root", "_spend", "_stop")

    def __init__(
        self, root: Ref, start: bytes, end: bytes | None, load: Load, spend: Callable[[int], None]
    ) -> None:
        self._root = root
        self._end = end
        self._load = load
        self._spend = spend
        self._enter(start)

    def _enter(self, start: bytes) -> None:
        self._path: Path = []
        self._node: Node | None = descend(self._root, start, self._load, self._path)
        self._index = bisect_left(self._node.keys, start)
        self._limit()

    def _limit(self) -> None:
        node = self._node
        if node is None:
            self._stop = 0
            return
        keys, end = node.keys, self._end
        self._stop = len(keys)
        if end is not None and keys and keys[-1] >= end:
            self._stop = bisect_left(keys, end)
            self._path = []
        self._spend(max(self._stop - self._index, 0))

    def __iter__(self) -> Cursor:
        return self

    def _advance(self) -> Node | None:
        """The leaf with the next entry; None at the end."""
        while self._index >= self._stop:
            if self._node is None:
                return None
            self._node = _neighbour(self._path, 1, self._load)
            self._index = 0
            self._limit()
        return self._node

    def __next__(self) -> tuple[bytes, bytes | Large]:
        node = self._node if self._index < self._stop else self._advance()
        if node is None:
            raise StopIteration
        index = self._index
        self._index = index + 1
        return node.keys[index], node.values[index]

    def batch(self) -> tuple[list[bytes], list[bytes | Large]]:
        """The keys and cells up to the end of the leaf; empty lists at the end."""
        node = self._advance()
        if node is None:
            return [], []
        first, stop = self._index, self._stop
        self._index = stop
        if first == 0 and stop == len(node.keys):
            return node.keys, node.values
        return node.keys[first:stop], node.values[first:stop]

    def seek(self, key: bytes) -> None:
        """Go on from the first key at or after ``key``; never backwards."""
        node = self._node
        if node is None:
            return
        keys = node.keys
        if keys and key <= keys[-1]:
            self._index = max(self._index, bisect_left(keys, key))
            return
        if self._end is not None and key >= self._end:
            self._node, self._index, self._stop = None, 0, 0
            return
        if not self._path and self._stop < len(keys):
            self._index = self._stop
            return
        if not self._step_aside(key):
            self._enter(key)

    def _step_aside(self, key: bytes) -> bool:
        """Go to the leaf on the right if that is in memory and ``key`` is there.

        Short skips end there; a descent takes three times as long.
        """
        if not self._path:
            return False
        children, index = self._path[-1]
        if index + 1 == len(children):
            return False
        ref = children[index + 1]
        node = ref.node
        if node is None:
            return False
        node.settle()
        keys = node.keys
        if not keys or key > keys[-1]:
            return False
        ref.hot = True
        self._path[-1] = (children, index + 1)
        self._node = node
        self._index = bisect_left(keys, key)
        self._limit()
        return True
