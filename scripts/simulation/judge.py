"""The judge: everything that a history must hold, as pure functions over it.

`judge` gives one sentence for each broken promise. What is checked, and how:

* *No value from nowhere*: what was read was written by a call that did not fail.
* *Linearisable registers, strictly serialisable batches, scans and snapshots*: see `linearize`.
* *Exactly once, in order*: `check_lists`. Elements appended to a list are distinct, so any read
  of it gives their order (list-append: Kingsbury and Alvaro, "Elle: inferring isolation anomalies
  from experimental observations", VLDB 2020). Each acknowledged append is there once; one that
  failed is not there; every read is a prefix of the longest; the order agrees with real time.
* *Snapshots*: `check_snapshots`. Numbers of states never go back in real time, and two snapshots
  of one number show the same.
* *Feeds of changes*: see `feeds`.
* *Sessions*: read your writes and monotonic reads follow from the above for registers; for lists
  and snapshots they are checked of each process by itself, since that names the culprit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scripts.simulation.feeds import check_feeds
from scripts.simulation.history import Call, History
from scripts.simulation.linearize import Undecided, components, linearize, registers_of

SHOWN_MAX = 40
"""Calls that are listed with a register whose calls fit no order."""


def judge(history: History) -> list[str]:
    """What is wrong, in sentences; empty where everything was kept."""
    calls = history.calls
    found = [*history.faults, *check_sources(calls), *check_lists(calls), *check_snapshots(calls)]
    found += check_feeds(history.pieces, calls)
    if not found:
        # With the above broken no order is to be had, and the reason is known.
        found += check_order(calls)
    return found


def check_sources(calls: Sequence[Call]) -> Iterator[str]:
    """Every value that was read has a writer that may have written it, there, before."""
    writers = {
        (name, value): call
        for call in calls
        for name, value in call.writes.items()
        if value is not None
    }
    for call in calls:
        if call.outcome != "ok":
            continue
        for name, value in call.reads.items():
            if value is None:
                continue
            writer = writers.get((name, value))
            if writer is None:
                yield f"{name} held {value}, which was never written to it: {call}"
            elif writer.outcome == "failed":
                yield f"{name} held {value} of a call that had failed: {call}; {writer}"
            elif writer.began > call.ended:
                yield f"{name} held {value} before it was written: {call}; {writer}"


def check_order(calls: Sequence[Call]) -> Iterator[str]:
    """Each register by itself, then those that batches, scans and snapshots connect."""
    for registers in components(calls):
        found = [sentence for name in registers for sentence in _check_order(calls, [name])]
        if not found and len(registers) > 1:
            found += _check_order(calls, registers)
        yield from found


def _check_order(calls: Sequence[Call], registers: list[str]) -> Iterator[str]:
    text = ", ".join(registers)
    together = " together" if len(registers) > 1 else ""
    try:
        if linearize(calls, registers) is None:
            yield f"The calls on {text} fit no order{together}:{_shown(calls, registers)}"
    except Undecided:
        yield f"The search for an order of the calls on {text} took too long."


def _shown(calls: Sequence[Call], registers: list[str]) -> str:
    names = set(registers)
    concerned = [call for call in calls if names.intersection(registers_of(call))]
    lines = [f"\n    {call}" for call in concerned[:SHOWN_MAX] if call.outcome != "failed"]
    return "".join(lines)


def check_lists(calls: Sequence[Call]) -> Iterator[str]:
    """Lists that are only appended to."""
    names = sorted({name for call in calls for name in call.listed})
    for name in names:
        yield from _check_list(name, calls)


def _check_list(name: str, calls: Sequence[Call]) -> Iterator[str]:
    reads = [call for call in calls if call.outcome == "ok" and name in call.listed]
    appends = {
        call.append[1]: call for call in calls if call.append is not None and call.append[0] == name
    }
    longest = max((call.listed[name] for call in reads), key=len, default=())
    place = {value: index for index, value in enumerate(longest)}
    if len(place) != len(longest):
        twice = sorted({value for value in longest if longest.count(value) > 1})
        yield f"{name} has {twice} more than once: {'; '.join(str(appends.get(v)) for v in twice)}"
        return
    for value in longest:
        append = appends.get(value)
        if append is None or append.outcome == "failed":
            yield f"{name} has {value}, which was not appended: {append}"
    for read in reads:
        if read.listed[name] != longest[: len(read.listed[name])]:
            yield f"{name} was read as no prefix of {longest}: {read}"
    yield from _check_appends(name, list(appends.values()), place)
    yield from _check_reads(name, reads, appends)


def _check_appends(name: str, appends: list[Call], place: dict[int, int]) -> Iterator[str]:
    """Positions as they were answered, and in the order of real time."""
    latest: Call | None = None
    events: list[tuple[float, int, Call]] = []
    for call in appends:
        assert call.append is not None
        at = place.get(call.append[1])
        if call.outcome == "ok" and at is not None and call.position not in (None, at):
            yield f"{name}: the answer says {call.position}, but it stands at {at}: {call}"
        if at is not None:
            events.append((call.began, 0, call))
            if call.outcome == "ok":
                events.append((call.ended, 1, call))
    for _, ending, call in sorted(events, key=lambda event: event[:2]):
        assert call.append is not None
        at = place[call.append[1]]
        if ending:
            if latest is None or at > place[latest.append[1]]:  # type: ignore[index]
                latest = call
        elif latest is not None and place[latest.append[1]] > at:  # type: ignore[index]
            yield f"{name}: one that began after another ended stands before it: {call}; {latest}"


def _check_reads(name: str, reads: list[Call], appends: dict[int, Call]) -> Iterator[str]:
    """A read has all that was acknowledged before it began, and what earlier reads had."""
    longest_ended: list[tuple[float, int, Call]] = sorted(
        ((read.ended, read.number, read) for read in reads), key=lambda entry: entry[:2]
    )
    acknowledged = sorted(
        ((call.ended, value, call) for value, call in appends.items() if call.outcome == "ok"),
        key=lambda entry: entry[:2],
    )
    for read in reads:
        had = set(read.listed[name])
        for ended, value, call in acknowledged:
            if ended > read.began:
                break
            if value not in had:
                mine = " of its own" if call.process == read.process else ""
                yield f"{name} was read without an append{mine}: {read}; {call}"
        for value in read.listed[name]:
            if value in appends and appends[value].began > read.ended:
                yield f"{name} had {value} before it was appended: {read}; {appends[value]}"
        for ended, _, earlier in longest_ended:
            if ended > read.began:
                break
            if len(earlier.listed[name]) > len(had):
                yield f"{name} was read shorter than before: {read}; {earlier}"
                break


def check_snapshots(calls: Sequence[Call]) -> Iterator[str]:
    """States have numbers: these go forward, and one number is one state."""
    snapshots = [call for call in calls if call.snapshot is not None and call.outcome == "ok"]
    shown: dict[int, dict[str, tuple[object, Call]]] = {}
    for call in snapshots:
        assert call.snapshot is not None
        state = shown.setdefault(call.snapshot, {})
        for name, value in {**call.reads, **call.listed}.items():
            other = state.setdefault(name, (value, call))
            if other[0] != value:
                yield f"State {call.snapshot} shows two values of {name}: {call}; {other[1]}"
    highest: Call | None = None
    events = sorted(
        (
            *((call.began, 0, call) for call in snapshots),
            *((call.ended, 1, call) for call in snapshots),
        ),
        key=lambda event: event[:2],
    )
    for _, ending, call in events:
        number = call.snapshot or 0
        if highest is not None and not ending and number < (highest.snapshot or 0):
            yield f"A snapshot is older than one that was opened before: {call}; {highest}"
        if ending and (highest is None or number > (highest.snapshot or 0)):
            highest = call
