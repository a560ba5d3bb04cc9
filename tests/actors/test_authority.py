"""API keys on real connections: who is let in, what they may do, and when that ends."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

import treestore
from actors.authority import RateLimits
from actors.database import Database, open_database
from actors.listener import Listener
from actors.principal import Principal, is_local, network_of
from tests.actors.databases import database as simulated
from tests.actors.wire_tools import RawClient, eventually, listening
from tests.crash.simdisk import SimDisk
from treestore.errors import (
    PermissionDenied,
    RateLimited,
    TreeStoreError,
    Unauthenticated,
)
from treestore.stores.operation import OPERATIONS
from treestore.stores.security.bucket import Bucket
from treestore.stores.security.scopes import Grants, parse_scopes


@asynccontextmanager
async def guarded(path: Path) -> AsyncGenerator[tuple[Database, Listener, str]]:
    async with open_database(path / "data") as db:
        async with listening(db, authenticate=db.authority.authenticate) as listener:
            with trio.fail_after(30):
                await trio.lowlevel.checkpoint()
                yield db, listener, f"127.0.0.1:{listener.port}"
        assert (await db.admin.check()).ok


@asynccontextmanager
async def raw(listener: Listener, key: str | None) -> AsyncGenerator[RawClient]:
    async with await trio.open_tcp_stream("127.0.0.1", listener.port) as stream:
        client = RawClient(stream)
        client.welcomed = await client.hello(api_key=key)  # type: ignore[attr-defined]
        yield client


async def code_of(listener: Listener, key: str | None) -> str:
    """How a hello with this key is answered: a goodbye's code, or ``welcome``."""
    async with raw(listener, key) as client:
        return getattr(client.welcomed, "code", "welcome")  # type: ignore[attr-defined]


async def test_who_is_let_in(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, listener, _):
        assert await code_of(listener, None) == "welcome"
        assert await code_of(listener, "whatever") == "welcome"
        made = await db.admin.create_key(["admin"])
        other = await db.admin.create_key(["admin"])
        gone = await db.admin.create_key(["admin"])
        await db.admin.revoke_key(gone.key_id)
        mixed = f"ts_{made.key_id}_{other.secret.rpartition('_')[2]}"
        for key in (None, "", "wrong", made.key_id, made.secret[:-1], mixed, gone.secret):
            assert await code_of(listener, key) == "unauthenticated", key
        assert await code_of(listener, made.secret) == "welcome"
        assert await code_of(listener, other.secret) == "welcome"
        # A server whose keys are all revoked does not fall open.
        await db.admin.revoke_key(made.key_id)
        await db.admin.revoke_key(other.key_id)
        for key in (None, made.secret):
            assert await code_of(listener, key) == "unauthenticated"


async def test_keys_outlive_the_process(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, listener, _):
        made = await db.admin.create_key(["read"])
        gone = await db.admin.create_key(["read"])
        await db.admin.revoke_key(gone.key_id)
        assert await code_of(listener, made.secret) == "welcome"
    async with guarded(tmp_path) as (db, listener, _):
        assert db.authority.required
        infos = {info.key_id: info for info in await db.admin.list_keys()}
        assert infos[made.key_id].last_used_at is not None
        assert infos[gone.key_id].last_used_at is None
        for key in (None, gone.secret):
            assert await code_of(listener, key) == "unauthenticated"
        assert await code_of(listener, made.secret) == "welcome"


async def test_the_first_key_ends_what_was_open(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, _, address):
        async with treestore.connect(address, connections=1, timeout=30) as anybody:
            await anybody.kv.put(b"a", b"1")
            made = await anybody.admin.create_key(["admin"])
            with pytest.raises(Unauthenticated):
                for _ in range(100):
                    await anybody.kv.get(b"a")
                    await trio.sleep(0.01)
        async with treestore.connect(address, api_key=made.secret) as admin:
            assert await admin.kv.get(b"a") == b"1"
        [entry] = await db.admin.audit()
        assert (entry.key_id, entry.peer.rpartition(":")[0]) == ("", "127.0.0.1")


