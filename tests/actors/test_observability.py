"""Requests counted and timed, lines about them, tasks, profiles: each part by itself."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

import treestore
from actors.database import open_database
from actors.observability.catalogue import CATALOGUE
from actors.observability.endpoints import Endpoints, ensure_local
from actors.observability.loop_lag import SLOT_S, SLOTS, LoopLag
from actors.observability.metrics import Metrics
from actors.observability.profile import Call, Profile, Sampler, as_html, processor_time_ns
from actors.observability.request_log import LINES_BURST, LINES_PER_S, RequestLog
from actors.observability.requests import HttpRequests, SeenRequest, WireRequests
from actors.observability.sources import Sources
from actors.observability.tasks import TASKS_MAX, task_tree
from actors.threads import WORKER_THREADS
from protocol.messages import Cancel
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import eventually, listening, raw_client
from treestore.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TransactionConflict,
    Unavailable,
)
from treestore.histogram import Histogram
from treestore.log_lines import LINE_BYTES_MAX, LogLines

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(page: bytes) -> Samples:
    """Every sample of a page of metrics, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"treestore_{name}", tuple(sorted(labels.items()))]


# --- histograms ------------------------------------------------------------------------------


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for observed in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(observed)
    found = histogram.snapshot()
    assert (found.counts, found.total, found.count) == ((2, 2, 1), 7.5, 5)


# --- requests, over a real socket ------------------------------------------------------------


@attrs.define
class Recorder:
    """Keeps what it is shown."""

    from_s: float = -1.0
    seen: list[SeenRequest] = attrs.field(factory=list)

    def look(self, seen: SeenRequest) -> None:
        self.seen.append(seen)


@attrs.define
class Scene:
    client: Any
    sources: Sources
    recorder: Recorder

    async def scrape(self) -> Samples:
        return parsed(await Metrics(self.sources).page())


@asynccontextmanager
async def scene(tmp_path: Path) -> AsyncGenerator[Scene]:
    """A database, a listener and a client, with everything looked at."""
    recorder = Recorder()
    wire = WireRequests(recorder)
    with trio.fail_after(30):
        async with (
            open_database(tmp_path / "data") as database,
            listening(database, requests=wire) as listener,
            treestore.connect(f"127.0.0.1:{listener.port}") as client,
        ):
            sources = Sources(database, wire, HttpRequests())
            sources.listener = listener
            yield Scene(client, sources, recorder)


async def test_every_kind_of_request_is_counted_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        db = at.client
        for number in range(5):
            await db.kv.put(b"key%d" % number, b"value")  # a command
        for _ in range(7):
            await db.kv.get(b"key1")  # answered at once
        assert len([pair async for pair in db.kv.scan()]) == 5  # a stream
        assert (await db.admin.health()).writable  # an action
        await db.documents.store("p", "1", [{"node_id": "1", "title": "t"}])  # in two stages
        await db.documents.search("t", policy_id="p")  # a read that waits
        for _ in range(3):
            with pytest.raises(NotFound):
                await db.documents.get_node("p", "9")
        async with db.transaction() as txn:
            await txn.kv.put(b"other", b"value")
            await txn.kv.get(b"key1")
        async with db.snapshot() as snapshot:
            await snapshot.kv.get(b"key1")
        samples = await at.scrape()

    expected = {
        "kv.put": 6,
        "kv.get": 9,
        "kv.scan": 1,
        "admin.health": 1,
        "documents.store": 1,
        "documents.search": 1,
        "documents.get_node": 3,
        "session.commit": 1,
        "session.open_snapshot": 1,
    }
    for operation, count in expected.items():
        labels = {"edge": "tcp", "operation": operation}
        assert value(samples, "request_duration_seconds_count", **labels) == count, operation
    assert value(samples, "requests_total", edge="tcp", method="kv.get", status="ok") == 9
    node = "documents.get_node"
    assert value(samples, "requests_total", edge="tcp", method=node, status="not_found") == 3
    assert value(samples, "errors_total", error_type="not_found", operation=node) == 3
    reads = {"store": "documents", "operation": "get_node"}
    assert value(samples, "query_duration_seconds_count", **reads) == 3
    writes = ("treestore_query_duration_seconds_count", (("operation", "put"), ("store", "kv")))
    assert writes not in samples
    assert value(samples, "transaction_duration_seconds_count", outcome="committed") == 1
    # Each was looked at once, under an id of its own.
    seen = at.recorder.seen
    assert len({request.request_id for request in seen}) == len(seen)
    assert sum(request.operation == "kv.get" for request in seen) == 9
    assert all(0 < request.duration_s < 30 for request in seen)


