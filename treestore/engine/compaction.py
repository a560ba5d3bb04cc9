"""A compaction, as a sequence of steps for somebody else to carry out.

`plan` is a generator: it yields a step and is sent what came of it. It holds no lock and does no
I/O itself, so the actor (``actors/compactor.py``) and tests run the same sequence, each in their
way. Between two steps anything may happen to the store. See ``docs/space.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from treestore.engine.meta import first_page
from treestore.engine.moving import Move, move
from treestore.engine.tailsearch import Found, TailSearch
from treestore.engine.transaction import WriteTransaction

if TYPE_CHECKING:
    from treestore.engine.engine import Engine

PASSES_MAX = 8

WORTH = 50
"""A pass that gives back less than this part of the file is the last of its kind."""

STEP_LEAVES = 32
"""Leaves that are moved in one go: less than a millisecond of the event loop."""


@attrs.define
class MoveStep:
    """A few moves, as a command for the writer: ``MovesCall(step.run)``."""

    engine: Engine
    moves: Sequence[Move]
    cutoff: int
    moved: int = 0
    """Nodes and values that it made dirty."""

    def run(self, transaction: WriteTransaction) -> int:
        """Do them, as far as there is room that nobody else needs; how many are done.

        Without moves: a state of its own that says the same, for the next checkpoint.
        """
        assert transaction.moves
        for done, what in enumerate(self.moves):
            pages = max(what.leaves, 1) + len(what.data or b"") // self.engine.pages.shape.page_size
            if self.engine.move_room(transaction.working.created) < pages:
                return done
            self.moved += move(transaction.working, self.engine.pages, what, self.cutoff)
        return len(self.moves)


@attrs.frozen
class Quiet:
    """Call ``run`` on the owner's thread while no checkpoint runs; the answer is its result."""

    run: Callable[[], Any]


@attrs.frozen
class Search:
    """Call ``run`` on any thread; ``done`` on the owner's afterwards, whatever happened. The
    answer is what ``run`` returned."""

    run: Callable[[], Found]
    done: Callable[[], None]


@attrs.frozen
class Settle:
    """Make a checkpoint that writes both slots."""


@attrs.frozen
class Cut:
    """Call `Engine.shorten`, then `PageFile.cut` until it is False, while no checkpoint runs."""


Step = Quiet | Search | MoveStep | Settle | Cut
"""A `MoveStep` is run by the writer; the answer is what its ``run`` returned."""

Steps = Generator[Step, Any, None]


def cutoff_of(engine: Engine) -> int:
    """The page at which the tail begins: everything live fits below, with room to spare.

    On the owner's thread while no checkpoint runs. What retired pages hold counts as live: either
    a lease needs them, or the next checkpoint lets go of them.
    """
    free = engine.free_space
    first = first_page(engine.pages.shape.page_size)
    live = free.page_count - first - free.free_pages() + engine.dirty_pages
    return first + live + live // 8 + engine.options.headroom_pages


def plan(engine: Engine) -> Steps:
    """The steps of one compaction."""
    leaves_too = False
    yield from _settle(engine)
    cutoff, end = yield Quiet(lambda: _tail(engine))
    for _ in range(PASSES_MAX):
        if end <= cutoff:
            break
        yield from _one_pass(engine, cutoff, leaves_too)
        yield from _settle(engine)
        before = end
        cutoff, end = yield Quiet(lambda: _tail(engine))
        if (before - end) * WORTH < before:
            if leaves_too:
                break
            # No node lies there: large values may.
            leaves_too = True
    if any(slot.page_count > end for slot in engine.slots):
        yield from _settle(engine)
    yield Cut()


def _tail(engine: Engine) -> tuple[int, int]:
    """Where the tail begins, and the end of the last page in use."""
    engine.free_space.trim()
    return cutoff_of(engine), engine.free_space.page_count


def _settle(engine: Engine) -> Steps:
    """Make everything free that no lease needs, and both slots say how long the file must be."""
    # Without a state of its own there would be nothing for the checkpoint to write.
    yield MoveStep(engine, (), 0)
    yield Settle()


def _search(engine: Engine, cutoff: int, start: bytes, leaves_too: bool) -> Search:
    search = TailSearch(engine, cutoff, leaves_too=leaves_too)
    lease = engine.snapshot("compaction", evictable=False)
    root = lease.usable_root()
    return Search(lambda: search.run(root, start), lease.close)


def _one_pass(engine: Engine, cutoff: int, leaves_too: bool) -> Steps:
    """Move what lies in the tail, as far as there is room below it."""
    start: bytes | None = b""
    stuck = False
    while start is not None:
        search = yield Quiet(partial(_search, engine, cutoff, start, leaves_too))
        found: Found = yield search
        moved = 0
        for few in _cut_up(found.moves):
            done = yield MoveStep(engine, few, cutoff)
            moved += done
            if done < len(few):
                break
        if found.no_room or moved < len(found.moves):
            # No room below the tail now. A checkpoint may make some, once.
            if stuck and not moved:
                return
            stuck = not moved
            yield from _settle(engine)
            continue
        stuck = False
        if found.moves:
            yield Settle()
        elif found.next_key == start:
            return
        start = found.next_key


def _cut_up(moves: Sequence[Move]) -> Generator[Sequence[Move], None, None]:
    """Moves in portions of `STEP_LEAVES`."""
    first = 0
    while first < len(moves):
        last, leaves = first + 1, moves[first].leaves
        while last < len(moves) and leaves + moves[last].leaves <= STEP_LEAVES:
            leaves += moves[last].leaves
            last += 1
        yield moves[first:last]
        first = last
