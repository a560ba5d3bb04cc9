"""The server's machine: a disk, a process on it, and the ways in which either can end.

A *life* is one run of the server process: the store is opened (and recovered), clients are
served, until the life is stopped or ends by itself. A life that is killed goes on as a ghost for a
while, since trio has no way to kill a task: but its disk answers nothing but errors and its
connections are gone, so nothing that it does can be seen. The next life does not wait for it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextvars import ContextVar
from random import Random

import attrs
import trio

from actors.database import Database, open_database
from actors.listener import Listener, serve_on
from actors.mail import WriterLimits
from actors.wire import WireSettings
from protocol.limits import KIB, Limits
from scripts.simulation.determinism import Trace
from scripts.simulation.network import Network
from scripts.simulation.threads import SimulatedThreads
from tests.crash.simdisk import SimDisk
from treestore.engine.options import EngineOptions, Environment
from treestore.errors import TreeStoreError

DIRECTORY = "/db"
EPOCH_NS = 1_700_000_000_000_000_000

OPTIONS = EngineOptions(
    page_size_bytes=1024,
    cache_size_bytes=4_000,
    log_size_bytes_max=4 << 20,
    log_segment_size_bytes_min=1 << 16,
    log_segment_size_bytes_max=1 << 18,
    transaction_size_bytes_max=1 << 20,
    headroom_pages=16,
    checkpoint_records=40,
    checkpoint_interval_s=0.7,
)
"""Small pages make deep trees, a small cache forgets, a small log is full soon."""

WIRE = WireSettings(
    limits=Limits(frame_size_bytes_max=16 * KIB),
    hello_timeout_s=2.0,
    keep_alive_interval_s=1.0,
    keep_alive_timeout_s=3.0,
    write_timeout_s=2.0,
    partial_timeout_s=2.0,
    grace_s=1.0,
)

LIMITS = WriterLimits(mailbox_count_max=16, group_count_max=8, group_size_bytes_max=64 << 10)


LIFE: ContextVar[Life] = ContextVar("life")
"""Whose task this is: tasks inherit it."""


class Life:
    """One run of the server process."""

    def __init__(self, number: int, machine: Machine) -> None:
        self.number = number
        self.disk = machine.disk
        self.threads = SimulatedThreads(machine.nursery, machine.random)
        self.database: Database | None = None
        self.dead = False
        self.killed = False
        self.over = trio.Event()
        """Nothing that it does can be seen any more."""
        self.ended = trio.Event()
        """It is gone altogether."""
        self.step_of_death: int | None = None
        """The step on the disk at which the power fails, or the process is killed ..."""
        self.place_of_death = ""
        """... where only steps on such paths count."""
        self.error: Exception | None = None
        self._machine = machine
        self._scope = trio.CancelScope()
        self._stopping = trio.Event()
        self.disk.on_step = self._step
        self.disk.gone = lambda why: OSError(errno.EIO, why)

    def _step(self, number: int, op: str, path: str) -> None:
        self._machine.trace.note("disk", op, path)
        if self.step_of_death is not None and self.place_of_death in path:
            self.step_of_death -= 1
            if self.step_of_death <= 0:
                self.kill(power=self._machine.random.random() < 0.7)
        self.threads.pause()
        # Where it died meanwhile, the disk says so next.

    def kill(self, *, power: bool) -> None:
        """The end, now: of the power, or of the process alone."""
        if self.dead or self.over.is_set():
            return
        self._machine.trace.note("power failure" if power else "kill", self.number)
        self.dead = self.killed = True
        self._machine.network.server_died(silently=power)
        self._machine.disk = (
            self.disk.crash(self._machine.random) if power else self.disk.hand_over()
        )
        self.disk.dead = True
        self.over.set()
        self._scope.cancel()

    def stop(self) -> None:
        """Ask it to end properly, as SIGTERM does."""
        self._machine.trace.note("stop", self.number)
        self._stopping.set()

    async def run(self) -> None:
        """Open, recover, serve, close. Raises nothing but cancellation."""
        machine = self._machine
        machine.trace.note("start", self.number)
        LIFE.set(self)
        environment = Environment(self.disk, machine.clock_ns, machine.random, self.threads.pause)
        try:
            with self._scope:
                async with open_database(
                    DIRECTORY,
                    options=machine.options,
                    limits=LIMITS,
                    environment=environment,
                    threads=self.threads,
                ) as database:
                    self.database = database
                    machine.trace.note("open", self.number, database.report.replayed_transactions)
                    await self._serve(database)
        except* (TreeStoreError, OSError) as group:
            self._failed(group)
        except* Exception as group:
            self._failed(group)
            if not self.dead:
                machine.fault(f"The server failed: {_leaf(group)!r}")
        finally:
            self.database = None
            if not self.dead:
                machine.network.server_died(silently=False)
                machine.disk = self.disk.hand_over()
                self.dead = True
                self.over.set()
            machine.trace.note("end", self.number)
            self.ended.set()

    def _failed(self, group: BaseExceptionGroup[Exception]) -> None:
        self.error = _leaf(group)
        self._machine.trace.note("failed", self.number, type(self.error).__name__)

    async def _serve(self, database: Database) -> None:
        listeners: list[Listener] = []
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await serve_on(
                    [self._machine.network.listen()],
                    [("simulated", 1)],
                    database,
                    settings=WIRE,
                    started=listeners.append,
                )

            nursery.start_soon(serve)
            await self._stopping.wait()
            for listener in listeners:
                listener.stop()


def _leaf(group: BaseException) -> Exception:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    assert isinstance(group, Exception)
    return group


@attrs.define(eq=False)
class Machine:
    """The disk, and one life after the other on it."""

    random: Random
    trace: Trace
    network: Network
    nursery: trio.Nursery
    """For what outlives a life: its ghost and its log thread."""
    fault: Callable[[str], None]
    options: EngineOptions = OPTIONS
    disk: SimDisk = attrs.field(init=False)
    life: Life | None = attrs.field(init=False, default=None)
    lives: int = attrs.field(init=False, default=0)
    _ghosts: list[Life] = attrs.field(init=False, factory=list)
    _next_step_of_death: int | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.disk = SimDisk(self.random.getrandbits(32))

    def clock_ns(self) -> int:
        """The wall clock."""
        return EPOCH_NS + int(trio.current_time() * 1e9)

    def die_early(self, steps: int | None) -> None:
        """Let the next life end after so many steps on the disk: perhaps while it recovers."""
        self._next_step_of_death = steps

    async def run(self) -> None:
        """Live until cancelled: after each end the next life begins a little later."""
        while True:
            life = self.life = Life(self.lives, self)
            self.lives += 1
            self._ghosts = [ghost for ghost in self._ghosts if not ghost.ended.is_set()] + [life]
            life.step_of_death, self._next_step_of_death = self._next_step_of_death, None
            self.nursery.start_soon(life.run)
            await life.over.wait()
            if not life.killed and life.error is not None and not _excused(life.error):
                self.fault(f"The store could not be opened, or closed: {life.error!r}")
            await trio.sleep(self.random.choice((0.0, 0.01, 0.1, 0.5)))

    async def writable(self) -> None:
        """Return once a life takes writes; one that has become read-only is restarted."""
        while True:
            life = self.life
            if life is not None and life.database is not None:
                if life.database.engine.failed is None:
                    return
                life.stop()
                await life.ended.wait()
            await trio.sleep(0.1)

    def switch_off(self) -> None:
        """The end of the machine."""
        if self.life is not None:
            self.life.kill(power=True)

    async def ghosts_gone(self) -> None:
        """Return once every life has ended altogether."""
        for ghost in self._ghosts:
            await ghost.ended.wait()


def _excused(error: Exception) -> bool:
    """Whether the disk failed, or is full, as it was told to."""
    return isinstance(error, TreeStoreError) and error.code in ("unavailable", "resource_exhausted")