async def test_the_stores_own_numbers_are_exported(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        before = await at.scrape()
        for number in range(20):
            await at.client.kv.put(b"%d" % number, b"x" * 100)
        await at.client.admin.checkpoint()
        with pytest.raises(TransactionConflict):
            async with at.client.transaction() as txn:
                await txn.kv.get(b"1")
                await at.client.kv.put(b"1", b"first")
                await txn.kv.put(b"1", b"second")
        async with at.client.transaction() as txn, at.client.snapshot():
            await txn.kv.put(b"2", b"changed")
            during = await at.scrape()
        after = await at.scrape()

    def grew(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    groups = grew("group_transactions_count")
    assert grew("group_transactions_sum") == grew("transactions_applied_total") >= 22
    assert groups == grew("group_size_bytes_count") == grew("commit_duration_seconds_count")
    assert grew("fsync_duration_seconds_count") >= groups > 0
    assert grew("group_size_bytes_sum") > 20 * 100
    assert grew("wal_appended_bytes_total") >= 4096 * groups
    assert grew("checkpoints_total") == grew("checkpoint_duration_seconds_count") == 1
    assert grew("checkpoint_written_bytes_total") > 0
    assert value(after, "checkpoint_age_seconds") < 30
    assert grew("transaction_conflicts_total") == 1
    assert value(after, "transaction_duration_seconds_count", outcome="conflict") == 1
    assert value(after, "transaction_duration_seconds_count", outcome="committed") == 1
    assert grew("keys") >= 20
    assert value(during, "snapshots_active") >= 2  # The transaction reads one, too.
    assert value(during, "transactions_active") == 1
    assert value(after, "transactions_active") == 0
    assert value(after, "cache_hit_rate", cache_type="node") <= 1
    assert value(after, "writable") == 1
    assert value(after, "actor_up", actor="writer") == 1
    assert value(after, "connections", edge="tcp") == value(after, "connections_accepted_total")
    assert value(after, "index_lag_records", index="text") >= 0


async def test_a_page_has_every_metric_once_and_in_order(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        page = (await Metrics(at.sources).page()).decode()
    families = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    names = [metric.full_name for metric in CATALOGUE]
    assert families[: len(names)] == names
    for family in text_string_to_metric_families(page):
        counts: dict[tuple[Any, ...], list[float]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                labels = {k: v for k, v in sample.labels.items() if k != "le"}
                counts.setdefault(tuple(labels.items()), []).append(sample.value)
        for cumulative in counts.values():
            assert cumulative == sorted(cumulative)


async def test_what_clients_invent_is_one_label() -> None:
    wire = WireRequests(Recorder())
    with trio.fail_after(10):
        async with (
            listening(FakeHost(), requests=wire) as listener,
            raw_client(listener) as client,
        ):
            for number in range(50):
                answer = await client.call(f"evil{number}.method")
                assert answer.code == "invalid_argument"
    timings = wire.timings.snapshot()
    assert list(timings) == ["other"]
    assert timings["other"].durations.count == 50
    assert timings["other"].failures == {"invalid_argument": 50}


async def test_cancelled_and_abandoned_requests_are_no_errors() -> None:
    host, recorder = FakeHost(), Recorder()
    wire = WireRequests(recorder)
    host.hold_commands = True
    host.cold_queries = True
    host.query_gate = trio.Event()
    with trio.fail_after(10):
        async with listening(host, requests=wire) as listener:
            async with raw_client(listener) as client:
                first = await client.request("kv.put", key=b"a", value=b"")
                second = await client.request("kv.get", key=b"a")
                await eventually(lambda: listener.statistics().requests_in_flight == 2)
                await client.send(Cancel(first), Cancel(second))
                assert {(await client.receive()).id for _ in range(2)} == {first, second}
                await client.request("kv.put", key=b"b", value=b"")
                await client.request("kv.get", key=b"a")
                await eventually(lambda: listener.statistics().requests_in_flight == 2)
            await eventually(lambda: listener.statistics().connections == 0)
    outcomes = sorted((seen.operation, seen.outcome) for seen in recorder.seen)
    expected = [(name, end) for name in ("kv.get", "kv.put") for end in ("abandoned", "cancelled")]
    assert outcomes == expected
    assert wire.timings.snapshot()["kv.put"].failures == {"cancelled": 1, "abandoned": 1}


async def test_requests_in_flight_end_as_they_end() -> None:
    host, recorder = FakeHost(), Recorder()
    host.hold_commands = True
    with trio.fail_after(10):
        async with (
            listening(host, requests=WireRequests(recorder)) as listener,
            raw_client(listener) as client,
        ):
            for _ in range(2):
                await client.request("kv.put", key=b"a", value=b"")
            await eventually(lambda: len(host.waiting) == 2)
            await trio.sleep(0.05)
            host.waiting.pop(0).done(b"\xc0")
            host.waiting.pop(0).done(Unavailable("no"))
            for _ in range(2):
                await client.receive()
    assert [seen.outcome for seen in recorder.seen] == ["ok", "unavailable"]
    assert all(seen.duration_s >= 0.04 for seen in recorder.seen)
    assert [seen.request_id for seen in recorder.seen] == ["1-1", "1-2"]


# --- lines about requests --------------------------------------------------------------------


def seen(outcome: str = "ok", duration_s: float = 0.0, **fields: Any) -> SeenRequest:
    fields = {"edge": "tcp", "request_id": "1-1", "operation": "kv.get", **fields}
    return SeenRequest(outcome=outcome, duration_s=duration_s, **fields)


@pytest.mark.parametrize(
    ("request_seen", "level"),
    [
        (seen(), None),
        (seen(duration_s=2.0), "warning"),
        (seen(duration_s=2.0, endless=True), None),
        (seen("not_found"), "info"),
        (seen("not_found", 2.0), "info"),
        (seen("internal"), "warning"),
        (seen("outcome_unknown"), "warning"),
        (seen("cancelled"), None),
        (seen("abandoned"), "info"),
    ],
)
def test_which_requests_have_a_line(request_seen: SeenRequest, level: str | None) -> None:
    with capture_logs() as lines:
        RequestLog(1.0).look(request_seen)
    assert [line["log_level"] for line in lines] == ([] if level is None else [level])
    with capture_logs() as lines:
        RequestLog(1.0, every=True).look(request_seen)
    assert [line["log_level"] for line in lines] == [level or "debug"]
    assert lines[0]["operation"] == "kv.get"
    assert lines[0]["duration_ms"] == request_seen.duration_s * 1000


def test_a_line_is_bounded() -> None:
    with capture_logs() as lines:
        RequestLog(1.0).look(seen("invalid_argument", operation="x" * 9999, message="y" * 9999))
    assert len(json.dumps(lines)) < 700


def test_lines_are_bounded_in_number_and_what_is_missing_is_said() -> None:
    now = 0.0
    requests = RequestLog(1.0, clock=lambda: now)
    with capture_logs() as lines:
        for _ in range(int(LINES_BURST) + 500):
            requests.look(seen("not_found"))
        assert len(lines) == LINES_BURST
        assert requests.suppressed == 500
        lines.clear()
        now += 1.0
        for _ in range(300):
            requests.look(seen("not_found"))
    assert [line["event"] for line in lines[:2]] == [
        "lines about requests were left out",
        "request",
    ]
    assert lines[0]["count"] == 500
    assert len(lines) == LINES_PER_S + 1


# --- standard error that nobody reads --------------------------------------------------------


def test_lines_are_dropped_rather_than_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as read, os.fdopen(writer, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        lines = LogLines()
        for number in range(10_000):  # Far more than a pipe holds: this would hang.
            lines.write(f"line {number}")
        assert 0 < lines.dropped < 10_000
        held = read.read(1 << 20)
        assert held.startswith(b"line 0\nline 1\n")
        dropped = lines.dropped
        lines.write("again")
        said, again, _ = read.read(1 << 20).split(b"\n")
        assert json.loads(said)["count"] == dropped
        assert again == b"again"
        lines.write("x" * 10 * LINE_BYTES_MAX)
        assert len(read.read(1 << 20)) <= LINE_BYTES_MAX + 1
        monkeypatch.undo()


def test_a_reader_that_went_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        lines = LogLines()
        lines.write("one")
        lines.write("two")
        assert lines.dropped == 2
        monkeypatch.undo()


# --- the event loop --------------------------------------------------------------------------


async def test_a_loop_that_is_held_is_seen() -> None:
    lag = LoopLag()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lag.run)
            await trio.sleep(0.02)
            time.sleep(0.4)  # noqa: ASYNC251 - that is what is to be seen
            await trio.sleep(0.15)
            nursery.cancel_scope.cancel()
    assert lag.max_s > 0.25
    assert lag.snapshot().count >= 1


async def test_the_longest_lag_is_forgotten_after_a_minute(autojump_clock: object) -> None:
    lag = LoopLag()
    with trio.move_on_after(SLOT_S * (SLOTS + 2)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lag.run)
            lag.note(1.0)
            await trio.sleep(SLOT_S * (SLOTS - 2))
            assert lag.max_s == 1.0
            await trio.sleep(SLOT_S * 3)
            assert lag.max_s < 1.0
            nursery.cancel_scope.cancel()


# --- tasks and profiles ----------------------------------------------------------------------


async def test_the_tree_shows_tasks_and_where_they_wait() -> None:
    async def somewhere_deep() -> None:
        await trio.sleep_forever()

    async def child() -> None:
        await somewhere_deep()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(child, name=f"child {number}")
            await trio.testing.wait_all_tasks_blocked()
            tree = await task_tree()
            nursery.cancel_scope.cancel()
    text = tree.as_text()
    assert [name for name in ("child 0", "child 1", "child 2") if f"─ {name}\n" in text] == [
        "child 0",
        "child 1",
        "child 2",
    ]
    assert text.count("somewhere_deep") == 3
    assert text.startswith(f"{tree.count} tasks\n")
    assert "somewhere_deep" in json.dumps(tree.as_json())


async def test_the_tree_is_bounded() -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS_MAX + 100):
                nursery.start_soon(trio.sleep_forever)
            tree = await task_tree()
            nursery.cancel_scope.cancel()
    assert tree.count == TASKS_MAX
    assert tree.left_out >= 100


def burn(until: threading.Event) -> None:
    while not until.is_set():
        sum(range(1000))


def test_a_profile_finds_what_burns_and_leaves_out_what_waits() -> None:
    stop = threading.Event()
    threads = [
        threading.Thread(target=burn, args=[stop], name="burner"),
        threading.Thread(target=stop.wait, name="waiter"),
    ]
    for thread in threads:
        thread.start()
    try:
        profile = Sampler().run(0.5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert processor_time_ns(threading.get_native_id()) is None or profile.exact
    burner = profile.root.calls["burner"]
    assert burner.seconds > 0.5 * profile.root.seconds
    page = as_html(profile).decode()
    assert "burn (" in page
    if profile.exact:
        waited = profile.root.calls.get("waiter", Call("")).seconds
        assert waited < burner.seconds / 10


def test_a_profiles_page_shows_names_as_text() -> None:
    root = Call("all threads", 1.0, 0.0, {"x": Call("<script>alert(1)</script>", 1.0, 1.0)})
    page = as_html(Profile(root, 1.0, 100)).decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    deep = Call("f", 1.0)
    for number in range(5000):
        deep = Call(f"f{number}", 1.0, 0.0, {"x": deep})
    assert as_html(Profile(deep, 1.0, 1)).count(b"<details") == 5001
    assert b"0.000 s" in as_html(Profile(Call("all threads")))


async def test_debug_pages_check_what_they_are_asked() -> None:
    database: Any = attrs.make_class("FakeDatabase", {"threads": attrs.field()})(WORKER_THREADS)
    pages = Endpoints(database, trio.Event(), Metrics(Sources(database, WireRequests(), HTTP)))
    with trio.fail_after(20):
        for query in ("seconds=0", "seconds=61", "seconds=nan", "seconds=x", "seconds=1&seconds=2"):
            with pytest.raises(InvalidArgument):
                await pages.profile(query)
        for query in ("format=xml", "form=text", "&".join("a=b" for _ in range(50)), "format=%ff"):
            with pytest.raises(InvalidArgument):
                await pages.tasks(query)
        found: list[str] = []

        async def take() -> None:
            try:
                page = await pages.profile("seconds=0.3")
                found.append(str(page.status))
            except ResourceExhausted as error:
                found.append(error.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            nursery.start_soon(take)
        assert found == ["resource_exhausted", "200"]
        with trio.move_on_after(0.1) as scope:
            await pages.profile("seconds=60")
        assert scope.cancelled_caught
        assert (await pages.profile("seconds=0.1")).status == 200


HTTP = HttpRequests()


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1:5", True),
        ("127.9.9.9:5", True),
        ("[::1]:5", True),
        ("10.0.0.1:5", False),
        ("[fe80::1%eth0]:5", False),
        ("localhost.example:5", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_who_is_on_this_machine(peer: str, local: bool) -> None:
    if local:
        ensure_local(peer)
    else:
        with pytest.raises(PermissionDenied):
            ensure_local(peer)
