"""What nobody reads any more, taken apart in small steps.

Dropping the last reference to an old state frees every node that only it had: thousands, in one
go, if much was written while somebody read it. On the event loop that is tens of milliseconds of
standing still, for whoever happened to let go. So `Remains` holds old states until it alone has
them, and then lets go of them node by node.

It only ever drops references of its own and changes no node. Where a count of references misleads
it, more is freed at once, or by somebody else; nothing else can happen.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import getrefcount
from typing import Final

from treestore.engine.node import Ref
from treestore.engine.snapshot import State

FEW: Final = 512
"""So many nodes are freed at once rather than looked for, which takes much longer altogether: it is
about a millisecond, and more than most groups supersede."""

STEP: Final = 1024
"""What one step may cost, in looks at a reference: at most about half a millisecond."""

NODE_LOOKS: Final = 16
"""Freeing a node costs as much as that many looks: a cache miss for each of its entries."""

_MINE: Final = 2
"""A reference that one variable has, as `getrefcount` counts: its argument is another."""


class Remains:
    """Old roots, on the thread that publishes states.

    Attributes:
        on_first: called when there is something to do after there was nothing.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.on_first = on_first
        self._held: list[tuple[Ref, int]] = []
        """Roots that others had too, and how much was superseded before they were."""
        self._stack: list[Ref] = []
        self._superseded = 0

    def __bool__(self) -> bool:
        """Whether there is anything left, even if others still hold all of it."""
        return bool(self._held or self._stack)

    def add(self, state: State, superseded: int, *, listed: bool) -> None:
        """Take over a state that is the newest no longer.

        Args:
            state: what the caller has in one variable, and perhaps others elsewhere.
            superseded: how many nodes of it the next state does without.
            listed: whether they are kept in a list, its root among them, until a checkpoint ends.
                Whoever drops the list then frees them, and does so bit by bit.
        """
        # The caller's variable and this one; the state's own reference to its root.
        held = getrefcount(state) > _MINE + 1 or getrefcount(state.root) > _MINE + listed
        if held or (superseded > FEW and not listed):
            if not self:
                self.on_first()
            self._held.append((state.root, self._superseded))
        self._superseded += superseded

    def step(self) -> bool:
        """Do a little; whether there is more that can be done at once."""
        if not self._stack:
            self._look()
        self._take_apart()
        return bool(self._stack)

    def clear(self) -> None:
        """Let go of everything at once: the store is being closed."""
        self._held.clear()
        self._stack.clear()

    def _look(self) -> None:
        """Find the roots that nobody else has."""
        held, self._held = self._held, []
        # Of the next newer state that stays for now: what was superseded since may be freed.
        later = self._superseded
        while held:
            root, before = held.pop()
            if getrefcount(root) > _MINE:
                self._held.append((root, before))
            elif later - before > FEW:
                self._stack.append(root)
            else:
                continue
            later = before
        self._held.reverse()

    def _take_apart(self) -> None:
        stack = self._stack
        looks = STEP
        while stack and looks > 0:
            looks -= 1
            ref = stack.pop()
            node = ref.node
            # Shared with another state, or being read: it is not ours to take apart. Those who
            # have a node have it from its reference, or it is in the reference's hands alone.
            if node is None or getrefcount(ref) > _MINE or getrefcount(node) > _MINE + 1:
                continue
            looks -= NODE_LOOKS
            if node.children is not None:
                stack += node.children