async def test_a_revoked_key_counts_no_more_on_open_connections(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, listener, _):
        await db.kv.batch([(b"%05d" % n, bytes(1000)) for n in range(3000)])
        made = await db.admin.create_key(["write"])
        async with raw(listener, made.secret) as client:
            assert (await client.call("kv.get", key=b"00001")).result
            stream = await client.request("kv.scan")  # Without credit, it waits.
            feed = await client.request("db.watch")
            await eventually(lambda: listener.statistics().streams == 2)
            await db.admin.revoke_key(made.key_id)
            # From the moment that the revocation returns.
            last = await client.request("kv.put", key=b"late", value=b"1")
            answers: dict[int, Any] = {}
            goodbye: Any = None
            while (message := await client.receive()) is not None:
                if hasattr(message, "id"):
                    answers[message.id] = message
                else:
                    goodbye = message
            assert goodbye.code == "unauthenticated"
            assert {answers[number].code for number in (stream, feed)} == {"unauthenticated"}
            assert last not in answers or answers[last].code == "unauthenticated"
        assert await db.kv.get(b"late") is None
        await eventually(lambda: listener.statistics().connections == 0)


async def test_who_revokes_its_own_key_is_answered(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, listener, _):
        made = await db.admin.create_key(["admin"])
        async with raw(listener, made.secret) as client:
            answer = await client.call("admin.revoke_key", key_id=made.key_id)
            assert msgspec.msgpack.decode(answer.result) is True
            assert (await client.receive()).code == "unauthenticated"


async def test_an_open_transaction_of_a_revoked_key_is_never_committed(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, _, address):
        made = await db.admin.create_key(["write"])
        async with treestore.connect(address, api_key=made.secret, timeout=30) as client:
            with pytest.raises(TreeStoreError):
                async with client.transaction() as txn:
                    await txn.kv.put(b"a", b"1")
                    await db.admin.revoke_key(made.key_id)
        assert await db.kv.get(b"a") is None


async def test_a_key_expires_on_open_connections(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, listener, _):
        at = datetime.now(UTC) + timedelta(seconds=1.5)
        made = await db.admin.create_key(["read"], expires_at=at)
        async with raw(listener, made.secret) as client:
            assert (await client.call("kv.get", key=b"a")).result
            assert (await client.receive()).code == "unauthenticated"
        assert datetime.now(UTC) >= at
        assert await code_of(listener, made.secret) == "unauthenticated"
        [info] = await db.admin.list_keys()
        assert info.status == "expired"


async def test_scopes_hold_on_every_way(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, listener, address):
        await db.kv.batch([(b"app/1", b"1"), (b"other", b"2")])
        made = await db.admin.create_key(["write:kv/app/*", "read:policies/acme-*"])
        async with treestore.connect(address, api_key=made.secret) as client:
            assert await client.kv.get(b"app/1") == b"1"
            await client.kv.put(b"app/2", b"3")
            await client.kv.batch(puts=[(b"app/3", b"4")], deletes=[b"app/1"])
            scanned = [key async for key, _ in client.kv.scan(prefix=b"app/")]
            assert scanned == [b"app/2", b"app/3"]
            assert (await client.documents.list(prefix="acme-")).items == []
            for denied in (
                lambda: client.kv.get(b"other"),
                lambda: client.kv.batch(puts=[(b"app/3", b"4"), (b"other", b"5")]),
                lambda: client.kv.batch(deletes=[b"other"]),
                lambda: client.documents.list(),
                lambda: client.documents.list(prefix="acme"),
                lambda: client.documents.delete("acme-1", "v"),
                lambda: client.documents.get("other"),
                lambda: client.prompts.get("p"),
                lambda: client.admin.stats(),
                lambda: client.admin.create_key(["admin"]),
                lambda: client.admin.audit(),
            ):
                with pytest.raises(PermissionDenied, match=made.key_id):
                    await denied()
            with pytest.raises(PermissionDenied):
                [item async for item in client.kv.scan()]
            with pytest.raises(PermissionDenied):
                [item async for item in client.kv.scan(start=b"app/", end=b"b")]
            with pytest.raises(PermissionDenied):
                async for _ in client.watch():
                    pass
            async with client.snapshot() as snapshot:
                assert await snapshot.kv.get(b"app/2") == b"3"
                with pytest.raises(PermissionDenied):
                    await snapshot.kv.get(b"other")
            with pytest.raises(PermissionDenied):
                async with client.transaction() as txn:
                    await txn.kv.put(b"app/4", b"5")
                    await txn.kv.put(b"other", b"5")
            async with client.transaction() as txn:
                await txn.kv.put(b"app/5", b"6")
        async with raw(listener, made.secret) as hostile:
            # Sent by hand: what is decoded is what is asked about, whatever else it is.
            answer = await hostile.call("kv.get", key="app/1", prefix=b"app/")
            assert answer.code == "invalid_argument"
        assert [key async for key, _ in db.kv.scan()] == [b"app/2", b"app/3", b"app/5", b"other"]


