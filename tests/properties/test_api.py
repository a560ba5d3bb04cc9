"""Properties 26 to 30: the API of real server processes, over sockets."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Generator
from itertools import count
from typing import Any
from urllib.parse import quote

import attrs
import httpx  # noqa: ASYNC127 - litestar brings it along
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treestore
from tests.http.conftest import checked
from tests.integration.servers import Server
from tests.properties.scenes import Document, examples
from tests.properties.test_queries import JSON, TEXTS, exactly
from treestore.errors import PermissionDenied, RateLimited, Unauthenticated

pytestmark = pytest.mark.slow  # each test starts, or uses, a server process

AS_JSON = {"content-type": "application/json"}
AS_LINES = {"content-type": "application/x-ndjson"}
LINES = {"accept": "application/x-ndjson"}
numbers = count(1)


@attrs.define
class Api:
    """A server process, and HTTP connections to it that are kept.

    Attributes:
        admin: the secret of a key that may do everything.
    """

    server: Server
    http: httpx.Client
    admin: str

    def ask(
        self, method: str, path: str, status: int, *, key: str | None = None, **request: Any
    ) -> Any:
        """One request, with the administrator's key where none is given; see `checked`."""
        secret = self.admin if key is None else key
        request["headers"] = {**request.get("headers", {}), **as_header(secret)}
        return checked(self.http.request(method, path, **request), status)

    def call(self, operation: str, /, **arguments: Any) -> Any:
        """One operation by its name, which succeeds."""
        return self.ask("POST", f"/v1/ops/{operation}", 200, json=arguments)


def as_header(secret: str | None) -> dict[str, str]:
    """Where a key goes, if there is one."""
    return {"x-api-key": secret} if secret else {}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Generator[Api]:
    """One server for all, with keys, and something that may be read and written."""
    data = tmp_path_factory.mktemp("api") / "data"
    server = Server.start(data, "--log-level", "error")
    with httpx.Client(base_url=f"http://{server.http}", trust_env=False, timeout=30) as http:
        made = http.post("/v1/ops/admin.create_key", json={"scopes": ["admin"]})
        api = Api(server, http, checked(made, 200)["secret"])
        for name in ("people-1", "people-2", "other"):
            api.call("collections.create", name=name)
        yield api
        assert server.stop() == 0


# --- 26 --------------------------------------------------------------------------------------

SCOPES = st.sampled_from(
    [
        *("read", "write", "admin", "read:server", "read:collections", "write:kv"),
        *("read:collections/people*", "write:collections/people-1", "read:kv/a*"),
    ]
)
ACTIONS = [
    ("read", "kv", "a1", "kv.get", {"key": b"a1"}),
    ("read", "kv", "b", "kv.get", {"key": b"b"}),
    ("write", "kv", "a1", "kv.put", {"key": b"a1", "value": b"x"}),
    ("read", "collections", "people-2", "collections.find", {"name": "people-2"}),
    ("read", "collections", "other", "collections.count", {"name": "other"}),
    (
        "write",
        "collections",
        "people-1",
        "collections.insert",
        {"name": "people-1", "document": {}},
    ),
    ("write", "collections", "other", "collections.insert", {"name": "other", "document": {}}),
    ("read", "server", "", "admin.stats", {}),
    ("admin", "server", "", "admin.list_keys", {}),
]
"""What needs which right on what; the operation, and its arguments."""
RIGHTS = ["read", "write", "admin"]


def allows(scopes: list[str], right: str, kind: str, name: str) -> bool:
    """docs/security.md, in a few lines."""
    for scope in scopes:
        have, _, where = scope.partition(":")
        on, _, pattern = where.partition("/")
        covered = not where or (on == kind and (name.startswith(pattern[:-1]) or name == pattern))
        exact = not pattern or pattern.endswith("*") or name == pattern
        if have == "admin" or (RIGHTS.index(have) >= RIGHTS.index(right) and covered and exact):
            return True
    return False


def plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """As JSON says it: bytes are base64."""
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in arguments.items()
    }


def attempt(api: Api, secret: str | None, operation: str, arguments: dict[str, Any]) -> list[str]:
    """Try it on every edge: "ok", or the code of the error."""
    path, body = f"/v1/ops/{operation}", plain(arguments)
    answer = api.http.post(path, json=body, headers=as_header(secret))
    codes = {200: "ok", 401: "unauthenticated", 403: "permission_denied"}
    over_http = codes[answer.status_code]
    assert over_http == "ok" or checked(answer, answer.status_code)["code"] == over_http
    try:
        with treestore.connect_sync(api.server.tcp, api_key=secret) as db:
            service, _, method = operation.partition(".")
            getattr(getattr(db, service), method)(**arguments)
        over_tcp = "ok"
    except (Unauthenticated, PermissionDenied) as error:
        over_tcp = error.code
    return [over_http, over_tcp]


@examples(12, slow=True)
@given(
    st.lists(SCOPES, min_size=1, max_size=2, unique=True),
    st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3, unique_by=repr),
    st.none() | st.text("ts_abcdefgh0123456789", max_size=80),
    st.integers(0, 70),
)
def test_property_26_api_key_enforcement(
    api: Api, scopes: list[str], actions: list[Any], wrong: str | None, position: int
) -> None:
    """Over HTTP and TCP alike a request is answered only with a key that is known, not revoked and
    has the right for just that; any other one is told that it is not, and nothing is done."""
    made = api.call("admin.create_key", scopes=scopes)
    secret = made["secret"]
    position %= len(secret)
    altered = secret[:position] + ("a" if secret[position] != "a" else "b") + secret[position + 1 :]
    with treestore.connect_sync(api.server.tcp, api_key=secret) as already_open:
        for right, kind, name, operation, arguments in actions:
            before = api.call("collections.count", name="people-1")
            told = "ok" if allows(scopes, right, kind, name) else "permission_denied"
            assert attempt(api, secret, operation, arguments) == [told] * 2
            for none in (wrong, altered, secret + "a", secret[:-1]):
                assert attempt(api, none, operation, arguments) == ["unauthenticated"] * 2
            after = api.call("collections.count", name="people-1")
            inserted = 2 * (
                told == "ok" and (operation, name) == ("collections.insert", "people-1")
            )
            assert after - before == inserted
        for path in ("/collections", "/schema", "/v1/ops", "/nowhere"):
            api.ask("GET", path, 401, key="")
            api.ask("GET", path, 401, key=altered)
        api.call("admin.revoke_key", key_id=made["key_id"])
        for _, _, _, operation, arguments in actions:
            assert attempt(api, secret, operation, arguments) == ["unauthenticated"] * 2
        with pytest.raises(Unauthenticated):
            already_open.kv.get(b"a1")
    assert api.http.get("/health").status_code == 200


# --- 27 --------------------------------------------------------------------------------------


