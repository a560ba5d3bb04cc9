"""The blocking client: threads, interruptions, the end of a program."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

import treestore
from actors.wire import WireSettings
from tests.actors.fake_host import FakeHost
from tests.actors.wire_tools import only
from tests.client.served import PATIENCE_S, eventually_sync, served
from tests.client.test_asyncio import filled, outstanding
from tests.integration.servers import Server
from treestore.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    SnapshotExpired,
    Unauthenticated,
    Unavailable,
)


def started(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run it in a thread; what it gives or raises ends up in the list."""
    results: list[object] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: ASYNC103 - not async
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, results


def client_threads() -> int:
    return sum(thread.name == "treestore-client" for thread in threading.enumerate())


def test_calls_give_what_they_give_elsewhere() -> None:
    with served() as scene, treestore.connect_sync(scene.address) as db:
        assert db.kv.get(b"a") is None
        db.kv.batch(puts=[(b"b", b"2"), (b"c", b"3")], deletes=[b"a"])
        assert list(db.kv.scan()) == [(b"b", b"2"), (b"c", b"3")]
        assert db.kv.delete(b"b") is True
        assert "value of ``key``" in str(db.kv.get.__doc__)
        scene.host.fail_queries_with = NotFound("No such thing.", missing=["a"])
        with pytest.raises(NotFound, match="No such thing") as caught:
            db.kv.get(b"a")
        assert caught.value.details == {"missing": ["a"]}
        with pytest.raises(InvalidArgument, match="cannot be sent"):
            db.kv.get(object())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="by name"):
            db.kv.scan(b"a")  # type: ignore[call-arg]


def test_threads_share_a_client() -> None:
    with served(filled(400)) as scene, treestore.connect_sync(scene.address) as db:
        keys = [b"%05d" % number for number in range(400)]
        with ThreadPoolExecutor(16) as threads:
            assert list(threads.map(db.kv.get, keys)) == [bytes(1000)] * 400
            assert set(threads.map(lambda key: db.kv.put(key, b"new"), keys)) == {None}
            counts = threads.map(lambda _: sum(1 for _ in db.kv.scan()), range(8))
            assert set(counts) == {400}
        assert outstanding(db) == 0
        assert scene.listener.statistics().connections_total <= 2
        assert client_threads() == 1
    assert client_threads() == 0


def test_arguments_may_ask_the_database_themselves() -> None:
    with served() as scene, treestore.connect_sync(scene.address) as db:
        db.kv.put(b"a", b"1")
        db.kv.batch(puts=((b"copy", value) for value in [db.kv.get(b"a") or b""]))  # type: ignore[arg-type]
        assert db.kv.get(b"copy") == b"1"


def test_it_works_while_an_event_loop_runs_in_the_calling_thread() -> None:
    async def main(address: str) -> bytes | None:  # noqa: ASYNC124 - it blocks
        with treestore.connect_sync(address) as db:
            db.kv.put(b"a", b"1")
            return db.kv.get(b"a")

    with served() as scene:
        assert asyncio.run(main(scene.address)) == b"1"
        assert trio.run(main, scene.address) == b"1"


def test_without_a_with_block() -> None:
    with served() as scene:
        db = treestore.connect_sync(scene.address)
        db.kv.put(b"a", b"1")
        db.close()
        db.close()
        with pytest.raises(Unavailable, match="closed"):
            db.kv.get(b"a")
        kv = treestore.connect_sync(scene.address).kv
        gc.collect()
        assert kv.get(b"a") == b"1"  # The service keeps its client.
        del kv
        with pytest.warns(ResourceWarning, match="was not closed"):
            gc.collect()
        eventually_sync(lambda: client_threads() == 0)


def test_refusals() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match="No connection to 127"):
        treestore.connect_sync(f"127.0.0.1:{port}")
    with served(authenticate=only("right")) as scene:
        with pytest.raises(Unauthenticated):
            treestore.connect_sync(scene.address, api_key="wrong")
        with treestore.connect_sync(scene.address, api_key="right") as db:
            db.kv.get(b"a")
    eventually_sync(lambda: client_threads() == 0)


def test_timeouts() -> None:
    with served() as scene, treestore.connect_sync(scene.address, timeout=0.05) as db:
        scene.host.hold_commands = True
        with pytest.raises(DeadlineExceeded, match="nothing was changed"):
            db.kv.put(b"a", b"1")
        scene.host.cold_queries, scene.host.query_gate = True, trio.Event()
        with pytest.raises(DeadlineExceeded):
            db.kv.get(b"a")


# --- streams and snapshots -------------------------------------------------------------------