async def test_a_read_only_key(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, _, address):
        made = await db.admin.create_key(["read"])
        async with treestore.connect(address, api_key=made.secret) as client:
            assert await client.kv.get(b"a") is None
            assert (await client.admin.health()).writable
            with pytest.raises(PermissionDenied, match="scope write"):
                await client.kv.put(b"a", b"1")
            with pytest.raises(PermissionDenied, match="scope admin"):
                await client.admin.checkpoint()


async def test_a_lost_answer_may_be_asked_for_again(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, listener, _):
        admin = await db.admin.create_key(["admin"])
        params: dict[str, Any] = {"scopes": ["read"], "token": "0123456789abcdef"}
        keys = []
        for _ in range(2):
            async with raw(listener, admin.secret) as client:
                answer = await client.call("admin.create_key", **params)
                keys.append(msgspec.msgpack.decode(answer.result))
        assert keys[0] == keys[1]
        secret = keys[0]["secret"].encode().rpartition(b"_")[2]
        # Nothing that is stored has it: neither the tree nor the log.
        for key, value in db.engine.read().scan(b"", None):
            assert secret not in key + value
    for file in (tmp_path / "data").rglob("*"):
        if file.is_file():
            assert secret not in file.read_bytes()


async def test_administration_is_entered_with_who_did_it(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    async with guarded(tmp_path) as (db, _, address):
        db.authority.log_audit = lines.append
        made = await db.admin.create_key(["admin"], name="operator")
        async with treestore.connect(address, api_key=made.secret) as client:
            await client.kv.put(b"a", b"1")
            await client.admin.checkpoint()
            with pytest.raises(TreeStoreError):
                await client.admin.backup("/proc/nowhere")
            trail = list(await client.admin.audit())
        assert [(entry.operation, entry.key_id) for entry in trail] == [
            ("admin.backup", made.key_id),
            ("admin.checkpoint", made.key_id),
            ("admin.create_key", ""),
        ]
        assert trail[0].outcome == "invalid_argument"
        assert trail[0].arguments["path"] == "/proc/nowhere"
        assert trail[1].outcome == "ok"
        assert trail[1].peer.startswith("127.0.0.1:")
        assert trail[2].peer == "embedded"
        await eventually(lambda: len(lines) == 3)
    assert [line["operation"] for line in lines] == [
        "admin.create_key",
        "admin.checkpoint",
        "admin.backup",
    ]
    assert made.secret not in json.dumps(lines)


# --- principals, without a network -----------------------------------------------------------


def test_where_a_peer_is() -> None:
    assert all(map(is_local, ("127.0.0.1:5", "127.9.9.9:5", "::1:5", "[::1]:5", "no socket")))
    assert is_local("::ffff:127.0.0.1:5")
    assert not any(
        map(is_local, ("10.0.0.1:5", "", "unknown", "example.org:5", "::ffff:8.8.8.8:5"))
    )
    assert network_of("10.0.0.1:5") == network_of("10.0.0.1:6") != network_of("10.0.0.2:5")
    assert network_of("2001:db8::1:5") == network_of("2001:db8::ffff:2:6")
    assert network_of("2001:db8::1:5") != network_of("2001:db8:0:1::1:5")


async def test_only_this_machine_makes_the_first_key() -> None:
    async with simulated(SimDisk(1)) as db:
        create = OPERATIONS["admin.create_key"]
        remote = db.authority.authenticate(None, "10.0.0.1:1234")
        remote.allow(OPERATIONS["kv.put"], {"key": b"a", "value": b"b"})
        with pytest.raises(PermissionDenied, match="own machine"):
            remote.allow(create, {"scopes": ["admin"]})
        unknown = db.authority.authenticate(None)
        with pytest.raises(PermissionDenied):
            unknown.allow(create, {"scopes": ["admin"]})
        local = db.authority.authenticate(None, "127.0.0.1:1234")
        local.allow(create, {"scopes": ["admin"]})
        made = await db.admin.create_key(["admin"])
        for before in (remote, unknown, local):
            with pytest.raises(Unauthenticated):
                before.take()
        admin = db.authority.authenticate(made.secret, "10.0.0.1:1234")
        admin.allow(create, {"scopes": ["admin"]})


async def test_rates_on_a_virtual_clock(autojump_clock: trio.testing.MockClock) -> None:
    principal = Principal(buckets=[Bucket(10, 5)])
    done = 0
    began = trio.current_time()
    while trio.current_time() - began < 10:
        with pytest.raises(RateLimited) as caught:
            while True:
                principal.take()
                done += 1
        limited = caught.value
        assert limited.retry_after_s is not None
        assert limited.details["retry_after_s"] == limited.retry_after_s
        await trio.sleep(limited.retry_after_s)
    # Five at once, then ten a second.
    assert abs(done - (5 + 10 * 10)) <= 1


async def test_limits_of_keys_addresses_and_the_server(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with simulated(SimDisk(1)) as db:
        authority = db.authority
        authority.limit(RateLimits(rate=2, burst=3, total=6))

        def taken(principal: Principal) -> int:
            count = 0
            try:
                while count < 100:
                    principal.take()
                    count += 1
            except RateLimited:
                pass
            return count

        one = authority.authenticate(None, "10.0.0.1:1")
        assert taken(one) == 3
        # Another connection of that address shares the bucket; another address has its own.
        assert taken(authority.authenticate(None, "10.0.0.1:2")) == 0
        await trio.sleep(10)
        assert [taken(authority.authenticate(None, f"10.0.0.{n}:1")) for n in range(4)] == [
            3,
            0,
            0,
            0,
        ]
        authority.limit(RateLimits(rate=2, burst=3))
        slow = await db.admin.create_key(["read"], rate_limit=1000)
        fast = await db.admin.create_key(["read"])
        assert taken(authority.authenticate(fast.secret)) == 3
        assert taken(authority.authenticate(slow.secret)) == 3
        await trio.sleep(1)
        assert taken(authority.authenticate(fast.secret)) == 2
        assert taken(authority.authenticate(slow.secret)) == 3


async def test_addresses_are_forgotten(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.authority.PEERS_MAX", 10)
    async with simulated(SimDisk(1)) as db:
        authority = db.authority
        authority.limit(RateLimits(rate=1))
        held = authority.authenticate(None, "10.0.0.1:1")
        ends: list[str] = []
        held.attach(1, ends.append)
        for n in range(100):
            authority.authenticate(None, f"10.0.1.{n}:1").take()
        assert len(authority._peers) <= 11
        assert authority.authenticate(None, "10.0.0.1:2") is held
        await db.admin.create_key(["read"])
        assert len(ends) == 1


async def test_a_limited_client_is_told_and_may_wait(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (db, listener, address):
        made = await db.admin.create_key(["write"], rate_limit=50)
        async with treestore.connect(address, api_key=made.secret) as client:
            with pytest.raises(RateLimited) as caught:
                for _ in range(1000):
                    await client.kv.get(b"a")
            assert caught.value.retry_after_s is not None
            assert 0 < caught.value.retry_after_s <= 0.02
        patient = treestore.connect(address, api_key=made.secret, wait_when_limited=True)
        before = listener.statistics().errors.get("rate_limited", 0)
        async with patient as client:
            for n in range(70):
                await client.kv.put(b"%d" % n, b"")
            assert len([item async for item in db.kv.scan()]) == 70
        assert listener.statistics().errors["rate_limited"] > before


def test_what_needs_no_further_look() -> None:
    get, put = OPERATIONS["kv.get"], OPERATIONS["kv.put"]
    reader = Principal(key_id="k", grants=Grants(parse_scopes(["read"])))
    assert reader.is_free(get)
    assert not reader.is_free(put)
    assert not Principal(buckets=[Bucket(1, 1)]).is_free(get)
    assert not Principal(expires_at=datetime.now(UTC)).is_free(get)
    narrow = Principal(key_id="k", grants=Grants(parse_scopes(["read:kv/a*"])))
    assert not narrow.is_free(get)
    reader.free["kv.get"] = object()
    reader.close("over")
    assert reader.free == {}
    assert not reader.is_free(get)
    with pytest.raises(Unauthenticated, match="over"):
        reader.take()