@examples(4, slow=True)
@given(st.integers(2, 20), st.lists(st.booleans(), min_size=25, max_size=40))
def test_property_27_rate_limits(api: Api, rate: int, calls: list[bool]) -> None:
    """A key gets what its bucket holds and what flows into it, over both edges together, and not
    one request more; what is refused is not done, says when to come back, and is answered then;
    other keys do not notice."""
    name = f"limited{next(numbers)}"
    api.call("collections.create", name=name)
    made = api.call("admin.create_key", scopes=["write"], rate_limit=rate)
    secret = made["secret"]
    allowed, waits = 0, []
    with treestore.connect_sync(api.server.tcp, api_key=secret) as db:
        began = time.monotonic()
        for over_tcp in calls:
            if over_tcp:
                try:
                    db.collections.insert(name, {})
                    allowed += 1
                except RateLimited as error:
                    waits.append(error.details["retry_after_s"])
            else:
                path = f"/collections/{name}/documents"
                answer = api.http.post(path, json={}, headers=as_header(secret))
                if answer.status_code == 201:
                    allowed += 1
                else:
                    told = checked(answer, 429)
                    assert told["code"] == "rate_limited"
                    assert int(answer.headers["retry-after"]) >= told["details"]["retry_after_s"]
                    waits.append(told["details"]["retry_after_s"])
        # However slow it was: no more than flowed in, and no less than there was.
        flowed = rate * (time.monotonic() - began)
        assert min(rate, len(calls)) <= allowed <= rate + flowed + 1
        assert api.call("collections.count", name=name) == allowed
        assert allowed + len(waits) == len(calls)
        assert all(0 < wait <= 1 / rate + 0.001 for wait in waits)
        # Who is told to wait, and does, is answered: nobody else takes what flows in meanwhile.
        for _ in range(3 * rate):
            try:
                db.collections.insert(name, {})
            except RateLimited as error:
                time.sleep(error.details["retry_after_s"])
                db.collections.insert(name, {})
                break


# --- 28 --------------------------------------------------------------------------------------

IDS = st.sampled_from(["a", "b c", "ü/%", "x" * 500, "x" * 501])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["POST", "GET", "PUT", "UPSERT", "PATCH", "DELETE"]), IDS),
        st.tuples(st.sampled_from(["create", "drop", "index", "clear", "count"]), st.just("")),
    ),
    min_size=1,
    max_size=12,
)


def located(id: str) -> str:
    return quote(id, safe="")


@examples(25, slow=True)
@given(STEPS)
def test_property_28_status_codes(api: Api, steps: list[tuple[str, str]]) -> None:
    """The status says what happened: made, done, not there, there already, wrong; whatever came
    before, and the error's code says the same."""
    name = f"statuses{next(numbers)}"
    at, model = f"/collections/{name}", dict[str, Document]()
    exists = False

    def ask(method: str, path: str, status: int, **request: Any) -> None:
        error = api.ask(method, path, status, **request)
        codes = {400: "invalid_argument", 404: "not_found", 409: "already_exists"}
        assert status < 400 or error["code"] == codes[status]

    for kind, id in steps:
        too_long, there = len(id) > 500, id in model
        path = f"{at}/documents/{located(id)}"
        if kind == "POST":
            status = 400 if too_long else 409 if there else 201
            ask("POST", f"{at}/documents", status, json={"_id": id, "n": 1})
            if status == 201:
                exists, model[id] = True, {"_id": id, "n": 1}
        elif kind == "UPSERT":
            status = 400 if too_long else 204 if there else 201
            ask("PUT", f"{path}?upsert=true", status, json={"n": 2})
            if not too_long:
                exists, model[id] = True, {"_id": id, "n": 2}
        elif kind in ("GET", "PUT", "PATCH", "DELETE"):
            status = {"GET": 200, "PUT": 204, "PATCH": 200, "DELETE": 204}[kind]
            status = 404 if not exists else 400 if too_long else status if there else 404
            body = {"json": {"n": 3}} if kind in ("PUT", "PATCH") else {}
            if not exists and too_long:
                continue  # Either is right.
            ask(kind, path, status, **body)
            if there and kind == "DELETE":
                del model[id]
            elif there and kind != "GET":
                model[id] = {"_id": id, "n": 3}
        elif kind == "create":
            ask("POST", "/collections", 409 if exists else 201, json={"name": name})
            exists = True
        elif kind == "drop":
            ask("DELETE", at, 204 if exists else 404)
            exists, model = False, {}
        elif kind == "index":
            ask("POST", f"{at}/indexes", 201 if exists else 404, json={"fields": "n"})
        elif kind == "clear":
            ask("DELETE", f"{at}/documents?filter={{}}", 200 if exists else 404)
            model = {}
        else:
            ask("GET", f"{at}/count", 200 if exists else 404)
        found = (
            {d["_id"]: d for d in api.call("collections.find", name=name)["items"]}
            if exists
            else {}
        )
        assert found == model


