"""Who rules which days, now and as believed at earlier revisions.

The steps of a policy cut the calendar into runs of days, each ruled by one version or by none. A
read is one seek among them. They are kept up as periods come, go and change; what a change takes
away is filed as a rule of the past. docs/versions.md has the reasons why few steps are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from treestore.stores.access import Read, Write
from treestore.stores.json_values import encode
from treestore.stores.versions.layout import (
    DAY_MAX,
    DAY_MIN,
    Period,
    Rule,
    Shelf,
    Span,
    Step,
    after,
    day_down,
    decode_rule,
    decode_span,
    decode_step,
    packed_day,
    packed_day_down,
    packed_number,
)

NOBODY = Step()

Run = tuple[int, int, Step]
"""First day, last day, and the step that rules them."""


# --- reading ---------------------------------------------------------------------------------


def step_on(txn: Read, shelf: Shelf, day: int) -> tuple[int, Step]:
    """The step that rules ``day``, and its first day."""
    prefix = shelf.steps
    found = txn.first(prefix + packed_day_down(day), after(prefix))
    if found is None:
        return DAY_MIN, NOBODY
    return day_down(found[0][-3:]), decode_step(found[1])


def next_step(txn: Read, shelf: Shelf, day: int) -> int | None:
    """The first day of the step after the one that rules ``day``."""
    prefix = shelf.steps
    for key, _ in txn.scan(prefix, prefix + packed_day_down(day), reverse=True):
        return day_down(key[-3:])
    return None


def ruler(txn: Read, shelf: Shelf, day: int) -> str | None:
    """The version in effect on ``day``, as believed now."""
    return step_on(txn, shelf, day)[1].version_id


def ruler_at(txn: Read, shelf: Shelf, day: int, revision: int, newest: int) -> str | None:
    """The version in effect on ``day``, as believed after ``revision``.

    Args:
        newest: the policy's last revision.
    """
    _, step = step_on(txn, shelf, day)
    if step.version_id is not None and step.since <= revision:
        return step.version_id
    wanted = packed_day_down(day)
    for level in range(newest.bit_length()):
        prefix = rule_prefix(shelf, level, revision >> level)
        found = txn.first(prefix + wanted, after(prefix))
        if found is not None:
            rule = decode_rule(found[1])
            if day <= rule.last:
                return rule.version_id
    return None


def neighbours(txn: Read, shelf: Shelf, day: int) -> tuple[str | None, str | None]:
    """Of a day without a version: who ruled last before it, and who is the next to rule."""
    first, _ = step_on(txn, shelf, day)
    before = ruler(txn, shelf, first - 1) if first > DAY_MIN else None
    coming = next_step(txn, shelf, day)
    return before, None if coming is None else ruler(txn, shelf, coming)


def rule_prefix(shelf: Shelf, level: int, block: int) -> bytes:
    """Rules that were true for all of a block of ``2**level`` revisions."""
    return shelf.rules + level.to_bytes(1, "big") + packed_number(block)


def blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest aligned blocks, as level and number, that fill these revisions (from 1 on)."""
    while first <= last:
        level = min((first & -first).bit_length(), (last - first + 1).bit_length()) - 1
        yield level, first >> level
        first += 1 << level


def level_of(period: Period) -> int:
    """The class of a period's length."""
    return (period.last - period.first).bit_length()


# --- changing --------------------------------------------------------------------------------


