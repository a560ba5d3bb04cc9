"""Numbered requests against a model: each is applied at most once, and answered the same each time,
through retries, failures, lost groups, crashes, pruning, sessions that are put to rest and a memory
that forgets at any time.

A request adds one to a counter of its own and answers with a number that no other answer has. What
the model knows of a request: its answer, in the working state and in the durable one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from random import Random

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.crash.simdisk import SimDisk
from tests.engine.stores import Clock, close_checked, open_small
from treestore.engine.transaction import WriteTransaction
from treestore.errors import InvalidArgument, OutcomeUnknown
from treestore.stores import deduplication
from treestore.stores.deduplication import Deduplication, Sessions, session_prefix

SESSIONS = [session_prefix(bytes((n,)) * 16, n) for n in range(3)]
Request = tuple[int, int]
"""Session and sequence number."""


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three sessions are known at a time, and little of each."""
    monkeypatch.setattr(deduplication, "SESSIONS_MAX", 2)
    monkeypatch.setattr(deduplication, "SEEN_MAX", 5)
    monkeypatch.setattr(deduplication, "PRUNE_EVERY", 4)


class Planted(Exception):
    """A command that fails."""


class Client:
    """What one client keeps: its numbers, and which answers it waits for."""

    def __init__(self) -> None:
        self.last = 0
        self.outstanding: list[int] = []
        self.done: list[int] = []
        self.promised = 0
        """The highest watermark that a request carried."""
        self.rested_below = 0
        """Requests below were given up when the session was put to rest."""

    @property
    def watermark(self) -> int:
        return self.outstanding[0] if self.outstanding else self.last + 1


