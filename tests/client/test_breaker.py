"""The circuit breaker: a server that is away is not waited for again and again."""

from __future__ import annotations

import asyncio

import pytest
import trio

import treestore
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import eventually, listening
from tests.client import served as servers
from tests.client.served import served
from tests.client.test_retry import proxied
from treestore.client.breaker import Breaker
from treestore.errors import Unavailable


def test_it_opens_after_so_many_failures_and_closes_with_the_first_success() -> None:
    breaker = Breaker(failures_max=3, pause_s=5.0)
    assert breaker.failed(10.0, 0.1) == 0.1
    assert breaker.failed(11.0, 0.2) == 0.2
    assert not breaker.is_open
    assert breaker.failed(12.0, 0.4) == 5.0
    assert breaker.is_open
    assert "not been reached for 3.0 s, in 3 attempts" in breaker.sentence(13.0)
    assert "The next attempt is made in 4.0 s" in breaker.sentence(13.0)
    assert "One is being made" in breaker.sentence(17.5)  # Half open.
    assert breaker.failed(18.0, 0.8) == 5.0
    assert "The next attempt is made in 5.0 s" in breaker.sentence(18.0)
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.failed(20.0, 0.1) == 0.1


def test_it_can_be_left_out() -> None:
    breaker = Breaker(failures_max=0)
    for number in range(100):
        assert breaker.failed(number, 0.1) == 0.1
    assert not breaker.is_open


async def test_calls_fail_at_once_until_the_server_is_back() -> None:
    with trio.fail_after(20):
        async with (
            listening(FakeHost()) as listener,
            proxied(listener.port) as proxy,
            treestore.connect(
                f"127.0.0.1:{proxy.port}", breaker_failures=2, breaker_pause=1.0
            ) as db,
        ):
            await db.kv.get(b"a")
            proxy.refuse = True
            proxy.drop()
            # It waits, and is told when the breaker opens: long before its time is up.
            with pytest.raises(Unavailable, match=r"in 2 attempts. .* fail at once"):
                while True:
                    await db.kv.get(b"a")
            with pytest.raises(Unavailable, match="fail at once"), trio.fail_after(0.8):
                await db.kv.put(b"a", b"1")
            proxy.refuse = False
            await eventually(lambda: db.pool.pick() is not None)
            await db.kv.put(b"a", b"1")


async def test_a_command_that_was_sent_waits_for_the_server() -> None:
    """Whether it was applied is known there alone."""
    host = FakeHost()
    with trio.fail_after(20):
        async with (
            listening(host) as listener,
            proxied(listener.port) as proxy,
            treestore.connect(
                f"127.0.0.1:{proxy.port}", breaker_failures=1, breaker_pause=0.1
            ) as db,
            trio.open_nursery() as nursery,
        ):
            results: list[bool] = []

            @nursery.start_soon
            async def delete() -> None:
                results.append(await db.kv.delete(b"a"))

            proxy.lose_answers = True
            await eventually(lambda: bool(host.applied))
            proxy.refuse = True
            proxy.drop()
            with pytest.raises(Unavailable, match="fail at once"):
                while True:
                    await db.kv.get(b"a")
            assert results == []
            proxy.lose_answers = proxy.refuse = False
            await eventually(lambda: bool(results))
            assert host.applied == ["kv.delete"]


def test_on_asyncio_and_blocking() -> None:
    async def main() -> None:
        async with treestore.connect(scene.proxied, breaker_failures=2, breaker_pause=0.1) as db:
            scene.proxy.refuse = True
            scene.do(scene.proxy.drop)
            with pytest.raises(Unavailable, match="fail at once"):
                while True:
                    await db.kv.get(b"a")
                    await asyncio.sleep(0)
            scene.proxy.refuse = False
            await servers.eventually(lambda: db.pool.pick() is not None)
            await db.kv.get(b"a")

    with served() as scene:
        servers.run(main)
        with treestore.connect_sync(scene.proxied, breaker_failures=2, breaker_pause=0.1) as db:
            scene.proxy.refuse = True
            scene.do(scene.proxy.drop)
            with pytest.raises(Unavailable, match="fail at once"):
                while True:
                    db.kv.get(b"a")
            with pytest.raises(Unavailable, match="fail at once"):
                db.kv.get(b"a")