# --- 29 --------------------------------------------------------------------------------------


@examples(25, slow=True)
@given(
    st.lists(
        st.dictionaries(TEXTS.filter(lambda t: t[:1] not in ("$", "_", "i")), JSON, max_size=3),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["each", "list", "lines"]),
)
def test_property_29_json_consistency(api: Api, documents: list[Document], how: str) -> None:
    """JSON that goes in comes out the same, value for value and in order, by whichever way it went
    in and is read: one document, a list, lines, an operation; over HTTP and TCP."""
    name = f"json{next(numbers)}"
    at = f"/collections/{name}"
    stored = [{"_id": f"{n}", **document} for n, document in enumerate(documents)]
    if how == "each":
        for document in stored:
            assert api.ask("POST", f"{at}/documents", 201, json=document) == {"id": document["_id"]}
    elif how == "list":
        made = api.ask("POST", f"{at}/documents", 201, json=stored)
        assert made == {"ids": [document["_id"] for document in stored]}
    else:
        lines = "\n".join(map(json.dumps, stored))
        made = api.ask("POST", f"{at}/documents", 201, content=lines, headers=AS_LINES)
        assert made == {"inserted": len(stored)}
    texts = [exactly(document) for document in stored]
    ways = [
        [api.ask("GET", f"{at}/documents/{document['_id']}", 200) for document in stored],
        api.ask("GET", f"{at}/documents", 200)["items"],
        api.ask("POST", f"{at}/query", 200, json={})["items"],
        api.call("collections.find", name=name)["items"],
        [api.call("collections.get", name=name, id=document["_id"]) for document in stored],
        [
            json.loads(line)
            # Not `splitlines`: to that, some characters within a string end a line.
            for line in api.ask("GET", f"{at}/documents", 200, headers=LINES).split("\n")
            if line
        ],
    ]
    with treestore.connect_sync(api.server.tcp, api_key=api.admin) as db:
        ways.append(list(db.collections.find(name)))
    for way in ways:
        assert [exactly(document) for document in way] == texts
    assert api.ask("GET", f"{at}/count", 200) == {"count": len(stored)}
    api.ask("DELETE", at, 204)


# --- 30 --------------------------------------------------------------------------------------


def is_no_json(body: bytes) -> bool:
    try:
        return not isinstance(json.loads(body.decode()), dict | list)
    except ValueError:
        return True


NOT_JSON = st.one_of(
    st.binary(max_size=30).filter(is_no_json),
    JSON.filter(lambda value: not isinstance(value, dict | list)).map(
        lambda v: json.dumps(v).encode()
    ),
    st.sampled_from([b"", b"{", b"[1", b'{"a":NaN}', b'{"a":1e999}', b'"\\ud800"', b"\xff"]),
)
NOT_A_COUNT = st.one_of(
    st.integers(max_value=0),
    st.integers(10_001),
    st.floats(),
    st.text("abc-+.e[]", min_size=1, max_size=5),
)
NOT_A_FILTER = st.one_of(
    st.text("abc{[", min_size=1, max_size=5),
    JSON.filter(lambda value: not isinstance(value, dict) and value is not None).map(json.dumps),
    st.text("abcxyz", min_size=1, max_size=8).map(lambda name: json.dumps({f"$x{name}": 1})),
    st.text("abcxyz", min_size=1, max_size=8).map(lambda name: json.dumps({"n": {f"$x{name}": 1}})),
    st.sampled_from(['{"$and": 1}', '{"$or": []}', '{"n": {"$in": 1}}', '{"n": {"$regex": "("}}']),
)
NOT_A_DOCUMENT = st.one_of(
    st.integers().map(lambda n: {"_id": n}),
    st.text("x", min_size=501, max_size=520).map(lambda id: {"_id": id}),
    st.sampled_from(["$set", "$x"]).map(lambda name: {name: 1}),
    st.integers(2**64).map(lambda n: {"n": n}),
    st.just({"_id": ""}),
)
Request = tuple[str, str, int, dict[str, Any]]


