"""Random changes of versions, compared with a brute-force computation over the log of them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, ClassVar

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.stores.engine_store import EngineStore
from tests.stores.fake import FakeStore
from treestore.errors import InvalidArgument, NotFound
from treestore.model.documents import UNSET
from treestore.stores.documents import reading as documents
from treestore.stores.documents import storing
from treestore.stores.documents.check import check_documents
from treestore.stores.versions import changing, reading

POLICY = "policy \0 ü"
OTHER = "policy"
ORIGIN = date(2024, 4, 25)  # The fake clock begins on the first of May.
SPAN = 14
VERSIONS = st.sampled_from(["a", "a\0", "b", "c", "ü", "f"])
DAYS = st.integers(0, SPAN).map(lambda n: ORIGIN + timedelta(days=n))
ENDS = st.none() | DAYS
TAGS = st.sets(st.sampled_from(["draft", "final", "x\0"]), max_size=2)
PERIODS: st.SearchStrategy[Any] = (
    st.tuples(ENDS, ENDS)
    .filter(lambda pair: pair != (None, None))
    .map(lambda pair: pair if None in pair else tuple(sorted(day for day in pair if day)))
)
ASKED = [date.min, *(ORIGIN + timedelta(days=n) for n in range(-1, SPAN + 2)), date.max]
MICROSECOND = timedelta(microseconds=1)


@attrs.frozen
class Fact:
    """What is believed of one version."""

    first: date | None
    last: date | None
    rank: int
    declared: bool
    stored: int = 0
    tags: tuple[str, ...] = ()

    @property
    def dated(self) -> bool:
        return self.first is not None or self.last is not None

    def holds(self, day: date) -> bool:
        return self.dated and (self.first or date.min) <= day <= (self.last or date.max)


Facts = dict[str, Fact]


def in_effect(facts: Facts, day: date) -> str | None:
    """By the definition."""
    holding = [
        (fact.first or date.min, fact.rank, v) for v, fact in facts.items() if fact.holds(day)
    ]
    return max(holding)[2] if holding else None


class Versions(RuleBasedStateMachine):
    """One policy's versions; of another one nothing changes."""

    make_store: ClassVar[type[Any]] = FakeStore

    def __init__(self) -> None:
        super().__init__()
        self.store: Any = self.make_store()
        self.facts: Facts = {}
        self.log: list[tuple[datetime, Facts]] = []
        """What was believed after each recorded change."""
        self.ranks = 0
        self.store.run(changing.create, OTHER, "a", effective_from=ORIGIN, tags=["draft"])

    def recorded(self, version: str) -> None:
        """Note the present facts under the time that the store gives the change of ``version``."""
        states = reading.history(self.store.txn, POLICY, version, limit=1, reverse=True)
        moment = states.items[0].recorded_at
        assert not self.log or moment > self.log[-1][0]
        self.log.append((moment, dict(self.facts)))

    def next_rank(self) -> int:
        self.ranks += 1
        return self.ranks

    def ended_by(self, other: str, start: date, by: str) -> Fact:
        """What superseding makes of the other version."""
        fact = self.facts[other]
        end = start - timedelta(days=1)
        if fact.last is not None and fact.last < end:
            state = reading.get(self.store.txn, POLICY, other)
            end = end if state.superseded_by == by else fact.last
        return attrs.evolve(fact, last=end, declared=True)

    # --- changes ---------------------------------------------------------------------------

    @rule(version=VERSIONS, period=PERIODS, tags=TAGS)
    def create(self, version: str, period: Any, tags: set[str]) -> None:
        old = self.facts.get(version)
        state = self.store.run(
            changing.create,
            POLICY,
            version,
            effective_from=period[0],
            effective_to=period[1],
            tags=tags,
        )
        assert (state.effective_from, state.effective_to) == period
        known = old is not None and (old.dated or old.declared)
        assert state.change == ("corrected" if known else "created")
        stored = old.stored if old else 0
        fact = Fact(period[0], period[1], self.next_rank(), True, stored, tuple(sorted(tags)))
        self.facts[version] = fact
        self.recorded(version)

    @rule(version=VERSIONS, other=VERSIONS, first=DAYS, last=ENDS, with_document=st.booleans())
    def supersede(
        self, version: str, other: str, first: date, last: date | None, with_document: bool
    ) -> None:
        days = {"effective_from": first, "effective_to": last, "supersedes": other}
        before = dict(self.facts)

        def run() -> None:
            if with_document:
                self.store.prepared(storing.store, POLICY, version, [{}], **days)
            else:
                self.store.run(changing.create, POLICY, version, **days)

        old = before.get(other)
        if (last is not None and last < first) or other == version:
            with pytest.raises(InvalidArgument):
                run()
        elif old is None:
            with pytest.raises(NotFound):
                run()
        elif old.first is not None and old.first >= first:
            with pytest.raises(InvalidArgument, match="cannot end before"):
                run()
        else:
            ended = self.ended_by(other, first, version)
            run()
            mine = before.get(version)
            rank = self.next_rank()
            stored = rank if with_document else mine.stored if mine else 0
            declared = not with_document or (mine is not None and mine.declared)
            tags = mine.tags if with_document and mine else ()
            self.facts[other] = ended
            self.facts[version] = Fact(first, last, rank, declared, stored, tags)
            self.recorded(version)
            assert reading.get(self.store.txn, POLICY, other).superseded_by == version

    @rule(version=VERSIONS, last=DAYS)
    def retire(self, version: str, last: date) -> None:
        fact = self.facts.get(version)
        if fact is None:
            with pytest.raises(NotFound):
                self.store.run(changing.retire, POLICY, version, last)
        elif fact.first is not None and last < fact.first:
            with pytest.raises(InvalidArgument):
                self.store.run(changing.retire, POLICY, version, last)
        else:
            self.store.run(changing.retire, POLICY, version, last)
            if fact.last != last:
                self.facts[version] = attrs.evolve(fact, last=last, declared=True)
                self.recorded(version)

    @rule(version=VERSIONS, period=PERIODS, tags=st.none() | TAGS)
    def update(self, version: str, period: Any, tags: set[str] | None) -> None:
        fact = self.facts.get(version)
        if fact is None:
            return
        self.store.run(
            changing.update,
            POLICY,
            version,
            effective_from=period[0],
            effective_to=period[1],
            tags=UNSET if tags is None else sorted(tags),
        )
        new = attrs.evolve(fact, first=period[0], last=period[1])
        if tags is not None:
            new = attrs.evolve(new, tags=tuple(sorted(tags)))
        if new != fact:
            self.facts[version] = attrs.evolve(new, declared=True)
            self.recorded(version)

    @rule(version=VERSIONS)
    def delete(self, version: str) -> None:
        fact = self.facts.get(version)
        there = fact is not None and (fact.dated or fact.declared)
        assert self.store.run(changing.delete, POLICY, version) is there
        if fact is None or not there:
            return
        if fact.stored:
            self.facts[version] = Fact(None, None, self.next_rank(), False, fact.stored)
        else:
            del self.facts[version]
        self.recorded(version)

    @rule(version=VERSIONS, period=st.just((None, None)) | PERIODS)
    def store_document(self, version: str, period: Any) -> None:
        old = self.facts.get(version)
        document = self.store.prepared(
            storing.store, POLICY, version, [{}], effective_from=period[0], effective_to=period[1]
        )
        rank = self.next_rank()
        tags = old.tags if old else ()
        if period != (None, None):
            declared = old is not None and old.declared
            self.facts[version] = Fact(period[0], period[1], rank, declared, rank, tags)
            self.recorded(version)
        elif old is not None and old.declared:
            self.facts[version] = attrs.evolve(old, stored=rank)
        else:
            self.facts[version] = Fact(None, None, rank, False, rank, tags)
            if old is not None and old.dated:
                self.recorded(version)
        fact = self.facts[version]
        assert (document.effective_from, document.effective_to) == (fact.first, fact.last)

    @rule(version=VERSIONS)
    def delete_document(self, version: str) -> None:
        fact = self.facts.get(version)
        there = fact is not None and fact.stored > 0
        assert self.store.run(storing.delete, POLICY, version) is there
        if fact is None or not there:
            return
        if fact.declared:
            self.facts[version] = attrs.evolve(fact, stored=0)
            return
        del self.facts[version]
        if fact.dated:
            self.recorded(version)

    @precondition(lambda self: isinstance(self.store, FakeStore))
    @rule(seconds=st.integers(-3, 0))
    def turn_clock_back(self, seconds: int) -> None:
        """A command makes the fake clock go on by a second: with -1 it stands still."""
        self.store.txn.now += timedelta(seconds=seconds)

    @rule()
    def erase(self) -> None:
        if any(fact.stored for fact in self.facts.values()):
            with pytest.raises(InvalidArgument, match="delete them first"):
                self.store.run(changing.erase, POLICY)
        elif len(self.log) > 6:
            assert self.store.run(changing.erase, POLICY)
            assert not self.store.run(changing.erase, POLICY)
            self.facts, self.log = {}, []

    # --- reads -----------------------------------------------------------------------------

    def compare(self, facts: Facts, day: date, known_at: datetime | None) -> None:
        expected = in_effect(facts, day)
        if expected is None:
            with pytest.raises(NotFound):
                reading.as_of(self.store.txn, POLICY, day, known_at=known_at)
            return
        found = reading.as_of(self.store.txn, POLICY, day, known_at=known_at)
        fact = facts[expected]
        assert (found.version_id, found.effective_from, found.effective_to, found.tags) == (
            expected,
            fact.first,
            fact.last,
            fact.tags,
        )

    @invariant()
    def present_agrees(self) -> None:
        for day in ASKED:
            self.compare(self.facts, day, None)

    @invariant()
    def past_agrees(self) -> None:
        believed: Facts = {}
        for moment, facts in self.log:
            for day in ASKED[::2]:
                self.compare(believed, day, moment - MICROSECOND)
                self.compare(facts, day, moment)
            believed = facts

    @invariant()
    def listings_agree(self) -> None:
        txn = self.store.txn
        order = sorted(
            self.facts,
            key=lambda v: (
                self.facts[v].dated,
                self.facts[v].first or date.min,
                self.facts[v].rank,
            ),
        )
        if not order:
            with pytest.raises(NotFound):
                reading.list_versions(txn, POLICY)
            with pytest.raises(NotFound):
                reading.latest(txn, POLICY)
            return
        assert [v.version_id for v in reading.list_versions(txn, POLICY)] == order
        found, cursor = [], None
        while True:
            page = reading.list_versions(txn, POLICY, limit=2, cursor=cursor, reverse=True)
            found += [v.version_id for v in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == order[::-1]
        for tag in ("draft", "x\0"):
            tagged = [v for v in order if tag in self.facts[v].tags]
            assert [v.version_id for v in reading.by_tag(txn, POLICY, tag)] == tagged
        if self.facts[order[-1]].dated:
            assert reading.latest(txn, POLICY).version_id == order[-1]

    @invariant()
    def default_read_agrees(self) -> None:
        today = self.store.time().date()
        stored = [v for v, fact in self.facts.items() if fact.stored]
        if any(fact.dated for fact in self.facts.values()):
            expected = in_effect(self.facts, today)
            expected = expected if expected in stored else None
        else:
            expected = max(stored, key=lambda v: self.facts[v].stored, default=None)
        if expected is None:
            with pytest.raises(NotFound):
                documents.get(self.store.txn, POLICY)
        else:
            assert documents.get(self.store.txn, POLICY).version_id == expected
        for version in stored:
            document = documents.get(self.store.txn, POLICY, version)
            fact = self.facts[version]
            assert (document.effective_from, document.effective_to) == (fact.first, fact.last)

    @invariant()
    def checks(self) -> None:
        assert check_documents(self.store.txn) == []

    def teardown(self) -> None:
        self.store.run(storing.delete_policy, POLICY)
        self.store.run(changing.erase, POLICY)
        assert reading.as_of(self.store.txn, OTHER, ORIGIN).tags == ("draft",)
        self.store.run(changing.erase, OTHER)
        assert self.store.is_empty()


class VersionsInEngine(Versions):
    """The same on the engine itself, with checkpoints in between."""

    make_store = EngineStore

    def teardown(self) -> None:
        super().teardown()
        self.store.close()


STEPS = settings(
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestVersions = Versions.TestCase
TestVersions.settings = STEPS
TestVersionsInEngine = VersionsInEngine.TestCase
TestVersionsInEngine.settings = settings(STEPS, max_examples=max(10, STEPS.max_examples // 5))
