"""Nodes of the tree in memory, and their encoding into pages.

A `Node` is a leaf (``children is None``) or a branch. Keys are sorted ``bytes`` in a plain list,
searched with `bisect`. A branch with n children has n - 1 keys: child i holds the keys k with
``keys[i - 1] <= k < keys[i]``.

Rules that everything rests on (tests/engine/test_tree.py):

1. A node whose ``stamp`` is not that of the command under way is never changed. The command
   makes a copy with its own stamp; a stamp is used by one command only.
2. A `Ref` is how a parent, or a root, names a node. ``page`` and ``checksum`` are set once, when
   a checkpoint writes the node, and never change. ``node`` may be dropped by the cache once the
   page is set, and is loaded again on demand. So a dirty node is one whose ref has page 0, and
   everything above a dirty node is dirty.
3. There are no reference cycles, so the garbage collector need not look at the tree.
4. A leaf that a command puts something into is not copied at once: copying a list of a hundred
   Python objects touches the reference count of each, which are a hundred cache misses in a large
   tree (10 of the 13 microseconds that a random put took). The new leaf refers to the old one as
   its ``base`` and holds only what is different, in ``delta``, until somebody needs its lists:
   `settle` makes them, once.
5. The list of a branch's keys is shared with its copies and never changed in place: whoever
   splits or merges children makes a new one. Most copies change no separator.

Sizes here are upper bounds of the encoded size: three bytes a key or inline value for its msgpack
header. They decide splits and merges; that an encoded node fits its page is asserted when sealed.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

from treestore.engine import page as page_format

ENTRY_OVERHEAD: Final = 6
"""msgpack headers of a key and an inline value, at most."""

CHILD_OVERHEAD: Final = 17
"""A branch's entry beside its key: key header 3, page number 9, checksum 5."""

BRANCH_CHILDREN_MAX: Final = 128
"""A branch counts as full with this many children, however short their keys: a random write
copies the branch above its leaf, and that costs a cache miss a child. Branches are one page in
a hundred; that theirs are not full of bytes costs nothing."""

NODE_OVERHEAD: Final = 16
"""msgpack array headers around the lists of a node, at most."""


class Node:
    """A decoded leaf or branch."""

    __slots__ = ("base", "children", "delta", "index", "keys", "size", "stamp", "values")

    keys: list[bytes]
    values: list[bytes | Large]
    children: list[Ref] | None
    stamp: int
    size: int
    base: Node | None
    delta: dict[bytes, bytes | Large] | None
    """Where set, ``keys`` and ``values`` are not yet made: call `settle` before using them."""
    index: dict[bytes, bytes | Large] | None
    """A leaf's entries by key, made at the first point read of the leaf once it can change no
    more. With a million keys in memory a look-up is a matter of cache misses: a search in the
    sorted list touches six keys, a dict touches one (2.1 against 2.7 microseconds, measured)."""

    def __init__(
        self,
        keys: list[bytes],
        values: list[bytes | Large],
        children: list[Ref] | None,
        stamp: int,
        size: int,
    ) -> None:
        self.keys = keys
        self.values = values
        self.children = children
        self.stamp = stamp
        self.size = size
        self.index = None
        self.base = None
        self.delta = None

    def overlay(self, stamp: int) -> Node:
        """A private leaf for ``stamp`` that holds the same, without copying the lists."""
        delta, base = self.delta, self.base
        leaf = Node(NO_KEYS, NO_VALUES, None, stamp, self.size)
        if delta is None or base is None:  # settled, perhaps just now by another thread
            leaf.base = self
            leaf.delta = {}
        else:
            leaf.base = base
            leaf.delta = delta.copy()
        return leaf

    def settle(self) -> None:
        """Make the lists of a leaf from its base and delta.

        Thread-safe for a leaf that is handed on: everybody makes the same lists, and ``delta`` is
        taken away only when they are there.
        """
        delta, base = self.delta, self.base
        if delta is None or base is None:
            return
        keys, values = base.keys[:], base.values[:]
        for key, cell in delta.items():
            index = bisect_left(keys, key)
            if index < len(keys) and keys[index] == key:
                values[index] = cell
            else:
                keys.insert(index, key)
                values.insert(index, cell)
        self.values = values
        self.keys = keys
        self.delta = None
        self.base = None

    def indexed(self) -> dict[bytes, bytes | Large]:
        """The index of a settled leaf that can change no more, made where it is missing."""
        index = self.index
        if index is None:
            index = self.index = dict(zip(self.keys, self.values, strict=True))
        return index

    def copy(self, stamp: int) -> Node:
        """A private copy for ``stamp``; children and values are shared."""
        if self.children is None:
            self.settle()
            return Node(self.keys[:], self.values[:], None, stamp, self.size)
        return Node(self.keys, NO_VALUES, self.children[:], stamp, self.size)