class Numbered(RuleBasedStateMachine):
    """Requests in every order, and everything that can go wrong with them."""

    @initialize(seed=st.integers(0, 2**32))
    def create(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = SimDisk(seed)
        self.store = open_small(self.disk, seed=seed)
        self.sessions = Sessions(self.store.engine.environment.clock_ns)
        self.clients = [Client() for _ in SESSIONS]
        self.fresh = count(1)
        self.working: dict[Request, int] = {}
        self.durable: dict[Request, int] = {}
        self.group: list[Request] = []

    def _deliver(self, session: int, sequence: int, watermark: int, *, fails: str = "") -> object:
        """Run a request as the writer does; returns its answer, or the exception."""
        engine, request = self.store.engine, (session, sequence)
        self.clients[session].promised = max(self.clients[session].promised, watermark)

        def function(txn: WriteTransaction, key: bytes) -> int:
            times = int(txn.get(key) or b"0")
            txn.put(key, b"%d" % (times + 1))
            if fails == "in command":
                raise Planted
            return next(self.fresh)

        numbered = Deduplication(SESSIONS[session], sequence, watermark, sequence * 7)
        txn = engine.begin()
        try:
            key = b"\x01%d-%d" % request
            answer: int = msgspec.msgpack.decode(
                self.sessions.run(txn, numbered, function, {"key": key})
            )
            if fails == "in commit":
                raise Planted
            engine.commit(txn)
        except (Planted, OutcomeUnknown) as error:
            engine.rollback(txn)
            self.sessions.forget(SESSIONS[session])
            return error
        self.group.append(request)
        return answer

    def _expect(self, session: int, sequence: int, outcome: object) -> None:
        """Judge an outcome by the model, and note what was applied."""
        client, request = self.clients[session], (session, sequence)
        if isinstance(outcome, OutcomeUnknown):
            assert sequence < max(client.promised, client.rested_below), "forgotten too early"
        elif request in self.working:
            assert outcome == self.working[request], "another answer than before"
        elif not isinstance(outcome, Planted):
            assert isinstance(outcome, int)
            assert outcome not in self.working.values()
            self.working[request] = outcome

    @rule(session=st.integers(0, 2))
    def send(self, session: int) -> None:
        """A request of its own; its answer is not here yet."""
        client = self.clients[session]
        client.last += 1
        client.outstanding.append(client.last)
        self._expect(session, client.last, self._deliver(session, client.last, client.watermark))

    @rule(session=st.integers(0, 2), size=st.integers(2, 6))
    def send_out_of_order(self, session: int, size: int) -> None:
        """Over several connections, numbers arrive as they like, with the watermark they had."""
        client = self.clients[session]
        sent = []
        for _ in range(size):
            client.last += 1
            client.outstanding.append(client.last)
            sent.append((client.last, client.watermark))
        self.random.shuffle(sent)
        for sequence, watermark in sent:
            self._expect(session, sequence, self._deliver(session, sequence, watermark))

    def _some(self, numbers: list[int]) -> Iterator[int]:
        yield from self.random.sample(numbers, min(3, len(numbers)))

    @rule(session=st.integers(0, 2))
    def retry(self, session: int) -> None:
        """The answer did not come: the same again, perhaps in the same group."""
        client = self.clients[session]
        for sequence in self._some(client.outstanding):
            self._expect(session, sequence, self._deliver(session, sequence, client.watermark))

    @rule(session=st.integers(0, 2), watermark=st.integers(0, 5))
    def arrive_late(self, session: int, watermark: int) -> None:
        """A copy of a request that was answered comes out of some buffer."""
        client = self.clients[session]
        for sequence in self._some(client.done[-12:]):
            applied = (session, sequence) in self.working
            outcome = self._deliver(session, sequence, min(watermark, sequence))
            assert applied or isinstance(outcome, OutcomeUnknown)
            self._expect(session, sequence, outcome)

    @rule(session=st.integers(0, 2), fails=st.sampled_from(["in command", "in commit"]))
    def fail(self, session: int, fails: str) -> None:
        """It is rolled back; the client has the error for its answer, or tries again."""
        client = self.clients[session]
        client.last += 1
        client.outstanding.append(client.last)
        outcome = self._deliver(session, client.last, client.watermark, fails=fails)
        self._expect(session, client.last, outcome)
        if self.random.random() < 0.5:
            self._expect(
                session, client.last, self._deliver(session, client.last, client.watermark)
            )

    @rule(session=st.integers(0, 2))
    def misnumber(self, session: int) -> None:
        """Another request under a number that is taken is refused."""
        client = self.clients[session]
        taken = [n for n in client.outstanding if (session, n) in self.working]
        for sequence in taken[-1:]:
            if sequence < max(client.rested_below, client.promised):
                continue
            engine = self.store.engine
            txn = engine.begin()
            request = Deduplication(SESSIONS[session], sequence, client.watermark, 1)
            with pytest.raises(InvalidArgument):
                self.sessions.run(txn, request, lambda txn: None, {})
            engine.rollback(txn)

    @rule(lost=st.booleans())
    def land(self, lost: bool) -> None:
        """The group becomes durable; the answers come, or most do."""
        engine = self.store.engine
        group = engine.seal()
        if group is not None:
            engine.publish(group, engine.append(group))
        self.durable = dict(self.working)
        for session, sequence in self.group:
            client = self.clients[session]
            if sequence in client.outstanding and not (lost and self.random.random() < 0.4):
                client.outstanding.remove(sequence)
                client.done.append(sequence)
        self.group = []

    @rule()
    def abandon(self) -> None:
        """The group cannot be written, and nothing of it was."""
        self.store.engine.abandon()
        for session, _ in self.group:
            self.sessions.forget(SESSIONS[session])
        self._undo()

    @rule()
    def crash(self) -> None:
        """The power goes; what was not durable is gone, and what was in memory."""
        self.disk = self.disk.crash(self.random)
        clock = self.store.engine.environment.clock_ns
        self.store = open_small(self.disk)
        assert isinstance(clock, Clock)
        opened = self.store.engine.environment.clock_ns
        assert isinstance(opened, Clock)
        opened.now_ns = clock.now_ns
        self.sessions = Sessions(opened)
        self._undo()

    def _undo(self) -> None:
        self.working = dict(self.durable)
        self.group = []

    @rule(hours=st.integers(1, 30), lands=st.booleans())
    @precondition(lambda self: not self.group)
    def put_to_rest(self, hours: int, lands: bool) -> None:
        """Time passes; sessions that were not used for a day are put to rest."""
        engine = self.store.engine
        clock = engine.environment.clock_ns
        assert isinstance(clock, Clock)
        clock.now_ns += hours * 3600 * 10**9
        txn = engine.begin()
        rested = self.sessions.expire(txn, engine.now() - timedelta(hours=24))
        if lands:
            engine.write_now(txn)
            for prefix in rested:
                client = self.clients[SESSIONS.index(prefix)]
                client.rested_below = client.last + 1
        else:
            engine.rollback(txn)

    @invariant()
    def applied_once(self) -> None:
        """What is in the tree is what was answered, each once."""
        txn = self.store.engine.begin()
        counters = dict(txn.scan(b"\x01", b"\x02"))
        rows = [key for key, _ in txn.scan(b"\x02", b"\x03")]
        self.store.engine.rollback(txn)
        size = len(SESSIONS[0])
        own = {key[:size] for key in rows if key[size:] == b"\x00"}
        # Or it would never be put to rest.
        assert {key[:size] for key in rows} == own, "a session without its row"
        assert counters == {b"\x01%d-%d" % request: b"1" for request in self.working}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.land(False)
            close_checked(self.store)


TestNumbered = Numbered.TestCase
