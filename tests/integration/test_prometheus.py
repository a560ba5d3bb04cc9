"""A real server, watched: scraped over HTTP, by hand and by a real Prometheus; logs; spans."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import treestore
from actors.observability.catalogue import CATALOGUE
from tests.cli.conftest import FREE_PORTS, Running, start
from tests.cli.conftest import treestore as command
from tests.integration.prometheus import find, run_prometheus
from treestore.errors import NotFound

pytestmark = pytest.mark.slow

Serve = Callable[..., Running]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[Running] = []

    def serve(*flags: object, **variables: str) -> Running:
        running = start("--data", tmp_path / "data", *FREE_PORTS, *flags, **variables)
        started.append(running)
        return running

    yield serve
    for running in started:
        running.process.kill()
        running.process.communicate()


def fetch(address: str, path: str, **headers: str) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def use(server: Running, gets: int = 20) -> None:
    """Some requests of several kinds, one of which fails."""
    with treestore.connect_sync(server.facts["tcp"]) as db:
        for number in range(5):
            db.kv.put(b"%d" % number, b"value")
        for _ in range(gets):
            db.kv.get(b"1")
        db.documents.store("p", "1", [{"node_id": "1", "title": "A title"}])
        with pytest.raises(NotFound):
            db.documents.get_node("p", "a secret id")
        db.admin.checkpoint()


def lines(server: Running) -> list[dict[str, Any]]:
    """What a server logged until it ended."""
    assert server.stop() == 0
    return [json.loads(line) for line in server.errors().splitlines()]


def test_both_ports_are_scraped(serve: Serve) -> None:
    server = serve()
    use(server)
    for port in ("http", "metrics"):
        status, headers, page = fetch(server.facts[port], "/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        families = {family.name: family for family in text_string_to_metric_families(page.decode())}
        # The parser names counters without their ending.
        assert {f"treestore_{metric.name}" for metric in CATALOGUE} <= set(families)
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families.values()
            for sample in family.samples
        }
        found = value(samples, "requests_total", edge="tcp", method="kv.get", status="ok")
        assert found == 20
        failed = {"error_type": "not_found", "operation": "documents.get_node"}
        assert value(samples, "errors_total", **failed) == 1
        assert value(samples, "wal_size_bytes") >= 0
        assert value(samples, "fsync_duration_seconds_count") >= 5
        assert value(samples, "process_resident_memory_bytes") > 1e6
        assert 0 <= value(samples, "cache_hit_rate", cache_type="node") <= 1
    assert value(samples, "requests_total", edge="http", method="GET", status="200") >= 1


def value(samples: dict[Any, float], name: str, **labels: str) -> float:
    return samples[f"treestore_{name}", tuple(sorted(labels.items()))]


def test_promtool_finds_nothing_to_complain_of(serve: Serve) -> None:
    promtool = find("promtool")
    if promtool is None:
        pytest.skip("there is no promtool (Debian: apt install prometheus)")
    server = serve()
    use(server)
    page = fetch(server.facts["metrics"], "/metrics")[2]
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_real_prometheus(serve: Serve, tmp_path: Path) -> None:
    program = find("prometheus")
    if program is None:
        pytest.skip("there is no Prometheus (Debian: apt install prometheus)")
    server = serve()
    use(server)
    target = server.facts["metrics"]
    with run_prometheus(program, tmp_path / "prometheus", target) as prometheus:
        deadline = time.monotonic() + 60
        requests = 'treestore_requests_total{method="kv.get",status="ok"}'
        while prometheus.value(requests) != 20:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        (found,) = prometheus.get("targets")["activeTargets"]
        assert (found["health"], found["lastError"]) == ("up", "")
        assert found["scrapeUrl"] == f"http://{target}/metrics"
        assert prometheus.value('up{job="treestore"}') == 1
        names = set(prometheus.get("label/__name__/values"))
        for metric in CATALOGUE:
            if metric.name.startswith(("archive_", "compaction_last")):
                continue  # This server does neither.
            name = metric.full_name + ("_count" if metric.kind == "histogram" else "")
            if metric.name != "transaction_duration_seconds":
                assert name in names, name
        for expression in DASHBOARD:
            prometheus.get("query", query=expression.replace("$__rate_interval", "1m"))
        slowest = "histogram_quantile(0.99, sum by (le) (treestore_query_duration_seconds_bucket))"
        assert 0 < (prometheus.value(slowest) or 0) < 60
        use(server, gets=100)
        while prometheus.value(requests) != 120:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert server.stop() == 0


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"].replace('{instance=~"$instance"}', "")
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from expressions(item)


DASHBOARD = sorted(
    set(
        expressions(
            json.loads((Path(__file__).parents[2] / "examples" / "grafana.json").read_text())
        )
    )
)


def test_a_scrape_beside_others(serve: Serve) -> None:
    server = serve()
    with treestore.connect_sync(server.facts["tcp"]) as db:
        for number in range(300):
            db.kv.put(b"%d" % number, b"value")
            if number % 30 == 0:
                assert fetch(server.facts["metrics"], "/metrics")[0] == 200


def test_tasks_and_a_profile(serve: Serve) -> None:
    server = serve()
    http = server.facts["http"]
    status, headers, body = fetch(http, "/debug/tasks")
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    for part in ("actor writer", "actor checkpointer", "Writer.run", "serve_listener"):
        assert part in body.decode()
    status, _, body = fetch(http, "/debug/tasks?format=json")
    assert json.loads(body)["count"] > 10
    status, headers, body = fetch(http, "/debug/profile?seconds=0.5")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert body.startswith(b"<!doctype html>")
    assert b"MainThread" in body
    assert fetch(http, "/debug/profile?seconds=900")[0] == 400
    assert fetch(server.facts["metrics"], "/debug/tasks")[0] == 404


def test_lines_about_requests(serve: Serve) -> None:
    server = serve()
    use(server)
    requests = [line for line in lines(server) if line["event"] == "request"]
    assert [(line["operation"], line["outcome"]) for line in requests] == [
        ("documents.get_node", "not_found")
    ]
    (line,) = requests
    assert line["level"] == "info"
    assert line["edge"] == "tcp"
    assert line["request_id"].startswith(f"{line['session']}-")
    assert 0 < line["duration_ms"] < 60_000


def test_every_request_has_a_line_at_level_debug(serve: Serve) -> None:
    server = serve("--log-level", "debug")
    use(server)
    fetch(server.facts["http"], "/health")
    fetch(server.facts["http"], "/nothing")
    logged = lines(server)
    requests = [line for line in logged if line["event"] == "request"]
    gets = [line for line in requests if line["operation"] == "kv.get"]
    assert len(gets) == 20
    assert all(line["level"] == "debug" and line["outcome"] == "ok" for line in gets)
    assert len({line["request_id"] for line in requests}) == len(requests)
    web = [(line["route"], line["status"]) for line in requests if line["edge"] == "http"]
    assert web == [("/health", 200), ("", 404)]
    assert not any("value" in json.dumps(line) for line in gets)


def test_slow_requests_have_a_line(serve: Serve) -> None:
    server = serve("--slow-request-ms", "0")
    use(server, gets=3)
    slow = [line for line in lines(server) if line.get("slow")]
    assert sum(line["operation"] == "kv.get" for line in slow) == 3
    assert {line["level"] for line in slow} == {"warning"}


def test_a_standard_error_that_nobody_reads_does_not_stop_the_server(serve: Serve) -> None:
    server = serve("--log-level", "debug")
    with treestore.connect_sync(server.facts["tcp"]) as db:
        for _ in range(2000):  # Half a megabyte of lines, into a pipe of 64 KiB.
            db.kv.get(b"1")
    page = fetch(server.facts["metrics"], "/metrics")[2].decode()
    (dropped,) = (
        line for line in page.splitlines() if line.startswith("treestore_log_lines_dropped_total ")
    )
    assert float(dropped.split()[1]) > 500


def test_spans_where_they_are_asked_for(serve: Serve) -> None:
    pytest.importorskip("opentelemetry.sdk")
    server = serve("--otel", OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="shelf")
    use(server, gets=3)
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    fetch(server.facts["http"], "/health", traceparent=f"00-{trace}-{parent}-01")
    server.process.send_signal(15)
    output, errors = server.process.communicate(timeout=60)
    assert server.process.returncode == 0, errors
    decoder, spans = json.JSONDecoder(), []
    while output.strip():
        span, end = decoder.raw_decode(output.lstrip())
        output = output.lstrip()[end:]
        spans.append(span)
    gets = [span for span in spans if span["name"] == "kv.get"]
    assert len(gets) == 3
    assert gets[0]["attributes"]["treestore.outcome"] == "ok"
    assert gets[0]["resource"]["attributes"]["service.name"] == "shelf"
    assert gets[0]["start_time"] <= gets[0]["end_time"]
    (failed,) = (span for span in spans if span["name"] == "documents.get_node")
    assert failed["status"]["status_code"] == "ERROR"
    (health,) = (span for span in spans if span["name"] == "/health")
    assert health["context"]["trace_id"] == f"0x{trace}"
    assert health["parent_id"] == f"0x{parent}"


def test_an_exporter_that_is_missing_is_one_line(tmp_path: Path) -> None:
    done = command(
        *("serve", "--data", tmp_path / "data", *FREE_PORTS, "--otel"),
        OTEL_TRACES_EXPORTER="nobody",
    )
    assert done.returncode != 0
    assert "nobody" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_with_api_keys(serve: Serve, tmp_path: Path) -> None:
    secrets = {}
    for scope in ("read", "admin"):
        done = command("key", "create", "--data", tmp_path / "data", "--scope", scope, "--json")
        assert done.returncode == 0, done.stderr
        secrets[scope] = json.loads(done.stdout)["secret"]
    server = serve()
    http = server.facts["http"]

    def status(path: str, key: str | None) -> int:
        headers = {} if key is None else {"X-API-Key": key}
        return fetch(http, path, **headers)[0]

    for path, anybody, reader, administrator in (
        ("/health", 200, 200, 200),
        ("/ready", 200, 200, 200),
        ("/metrics", 401, 200, 200),
        ("/debug/tasks", 401, 403, 200),
        ("/debug/profile?seconds=0.1", 401, 403, 200),
    ):
        assert status(path, None) == anybody, path
        assert status(path, "tsk_nobody_0000") == (200 if anybody == 200 else 401), path
        assert status(path, secrets["read"]) == reader, path
        assert status(path, secrets["admin"]) == administrator, path
    assert fetch(server.facts["metrics"], "/metrics")[0] == 200
    logged = json.dumps(lines(server))
    assert not any(secret in logged for secret in secrets.values())