def test_a_scan_is_flow_controlled_and_let_go_of() -> None:
    with served(filled(6000)) as scene, treestore.connect_sync(scene.address) as db:
        count = 0
        for _item in db.kv.scan():
            count += 1
            if count == 100:
                time.sleep(0.05)
                assert scene.host.streamed < 4000
        assert count == 6000
        next(iter(db.kv.scan()))
        gc.collect()
        eventually_sync(lambda: scene.host.streams == 0)
        with db.kv.scan() as items:
            assert next(items)[0] == b"00000"
            assert scene.host.streams == 1
        eventually_sync(lambda: scene.host.streams == 0)
        assert list(items) == []
        with pytest.raises(InvalidArgument):
            next(iter(db.kv.scan(limit=-1)))


def test_threads_may_share_a_stream() -> None:
    with served(filled(3000)) as scene, treestore.connect_sync(scene.address) as db:
        items: Iterator[tuple[bytes, bytes]] = iter(db.kv.scan())
        with ThreadPoolExecutor(4) as threads:
            parts = threads.map(lambda _: [key for key, _ in items], range(4))
            assert sorted(key for part in parts for key in part) == [
                b"%05d" % number for number in range(3000)
            ]


def test_a_snapshot() -> None:
    with served() as scene, treestore.connect_sync(scene.address) as db:
        db.kv.put(b"a", b"old")
        with db.snapshot() as snapshot:
            db.kv.put(b"a", b"new")
            assert snapshot.kv.get(b"a") == b"old"
            assert list(snapshot.kv.scan()) == [(b"a", b"old")]
            with pytest.raises(InvalidArgument, match="only read"):
                snapshot.kv.put(b"a", b"")  # type: ignore[arg-type, unused-coroutine]
        with pytest.raises(SnapshotExpired):
            snapshot.kv.get(b"a")
        eventually_sync(lambda: not scene.host.snapshots)
        with pytest.raises(ZeroDivisionError) as caught, db.snapshot():
            raise ZeroDivisionError
        assert caught.value.__context__ is None
        eventually_sync(lambda: not scene.host.snapshots)


def test_a_snapshot_outlives_a_long_computation() -> None:
    """The program is busy for longer than the server waits for a sign of life."""
    settings = WireSettings(keep_alive_interval_s=0.05, keep_alive_timeout_s=0.2)
    with served(settings=settings) as scene, treestore.connect_sync(scene.address) as db:
        db.kv.put(b"a", b"1")
        with db.snapshot() as snapshot:
            time.sleep(0.6)
            assert snapshot.kv.get(b"a") == b"1"
        assert scene.listener.statistics().connections_total <= 2


# --- ends ------------------------------------------------------------------------------------


def test_closing_from_another_thread() -> None:
    with served() as scene:
        scene.host.hold_commands = True
        scene.host.cold_queries, scene.host.query_gate = True, trio.Event()
        db = treestore.connect_sync(scene.address)
        calls = [started(lambda: db.kv.put(b"a", b"1")), started(lambda: db.kv.get(b"a"))]

        def hold() -> None:
            with db.snapshot():
                snapshot_open.set()
                closed.wait(PATIENCE_S)

        snapshot_open, closed = threading.Event(), threading.Event()
        held, _ = started(hold)
        assert snapshot_open.wait(PATIENCE_S)
        eventually_sync(lambda: scene.listener.statistics().requests_in_flight == 2)
        db.close()
        closed.set()
        for thread in (calls[0][0], calls[1][0], held):
            thread.join(PATIENCE_S)
        assert [type(results[0]) for _, results in calls] == [OutcomeUnknown, Unavailable]
        assert client_threads() == 0


def test_a_retried_command_is_applied_once() -> None:
    host = FakeHost()
    host.put(b"a", b"1")
    with served(host) as scene, treestore.connect_sync(scene.proxied) as db:
        db.kv.get(b"a")
        scene.proxy.lose_answers = True
        thread, results = started(lambda: db.kv.delete(b"a"))
        eventually_sync(lambda: bool(host.applied))
        time.sleep(0.01)
        scene.proxy.lose_answers = False
        scene.do(scene.proxy.drop)
        thread.join(PATIENCE_S)
        assert results == [True]
        assert host.applied == ["kv.delete"]


PRELUDE = """
import os, signal, sys, threading, time
import treestore
address = sys.argv[1]
"""