def body(method: str, path: str, headers: dict[str, str] | None = None) -> Any:
    """Requests with bodies that are none."""
    return lambda sent: (method, path, 400, {"content": sent, "headers": headers or AS_JSON})


DOCS = "/collections/{name}/documents"
WRONG: st.SearchStrategy[Request] = st.one_of(
    NOT_JSON.map(body("POST", DOCS)),
    NOT_JSON.map(body("PUT", f"{DOCS}/kept")),
    NOT_JSON.map(body("PATCH", f"{DOCS}/kept")),
    NOT_JSON.map(body("POST", "/collections/{name}/query")),
    NOT_JSON.filter(lambda sent: sent.strip() != b"").map(
        body("POST", DOCS, {"content-type": "application/x-ndjson"})
    ),
    NOT_JSON.map(body("POST", "/v1/ops/kv.put")),
    NOT_A_COUNT.map(lambda n: ("GET", DOCS, 400, {"params": {"limit": str(n)}})),
    NOT_A_FILTER.map(lambda text: ("GET", DOCS, 400, {"params": {"filter": text}})),
    NOT_A_FILTER.map(lambda text: ("DELETE", DOCS, 400, {"params": {"filter": text}})),
    NOT_A_DOCUMENT.map(lambda document: ("POST", DOCS, 400, {"json": document})),
    NOT_A_DOCUMENT.map(lambda document: ("POST", DOCS, 400, {"json": [{"_id": "new"}, document]})),
    st.text("abcxyz", min_size=1, max_size=8).map(
        lambda name: ("GET", DOCS, 400, {"params": {f"x{name}": "1"}})
    ),
    st.text("abcxyz/;+-", max_size=12).map(
        lambda kind: ("POST", DOCS, 415, {"content": b"{}", "headers": {"content-type": kind}})
    ),
    st.sampled_from(["PATCH", "PUT", "TRACE", "NIX"]).map(lambda method: (method, DOCS, 405, {})),
    st.text("abcxyz", max_size=8).map(lambda name: ("GET", f"/x{name}", 404, {})),
    st.text("abcxyz", max_size=8).map(
        lambda name: (
            "POST",
            "/v1/ops/kv.put",
            400,
            {"json": {"key": "YQ==", "value": "", f"x{name}": 1}},
        )
    ),
    JSON.filter(lambda value: not isinstance(value, str)).map(
        lambda value: ("POST", "/v1/ops/kv.put", 400, {"json": {"key": "YQ==", "value": value}})
    ),
    st.integers(201, 300).map(lambda n: ("POST", "/collections", 400, {"json": {"name": "x" * n}})),
    JSON.filter(lambda value: not isinstance(value, str)).map(
        lambda value: ("POST", "/collections", 400, {"json": {"name": value}})
    ),
)


@examples(100, slow=True)
@given(st.lists(WRONG, min_size=1, max_size=3))
def test_property_30_request_validation(api: Api, requests: list[Request]) -> None:
    """Whatever is wrong with a request, its body, parameters, types, method or path, is said in
    one form of JSON with a status that blames the request, and nothing is changed by it."""
    name = f"valid{next(numbers)}"
    api.call("collections.create", name=name)
    api.call("collections.insert", name=name, document={"_id": "kept", "n": 1})
    keys = api.ask("POST", "/v1/ops/kv.scan", 200, json={}, headers=LINES)
    for method, path, status, request in requests:
        error = api.ask(method, path.format(name=name), status, **request)
        assert error["code"] == ("not_found" if status == 404 else "invalid_argument")
        assert error["message"]
    assert api.call("collections.find", name=name)["items"] == [{"_id": "kept", "n": 1}]
    assert api.ask("POST", "/v1/ops/kv.scan", 200, json={}, headers=LINES) == keys
    api.call("collections.drop", name=name)
