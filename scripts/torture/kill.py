"""``chaos.py kill``: a real server under real clients is killed, frozen, cut off and starved.

Each round lets the clients work while mishaps befall the server, then kills it, starts it again
and holds what is there against what the clients know. The clients live through all rounds: they
reconnect, retry, and are told the truth, or that the outcome is unknown.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random

import attrs
import trio

import treestore
from scripts.torture.clients import Clients, prepare, verify
from scripts.torture.ledger import Loss
from scripts.torture.process import ServerProcess
from scripts.torture.proxy import Proxy
from treestore.client.remote import RemoteDatabase
from treestore.errors import TreeStoreError

DISK_SIZE_MB = 128
CALL_TIMEOUT_S = 3.0
VERIFY_TIMEOUT_S = 120.0
FLAGS = ("--checkpoint-wal-mb", "1", "--checkpoint-interval", "1", "--wal-size-mb", "64")
"""Small limits: checkpoints and rotations happen in every round."""

FULL_DISK_S = 5.0
"""How long a full disk is written on at most."""

BALLAST_KEY = b"ballast"
BALLAST_BYTES = 400_000

CLOCK_JUMPS_S = (-86_400, -3_600, -1, 1, 3_600, 86_400, 30 * 86_400)


@attrs.define
class Result:
    """What a run did and found."""

    seed: int
    rounds: int = 0
    mishaps: Counter[str] = attrs.Factory(Counter)
    skipped: tuple[str, ...] = ()
    """Mishaps that this machine does not allow, with the reason."""
    calls: int = 0
    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    errors: dict[str, int] = attrs.Factory(dict)
    resets: int = 0
    start_ms_median: float = 0.0
    start_ms_max: float = 0.0
    elapsed_s: float = 0.0
    losses: list[Loss] = attrs.Factory(list)
    failure: str = ""
    """Why the run could not go on, such as a server that does not start."""

    @property
    def ok(self) -> bool:
        """Nothing was lost."""
        return not self.losses and not self.failure


@attrs.define
class Torture:
    """The server, what stands around it, and the mishaps."""

    random: Random
    server: ServerProcess
    proxy: Proxy
    clients: Clients
    result: Result
    database: RemoteDatabase
    disk: Path | None
    """Mount point of a small file system of its own, if there is one."""

    def mishaps(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Those that this machine allows, by name."""
        every: dict[str, Callable[[], Awaitable[None]]] = {
            "none": self.none,
            "frozen": self.freeze,
            "connections reset": self.reset,
            "cut in mid-frame": self.cut,
            "network stalled": self.stall,
            "clock jumped": self.jump,
        }
        if self.disk is not None:
            every["disk full"] = self.fill_disk
        return every

    async def none(self) -> None:
        """Only the kill at the end of the round."""
        await trio.sleep(self.random.uniform(0.05, 0.6))

    async def freeze(self) -> None:
        """SIGSTOP for a while, sometimes longer than the clients wait."""
        self.server.freeze()
        await trio.sleep(self.random.choice([0.1, 0.5, CALL_TIMEOUT_S + 0.5]))
        self.server.thaw()
        await trio.sleep(0.1)

    async def reset(self) -> None:
        """RST on all or some connections, several times."""
        for _ in range(self.random.randrange(1, 5)):
            self.proxy.reset(self.random.choice([0.5, 1.0]))
            await trio.sleep(self.random.uniform(0.02, 0.2))

    async def cut(self) -> None:
        """Connections end somewhere within a frame, in either direction."""
        for _ in range(self.random.randrange(1, 5)):
            self.proxy.doom(self.random.choice([0.5, 1.0]))
            await trio.sleep(self.random.uniform(0.02, 0.2))

    async def stall(self) -> None:
        """Nothing passes for a while; then the half of the connections is cut."""
        self.proxy.stall()
        await trio.sleep(self.random.choice([0.2, 1.0]))
        self.proxy.reset(0.5)
        self.proxy.resume()
        await trio.sleep(0.1)

    async def fill_disk(self) -> None:
        """Somebody else takes all room; what is freed again depends."""
        assert self.disk is not None
        junk = self.disk / "junk"
        await trio.to_thread.run_sync(_fill, junk)
        await self.write_until_refused()
        if self.random.random() < 0.5:
            # The server dies with the disk still full, and has to start on it.
            self.result.mishaps["started on a full disk"] += 1
            await self.kill_and_start()
            await trio.sleep(0.3)
        junk.unlink()
        await trio.sleep(0.2)

    async def write_until_refused(self) -> None:
        """Use up what the store had reserved: only then is it seen how it refuses."""
        before = self.clients.ledger.refused
        with trio.move_on_after(FULL_DISK_S):
            while self.clients.ledger.refused == before:
                value = self.random.randbytes(BALLAST_BYTES)
                put = partial(self.database.kv.put, BALLAST_KEY, value)
                try:
                    await self.clients.write(BALLAST_KEY, value, put)
                except TreeStoreError as error:
                    self.clients.count(error)
                    await trio.sleep(0.02)

    async def jump(self) -> None:
        """The wall clock jumps, backwards too."""
        assert self.server.clock_file is not None
        for _ in range(3):
            offset = self.random.choice(CLOCK_JUMPS_S)
            self.server.clock_file.write_text(f"{offset:+d}\n")
            await trio.sleep(0.1)

    async def kill_and_start(self) -> None:
        """SIGKILL, then the next life."""
        await trio.to_thread.run_sync(self.server.kill)
        self.proxy.reset()
        self.result.mishaps["killed"] += 1
        await trio.to_thread.run_sync(self.server.start)
        self.proxy.target = self.server.tcp

    async def round(self) -> None:
        """Mishaps, a kill, a start, and the verification."""
        self.clients.go()
        every = self.mishaps()
        for _ in range(self.random.choice([1, 1, 2])):
            name = self.random.choice(list(every))
            if name != "none":
                self.result.mishaps[name] += 1
            await every[name]()
        await self.kill_and_start()
        # Some work in the new life, so that retries of the old one meet it.
        await trio.sleep(self.random.uniform(0.0, 0.3))
        await self.clients.rest()
        self.proxy.reset()
        host, port = self.server.tcp
        async with treestore.connect(f"{host}:{port}", timeout=VERIFY_TIMEOUT_S) as db:
            await verify(db, self.clients)
        self.result.rounds += 1


