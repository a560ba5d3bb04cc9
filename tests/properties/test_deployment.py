"""Properties 36 and 37: a server as it is deployed, with an environment and a data directory."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import attrs
import httpx  # noqa: ASYNC127 - litestar brings it along
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treestore
from tests.cli.conftest import Running, environment, start
from tests.http.conftest import checked
from tests.properties.scenes import Document, examples
from tests.properties.test_queries import exactly
from treestore.errors import NotFound
from treestore.settings import ServerSettings, flag_of, load

PORTS = {"TREESTORE_PORT": "0", "TREESTORE_HTTP_PORT": "0", "TREESTORE_METRICS_PORT": "0"}


@contextmanager
def running(*arguments: object, **variables: str) -> Generator[Running]:
    """A server process, ready; gone in the end."""
    server = start(*arguments, **variables)
    try:
        if not server.ready:
            raise RuntimeError(server.errors())
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


# --- 36 --------------------------------------------------------------------------------------

DOCUMENTS = st.lists(
    st.fixed_dictionaries({"n": st.integers(0, 3), "text": st.text("aü\0", max_size=20)}),
    min_size=1,
    max_size=8,
)
LIVES = st.lists(st.tuples(DOCUMENTS, st.sampled_from(["stop", "kill"])), min_size=1, max_size=2)


@pytest.mark.slow
@examples(2, slow=True)
@given(LIVES)
def test_property_36_deployment_persistence(lives: list[tuple[list[Document], str]]) -> None:
    """Everything that a server acknowledged, over either edge, is there in its next life on the
    same data directory, which its environment names, whether it was stopped or killed: documents,
    indexes, trees, keys and who may come in."""
    stored: dict[str, Document] = {}
    key: str | None = None
    with TemporaryDirectory() as folder:
        variables = {
            **PORTS,
            "TREESTORE_DATA_DIR": f"{folder}/data",
            "TREESTORE_LOG_LEVEL": "error",
        }
        for life, (documents, end) in enumerate([*lives, ([], "stop")]):
            with running(**variables) as server:
                tcp, http = server.facts["tcp"], f"http://{server.facts['http']}"
                if key is None:
                    body = {"scopes": ["admin"]}
                    made = httpx.post(f"{http}/v1/ops/admin.create_key", json=body, trust_env=False)
                    key = checked(made, 200)["secret"]
                refused = httpx.get(f"{http}/collections", trust_env=False)
                assert refused.status_code == 401
                with treestore.connect_sync(tcp, api_key=key) as db:
                    if life:
                        found = {d["_id"]: d for d in db.collections.find("c")}
                        assert {id: exactly(d) for id, d in found.items()} == {
                            id: exactly(d) for id, d in stored.items()
                        }
                        for n in range(4):
                            wanted = sum(d["n"] == n for d in stored.values())
                            assert db.collections.count("c", {"n": n}) == wanted
                        (index,) = db.collections.describe("c").indexes
                        assert (index.name, index.state) == ("n", "ready")
                        assert db.kv.get(b"life") == b"%d" % (life - 1)
                        assert (
                            db.documents.get_node("p", "1", version_id=f"{life - 1}").title == "One"
                        )
                        with pytest.raises(NotFound):
                            db.documents.get("p", f"{life}")
                        assert db.admin.check().ok
                    else:
                        db.collections.create("c", indexes=["n"])
                    for number, document in enumerate(documents):
                        named = {"_id": f"{life}-{number}", **document}
                        if number % 2:
                            sent = httpx.post(
                                f"{http}/collections/c/documents",
                                json=named,
                                headers={"x-api-key": key or ""},
                                trust_env=False,
                            )
                            assert sent.status_code == 201
                        else:
                            db.collections.insert("c", named)
                        stored[named["_id"]] = named
                    db.documents.store("p", f"{life}", [{"node_id": "1", "title": "One"}])
                    db.kv.put(b"life", b"%d" % life)
                    if end == "kill":
                        server.process.kill()
                if end == "stop":
                    assert server.stop() == 0


# --- 37 --------------------------------------------------------------------------------------

SOURCES = ("flag", "variable", "file")
"""Where a setting may come from; the first one that has it counts."""


def values_of(field: attrs.Attribute[Any]) -> st.SearchStrategy[Any]:
    """Values that a setting may have."""
    low = field.metadata["low"] or 0
    kind = str(field.type)
    if field.name == "log_level":
        return st.sampled_from(["debug", "info", "warning", "error"])
    if "bool" in kind:
        return st.booleans()
    if "Path" in kind:
        return st.sampled_from(["/a", "/b/c"]).map(Path)
    if "str" in kind:
        return st.sampled_from(["127.0.0.1", "::1", "https://a.example"])
    if field.name.endswith("port"):
        return st.integers(0, 65535)
    if "int" in kind:
        return st.integers(max(int(low), 1), 10_000)
    return st.integers(max(int(low), 1), 10_000).map(float)


FIELDS = attrs.fields(ServerSettings)
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        field.name: st.fixed_dictionaries({}, optional=dict.fromkeys(SOURCES, values_of(field)))
        for field in FIELDS
    },
)


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_toml(value: Any) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)


@examples(60)
@given(GIVEN)
def test_property_37_deployment_configuration(given: dict[str, dict[str, Any]]) -> None:
    """Every setting can be given by flag, by variable and in a file; of those that give it the
    flag counts before the variable, the variable before the file, and the default where none
    does."""
    expected = {
        field.name: next((found[s] for s in SOURCES if s in found), field.default)
        for field in FIELDS
        for found in [given.get(field.name, {})]
    }
    with TemporaryDirectory() as folder:
        config = Path(folder) / "treestore.toml"
        lines = [f"{name} = {as_toml(v['file'])}\n" for name, v in given.items() if "file" in v]
        config.write_text("".join(lines))
        variables = {
            f"TREESTORE_{name.upper()}": as_text(v["variable"])
            for name, v in given.items()
            if "variable" in v
        }
        flags = {name: v["flag"] for name, v in given.items() if "flag" in v}
        with (
            mock.patch.dict("os.environ", environment(**variables), clear=True),
            # Which values go together is another matter.
            mock.patch.object(ServerSettings, "check"),
        ):
            settings = load(flags, config)
    assert attrs.asdict(settings) == expected


REAL: dict[str, st.SearchStrategy[Any]] = {
    "http_body_mb": st.sampled_from([1, 2]),
    "http_origins": st.sampled_from(["https://a.example", "https://b.example"]),
    "log_level": st.sampled_from(["info", "error"]),
    "max_message_mb": st.sampled_from([3, 4]),
    "rate_burst": st.sampled_from([300, 301]),
    "data_dir": st.sampled_from(["one", "two"]),
}
"""Settings that can be seen from outside."""
FROM = st.dictionaries(st.sampled_from(SOURCES), st.none(), min_size=1)


@st.composite
def given_to_a_server(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Setting → source → value."""
    return {name: {source: draw(values) for source in draw(FROM)} for name, values in REAL.items()}


