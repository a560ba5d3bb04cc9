"""What clients did and saw: the only thing that the judge looks at.

A call is written down when it begins and when its outcome is known. ``began`` and ``ended`` are
positions in the one order in which all of that was written down: call *a* came before call *b* in
real time where ``a.ended < b.began``.

Everything that can be read or written is a *register* with a name (a key of ``kv``, a document) or
a *list* that is only appended to (the roots of a document). Values are written once: no two writes
carry the same. That makes it known, of everything that is read, which call wrote it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import attrs

Value = int | None
"""What a register holds: the number of a write, or None where it is absent."""

Outcome = Literal["open", "ok", "failed", "unknown"]


@attrs.define(eq=False)
class Call:
    """One call of one client.

    Attributes:
        process: who made it; one call at a time.
        name: of the operation, for people.
        reads: registers and what they held.
        present: registers of which the answer says only whether they were there.
        writes: registers and what they hold afterwards.
        append: list and the number that was appended to it.
        position: where the answer says that it stands, counted from 0.
        listed: list and its numbers, as they were read.
        snapshot: number of the state that was read, where that is known.
        outcome: ``failed`` promises that nothing was changed; ``unknown`` promises nothing.
    """

    number: int
    process: int
    name: str
    began: int
    began_s: float
    reads: dict[str, Value] = attrs.field(factory=dict)
    present: dict[str, bool] = attrs.field(factory=dict)
    writes: dict[str, Value] = attrs.field(factory=dict)
    append: tuple[str, int] | None = None
    position: int | None = None
    listed: dict[str, tuple[int, ...]] = attrs.field(factory=dict)
    snapshot: int | None = None
    ended: float = math.inf
    ended_s: float = math.inf
    outcome: Outcome = "open"
    note: str = ""

    def __str__(self) -> str:
        parts = [f"call {self.number} of {self.process}: {self.name}"]
        facts: Mapping[str, object] = {
            "read": self.reads,
            "present": self.present,
            "wrote": self.writes,
            "appended": self.append,
            "at": self.position,
            "listed": self.listed,
            "state": self.snapshot,
        }
        parts += [f"{name} {fact}" for name, fact in facts.items() if fact not in (None, {})]
        parts.append(f"{self.outcome} [{self.began}, {self.ended}] {self.note}".rstrip())
        return ", ".join(parts)


@attrs.define(eq=False)
class Piece:
    """What one watcher saw of the feed of changes, from a snapshot on, without a break.

    Attributes:
        watcher: who.
        lsn: of the snapshot.
        position: where it goes on.
        values: what the registers of ``kv`` held in the snapshot.
        opened: the event after which the snapshot was open.
        changes: LSN, register (None: something else than a key of ``kv``), what it holds, whether
            it is the last of its transaction, and its position.
        ended: the event after which it was known to be at the end of the feed; 0 where it never
            was, since it fell behind what the log keeps.
        end_lsn: everything up to there was seen.
    """

    watcher: int
    lsn: int
    position: str
    values: dict[str, Value]
    opened: int
    changes: list[tuple[int, str | None, Value, bool, str]] = attrs.field(factory=list)
    ended: int = 0
    end_lsn: int = 0

    def covers(self, call: Call) -> bool:
        """Whether the call began and ended while it was watched."""
        return self.opened < call.began and call.ended < self.ended

    def __str__(self) -> str:
        return f"watcher {self.watcher} from {self.lsn} to {self.end_lsn}"


class History:
    """All calls, in the order in which they began."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.pieces: list[Piece] = []
        """What watchers saw."""
        self.faults: list[str] = []
        """What must never happen, whatever else is going on: seen by whoever made the calls."""
        self.on_fault: Callable[[], None] = lambda: None
        """Called after each of them."""
        self._events = 0
        self._values = 0

    def fresh(self) -> int:
        """A number that was never written."""
        self._values += 1
        return self._values

    def mark(self) -> int:
        """A place in the order of events."""
        self._events += 1
        return self._events

    def begin(self, process: int, name: str, now_s: float) -> Call:
        """A call begins now."""
        self._events += 1
        call = Call(len(self.calls), process, name, self._events, now_s)
        self.calls.append(call)
        return call

    def opened(self, call: Call) -> None:
        """What the call reads is settled now, whenever it will read it."""
        self._events += 1
        call.ended = self._events

    def end(self, call: Call, outcome: Outcome, now_s: float, note: str = "") -> None:
        """Its outcome is known now."""
        self._events += 1
        call.ended, call.ended_s = min(call.ended, self._events), now_s
        call.outcome = outcome
        call.note = note

    def fault(self, what: str) -> None:
        """Something that must never happen."""
        self.faults.append(what)
        self.on_fault()
