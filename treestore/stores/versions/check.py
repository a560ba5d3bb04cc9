"""Verifies that everything stored about versions agrees with itself: docs/versions.md, Invariants.

Memory is proportional to what is recorded of the largest policy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

import msgspec

from treestore.stores.access import Read
from treestore.stores.documents.layout import AFTER
from treestore.stores.json_values import encode
from treestore.stores.keys import Keyspace, successor, unpack, unpack_one
from treestore.stores.versions.book import read_head
from treestore.stores.versions.layout import (
    DAY_MAX,
    DAY_MIN,
    Head,
    Period,
    Record,
    Rule,
    Shelf,
    Span,
    Step,
    after,
    day_down,
    decode_record,
    decode_rule,
    decode_step,
    microseconds,
    packed_day,
    packed_number,
    packed_number_down,
)
from treestore.stores.versions.timeline import level_of

REVISIONS_CHECKED: Final = 64
"""Revisions of a policy, at most, whose rules are compared with the history: beyond that many,
evenly chosen ones, and fewer where each has many versions."""

PERIODS_CHECKED: Final = 200_000
"""Periods, over all the checked revisions of a policy, about at most."""

Run = tuple[int, int, str]
"""First day, last day, version."""


def check_versions(txn: Read, documents: set[tuple[str, str]]) -> list[str]:
    """What is wrong with the records of versions, a sentence each.

    Args:
        documents: policy_id and version_id of every stored document.
    """
    problems: list[str] = []
    left = set(documents)
    for policy_id in _policies(txn):
        check = _Check(txn, policy_id)
        try:
            problems += check.run(documents)
        except (msgspec.DecodeError, ValueError, IndexError, AssertionError) as error:
            problems.append(f"Policy {policy_id!r}: a record cannot be read: {error}.")
        left -= {(policy_id, version_id) for version_id in check.records}
    problems += [
        f"Version {version_id!r} of policy {policy_id!r} has a document and no record."
        for policy_id, version_id in sorted(left)
    ]
    return problems


def _policies(txn: Read) -> list[str]:
    """Every policy of which anything is recorded."""
    found: set[str] = set()
    for keyspace in (
        *(Keyspace.POLICIES, Keyspace.VERSIONS, Keyspace.VERSION_HISTORY),
        *(Keyspace.VERSION_TAGS, Keyspace.VERSION_PERIODS),
    ):
        cursor = txn.cursor(keyspace, successor(keyspace))
        for key, _ in cursor:
            policy_id, at = unpack_one(key, 1)
            assert isinstance(policy_id, str)
            found.add(policy_id)
            cursor.seek(key[:at] + AFTER)
    return sorted(found)


def ruled_runs(periods: list[Period]) -> list[Run]:
    """Which version rules which days, by sweeping over the starts; neighbours are joined."""
    runs: list[Run] = []
    heap: list[tuple[int, int, int, str]] = []
    waiting = sorted(periods, key=lambda period: period.first)
    at, day = 0, DAY_MIN
    while day <= DAY_MAX:
        while at < len(waiting) and waiting[at].first <= day:
            period = waiting[at]
            heappush(heap, (-period.first, -period.rank, period.last, period.version_id))
            at += 1
        while heap and heap[0][2] < day:
            heappop(heap)
        coming = waiting[at].first if at < len(waiting) else DAY_MAX + 1
        if not heap:
            day = coming
            continue
        _, _, last, version_id = heap[0]
        end = min(last, coming - 1)
        runs.append((day, end, version_id))
        day = end + 1
    return joined(runs)


def joined(runs: list[Run]) -> list[Run]:
    """The runs in order, those that touch and have the same version as one."""
    result: list[Run] = []
    for first, last, version_id in sorted(runs):
        if result and result[-1][1] + 1 == first and result[-1][2] == version_id:
            result[-1] = result[-1][0], last, version_id
        else:
            result.append((first, last, version_id))
    return result


class _Check:
    """The check of one policy."""

    def __init__(self, txn: Read, policy_id: str) -> None:
        self.txn = txn
        self.policy_id = policy_id
        self.shelf = Shelf(policy_id)
        self.problems: list[str] = []
        self.records: dict[str, Record] = {}
        self.steps: list[tuple[int, Step]] = []
        self.states: dict[str, list[Record]] = {}
        """The history of each version, oldest first."""

    def run(self, documents: set[tuple[str, str]]) -> list[str]:
        """All of it."""
        prefix = self.shelf.records
        for key, data in self.txn.scan(prefix, prefix + AFTER):
            (version_id,) = unpack(key[len(prefix) :])
            record = decode_record(data)
            assert isinstance(version_id, str)
            self.records[version_id] = record
            if (record.state.policy_id, record.state.version_id) != (self.policy_id, version_id):
                self._say(f"the record of version {version_id!r} names another one")
            stored = (self.policy_id, version_id) in documents
            if stored != bool(record.stored) or stored != record.state.has_document:
                self._say(f"version {version_id!r} disagrees about having a document")
            if not (stored or record.dated or record.declared):
                self._say(f"version {version_id!r} is listed without a reason")
        self._check_history()
        self._check_indexes()
        self._check_steps()
        self._check_past()
        return self.problems

    def _say(self, what: str) -> None:
        self.problems.append(f"Policy {self.policy_id!r}: {what}.")

    def _same(self, what: str, prefix: bytes, expected: dict[bytes, bytes]) -> None:
        found = dict(self.txn.scan(prefix, prefix + AFTER * 13))
        for key in found.keys() | expected.keys():
            if found.get(key) != expected.get(key):
                self._say(f"{what} entry {key.hex()} disagrees with the versions")

    # --- what is recorded ------------------------------------------------------------------

    def _check_history(self) -> None:
        prefix = Keyspace.VERSION_HISTORY + self.shelf.packed
        journal: dict[bytes, bytes] = {}
        count = 0
        for key, data in self.txn.scan(prefix, prefix + AFTER):
            version_id, at = unpack_one(key, len(prefix))
            record = decode_record(data)
            state = record.state
            if state.version_id != version_id or key[at:] != packed_number_down(state.revision):
                self._say(f"history entry {key.hex()} is of another version or revision")
            count += 1
            self.states.setdefault(state.version_id, []).append(record)
            moment = packed_number_down(microseconds(state.recorded_at))
            journal[self.shelf.journal + moment] = packed_number(state.revision)
        for states in self.states.values():
            states.reverse()
        self._same("journal", self.shelf.journal, journal)
        numbers = [journal[key] for key in sorted(journal, reverse=True)]
        if numbers != sorted(set(numbers)):
            self._say("recorded times do not grow with the revisions")
        for version_id in self.records.keys() | self.states.keys():
            self._check_last(version_id)
        self._check_head(count)

    def _check_last(self, version_id: str) -> None:
        """The last state of a history is the present one."""
        record, states = self.records.get(version_id), self.states.get(version_id)
        last = states[-1] if states else None
        if record is None or not (record.dated or record.declared):
            agrees = last is None or last.state.change == "withdrawn"
        else:
            agrees = (
                last is not None
                and last.period == record.period
                and all(
                    getattr(last.state, name) == getattr(record.state, name)
                    for name in ("revision", "recorded_at", "change", "tags", "description")
                )
            )
        if not agrees:
            self._say(f"the history of version {version_id!r} ends with another state")

    def _check_head(self, states: int) -> None:
        head = read_head(self.txn, self.shelf)
        if head is None:
            self._say("its head is missing")
            return
        versions = self.records.values()
        dated = sum(record.dated for record in versions)
        if (head.versions, head.dated, head.states) != (len(versions), dated, states):
            self._say(f"its head counts {head}, there are {len(versions)}, {dated}, {states}")
        newest = max((r.state.revision for r in self._everything()), default=0)
        if head.revision < newest or head == Head():
            self._say(f"its head is at revision {head.revision}, a record at {newest}")
        for start, end in (self.shelf.everything()[0], self.shelf.everything()[-1]):
            for key, _ in self.txn.scan(start, end):
                if not self._is_known(key):
                    self._say(f"nothing explains key {key.hex()}")

    def _is_known(self, key: bytes) -> bool:
        """Whether a key is the policy's head, or of a kind that there is."""
        shelf = self.shelf
        if key.startswith(Keyspace.POLICIES):
            return key == shelf.head
        return key[: len(shelf.stored)] <= shelf.stored

    def _everything(self) -> Iterator[Record]:
        yield from self.records.values()
        for states in self.states.values():
            yield from states

    def _check_indexes(self) -> None:
        shelf = self.shelf
        order: dict[bytes, bytes] = {}
        stored: dict[bytes, bytes] = {}
        tags: dict[bytes, bytes] = {}
        spans: dict[bytes, bytes] = {}
        for version_id, record in self.records.items():
            name = version_id.encode()
            order[shelf.order + record.place] = name
            if record.stored:
                stored[shelf.stored + packed_number(record.stored)] = name
            for tag in record.state.tags:
                tags[shelf.tag(tag) + record.place] = name
            period = record.period
            if period is not None:
                level = level_of(period).to_bytes(1, "big")
                key = shelf.spans + level + packed_day(period.first) + packed_number(period.rank)
                spans[key] = encode(Span(version_id, period.last))
        self._same("order", shelf.order, order)
        self._same("storing", shelf.stored, stored)
        self._same("tag", shelf.tags, tags)
        self._same("period", shelf.spans, spans)
        if len(order) != len(self.records):
            self._say("two versions have the same place in the order of time")

    # --- who rules when --------------------------------------------------------------------

    def _check_steps(self) -> None:
        prefix = self.shelf.steps
        steps = [
            (day_down(key[-3:]), decode_step(data))
            for key, data in self.txn.scan(prefix, after(prefix), reverse=True)
        ]
        self.steps = steps
        periods = {v: record.period for v, record in self.records.items()}
        resumptions: dict[bytes, bytes] = {}
        last = Step()
        for day, step in steps:
            if step == last:
                self._say(f"the step of day {day} is that of the day before")
            last = step
            if step.version_id is None or step.first < day:
                resumptions[self.shelf.resumptions + packed_day(day)] = b""
            if step.version_id is None:
                continue
            period = periods.get(step.version_id)
            if period is None or (period.first, period.rank) != (step.first, step.rank):
                self._say(f"the step of day {day} does not fit its version {step.version_id!r}")
        self._same("resumption", self.shelf.resumptions, resumptions)
        expected = ruled_runs([period for period in periods.values() if period is not None])
        if joined(self._present(None)) != expected:
            self._say("the steps are not what the periods give")

    def _present(self, revision: int | None) -> list[Run]:
        """What the steps say; with a revision, those that are as old as it."""
        ends = [day - 1 for day, _ in self.steps[1:]] + [DAY_MAX]
        return [
            (day, end, step.version_id)
            for (day, step), end in zip(self.steps, ends, strict=False)
            if step.version_id is not None and (revision is None or step.since <= revision)
        ]

    def _check_past(self) -> None:
        rules = self._rules()
        states = [record for records in self.states.values() for record in records]
        revisions = sorted({record.state.revision for record in states})
        count = min(REVISIONS_CHECKED, PERIODS_CHECKED // (len(states) + 1) + 2)
        step = max(1, len(revisions) // count)
        for revision in revisions[::step] + revisions[-1:]:
            runs = self._present(revision)
            for level in range(revision.bit_length()):
                for first, rule in rules.get((level, revision >> level), ()):
                    runs.append((first, rule.last, rule.version_id))
            if joined(runs) != ruled_runs(self._believed(revision)):
                self._say(f"who ruled as of revision {revision} is not what the history gives")
        newest = revisions[-1] if revisions else 0
        for level, block in rules:
            if (block + 1 << level) - 1 >= max(newest, 1):
                self._say(f"rules of level {level} are filed for the future")

    def _rules(self) -> dict[tuple[int, int], list[tuple[int, Rule]]]:
        """What is filed, by level and block: first day and rule."""
        prefix = self.shelf.rules
        at = len(prefix)
        rules: dict[tuple[int, int], list[tuple[int, Rule]]] = defaultdict(list)
        for key, data in self.txn.scan(prefix, prefix + AFTER):
            block = int.from_bytes(key[at + 1 : at + 9], "big")
            rules[key[at], block].append((day_down(key[at + 9 :]), decode_rule(data)))
        return rules

    def _believed(self, revision: int) -> list[Period]:
        """The periods that the history gives for a revision."""
        periods = []
        for states in self.states.values():
            at = bisect_right(states, revision, key=lambda record: record.state.revision)
            period = states[at - 1].period if at else None
            if period is not None:
                periods.append(period)
        return periods
