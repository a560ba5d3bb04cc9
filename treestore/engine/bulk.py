"""A working tree that takes large sorted batches: what replaying the log needs.

A batch says of each key what it has in the end: a value, or None where it is gone. Each leaf that
the batch touches is entered once and made anew in one go, with a handful of calls that each go
over the whole leaf, instead of a descent and a search for every key.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from treestore.engine.node import ENTRY_OVERHEAD, Large, Node
from treestore.engine.working import Steps, WorkingTree

STEP_KEYS = 1 << 11
"""Keys that go into one leaf at most before it is cut: what a step goes over several times then
stays in the processor's cache."""

SPARSE = 8
"""A leaf with more than this many entries for each change is edited in place."""


class BulkTree(WorkingTree):
    """A working tree for replay: no undo, and batches instead of single changes."""

    __slots__ = ()

    def merge(
        self, keys: list[bytes], changes: dict[bytes, bytes | None], first: int, pages_max: int
    ) -> int:
        """Apply ``changes``, from a key on, until about ``pages_max`` pages are dirty.

        Args:
            keys: the keys of ``changes``, ascending.
            changes: the value that each key has in the end; None: it is removed, if it is there.
                What was applied is taken out.
            first: index of the key to begin with.
            pages_max: when to stop, by what is ``created``.

        Returns:
            Index of the first key that was not applied; the length of ``keys`` at the end.
        """
        shape = self._shape
        while first < len(keys) and self.created <= pages_max:
            steps: Steps = []
            leaf = self._descend(keys[first], steps)
            leaf.settle()
            stop = min(first + STEP_KEYS, len(keys))
            bound = self._upper_bound(steps)
            last = stop if bound is None else bisect_left(keys, bound, first, stop)
            before = leaf.size
            self._change(leaf, keys[first:last], changes)
            if leaf.size > shape.capacity:
                self._split(leaf, steps)
            elif leaf.size < min(shape.minimum, before):
                self._refill(leaf, steps)
            first = last
        return first

    def _change(self, leaf: Node, keys: list[bytes], changes: dict[bytes, bytes | None]) -> None:
        """Apply the changes of ``keys``, all within the leaf's bounds, to a settled leaf."""
        values = list(map(changes.pop, keys))
        if len(leaf.keys) > SPARSE * len(keys) or not self._rebuild(leaf, keys, values):
            self._edit(leaf, keys, values)

    def _rebuild(self, leaf: Node, keys: list[bytes], values: list[bytes | None]) -> bool:
        """Make the leaf's lists anew; False, and nothing done, where large values are involved."""
        try:
            sizes = list(map(len, values))  # type: ignore[arg-type]
        except TypeError:  # something is removed
            sizes = [len(value) if value is not None else 0 for value in values]
        if max(sizes) > self._shape.inline_size_bytes_max:
            return False
        count = len(leaf.keys)
        removed = None in values
        if not removed and (not count or leaf.keys[-1] < keys[0]):
            leaf.keys += keys
            leaf.values += values  # type: ignore[arg-type]
            leaf.size += sum(sizes) + sum(map(len, keys)) + ENTRY_OVERHEAD * len(keys)
            self.count += len(keys)
            return True
        merged: dict[bytes, Any] = dict(zip(leaf.keys, leaf.values, strict=True))
        merged.update(zip(keys, values, strict=True))
        if len(merged) == count + len(keys) and not removed:
            size = leaf.size + sum(sizes) + sum(map(len, keys)) + ENTRY_OVERHEAD * len(keys)
            # Two ascending runs, which is what `sorted` is fastest at.
            ordered = sorted(merged)
        else:
            if Large in map(type, leaf.values):
                return False  # one of them might be replaced
            ordered = sorted(key for key, value in merged.items() if value is not None)
            size = sum(len(key) + len(merged[key]) + ENTRY_OVERHEAD for key in ordered)
        leaf.keys[:] = ordered
        leaf.values[:] = map(merged.__getitem__, ordered)
        leaf.size = size
        self.count += len(ordered) - count
        return True

    def _edit(self, leaf: Node, new_keys: list[bytes], new_values: list[bytes | None]) -> None:
        """Apply the changes one by one."""
        keys, values, value_size = leaf.keys, leaf.values, self._shape.value_size
        index = 0
        for key, value in zip(new_keys, new_values, strict=True):
            index = bisect_left(keys, key, index)
            present = index < len(keys) and keys[index] == key
            if value is None:
                if present:
                    self._cut(leaf, index, index + 1)
                continue
            cell = self._cell(value)
            if present:
                old = values[index]
                values[index] = cell
                leaf.size += value_size(cell) - value_size(old)
                self._drop(old)
            else:
                keys.insert(index, key)
                values.insert(index, cell)
                leaf.size += len(key) + value_size(cell) + ENTRY_OVERHEAD
                self.count += 1
