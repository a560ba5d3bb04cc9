"""Is there an order of these calls in which every answer is right?

Strict serialisability: some total order of the calls, in which a call that ended before another
began comes before it, and in which each call reads what the calls before it wrote. For calls on a
single register that is linearisability, which is local: a history is linearisable where it is for
each register by itself (Herlihy and Wing, "Linearizability: a correctness condition for concurrent
objects", 1990). For batches, scans and snapshots, which touch several, the registers that any one
call connects are judged together.

The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's
memory ("Testing for linearizability", 2017): take any call that may come next (it began before
every call not taken yet ended), apply it, go on; step back where nothing fits; never look twice at
the same set of taken calls with the same state. What keeps it short here:

* A call that only reads and fits now is taken at once: whatever order there is, moving it here
  leaves it right.
* Values are written once. So a write that would bury a value that is still to be read is never
  taken: nothing brings the value back.
* A call of unknown outcome may take effect at any later time, or never. It is tried only where
  some answer still shows its effect. Where none does, an order with it is right without it too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from scripts.simulation.history import Call, Value

STATES_MAX = 200_000
"""States after which the search gives up."""


class Undecided(Exception):
    """The search took too long."""


@attrs.frozen
class _Step:
    """A call, cut down to the registers that are judged."""

    call: Call
    reads: tuple[tuple[int, Value], ...]
    present: tuple[tuple[int, bool], ...]
    writes: tuple[tuple[int, Value], ...]
    known: bool

    def fits(self, state: tuple[Value, ...]) -> bool:
        return all(state[index] == value for index, value in self.reads) and all(
            (state[index] is not None) == there for index, there in self.present
        )


def components(calls: Iterable[Call]) -> list[list[str]]:
    """The registers, those together that calls connect; each list sorted."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for call in calls:
        names = registers_of(call)
        for name in names:
            parent[root(name)] = root(names[0])
    groups: dict[str, list[str]] = {}
    for name in sorted(parent):
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())


def registers_of(call: Call) -> list[str]:
    """Every register that the call touches."""
    return list({**call.reads, **call.present, **call.writes})


def linearize(
    calls: Sequence[Call], registers: Sequence[str], *, states_max: int = STATES_MAX
) -> list[Call] | None:
    """An order in which all answers about ``registers`` are right; None where there is none.

    Args:
        calls: of any outcome; what failed is left out, and so is what does not touch them.

    Raises:
        Undecided: after ``states_max`` states.
    """
    return _Search(calls, registers, states_max).run()


class _Search:
    def __init__(self, calls: Sequence[Call], registers: Sequence[str], states_max: int) -> None:
        index = {name: number for number, name in enumerate(registers)}
        self.width = len(registers)
        self.states_max = states_max
        self.steps: list[_Step] = []
        for call in calls:
            if call.outcome == "failed":
                continue
            known = call.outcome == "ok"
            step = _Step(
                call,
                tuple((index[k], v) for k, v in call.reads.items() if k in index) if known else (),
                tuple((index[k], v) for k, v in call.present.items() if k in index),
                tuple((index[k], v) for k, v in call.writes.items() if k in index),
                known,
            )
            if step.writes or (known and (step.reads or step.present)):
                self.steps.append(step)
        self.steps.sort(key=lambda step: step.call.began)
        self.wanted: Counter[tuple[int, object]] = Counter()
        for step in self.steps:
            if step.known:
                self._want(step, 1)

    def _want(self, step: _Step, by: int) -> None:
        """Count what the answer shows of each register: its value, or whether it is there."""
        for index, value in step.reads:
            self.wanted[index, value] += by
            self.wanted[index, "there" if value is not None else "absent"] += by
        for index, there in step.present:
            self.wanted[index, "there" if there else "absent"] += by

    def run(self) -> list[Call] | None:
        taken: list[_Step] = []
        mask = 0
        state: tuple[Value, ...] = (None,) * self.width
        # Each frame: how many steps to give back on failure, mask and state after them, choices.
        frames: list[tuple[int, int, tuple[Value, ...], list[int]]] = []
        seen: set[tuple[int, tuple[Value, ...]]] = set()
        left = sum(step.known for step in self.steps)
        while True:
            before = len(taken)
            mask = self._take_reads(mask, state, taken)
            left -= len(taken) - before
            if left == 0:
                return [step.call for step in taken]
            key = (mask, state)
            fresh = key not in seen
            seen.add(key)
            if len(seen) > self.states_max:
                raise Undecided
            frames.append((before, mask, state, self._choices(mask, state) if fresh else []))
            while not frames[-1][3]:
                keep = frames.pop()[0]
                while len(taken) > keep:
                    left += self._give_back(taken.pop())
                if not frames:
                    return None
                left += self._give_back(taken.pop())  # the choice that led here
            _, mask, state, choices = frames[-1]
            number = choices.pop()
            step = self.steps[number]
            taken.append(step)
            mask |= 1 << number
            if step.known:
                left -= 1
                self._want(step, -1)
            values = list(state)
            for index, value in step.writes:
                values[index] = value
            state = tuple(values)

    def _give_back(self, step: _Step) -> int:
        if not step.known:
            return 0
        self._want(step, 1)
        return 1

    def _candidates(self, mask: int) -> list[int]:
        """The steps that may come next: begun before every known one that is left ended."""
        first_end = float("inf")
        found: list[int] = []
        for number, step in enumerate(self.steps):
            if mask >> number & 1:
                continue
            if step.call.began > first_end:
                break
            found.append(number)
            if step.known and step.call.ended < first_end:
                first_end = step.call.ended
        return [number for number in found if self.steps[number].call.began < first_end]

    def _take_reads(self, mask: int, state: tuple[Value, ...], taken: list[_Step]) -> int:
        progress = True
        while progress:
            progress = False
            for number in self._candidates(mask):
                step = self.steps[number]
                if step.known and not step.writes and step.fits(state):
                    mask |= 1 << number
                    taken.append(step)
                    self._want(step, -1)
                    progress = True
        return mask

    def _choices(self, mask: int, state: tuple[Value, ...]) -> list[int]:
        """Writes that may come next, the likeliest last."""
        known: list[int] = []
        unknown: list[int] = []
        for number in self._candidates(mask):
            step = self.steps[number]
            if not step.writes or not step.fits(state) or self._buries(step, state):
                continue
            if step.known:
                known.append(number)
            elif any(self._shows(index, value) for index, value in step.writes):
                unknown.append(number)
        known.sort(key=lambda number: -self.steps[number].call.ended)
        return unknown + known

    def _shows(self, index: int, value: Value) -> bool:
        if value is None:
            return self.wanted[index, "absent"] > 0
        return self.wanted[index, value] > 0 or self.wanted[index, "there"] > 0

    def _buries(self, step: _Step, state: tuple[Value, ...]) -> bool:
        """Whether a value goes that somebody else is still to read."""
        own = dict(step.reads)
        for index, value in step.writes:
            old = state[index]
            if old is None or old == value:
                continue
            if self.wanted[index, old] > (own.get(index) == old):
                return True
        return False
