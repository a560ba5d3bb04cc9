"""Properties 31 to 35: what the benchmark and the load test tell can be relied on."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import treestore
from scripts.bench import main as bench
from scripts.bench import rows
from scripts.bench.measure import Result, Series
from scripts.bench.report import BEGIN, END, Report, as_json, table, write_markdown
from scripts.bench.rows import SQLITE, TREESTORE
from scripts.bench.sizes import Sizes
from tests.integration.servers import Server
from tests.properties.scenes import BOUND_S, examples
from treestore.errors import DeadlineExceeded, NotFound, RateLimited, TreeStoreError
from treestore.loadtest.faces import opener
from treestore.loadtest.plan import KINDS, Plan, Protocol
from treestore.loadtest.report import report_of
from treestore.loadtest.run import load, new_world
from treestore.loadtest.verify import Verified, verify
from treestore.loadtest.world import World

# --- 31, 32 ----------------------------------------------------------------------------------

TINY = Sizes(keys=300, repetitions=2, seconds=0.02, warm_up_seconds=0.01, scans=2)
VERDICTS = {"ok", "MISSED"}
MEASURED = ["point-get", "scan", "insert", "commit-1", "bulk-load"]


@pytest.mark.slow
@examples(1, slow=True)
@given(st.permutations(MEASURED).map(lambda names: names[:2]))
def test_property_31_benchmark_output_completeness(only: list[str]) -> None:
    """A run measures each row that it was asked for, and no other; each with every system that
    takes part and as many repetitions as it says, and a verdict on each target; and it leaves
    nothing behind."""
    wanted = [row for row in rows.ALL if any(part in row.name for part in only)]
    printed = io.StringIO()
    with TemporaryDirectory() as folder:
        arguments = ["--quick", "--json", "--directory", folder, "--out", f"{folder}/out"]
        for name in only:
            arguments += ["--only", name]
        with mock.patch.object(bench, "QUICK", TINY), redirect_stdout(printed):
            assert bench.run(arguments) == 0
        assert [path.name for path in Path(folder).iterdir()] == ["out"]
    report = json.loads(printed.getvalue())
    assert report["quick"]
    assert report["date"]
    assert report["machine"]
    found = {row["name"]: row for row in report["rows"]}
    assert sorted(found) == sorted(row.name for row in wanted)
    for row in wanted:
        told = found[row.name]
        assert told["title"] == row.title
        assert {TREESTORE, SQLITE} <= told["systems"].keys()
        for system in told["systems"].values():
            assert system["unit"] == row.unit
            assert len(system["repetitions"]) == 2
            assert min(system["repetitions"]) <= system["median"] <= max(system["repetitions"])
            assert min(system["repetitions"]) > 0
        assert [check["target"] for check in told["checks"]] == [t.label for t in row.targets]
        for check in told["checks"]:
            assert check["verdict"] in VERDICTS
            assert (check["value"] >= check["limit"]) == (check["verdict"] == "ok")
    missed = [c for row in report["rows"] for c in row["checks"] if c["verdict"] == "MISSED"]
    assert report["missed"] == len(missed)


RATES = st.lists(st.floats(0.001, 1e9), min_size=0, max_size=3)
LATENCIES = st.lists(st.floats(1e-7, 100), max_size=5)


@st.composite
def results(draw: st.DrawFn) -> Result:
    """A row as it may have come out, systems that failed included."""
    row = draw(st.sampled_from(rows.ALL))
    systems = dict.fromkeys([TREESTORE, *(t.against for t in row.targets if t.against), "other"])
    series = []
    for system in systems:
        rates = draw(RATES)
        latencies = draw(LATENCIES.filter(bool)) if rates else []
        series.append(Series(system, rates, latencies))
    measures = [target.measure for target in row.targets if target.measure]
    numbers = {name: draw(st.floats(0, 1e6)) for name in measures if draw(st.booleans())}
    return Result(row, series, numbers, draw(st.lists(st.just("a note"), max_size=1)))


REPORTS = st.builds(
    Report,
    st.just("2026-01-01 00:00 UTC"),
    st.booleans(),
    st.just({"CPU": "a | b"}),
    st.just({"sqlite3": "3"}),
    st.lists(results(), max_size=5, unique_by=lambda result: result.row.name),
    st.just([]),
)


@examples(60)
@given(REPORTS, st.text("# xyz\n", max_size=20), st.text("# xyz\n", max_size=20))
def test_property_32_benchmark_output_format(report: Report, head: str, tail: str) -> None:
    """JSON, table and page say the same of whatever was measured: the JSON is JSON and has the
    numbers as they are, every row and verdict is in all three, and writing into a page changes
    nothing but what stands between the marks."""
    told = json.loads(json.dumps(as_json(report), allow_nan=False))
    assert [row["name"] for row in told["rows"]] == [r.row.name for r in report.results]
    console = Console(file=io.StringIO(), width=400)
    console.print(table(report))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    with TemporaryDirectory() as folder:
        page = Path(folder) / "page.md"
        page.write_text(f"{head}{BEGIN}\nold\n{END}{tail}", encoding="utf-8")
        write_markdown(report, page)
        text = page.read_text("utf-8")
        write_markdown(report, page)
        assert page.read_text("utf-8") == text
    assert text.startswith(head + BEGIN)
    assert text.endswith(END + tail)
    lines = [line for line in text[len(head) :].splitlines() if line.startswith("| ")]
    first = next((n for n, line in enumerate(lines) if line.startswith("| latency")), len(lines))
    assert all(line.count(" | ") == lines[0].count(" | ") for line in lines[:first])
    for row, result in zip(told["rows"], report.results, strict=True):
        for series in result.series:
            assert (series.system in row["systems"]) == bool(series.rates)
            if series.rates:
                assert row["systems"][series.system]["median"] == series.median
                assert row["systems"][series.system]["repetitions"] == series.rates
        assert row["title"] in shown
        assert row["title"] in text
        for check, ours in zip(row["checks"], result.checks(), strict=True):
            assert (check["value"], check["verdict"]) == (ours.value, ours.verdict)
            assert (check["value"] is None) == (check["verdict"] == "not measured")
    verdicts = [check.verdict for result in report.results for check in result.checks()]
    for verdict in ("ok", "MISSED", "not measured"):
        assert sum(line.rstrip(" |").endswith(f"| {verdict}") for line in lines) == (
            verdicts.count(verdict)
        )
    assert told["missed"] == verdicts.count("MISSED")


# --- 33, 34 ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    server = Server.start(tmp_path_factory.mktemp("load") / "data", "--log-level", "error")
    yield server
    assert server.stop() == 0


PLANS = st.builds(
    Plan,
    users=st.integers(2, 6),
    duration_s=st.just(0.4),
    seed=st.integers(0, 2**32),
    protocol=st.sampled_from(["tcp", "http"]),
    documents_each=st.integers(3, 20),
    mix=st.fixed_dictionaries(dict.fromkeys(KINDS, st.integers(5, 50))),
)


async def loaded(server: Server, plan: Plan) -> tuple[World, Any]:
    """A run on the server, in collections of its own; and what opens a connection."""
    world = new_world(plan, f"{plan.seed}-{time.monotonic_ns()}")
    open_face = opener(plan, server.tcp if plan.protocol == "tcp" else server.http)
    await load(world, open_face)
    return world, open_face


async def complaints(world: World, open_face: Any) -> str:
    """What verifying everything finds, in sentences."""
    async with open_face() as face:
        await verify(world, face, check=False)
    told, world.ledger.problems[:] = "\n".join(world.ledger.problems), []
    return told


@pytest.mark.slow
@examples(3, slow=True)
@given(PLANS, st.permutations(["lost", "changed", "planted", "set back"]))
async def test_property_33_load_test_integrity(
    server: Server, plan: Plan, damages: list[str]
) -> None:
    """Of a run on a sound server every document is what was acknowledged last, and nothing is
    said against it; of each one that is lost, changed, set back or planted behind the users'
    backs it is said, by name, and of no other."""
    with trio.fail_after(BOUND_S):
        world, open_face = await loaded(server, plan)
        assert world.statistics.total().errors.total() == 0
        assert await complaints(world, open_face) == ""
        ledger, name = world.ledger, world.names.documents
        present = [entry for entry in ledger.entries.values() if entry.present]
        chosen = dict(zip(damages, present, strict=False))
        untouched = {entry.id for entry in present} - {entry.id for entry in chosen.values()}
        async with treestore.connect(server.tcp) as db:
            for damage, entry in chosen.items():
                if damage == "lost":
                    await db.collections.delete(name, entry.id)
                elif damage == "changed":
                    await db.collections.update(name, entry.id, {"$set": {"text": "tampered"}})
                elif damage == "planted":
                    await db.collections.insert(name, {"_id": f"not-{entry.id}"})
                else:
                    # It was written once more than the store knows.
                    ledger.acknowledge(entry, ledger.begin(entry))
        told = await complaints(world, open_face)
        for damage, entry in chosen.items():
            words = {
                "lost": f"{entry.id} is gone",
                "changed": f"{entry.id} revision {entry.settled} differs in text",
                "planted": f"not-{entry.id} was found and never written",
                "set back": f"{entry.id} was found as revision {entry.settled - 1}",
            }
            assert words[damage] in told
        stored = [line for line in told.splitlines() if line.startswith("stored: ")]
        assert not [id for id in untouched for line in stored if f" {id} " in line]


@pytest.mark.slow
@examples(3, slow=True)
@given(PLANS, st.integers(1, 9), st.sampled_from(["moved", "made", "posting"]))
async def test_property_34_load_test_consistency(
    server: Server, plan: Plan, amount: int, damage: str
) -> None:
    """What several documents must come to together is held at every moment and afterwards: no
    money is made or lost, postings come in pairs, queries by an index agree with the documents;
    and a sum that does not come out right is told."""
    with trio.fail_after(BOUND_S):
        world, open_face = await loaded(server, plan)
        assert await complaints(world, open_face) == ""
        assert sum(world.books.balances.values()) == world.books.total
        names, (one, other, *_) = world.names, list(world.books.balances)
        async with treestore.connect(server.tcp) as db, db.transaction() as txn:
            put = txn.collections
            total = sum([account["balance"] async for account in put.scan(names.accounts)])
            assert total == world.books.total
            postings = [posting["amount"] async for posting in put.scan(names.postings)]
            assert sum(postings) == 0
            if damage == "posting":
                await put.insert(names.postings, {"transfer": "t", "user": 1, "amount": amount})
            else:
                await put.update(names.accounts, one, {"$inc": {"balance": amount}})
            if damage == "moved":
                await put.update(names.accounts, other, {"$inc": {"balance": -amount}})
        told = await complaints(world, open_face)
        assert ("all accounts hold" in told) == (damage == "made")
        assert (f"account {one} holds" in told) == (damage in ("moved", "made"))
        assert (f"account {other} holds" in told) == (damage == "moved")
        assert ("postings of t, which was not done" in told) == (damage == "posting")


# --- 35 --------------------------------------------------------------------------------------


@pytest.mark.slow
@examples(2, slow=True)
@given(st.integers(1, 8), st.sampled_from(["tcp", "http"]), st.integers(0, 2**32))
def test_property_35_load_test_reporting(
    server: Server, users: int, protocol: Protocol, seed: int
) -> None:
    """The report has all that was asked for and all that came of it, and adds up: calls by
    operation, in all and over time, shares, percentiles; in JSON as on the screen."""
    address = server.tcp if protocol == "tcp" else server.http
    command = [sys.executable, "-m", "treestore.cli", "loadtest", "--address", address]
    command += ["--protocol", protocol, "--users", f"{users}", "--duration", "0.5"]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        command += ["--seed", f"{seed}", "--no-check", "--json", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BOUND_S)
        assert done.returncode == 0, done.stderr
        report = json.loads(file.read_text())
    plan = report["plan"]
    assert (plan["users"], plan["protocol"], plan["seed"]) == (users, protocol, seed)
    assert report["ok"]
    assert (report["problems"], report["errors"], report["wrong"]) == ([], {}, 0)
    total, operations = report["total"], report["operations"]
    assert sum(row["calls"] for row in operations.values()) == total["calls"] > 0
    assert report["elapsed_s"] >= 0.4
    rate = total["calls"] / report["elapsed_s"]
    assert abs(report["calls_per_s"] - rate) <= 0.01 * rate + 0.1
    for row in [total, *operations.values()]:
        shares = [row[f"{kind}_percent"] for kind in ("ok", "limited", "errors")]
        assert abs(sum(shares) - 100) < 0.001
        latencies = [row["latency_ms"][name] for name in ("p50", "p90", "p95", "p99", "max")]
        assert latencies == sorted(latencies)
    for name, row in operations.items():
        (line,) = [each for each in done.stdout.splitlines() if name in each.split("  ")[0]][:1]
        assert f"{row['calls']:,}" in line


ENDINGS: dict[str, type[TreeStoreError] | None] = {
    "ok": None,
    "limited": RateLimited,
    "error": NotFound,
    "timeout": DeadlineExceeded,
}
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["get", "insert", "find"]),
        st.floats(0, 5),
        st.floats(0.0001, 2),
        st.sampled_from(sorted(ENDINGS)),
    ),
    max_size=40,
)


@examples(60)
@given(CALLS)
def test_property_35_load_test_reporting_of_any_calls(
    calls: list[tuple[str, float, float, str]],
) -> None:
    """Whatever calls there were, the report counts each once: by operation, outcome and second,
    with the latencies that they had."""
    world = new_world(Plan(users=1), "counted")
    statistics = world.statistics
    calls = sorted(calls, key=lambda call: call[1] + call[2])
    with mock.patch("treestore.loadtest.statistics.time.perf_counter") as clock:
        clock.return_value = 1000.0
        statistics.begin()
        for name, began, took, end in calls:
            clock.return_value = 1000.0 + began + took
            kind = ENDINGS[end]
            statistics.count(name, 1000.0 + began, None if kind is None else kind("told"))
        clock.return_value = 1010.0
        statistics.end()
    report = report_of(world, Verified())
    assert msgspec.json.decode(msgspec.json.encode(report))["total"]["calls"] == len(calls)
    errors = [call for call in calls if call[3] in ("error", "timeout")]
    assert report.ok == (not errors)
    assert sum(report.errors.values()) == len(errors)
    assert report.limits.get("rate_limited", 0) == sum(call[3] == "limited" for call in calls)
    assert sum(interval.errors for interval in report.timeline) == len(errors)
    for only, row in [*report.operations.items(), (None, report.total)]:
        mine = [call for call in calls if only is None or call[0] == only]
        assert row.calls == len(mine)
        for figure, ends in (
            ("ok", ("ok",)),
            ("limited", ("limited",)),
            ("errors", ("error", "timeout")),
        ):
            count = sum(call[3] in ends for call in mine)
            assert abs(getattr(row, f"{figure}_percent") - 100 * count / max(1, len(mine))) < 0.001
        timeouts = sum(call[3] == "timeout" for call in mine)
        assert abs(row.timeouts_percent - 100 * timeouts / max(1, len(mine))) < 0.001
        times = sorted(round(call[2] * 1000, 3) for call in mine)
        for share, percentile in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1, "max")):
            expected = times[max(0, math.ceil(share * len(times)) - 1)] if times else 0
            assert abs(row.latency_ms[percentile] - expected) < 0.01
