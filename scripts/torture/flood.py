"""``chaos.py flood``: attacks on a real server, beside clients that keep the rules.

For each attack: latency of well-behaved clients before and during it, and the server's resident
memory. The clients' errors must be none, their median within `LATENCY_RATIO_MAX` of calm, and the
memory below what the budgets add up to. Latencies are not judged on a machine on which other
programs want more processors than there are: a server that gets a tenth of one has nothing to spare
for an attack, and the ratio tells of the others.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import attrs
import msgspec
import trio

import treestore
from protocol.connection import ClientConnection
from protocol.limits import Limits
from protocol.messages import Credit, Hello, Part, Request
from scripts.torture.hostile import conversation, encode, framed
from scripts.torture.process import ServerProcess
from treestore.errors import TreeStoreError

CHECKOUT = Path(__file__).resolve().parents[2]
LATENCY_RATIO_MAX = 5.0
LOAD_MAX = 2.0
"""Processes that want to run, for each processor, beyond which latencies are not judged."""
WIRE_MEMORY_MB = 64
CACHE_MB = 32
BASE_MB = 160
"""Interpreter, libraries, log buffers: what a server with an empty store takes, and some room."""
GOOD_CLIENTS = 8
PAUSE_S = 0.005


@attrs.define
class Phase:
    """What well-behaved clients saw during one attack."""

    name: str
    attackers: int
    latencies_ms: list[float] = attrs.Factory(list)
    errors: list[str] = attrs.Factory(list)
    memory_mb_peak: float = 0.0

    @property
    def median_ms(self) -> float:
        """Of a read or a write."""
        return statistics.median(self.latencies_ms) if self.latencies_ms else 0.0

    @property
    def p99_ms(self) -> float:
        """Likewise."""
        ordered = sorted(self.latencies_ms)
        return ordered[int(len(ordered) * 0.99)] if ordered else 0.0


@attrs.define
class Result:
    """All phases; the first is calm."""

    phases: list[Phase] = attrs.Factory(list)
    problems: list[str] = attrs.Factory(list)
    remarks: list[str] = attrs.Factory(list)
    """What was left out, and why."""

    @property
    def ok(self) -> bool:
        """The promises held."""
        return not self.problems


Attack = Callable[[tuple[str, int], Random], Awaitable[None]]


async def slow_loris(address: tuple[str, int], random: Random) -> None:
    """A hello that never ends, a byte at a time."""
    async with await trio.open_tcp_stream(*address) as stream:
        for byte in framed(encode(Hello(software="x" * 900))):
            await stream.send_all(bytes([byte]))
            await trio.sleep(random.uniform(0.2, 0.6))


async def connect_and_leave(address: tuple[str, int], random: Random) -> None:
    """Connections that say hello, or nothing, and go."""
    stream = await trio.open_tcp_stream(*address)
    if random.random() < 0.5:
        await stream.send_all(framed(encode(Hello())))
    await trio.sleep(random.uniform(0, 0.02))
    await stream.aclose()


async def half_messages(address: tuple[str, int], random: Random) -> None:
    """Messages of megabytes that are never finished."""
    async with await _greeted(address) as stream:
        for number in range(1, 17):
            for _ in range(8):
                await stream.send_all(
                    framed(encode(Part(number, False, memoryview(bytes(1_000_000)))))
                )
        await trio.sleep(random.uniform(0.5, 2))


async def nesting(address: tuple[str, int], random: Random) -> None:
    """Parameters nested half a million deep, and maps of nothing but tiny items."""
    async with await _greeted(address) as stream:
        deep = b"\x95\x10\x01\xa6kv.get\x81\xa3key" + b"\x91" * 500_000 + b"\x01"
        await stream.send_all(framed(deep))
        await trio.sleep(random.uniform(0.05, 0.2))


async def garbage(address: tuple[str, int], random: Random) -> None:
    """Damaged conversations."""
    async with await trio.open_tcp_stream(*address) as stream:
        greeting, sent = conversation(random)
        await stream.send_all(greeting)
        await trio.sleep(0.01)
        await stream.send_all(sent)
        await trio.sleep(0.02)


async def never_reads(address: tuple[str, int], random: Random) -> None:
    """Asks for all there is, again and again, and takes no answer."""
    async with await _greeted(address) as stream:
        for number in range(1, 400):
            request = Request(number, "kv.get", _raw({"key": b"large"}))
            await stream.send_all(framed(encode(request)))
            await stream.send_all(framed(encode(Request(number + 10_000, "kv.scan", _raw({})))))
            await stream.send_all(framed(encode(Credit(number + 10_000, 2**40))))
        await trio.sleep(random.uniform(1, 2))


async def busy(address: tuple[str, int], random: Random) -> None:
    """As many requests as the pipe takes, and all of them legal."""
    async with await _greeted(address) as stream:
        requests = b"".join(
            framed(encode(Request(number, "kv.get", _raw({"key": b"k%d" % (number % 50)}))))
            for number in range(1, 500)
        )
        await stream.send_all(requests)
        with trio.move_on_after(random.uniform(0.2, 0.5)):
            while await stream.receive_some(65_536):
                pass


def _raw(parameters: dict[str, object]) -> msgspec.Raw:
    return msgspec.Raw(encode(parameters))


async def _greeted(address: tuple[str, int]) -> trio.SocketStream:
    stream = await trio.open_tcp_stream(*address)
    protocol = ClientConnection(Limits())
    sent = protocol.send(Hello())
    assert isinstance(sent, bytes)
    await stream.send_all(sent)
    await stream.receive_some(4096)
    return stream


ATTACKS: dict[str, tuple[Attack, int]] = {
    "slow loris": (slow_loris, 200),
    "connection flood": (connect_and_leave, 10),
    "half-sent messages": (half_messages, 6),
    "deep nesting": (nesting, 4),
    "garbage": (garbage, 4),
    "never reads": (never_reads, 6),
    "busy": (busy, 2),
}
"""Attack, and how many attackers at a time."""


async def _attack(attack: Attack, address: tuple[str, int], random: Random) -> None:
    while True:
        try:
            await attack(address, random)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.sleep(0.01)


async def _behave(address: str, phase: Phase) -> None:
    """Reads and writes, one at a time."""
    async with treestore.connect(address, connections=1, timeout=20.0) as db:
        number = 0
        while True:
            number += 1
            began = time.perf_counter()
            try:
                if number % 4:
                    await db.kv.get(b"k%d" % (number % 50))
                else:
                    await db.kv.put(b"good", b"%d" % number)
            except TreeStoreError as error:
                phase.errors.append(f"{error.code}: {error}")
            phase.latencies_ms.append((time.perf_counter() - began) * 1000)
            await trio.sleep(PAUSE_S)


def attack_main(arguments: list[str]) -> None:
    """What the attackers' process runs: name, host, port, seconds and seed. A process of its own,
    so that the well-behaved clients do not share an event loop with them."""
    name, host, port, seconds, seed = arguments

    async def main() -> None:
        attack, count = ATTACKS[name]
        with trio.move_on_after(float(seconds)):
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    random = Random(f"{seed} {name} {number}")
                    nursery.start_soon(_attack, attack, (host, int(port)), random)

    trio.run(main)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=CHECKOUT)


async def _phase(server: ServerProcess, name: str, seconds: float, seed: int) -> Phase:
    phase = Phase(name, ATTACKS[name][1] if name in ATTACKS else 0)
    host, port = server.tcp
    attackers: subprocess.Popen[bytes] | None = None
    if name in ATTACKS:
        # They begin before the clients do and end after them.
        arguments = [name, host, str(port), str(seconds + 3), str(seed)]
        command = [sys.executable, "-m", "scripts.torture.flood", *arguments]
        attackers = await trio.to_thread.run_sync(_start, command)
        await trio.sleep(1.5)
    try:
        # Not a time limit around them: that would become the deadline of their last calls.
        until = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(GOOD_CLIENTS):
                nursery.start_soon(_behave, f"{host}:{port}", phase)
            while trio.current_time() < until:
                phase.memory_mb_peak = max(phase.memory_mb_peak, resident_mb(server.pid))
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
    finally:
        if attackers is not None:
            attackers.kill()
            attackers.wait(10)
    return phase


def resident_mb(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def flood(
    server: ServerProcess, seconds: float, seed: int, progress: Callable[[int], None]
) -> Result:
    """All attacks, so many seconds each."""
    result = Result()
    address = f"{server.tcp[0]}:{server.tcp[1]}"
    async with treestore.connect(address) as db:
        await db.kv.batch(puts=[(b"k%d" % n, b"x" * 100) for n in range(50)])
        await db.kv.put(b"large", bytes(4_000_000))
    memory_mb_max = WIRE_MEMORY_MB + CACHE_MB + BASE_MB
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    judged = load <= LOAD_MAX * processors
    if not judged:
        result.remarks.append(
            f"latencies are not judged: {load:.1f} processes wanted to run on {processors} "
            "processors before the first attack"
        )
    for done, name in enumerate(["calm", *ATTACKS]):
        phase = await _phase(server, name, seconds, seed)
        result.phases.append(phase)
        calm = result.phases[0].median_ms
        if phase.errors:
            result.problems.append(f"{name}: {len(phase.errors)} errors, {phase.errors[0]}")
        if judged and phase.median_ms > LATENCY_RATIO_MAX * calm:
            ratio = phase.median_ms / calm
            result.problems.append(f"{name}: latency {ratio:.1f} times that of calm")
        if phase.memory_mb_peak > memory_mb_max:
            result.problems.append(f"{name}: {phase.memory_mb_peak:.0f} MiB, over {memory_mb_max}")
        if not server.running:
            result.problems.append(f"{name}: the server ended")
            break
        progress(done + 1)
    async with treestore.connect(address) as db:
        result.problems += (await db.admin.check()).errors
    return result


def run(seconds: float, seed: int, progress: Callable[[int], None] = lambda phases: None) -> Result:
    """`flood` on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="treestore-flood-") as directory:
        flags = (
            *("--wire-memory-mb", str(WIRE_MEMORY_MB), "--cache-size-mb", str(CACHE_MB)),
            *("--max-connections", "400"),
        )
        server = ServerProcess(Path(directory) / "data", Path(directory) / "server.log", flags)
        server.start()
        try:
            return trio.run(flood, server, seconds, seed, progress)
        finally:
            server.kill()


if __name__ == "__main__":
    attack_main(sys.argv[1:])