NO_VALUES: list[bytes | Large] = []
"""The values of every branch, and of a leaf that is not settled."""

NO_KEYS: list[bytes] = []
"""The keys of a leaf that is not settled."""

UINT_MAX: Final = (1 << 63) - 1

PAGES_MAX: Final = 1 << 40
"""More pages than any file has: a larger number is damage, and must not be calculated with."""

DELTA_MAX: Final = 16
"""A leaf with more changes than this is settled: a longer delta would be copied too often."""


class Ref:
    """A reference to a node: in memory, on its page, or both."""

    __slots__ = ("checksum", "hot", "index", "node", "page")

    node: Node | None
    page: int
    checksum: int
    hot: bool
    """Used since the cache last looked at it."""
    index: dict[bytes, bytes | Large] | None
    """The leaf's own, once a point read needed it: the next one need not touch the leaf."""

    def __init__(self, node: Node | None, page: int = 0, checksum: int = 0) -> None:
        self.node = node
        self.page = page
        self.checksum = checksum
        self.hot = True
        self.index = None

    def index_of(self, leaf: Node) -> dict[bytes, bytes | Large] | None:
        """The index of ``leaf``, which this refers to; None while it is not settled."""
        if leaf.delta is not None:
            return None
        index = leaf.indexed()
        if self.node is leaf:  # The cache may have dropped it just now.
            self.index = index
        return index

    def drop(self) -> None:
        """Let go of the node; it is on its page."""
        self.node = None
        self.index = None


class Large:
    """A value too long for a leaf: its own runs of pages, listed in the leaf.

    Like a `Ref`: ``page`` is 0 until a checkpoint wrote it, ``node`` is its data while in memory.
    """

    __slots__ = ("born", "extents", "hot", "length", "node", "page")

    node: bytes | None
    page: int
    hot: bool
    length: int
    born: int
    extents: tuple[tuple[int, int, int], ...]
    """(first page, pages, checksum) of each run, in the order of the value's bytes."""

    def __init__(
        self,
        data: bytes | None,
        length: int,
        born: int,
        extents: tuple[tuple[int, int, int], ...] = (),
    ) -> None:
        self.node = data
        self.length = length
        self.born = born
        self.extents = extents
        self.page = extents[0][0] if extents else 0
        self.hot = True

    def drop(self) -> None:
        """Let go of the data; they are on their pages."""
        self.node = None

    def to_list(self) -> list[int]:
        """What the leaf stores of it."""
        flat = [self.born, self.length]
        for extent in self.extents:
            flat.extend(extent)
        return flat

    @classmethod
    def from_list(cls, flat: list[int]) -> Large:
        """The reverse of `to_list`.

        Raises:
            ValueError: the numbers are impossible.
        """
        if len(flat) < 5 or len(flat) % 3 != 2 or min(flat) < 0 or max(flat) > UINT_MAX:
            raise ValueError("a large value whose numbers are impossible")
        runs = tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(2, len(flat), 3))
        return cls(None, flat[1], flat[0], runs)