def _fill(junk: Path) -> None:
    with junk.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 512):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@contextmanager
def small_disk(mount: Path) -> Generator[Path | str]:
    """A file system of its own, or the reason why there is none."""
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE_MB}m", "tmpfs", str(mount)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        yield "there is no mount command"
        return
    if done.returncode:
        yield f"this user may not mount a file system: {done.stderr.strip()}"
        return
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


async def torture(
    rounds: int,
    seed: int,
    directory: Path,
    *,
    tasks: int = 12,
    real_disk: bool = False,
    progress: Callable[[int], None] = lambda rounds: None,
) -> Result:
    """Run so many rounds on a store in ``directory``; ends early at the first loss.

    Args:
        rounds: how many; each kills the server at least once.
        seed: of the mishaps. Real processes are not deterministic: it brings the same mishaps.
        directory: for data and logs; it must exist.
        tasks: tasks on single keys.
        real_disk: keep the data in ``directory`` itself and leave the full disk out.
        progress: told the rounds so far.
    """
    random = Random(seed)
    result = Result(seed)
    began = time.monotonic()
    with small_disk(directory / "disk") as disk:
        skipped = []
        small = disk if isinstance(disk, Path) and not real_disk else None
        if small is None:
            skipped.append(f"disk full: {disk if isinstance(disk, str) else 'not asked for'}")
        clock_file = directory / "clock"
        clock_file.write_text("+0\n")
        result.skipped = tuple(skipped)
        data = (small or directory) / "data"
        server = ServerProcess(data, directory / "server.log", FLAGS, clock_file=clock_file)
        try:
            await _run(rounds, random, server, result, small, tasks, progress)
        finally:
            if server.running:
                server.kill()
    result.elapsed_s = time.monotonic() - began
    if server.start_ms:
        result.start_ms_median = statistics.median(server.start_ms)
        result.start_ms_max = max(server.start_ms)
    return result


async def _run(
    rounds: int,
    random: Random,
    server: ServerProcess,
    result: Result,
    disk: Path | None,
    tasks: int,
    progress: Callable[[int], None],
) -> None:
    await trio.to_thread.run_sync(server.start)
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        proxy = Proxy(random, server.tcp)
        await nursery.start(proxy.run_proxy)
        address = f"127.0.0.1:{proxy.port}"
        databases = [
            await stack.enter_async_context(treestore.connect(address, timeout=CALL_TIMEOUT_S))
            for _ in range(2)
        ]
        await prepare(databases[0])
        clients = Clients(random)
        nursery.start_soon(clients.run, databases, tasks)
        work = Torture(random, server, proxy, clients, result, databases[0], disk)
        try:
            while result.rounds < rounds and not clients.ledger.losses:
                await work.round()
                progress(result.rounds)
        except (RuntimeError, TreeStoreError) as error:
            result.failure = f"{type(error).__name__}: {error}"
        ledger = clients.ledger
        result.losses, result.calls = ledger.losses, clients.calls
        result.acknowledged, result.unknown = ledger.acknowledged, ledger.unknown
        result.refused, result.errors = ledger.refused, clients.errors
        result.resets = proxy.resets
        nursery.cancel_scope.cancel()


def run(
    rounds: int,
    seed: int,
    directory: Path | None = None,
    progress: Callable[[int], None] = lambda rounds: None,
) -> Result:
    """`torture` in a scratch directory, which is kept where something was lost."""
    scratch = Path(tempfile.mkdtemp(prefix="treestore-chaos-", dir=directory))
    result = trio.run(lambda: torture(rounds, seed, scratch, progress=progress))
    if result.ok:
        shutil.rmtree(scratch, ignore_errors=True)
    else:
        result.failure += f" (data, if not on a file system of its own, and logs: {scratch})"
    return result
