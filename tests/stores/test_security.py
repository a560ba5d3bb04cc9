"""API keys, scopes, buckets and the trail, without a database."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores.fake import FakeWrite
from treestore.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from treestore.stores.keys import Keyspace, successor
from treestore.stores.security import apikeys, audit
from treestore.stores.security.apikeys import KeyRequest
from treestore.stores.security.audit import Actor
from treestore.stores.security.bucket import Bucket
from treestore.stores.security.scopes import (
    KINDS,
    Grants,
    KeyRange,
    Names,
    Scope,
    parse_scope,
    parse_scopes,
    whole,
)

SEED = b"s" * 32
TOKEN = "t" * 16
names = st.binary(max_size=4).map(lambda data: bytes(b & 3 for b in data))


def wish(scopes: object = ("read",), **fields: object) -> KeyRequest:
    given = {"name": "", "expires_at": None, "rate_limit": None, **fields}
    return KeyRequest.of(scopes, **given)  # type: ignore[arg-type]


# --- scopes ----------------------------------------------------------------------------------


@given(
    st.sampled_from(["read", "write"]),
    st.sampled_from([kind for kind in KINDS if kind != "server"]),
    st.binary(min_size=1, max_size=12),
    st.booleans(),
)
def test_a_scope_survives_being_written_down(
    right: str, kind: str, name: bytes, prefix: bool
) -> None:
    scope = Scope(right, Names(kind, name, prefix))  # type: ignore[arg-type]
    assert parse_scope(str(scope)) == scope
    assert str(scope).isascii()


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("read", "read"),
        ("admin", "admin"),
        ("write:kv", "write:kv"),
        ("write:kv/*", "write:kv"),
        ("read:collections/people*", "read:collections/people*"),
        ("write:policies/acme-*", "write:policies/acme-*"),
        ("read:kv/%00%ff*", "read:kv/%00%FF*"),
        ("read:collections/a%2A", "read:collections/a%2A"),
        ("read:collections/ä", "read:collections/%C3%A4"),
        ("read:server", "read:server"),
    ],
)
def test_scopes_have_a_normal_form(text: str, normal: str) -> None:
    assert str(parse_scope(text)) == normal


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "Read", "delete", "read:", "read:people", "read:collections/", "read:kv/a*b"),
        *("read:kv/**", "read:kv/%", "read:kv/%0g", "admin:kv", "admin:", "read:server/a"),
        *(":kv", "read :kv", "read:kv/\ud800", "read:kv/" + "a" * 2000, None, 3, b"read"),
    ],
)
def test_what_is_no_scope_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidArgument):
        parse_scopes([wrong])


@pytest.mark.parametrize(
    "wrong", [[], (), "read", b"read", None, 3, [f"read:kv/{n}" for n in range(101)]]
)
def test_what_are_no_scopes_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidArgument):
        parse_scopes(wrong)


@given(names, st.booleans(), names, st.booleans())
def test_covering_is_being_a_superset(a: bytes, a_is: bool, b: bytes, b_is: bool) -> None:
    universe = [
        bytes((x, y, z))[:size]
        for x in range(4)
        for y in range(4)
        for z in range(4)
        for size in range(4)
    ] + [a, b, b + b"\0", b + b"\3"]

    def members(name: bytes, prefix: bool) -> set[bytes]:
        return {m for m in universe if (m.startswith(name) if prefix else m == name)}

    covers = Names("kv", a, a_is).covers(Names("kv", b, b_is))
    if covers:
        assert members(b, b_is) <= members(a, a_is)
    elif not a_is or not a.startswith(b):
        # (Where a begins with b, the universe may be too small to show a difference.)
        assert not members(b, b_is) <= members(a, a_is)
    assert not Names("kv", a, a_is).covers(Names("collections", b, b_is))


@given(names, names, st.none() | names)
def test_a_range_is_within_a_prefix_only_if_all_of_its_keys_are(
    prefix: bytes, low: bytes, high: bytes | None
) -> None:
    within = KeyRange(low, high).is_within(prefix)
    keys = [low, low + b"\0", *([] if high is None else [high[:-1], high[:-1] + b"\xff"])]
    inside = [key for key in keys if low <= key and (high is None or key < high)]
    if within:
        assert all(key.startswith(prefix) for key in inside)
    end = successor(prefix)
    assert KeyRange(prefix, end).is_within(prefix)
    if prefix:
        assert not KeyRange(prefix, None).is_within(prefix) or end is None
        assert not KeyRange(b"", end).is_within(prefix)


def test_what_rights_include() -> None:
    write = Grants(parse_scopes(["write:kv/a*", "read:policies/p"]))
    assert write.covers("write", Names("kv", b"ab"))
    assert write.covers("read", Names("kv", b"ab"))
    assert not write.covers("read", Names("kv", b"b"))
    assert not write.covers("read", whole("kv"))
    assert write.covers("read", Names("policies", b"p"))
    assert not write.covers("write", Names("policies", b"p"))
    assert not write.covers("read", Names("policies", b"pp"))
    assert not write.has_any("admin")
    everything = Grants(parse_scopes(["admin"]))
    assert all(everything.is_free(right) for right in ("read", "write", "admin"))
    writer = Grants(parse_scopes(["write"]))
    assert writer.is_free("read")
    assert writer.is_free("write")
    assert not writer.is_free("admin")


# --- buckets ---------------------------------------------------------------------------------


@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.lists(st.integers(0, 300), max_size=60),
)
def test_a_bucket_is_a_token_bucket(rate: int, burst: int, gaps_ms: list[int]) -> None:
    bucket, tokens, now_ms = Bucket(rate, burst), float(burst), 1000.0
    for gap in gaps_ms:
        now_ms += gap
        tokens = min(burst, tokens + gap / 1000 * rate)
        if abs(tokens - 1) < 0.01:
            continue  # Either answer is right.
        wait_s = bucket.take(now_ms / 1000)
        assert (wait_s == 0) == (tokens >= 1)
        if tokens >= 1:
            tokens -= 1
        else:
            assert wait_s == pytest.approx((1 - tokens) / rate, abs=1e-6)


@given(st.floats(0.1, 1e5), st.floats(1, 1e3), st.floats(0, 1e9))
def test_who_waits_as_long_as_told_is_let_in(rate: float, burst: float, now: float) -> None:
    bucket = Bucket(rate, burst)
    for _ in range(int(burst) + 3):
        wait_s = bucket.take(now)
        if wait_s:
            now += wait_s
            assert bucket.take(now) == 0


# --- keys ------------------------------------------------------------------------------------


def test_only_a_salted_hash_is_stored() -> None:
    txn = FakeWrite()
    new = apikeys.derive_key(SEED, TOKEN, wish())
    record = apikeys.create(txn, new, wish())
    assert new.text == f"ts_{record.key_id}_{new.secret}"
    stored = b"".join(key + value for key, value in txn.data.items())
    assert new.secret.encode() not in stored
    assert record.hash in stored
    assert "secret" not in repr(new)
    assert new.secret not in repr(new)
    assert new.secret not in repr(apikeys.parse_key(new.text))
    assert record.hash.hex() not in repr(record)
    assert repr(record.hash) not in repr(record)
    other = apikeys.derive_key(SEED, "u" * 16, wish())
    assert other.salt != new.salt
    assert apikeys.digest(new.secret, new.salt) != apikeys.digest(new.secret, other.salt)


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    txn = FakeWrite()
    new = apikeys.derive_key(SEED, TOKEN, wish())
    record = apikeys.create(txn, new, wish())
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert apikeys.is_secret_of(record, new.secret)
    assert not apikeys.is_secret_of(record, "a" * 52)
    assert [len(one) + len(other) for one, other in compared] == [64, 64]


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "",
            "ts_",
            "ts_a_b",
            "TS_" + "a" * 16 + "_" + "a" * 52,
            "ts_" + "a" * 16 + "_" + "a" * 53,
        ),
        *("ts_" + "a" * 16 + "_" + "1" * 52, "ts_" + "é" * 16 + "_" + "a" * 52, "a" * 1024),
        " ts_" + "a" * 16 + "_" + "a" * 52,
        "ts_" + "a" * 16 + "_" + "a" * 52 + "\n",
    ],
)
def test_what_is_no_key_is_seen_to_be_none(wrong: str) -> None:
    assert apikeys.parse_key(wrong) is None


def test_the_same_request_gives_the_same_key() -> None:
    txn = FakeWrite()
    new = apikeys.derive_key(SEED, TOKEN, wish())
    first = apikeys.create(txn, new, wish())
    assert apikeys.derive_key(SEED, TOKEN, wish()) == new
    assert apikeys.create(txn, new, wish()) == first
    assert len(list(apikeys.records(txn))) == 1
    # After a restart, or for another wish under the same token, the secret is not to be had.
    for other in (
        apikeys.derive_key(b"r" * 32, TOKEN, wish()),
        apikeys.derive_key(SEED, TOKEN, wish(["write"])),
    ):
        assert other.key_id == new.key_id
        assert other.secret != new.secret
        with pytest.raises(AlreadyExists, match=new.key_id):
            apikeys.create(txn, other, wish())
    assert apikeys.revoke(txn, new.key_id)
    with pytest.raises(AlreadyExists):
        apikeys.create(txn, new, wish())


def test_a_revoked_key_stays_listed() -> None:
    txn = FakeWrite()
    new = apikeys.derive_key(SEED, TOKEN, wish())
    apikeys.create(txn, new, wish())
    assert apikeys.revoke(txn, new.key_id) is True
    assert apikeys.revoke(txn, new.key_id) is False
    [record] = apikeys.records(txn)
    assert record.info(txn.now).status == "revoked"
    with pytest.raises(NotFound):
        apikeys.revoke(txn, "a" * 16)
    with pytest.raises(InvalidArgument) as caught:
        apikeys.revoke(txn, new.text)
    assert new.secret not in str(caught.value)
    assert apikeys.check_keys(txn) == []


def test_room_is_made_by_forgetting_the_oldest_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apikeys, "KEYS_MAX", 3)
    txn = FakeWrite()
    made = [apikeys.derive_key(SEED, f"{n:016}", wish()) for n in range(5)]
    for new in made[:3]:
        apikeys.create(txn, new, wish())
    with pytest.raises(ResourceExhausted):
        apikeys.create(txn, made[3], wish())
    apikeys.revoke(txn, made[1].key_id)
    apikeys.create(txn, made[3], wish())
    assert {record.key_id for record in apikeys.records(txn)} == {
        made[at].key_id for at in (0, 2, 3)
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 3},
        {"name": "a" * 201},
        {"name": "\ud800"},
        {"rate_limit": 0},
        {"rate_limit": -1.0},
        {"rate_limit": float("nan")},
        {"rate_limit": float("inf")},
        {"rate_limit": True},
        {"rate_limit": "5"},
    ],
)
def test_wishes_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        wish(**wrong)


def test_a_key_that_has_expired_is_not_made() -> None:
    txn = FakeWrite()
    request = wish(expires_at=txn.now - timedelta(seconds=1))
    with pytest.raises(InvalidArgument, match="passed"):
        apikeys.create(txn, apikeys.derive_key(SEED, TOKEN, request), request)


@pytest.mark.parametrize("wrong", ["", "short", "a" * 201, "ä" * 16, 3, b"a" * 16])
def test_wrong_tokens_are_refused(wrong: object) -> None:
    with pytest.raises(InvalidArgument):
        apikeys.check_token(wrong)


def test_damage_is_found() -> None:
    txn = FakeWrite()
    new = apikeys.derive_key(SEED, TOKEN, wish())
    apikeys.create(txn, new, wish())
    [key] = [key for key in txn.data if key[:1] == Keyspace.API_KEYS]
    txn.put(key + b"x", txn.data[key])
    txn.put(Keyspace.API_KEYS + b"y", b"\xc1")
    assert len(apikeys.check_keys(txn)) == 2


# --- the trail -------------------------------------------------------------------------------


def test_the_trail_is_bounded_and_without_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ENTRIES_MAX", 5)
    txn = FakeWrite()
    for number in range(12):
        audit.append(txn, "admin.compact", Actor("1.2.3.4:5", "k"), {"number": number})
    page = audit.audit(txn, limit=3)
    assert [entry.number for entry in page] == [12, 11, 10]
    rest = audit.audit(txn, limit=3, cursor=page.next_cursor)
    assert [entry.number for entry in rest] == [9, 8]
    assert rest.next_cursor is None
    assert [entry.number for entry in audit.entries_after(txn, 10)] == [11, 12]
    assert audit.check_audit(txn) == []
    txn.delete(Keyspace.AUDIT + (10).to_bytes(8, "big"))
    assert audit.check_audit(txn) == ["The audit trail has nothing between 9 and 11."]


def test_only_what_belongs_into_a_log_is_kept() -> None:
    kept = audit.described(
        {
            "token": "t" * 32,
            "path": "/backup",
            "scopes": ["read", "write"],
            "long": "x" * 1000,
            "surrogate": "\ud800",
            "huge": 1 << 70,
            "when": datetime(2024, 1, 1, tzinfo=UTC),
            "value": b"content",
            "structure": {"content": 1},
            "rows": [{"content": 1}],
            "nothing": None,
        }
    )
    assert kept == {
        "path": "/backup",
        "scopes": ["read", "write"],
        "long": "x" * 200,
        "surrogate": "?",
        "huge": str(1 << 70),
        "when": "2024-01-01T00:00:00+00:00",
    }


@pytest.mark.parametrize("wrong", ["", "x", "AAAA", "ä", 3])
def test_wrong_cursors_of_the_trail_are_refused(wrong: object) -> None:
    with pytest.raises(InvalidArgument):
        audit.audit(FakeWrite(), cursor=wrong)  # type: ignore[arg-type]