class Shape:
    """The limits that follow from a page size."""

    __slots__ = (
        "capacity",
        "child_size_min",
        "extents_max",
        "inline_size_bytes_max",
        "key_size_bytes_max",
        "large_cell_size",
        "minimum",
        "page_size",
    )

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.capacity = page_size - page_format.HEADER_SIZE - NODE_OVERHEAD
        self.child_size_min = self.capacity // BRANCH_CHILDREN_MAX
        self.minimum = self.capacity * 2 // 5
        """A node smaller than this (40 %) is merged or evened out with a neighbour."""
        self.key_size_bytes_max = page_size // 8 - 4
        self.inline_size_bytes_max = page_size // 4
        self.extents_max = min(16, page_size // 256)
        # Two integers and three an extent: at most 9 + 9 and 9 + 5 + 5 bytes, and array headers.
        self.large_cell_size = 3 + 18 + 19 * self.extents_max

    def child_size(self, key_size: int) -> int:
        """What a child with a key of that length adds to the size of its branch."""
        return max(CHILD_OVERHEAD + key_size, self.child_size_min)

    def value_size(self, value: bytes | Large) -> int:
        """Bytes that a value takes in a leaf, beside the entry's overhead."""
        return len(value) if isinstance(value, bytes) else self.large_cell_size


_encoder = msgspec.msgpack.Encoder()
_leaf_decoder: msgspec.msgpack.Decoder[tuple[list[bytes], list[bytes]]] = msgspec.msgpack.Decoder(
    tuple[list[bytes], list[bytes]]
)
_mixed_decoder: msgspec.msgpack.Decoder[tuple[list[bytes], list[bytes | list[int]]]] = (
    msgspec.msgpack.Decoder(tuple[list[bytes], list[bytes | list[int]]])
)
_branch_decoder: msgspec.msgpack.Decoder[tuple[list[bytes], list[int], list[int]]] = (
    msgspec.msgpack.Decoder(tuple[list[bytes], list[int], list[int]])
)


def encode_node(node: Node) -> tuple[int, bytes]:
    """Kind and payload of a node whose children and large values all have pages."""
    node.settle()
    children = node.children
    if children is not None:
        pages = [child.page for child in children]
        checksums = [child.checksum for child in children]
        return page_format.BRANCH, _encoder.encode((node.keys, pages, checksums))
    if Large in map(type, node.values):
        cells = [value.to_list() if isinstance(value, Large) else value for value in node.values]
        return page_format.LEAF_WITH_LARGE, _encoder.encode((node.keys, cells))
    return page_format.LEAF, _encoder.encode((node.keys, node.values))


def decode_node(kind: int, born: int, payload: memoryview, shape: Shape) -> Node:
    """The reverse of `encode_node`.

    Raises:
        ValueError: the payload is no node (msgspec's errors are ValueErrors too).
    """
    if kind == page_format.BRANCH:
        keys, pages, checksums = _branch_decoder.decode(payload)
        if not len(pages) == len(checksums) == len(keys) + 1:
            raise ValueError("a branch whose lists do not match")
        if min(pages) < 1 or max(pages) > PAGES_MAX:
            raise ValueError("a branch with a child that is no page")
        children = [Ref(None, *pair) for pair in zip(pages, checksums, strict=True)]
        size = shape.child_size(0) + sum(map(shape.child_size, map(len, keys)))
        return Node(keys, NO_VALUES, children, born, size)
    if kind == page_format.LEAF:
        keys, plain = _leaf_decoder.decode(payload)
        if len(keys) != len(plain):
            raise ValueError("a leaf whose lists do not match")
        size = sum(map(len, keys)) + sum(map(len, plain)) + ENTRY_OVERHEAD * len(keys)
        return Node(keys, plain, None, born, size)  # type: ignore[arg-type]
    keys, mixed = _mixed_decoder.decode(payload)
    if len(keys) != len(mixed):
        raise ValueError("a leaf whose lists do not match")
    values: list[bytes | Large] = []
    for cell in mixed:
        if isinstance(cell, list):
            large = Large.from_list(cell)
            count = sum(run[1] for run in large.extents)
            room = (count - len(large.extents)) * shape.page_size
            if not 0 < count <= PAGES_MAX or room > large.length + 2 * shape.page_size:
                raise ValueError("a large value whose length does not fit its pages")
            if max(run[0] for run in large.extents) > PAGES_MAX:
                raise ValueError("a large value beyond the end of any file")
            values.append(large)
        else:
            values.append(cell)
    size = sum(map(len, keys)) + sum(map(shape.value_size, values)) + ENTRY_OVERHEAD * len(keys)
    return Node(keys, values, None, born, size)