class Timeline:
    """The steps of a policy, for one change of it.

    Args:
        revision: of the change.
    """

    def __init__(self, txn: Write, shelf: Shelf, revision: int) -> None:
        self.txn = txn
        self.shelf = shelf
        self.revision = revision

    def replace(self, old: Period | None, new: Period | None) -> None:
        """Give one version another period: None for none."""
        if old == new:
            return
        if old is not None:
            self.txn.delete(self._span_key(old))
        if new is not None:
            self.txn.put(self._span_key(new), encode(Span(new.version_id, new.last)))
        if old is None:
            assert new is not None
            self._claim(new, new.first, new.last)
        elif new is None or (new.first, new.rank) < (old.first, old.rank):
            self._vacate(old.version_id, old.first, old.last)
            if new is not None:
                self._claim(new, new.first, new.last)
        elif (new.first, new.rank) == (old.first, old.rank):
            self._vacate(old.version_id, new.last + 1, old.last)
            self._claim(new, old.last + 1, new.last)
        else:
            self._vacate(old.version_id, old.first, min(old.last, new.first - 1))
            self._vacate(old.version_id, max(old.first, new.last + 1), old.last)
            self._claim(new, new.first, new.last)

    def _span_key(self, period: Period) -> bytes:
        return b"".join(
            (
                self.shelf.spans,
                level_of(period).to_bytes(1, "big"),
                packed_day(period.first),
                packed_number(period.rank),
            )
        )

    def _claim(self, period: Period, first: int, last: int) -> None:
        """Let the period rule those of its days where it is the highest."""
        for start, end, step in self._runs(first, last):
            if step.version_id == period.version_id or period.beats(step):
                self._set(start, end, step, period)

    def _vacate(self, version_id: str, first: int, last: int) -> None:
        """Give the days that the version rules to whoever is the highest of the periods."""
        for start, end, step in self._runs(first, last):
            if step.version_id != version_id:
                continue
            day = start
            while day <= end:
                follower = self._highest(day)
                until = end if follower is None else min(end, follower.last)
                self._set(day, until, step, follower)
                day = until + 1

    def _runs(self, first: int, last: int) -> list[Run]:
        """The step that rules ``first``, and the resumptions after it up to ``last``.

        The other steps there begin with their version's start, after ``first``.
        """
        if first > last:
            return []
        prefix = self.shelf.resumptions
        starts = [first]
        low, high = packed_day(first + 1), packed_day(last + 1)
        for keys, _ in self.txn.batches(prefix + low, prefix + high):
            starts += [int.from_bytes(key[-3:], "big") for key in keys]
        runs = []
        for start in starts:
            _, step = step_on(self.txn, self.shelf, start)
            coming = next_step(self.txn, self.shelf, start)
            runs.append((start, last if coming is None else min(last, coming - 1), step))
        return runs

    def _highest(self, day: int) -> Period | None:
        """The period that holds ``day`` and has the latest start, then the highest rank."""
        txn, prefix = self.txn, self.shelf.spans
        at = len(prefix)
        best: Period | None = None
        level = -1
        while True:
            found = txn.first(prefix + (level + 1).to_bytes(1, "big"), after(prefix))
            if found is None:
                return best
            level = found[0][at]
            low = max(day - (1 << level) + 1, DAY_MIN)
            if best is not None:
                low = max(low, best.first)
            class_prefix = found[0][: at + 1]
            start, end = class_prefix + packed_day(low), class_prefix + packed_day(day + 1)
            for key, value in txn.scan(start, end, reverse=True):
                span = decode_span(value)
                if span.last >= day:
                    first = int.from_bytes(key[at + 1 : at + 4], "big")
                    rank = int.from_bytes(key[at + 4 :], "big")
                    if best is None or (first, rank) > (best.first, best.rank):
                        best = Period(span.version_id, first, span.last, rank)
                    break

    def _set(self, first: int, last: int, step: Step, period: Period | None) -> None:
        """Let ``period`` rule days that ``step``, and no other one, rules until now."""
        same = period is not None and period.version_id == step.version_id
        new = NOBODY
        if period is not None:
            since = step.since if same else self.revision
            new = Step(period.version_id, period.first, period.rank, since)
        if new == step:
            return
        if not same:
            self._file(first, last, step)
        txn, steps = self.txn, self.shelf.steps
        if last < DAY_MAX:
            value = txn.get(steps + packed_day_down(last + 1))
            if value is None:
                self._put(last + 1, step)
            elif decode_step(value) == new:
                self._drop(last + 1)
        before = step_on(txn, self.shelf, first - 1)[1] if first > DAY_MIN else NOBODY
        if before == new:
            self._drop(first)
        else:
            self._put(first, new)

    def _put(self, day: int, step: Step) -> None:
        self.txn.put(self.shelf.steps + packed_day_down(day), encode(step))
        key = self.shelf.resumptions + packed_day(day)
        if step.version_id is None or step.first < day:
            self.txn.put(key, b"")
        else:
            self.txn.delete(key)

    def _drop(self, day: int) -> None:
        self.txn.delete(self.shelf.steps + packed_day_down(day))
        self.txn.delete(self.shelf.resumptions + packed_day(day))

    def _file(self, first: int, last: int, step: Step) -> None:
        """Keep for queries about the past what is no longer true from this revision on."""
        if step.version_id is None:
            return
        value = encode(Rule(step.version_id, last))
        for level, block in blocks(step.since, self.revision - 1):
            key = rule_prefix(self.shelf, level, block) + packed_day_down(first)
            self.txn.put(key, value)