def program(text: str, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "default", "-c", PRELUDE + textwrap.dedent(text), address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    assert process.stdout is not None
    assert process.stderr is not None
    # Not `communicate`, which does not see what `readline` took in advance.
    with process.stdout, process.stderr:
        output, errors = process.stdout.read(), process.stderr.read()
    return process.wait(PATIENCE_S), output, errors


@pytest.mark.slow
def test_an_interrupted_call_is_cancelled_and_the_client_goes_on() -> None:
    text = """
    with treestore.connect_sync(address) as db:
        for call in (lambda: db.kv.put(b"a", b"1"), lambda: list(db.kv.scan())):
            print("calling", flush=True)
            try:
                call()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        print(db.kv.get(b"a"), len(db._pool.sequencer._outstanding), flush=True)
    """
    with served() as scene:
        scene.host.hold_commands = True
        process = program(text, scene.address)
        assert process.stdout is not None
        process.stdout.readline()
        eventually_sync(lambda: len(scene.host.waiting) == 1)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        eventually_sync(lambda: scene.host.waiting == [])
        assert finished(process) == (0, "calling\nNone 0\n", "")


@pytest.mark.slow
def test_an_interrupted_wait_for_a_change_loses_none(tmp_path: Path) -> None:
    text = """
    keys = []
    with treestore.connect_sync(address) as db, db.watch() as feed:
        while len(keys) < 100:
            try:
                print(len(keys), flush=True)
                for change in feed:
                    keys.append(change.key)
                    if len(keys) % 10 == 0:
                        break
            except KeyboardInterrupt:
                pass
        print(keys == [b"%d" % number for number in range(100)], flush=True)
    """
    server = Server.start(tmp_path / "data")
    try:
        process = program(text, server.tcp)
        assert process.stdout is not None
        with treestore.connect_sync(server.tcp) as db:
            for number in range(100):
                if number % 10 == 0:
                    # It waits, or is about to: it has everything that there is.
                    assert process.stdout.readline() == f"{number}\n"
                    process.send_signal(signal.SIGINT)
                    assert process.stdout.readline() == f"{number}\n"
                db.kv.put(b"%d" % number, b"")
        assert finished(process) == (0, "True\n", "")
    finally:
        server.kill()


@pytest.mark.slow
def test_an_interrupted_program_closes_what_it_has_open() -> None:
    text = """
    with treestore.connect_sync(address) as db, db.snapshot():
        print("open", flush=True)
        db.kv.put(b"a", b"1")
    """
    with served() as scene:
        scene.host.hold_commands = True
        process = program(text, scene.address)
        eventually_sync(lambda: len(scene.host.waiting) == 1)
        process.send_signal(signal.SIGINT)
        code, _, errors = finished(process)
        assert code == -signal.SIGINT
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert "ResourceWarning" not in errors
        eventually_sync(lambda: not scene.host.snapshots)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "db = treestore.connect_sync(address); db.kv.put(b'a', b'1')",
        "db = treestore.connect_sync(address); db.kv.put(b'a', b'1'); s = iter(db.kv.scan()); "
        "next(s)",
        "db = treestore.connect_sync(address); db.kv.put(b'a', b'1'); s = db.snapshot(); "
        "s.__enter__()",
        """
        def work():
            try:
                while True:
                    db.kv.get(b"a")
            except treestore.errors.Unavailable:
                pass

        db = treestore.connect_sync(address)
        db.kv.put(b"a", b"1")
        threading.Thread(target=work, daemon=True).start()
        """,
    ],
    ids=["idle", "stream", "snapshot", "thread at work"],
)
def test_a_program_that_ends_with_an_open_client(text: str) -> None:
    with served() as scene:
        code, output, errors = finished(program(text, scene.address))
        assert (code, output) == (0, "")
        assert "Traceback" not in errors
        assert "ResourceWarning" in errors or not errors
        assert scene.host.applied == ["kv.put"]
        eventually_sync(lambda: scene.listener.statistics().connections == 0)


@pytest.mark.slow
def test_a_forked_process_opens_its_own() -> None:
    text = """
    with treestore.connect_sync(address) as db:
        db.kv.put(b"a", b"1")
        child = os.fork()
        if not child:
            try:
                db.kv.get(b"a")
            except treestore.errors.Unavailable as error:
                print(error, flush=True)
            db.close()
            with treestore.connect_sync(address) as own:
                print(own.kv.get(b"a"), flush=True)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(db.kv.get(b"a"), flush=True)
    """
    with served() as scene:
        code, output, errors = finished(program(text, scene.address))
        assert code == 0, errors
        lines = output.splitlines()
        assert "fork" in lines[0]
        assert lines[1:] == ["b'1'", "b'1'"]


def test_nothing_starts_before_it_is_asked_for() -> None:
    text = """
    before = threading.active_count()
    treestore.connect, treestore.connect_sync
    assert threading.active_count() == before
    assert not {"trio", "trio_asyncio", "actors"} & sys.modules.keys()
    with treestore.connect_sync(address) as db:
        db.kv.get(b"a")
    assert not {"trio", "trio_asyncio", "actors"} & sys.modules.keys()
    """
    with served() as scene:
        assert finished(program(text, scene.address)) == (0, "", "")
