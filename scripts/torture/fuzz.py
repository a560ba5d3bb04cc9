"""``chaos.py fuzz``: hostile input, to the frame decoder and state machines, and to whole sessions.

Machine inputs go to `ServerConnection` alone: it may raise `RemoteProtocolError` and nothing else,
hold no more than its limits, and read the same messages however the bytes are cut. Session inputs
go to a real session over a real store: it must end, answer legally and never with ``internal``,
give back its memory and snapshots, and leave other clients and the store unharmed.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from random import Random
from typing import Any

import attrs
import msgspec
import structlog
import trio
import trio.testing

from actors.database import Database, open_database
from actors.listener import accept_any
from actors.memory import MemoryBudget
from actors.session import Session
from actors.wire import Counters, Methods, Shared, WireSettings
from protocol.connection import ClientConnection, ServerConnection, State
from protocol.errors import RemoteProtocolError
from protocol.limits import Limits
from protocol.messages import Failure, Hello, Request, Response, Welcome
from scripts.torture.hostile import chunks, conversation
from tests.crash.simdisk import SimDisk
from tests.crash.world import OPTIONS
from tests.engine.stores import environment

LIMITS = Limits(
    frame_size_bytes_max=64 << 10, message_size_bytes_max=1 << 20, partial_size_bytes_max=1 << 20
)
BATCH = 1000
"""Machine inputs of one task, or ten times the session inputs of one store."""

SESSIONS_SHARE = 10
"""One input in so many goes to a session."""

HANG_S = 20.0
MEMORY_SIZE_BYTES_MAX = 8 << 20


class Violation(AssertionError):
    """An input did what no input may do."""

    def __init__(self, layer: str, seed: int, number: int, why: str) -> None:
        super().__init__(
            f"{layer} input {number} of seed {seed}: {why}\n"
            f"replay: chaos.py fuzz --layer {layer} --seed {seed} --input {number}"
        )
        self.arguments = (layer, seed, number, why)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), self.arguments


@attrs.define
class Result:
    """What was sent, and what came of it."""

    seed: int
    inputs: Counter[str] = attrs.Factory(Counter)
    """By layer."""
    outcomes: Counter[str] = attrs.Factory(Counter)
    elapsed_s: float = 0.0
    memory_size_bytes_peak: int = 0
    """Largest resident size of a process."""
    violations: list[str] = attrs.Factory(list)

    def add(self, other: Result) -> None:
        """Count another run in."""
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.violations += other.violations
        self.memory_size_bytes_peak = max(self.memory_size_bytes_peak, other.memory_size_bytes_peak)


# --- machines ------------------------------------------------------------------------------------


def machine_input(seed: int, number: int, outcomes: Counter[str]) -> None:
    """One input to a `ServerConnection`.

    Raises:
        AssertionError: it broke a promise; `Exception` of any other kind is one, too.
    """
    random = Random(f"machine {seed} {number}")
    greeting, sent = conversation(random)
    whole = _feed([greeting], [sent])
    pieces = _feed(chunks(random, greeting), chunks(random, sent))
    assert pieces == whole, f"cut in pieces it means {pieces}, whole {whole}"
    outcomes["refused" if whole[1] else "read"] += 1
    outcomes["messages"] += len(whole[0])


def _feed(greeting: list[bytes], sent: list[bytes]) -> tuple[list[Any], str | None]:
    """The messages that were read, and the fault, if there was one."""
    connection = ServerConnection(LIMITS)
    messages: list[Any] = []
    for turn in (greeting, sent):
        for data in turn:
            try:
                messages += map(_comparable, connection.receive_data(data))
            except RemoteProtocolError as error:
                messages += map(_comparable, error.messages)
                assert connection.state is State.CLOSED
                return messages, str(error)
            held = connection.held_size_bytes
            limit = LIMITS.partial_size_bytes_max + LIMITS.frame_size_bytes_max + 4
            assert held <= limit, f"{held} bytes are held"
        if connection.state is State.AUTHENTICATING:
            connection.welcome("fuzz", 1)
    return messages, None


def _comparable(message: Any) -> Any:
    if isinstance(message, Request):
        return (
            *msgspec.structs.astuple(message)[:2],
            bytes(message.params),
            *msgspec.structs.astuple(message)[3:],
        )
    return message


# --- sessions ------------------------------------------------------------------------------------


@attrs.define
class Host:
    """A store and what sessions of it share."""

    database: Database
    shared: Shared
    sessions: int = 0

    @classmethod
    def over(cls, database: Database) -> Host:
        """Around an open store."""
        settings = WireSettings(
            limits=LIMITS,
            hello_timeout_s=5.0,
            partial_timeout_s=5.0,
            memory_size_bytes_max=MEMORY_SIZE_BYTES_MAX,
        )
        budget = MemoryBudget(settings.memory_size_bytes_max)
        return cls(
            database,
            Shared(
                host=database,
                settings=settings,
                authenticate=accept_any,
                budget=budget,
                counters=Counters(),
                methods=Methods(),
            ),
        )

    async def send(self, random: Random, greeting: bytes, sent: bytes) -> list[Any]:
        """Let a session have it; returns its messages. Raises what the session raised."""
        self.sessions += 1
        ours, theirs = trio.testing.memory_stream_pair()
        session = Session(self.shared, theirs, self.sessions, "fuzz")
        received: list[Any] = []
        protocol = ClientConnection(Limits())
        protocol.send(Hello())
        with trio.fail_after(HANG_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.run)
                nursery.start_soon(_listen, ours, protocol, received)
                try:
                    for data in chunks(random, greeting):
                        await ours.send_all(data)
                    await trio.testing.wait_all_tasks_blocked()
                    for data in chunks(random, sent):
                        await ours.send_all(data)
                    if random.random() < 0.7:
                        await trio.testing.wait_all_tasks_blocked()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                await ours.send_stream.aclose()
                if random.random() < 0.3:
                    nursery.cancel_scope.deadline = trio.current_time() + HANG_S
                    await ours.aclose()
        return received


async def _listen(
    stream: trio.abc.ReceiveStream, protocol: ClientConnection, received: list[Any]
) -> None:
    try:
        while data := await stream.receive_some(65_536):
            received += protocol.receive_data(bytes(data))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def session_input(host: Host, seed: int, number: int, outcomes: Counter[str]) -> None:
    """One input to a session.

    Raises:
        Exception: it broke a promise, in one way or another.
    """
    random = Random(f"session {seed} {number}")
    messages = await host.send(random, *conversation(random))
    for message in messages:
        kind = type(message).__name__
        outcomes[f"error {message.code}" if isinstance(message, Failure) else kind] += 1
        assert not (isinstance(message, Failure) and message.code == "internal"), message
    with trio.fail_after(HANG_S):
        counters, budget = host.shared.counters, host.shared.budget
        while budget.used_bytes or counters.requests_in_flight:  # noqa: ASYNC110 (sets no event)
            await trio.sleep(0.001)
    assert host.shared.counters.streams == 0
    pinned = [snapshot.owner for snapshot in host.database.engine.snapshots()]
    assert not [owner for owner in pinned if "fuzz" in owner], pinned
    if number % 20 == 0:
        await _serve_well(host)


async def _serve_well(host: Host) -> None:
    """A client that keeps the rules is served as ever."""
    key = b"k%d" % (host.sessions % 30)
    asked = Request(1, "kv.put", msgspec.Raw(msgspec.msgpack.encode({"key": key, "value": b"v"})))
    read = Request(2, "kv.get", msgspec.Raw(msgspec.msgpack.encode({"key": key})))
    client = ClientConnection(Limits())
    greeting = client.send(Hello())
    assert isinstance(greeting, bytes)
    sent = b""
    for request in (asked, read):
        data = msgspec.msgpack.encode(request)
        sent += len(data).to_bytes(4, "big") + data
    random = Random(1)
    random.random = lambda: 0.5  # type: ignore[method-assign]
    answers = await host.send(random, greeting, sent)
    assert isinstance(answers[0], Welcome)
    assert {type(answer) for answer in answers[1:]} == {Response}, answers


NUMBERS = {"n": "int"}


async def _sessions(seed: int, numbers: range, result: Result) -> None:
    disk = SimDisk(seed)
    async with open_database("/db", options=OPTIONS, environment=environment(disk)) as database:
        host = Host.over(database)
        # Something to ask for: most calls make nothing.
        await database.documents.store("p", "v1", [{"title": "One", "node_id": "0000"}])
        for name in ("c", "d"):
            await database.collections.insert(name, {"_id": "a", "n": 1})
            await database.namespaces.create(name, {"vector": {"dim": 2}, "attributes": NUMBERS})
            await database.namespaces.upsert(name, [{"id": "a", "vector": [1, 1]}])
        for number in numbers:
            try:
                await session_input(host, seed, number, result.outcomes)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                raise Violation("session", seed, number, why) from error
            result.inputs["session"] += 1
        report = await database.admin.check()
        if not report.ok:
            raise Violation("session", seed, numbers[-1], f"check found {report.errors[:3]}")


# --- runs ----------------------------------------------------------------------------------------


def batch(layer: str, seed: int, numbers: range) -> Result:
    """Some inputs of one layer; ends at the first violation."""
    result = Result(seed)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        if layer == "session":
            trio.run(_sessions, seed, numbers, result)
        else:
            for number in numbers:
                try:
                    machine_input(seed, number, result.outcomes)
                except Exception as error:
                    why = f"{type(error).__name__}: {error}"
                    raise Violation("machine", seed, number, why) from error
                result.inputs["machine"] += 1
    except Violation as violation:
        result.violations.append(str(violation))
    result.memory_size_bytes_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result


def start_of_batch(layer: str, number: int) -> int:
    """The first input that shares a store with this one."""
    size = BATCH // 10 if layer == "session" else 1
    return number - number % size


def fuzz(
    inputs: int, seed: int, jobs: int, progress: Callable[[int], None] = lambda inputs: None
) -> Result:
    """Send so many inputs, on several processes; ends at the first violation."""
    began = time.monotonic()
    result = Result(seed)
    sessions = inputs // SESSIONS_SHARE
    work = [
        *_batches("machine", seed, inputs - sessions, BATCH),
        *_batches("session", seed, sessions, BATCH // 10),
    ]
    Random(seed).shuffle(work)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(task) for task in work]
        for future in as_completed(futures):
            result.add(future.result())
            progress(result.inputs.total())
            if result.violations:
                pool.shutdown(wait=True, cancel_futures=True)
                break
    result.elapsed_s = time.monotonic() - began
    return result


def _batches(layer: str, seed: int, inputs: int, size: int) -> list[Callable[[], Result]]:
    return [
        partial(batch, layer, seed, range(first, min(first + size, inputs)))
        for first in range(0, inputs, size)
    ]