@pytest.mark.slow
@examples(2, slow=True)
@given(given_to_a_server())
def test_property_37_deployment_configuration_of_a_server(
    given: dict[str, dict[str, Any]],
) -> None:
    """A real server does as its flags, its environment and its file say, in this order, and keeps
    its data where they say."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for values in given.values():
            if values is given["data_dir"]:
                values.update({source: str(folder / v) for source, v in values.items()})
        expected = {n: next(v[s] for s in SOURCES if s in v) for n, v in given.items()}
        config = folder / "treestore.toml"
        config.write_text(
            "port = 1\nrate_limit = 1\n"
            + "".join(f"{n} = {as_toml(v['file'])}\n" for n, v in given.items() if "file" in v)
        )
        flags: list[object] = []
        for field in FIELDS:
            if "flag" in given.get(field.name, {}):
                flags += [flag_of(field), given[field.name]["flag"]]
        variables = {
            f"TREESTORE_{n.upper()}": as_text(v["variable"])
            for n, v in given.items()
            if "variable" in v
        }
        with running("--config", config, *flags, **{**PORTS, **variables}) as server:
            assert server.facts["data"] == expected["data_dir"]
            assert [p.name for p in folder.iterdir() if p.is_dir()] == [
                Path(expected["data_dir"]).name
            ]
            base = f"http://{server.facts['http']}"
            with httpx.Client(base_url=base, trust_env=False) as client:
                origin = expected["http_origins"]
                answer = client.get("/health", headers={"origin": origin})
                assert answer.headers["access-control-allow-origin"] == origin
                size = expected["http_body_mb"] << 20
                headers = {"content-type": "application/json"}
                for length, status in ((size, 400), (size + 1, 413)):
                    sent = client.post("/v1/ops/kv.put", content=b" " * length, headers=headers)
                    assert sent.status_code == status
                limited = [client.get("/v1/ops").status_code for _ in range(310)]
                # Of these, and the three before, as many as the bucket holds, and what flows in.
                assert limited[: expected["rate_burst"] - 4] == [200] * (expected["rate_burst"] - 4)
            assert server.stop() == 0
            events = [json.loads(line)["event"] for line in server.errors().splitlines()]
            assert ("ready" in events) == (expected["log_level"] == "info")
