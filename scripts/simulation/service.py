"""Run the simulated service: one seed, one world; many seeds for as long as you like.

    python -m scripts.simulation.service --seeds 1000 --seed 1 --jobs 2

Prints each seed whose history breaks a promise, with the command that plays it again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterator, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from random import Random

import attrs
import structlog
import trio
from rich.console import Console

from scripts.simulation.clients import LISTS, VERSION, Process, run_client
from scripts.simulation.determinism import Trace, lift_shields, run_deterministically
from scripts.simulation.faults import Faults
from scripts.simulation.history import History
from scripts.simulation.judge import judge
from scripts.simulation.machine import DIRECTORY, LIFE, Machine
from scripts.simulation.network import Network
from scripts.simulation.watchers import Watcher
from treestore.client.connection import Target
from treestore.client.remote import RemoteDatabase, connect_to
from treestore.engine.check import check_engine
from treestore.engine.directory import open_engine
from treestore.engine.options import Environment
from treestore.errors import TreeStoreError

SETTLED_S = 300.0
"""Virtual time that no part of a world may take; then something hangs."""


@attrs.frozen
class Plan:
    """How large a world is. Times are virtual."""

    clients: int = 3
    processes: int = 2
    watchers: int = 2
    duration_s: float = 10.0
    fault_pause_s: float = 0.8
    faults: frozenset[str] | None = None
    """Names of the methods of `Faults` that are played; None: all."""


@attrs.frozen
class Result:
    """What came of one seed."""

    seed: int
    violations: list[str]
    digest: str
    """Hash of all events: the same seed gives the same."""
    events: int
    calls: int
    outcomes: dict[str, int]
    lives: int
    faults: dict[str, int]
    virtual_s: float
    trace: list[str] | None = attrs.field(default=None, repr=False)


def run(seed: int, plan: Plan | None = None, *, keep_trace: bool = False) -> Result:
    """Play one world, and judge it."""
    world = World(seed, plan or Plan(), keep_trace)
    with _log_taken(world):
        try:
            run_deterministically(seed, world.play)
        except BaseExceptionGroup as group:
            raise AssertionError(f"the simulation itself failed with seed {seed}") from group
    return world.result()


@contextmanager
def _log_taken(world: World) -> Generator[None]:
    """Errors with a traceback in the server's log are faults of the server."""

    def take(_logger: object, _method: str, event: MutableMapping[str, object]) -> str:
        world.logged(event)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[take], wrapper_class=structlog.make_filtering_bound_logger(0))
    try:
        yield
    finally:
        structlog.configure(**before)


class World:
    """One seed's world."""

    def __init__(self, seed: int, plan: Plan, keep_trace: bool) -> None:
        self.seed = seed
        self.plan = plan
        self.random = Random(seed)
        self.trace = Trace(keep=keep_trace)
        self.history = History()
        self.watchers: list[Watcher] = []
        self.calls = 0
        self.virtual_s = 0.0
        self.machine: Machine | None = None
        self.faults: Faults | None = None

    def logged(self, event: MutableMapping[str, object]) -> None:
        """The server, or a client, wrote to its log."""
        self.trace.note("log", event.get("event"))
        life = LIFE.get(None)
        if event.get("exc_info") and (life is None or not life.dead):
            error = sys.exc_info()[1]
            self.history.fault(f"In the log: {event}: {error!r}")

    async def play(self) -> None:
        """From the first start to the last check."""
        random = self.random
        network = Network(Random(random.getrandbits(64)), self.trace)
        async with trio.open_nursery() as ghosts:
            self.machine = machine = Machine(
                Random(random.getrandbits(64)), self.trace, network, ghosts, self.history.fault
            )
            async with trio.open_nursery() as nursery:
                # There is no use in going on after something that must never happen.
                self.history.on_fault = nursery.cancel_scope.cancel
                nursery.start_soon(machine.run)
                for number in range(self.plan.watchers):
                    watcher = Watcher(number, network, self.history, Random(random.getrandbits(64)))
                    self.watchers.append(watcher)
                    nursery.start_soon(watcher.run)
                for phase in (self._prepare, self._disturb, self._settle, self._end):
                    with trio.move_on_after(SETTLED_S) as scope:
                        await phase(network, machine)
                    if scope.cancelled_caught:
                        self.history.fault(f"The service hangs, in {phase.__name__}.")
                        lift_shields()
                        break
                nursery.cancel_scope.cancel()
            self.virtual_s = trio.current_time()
            machine.switch_off()
            with trio.move_on_after(SETTLED_S) as scope:
                await machine.ghosts_gone()
            if scope.cancelled_caught:
                self.history.fault("A server that was killed does not end.")
                lift_shields()
            ghosts.cancel_scope.cancel()

    async def _disturb(self, network: Network, machine: Machine) -> None:
        """Clients at work, and faults."""
        plan = self.plan
        self.faults = faults = Faults(machine, network, Random(self.random.getrandbits(64)))
        until_s = trio.current_time() + plan.duration_s
        async with trio.open_nursery() as players:
            players.start_soon(faults.play, until_s, plan.fault_pause_s, plan.faults)
            for client in range(plan.clients):
                players.start_soon(self._client, client, network, until_s)

    async def _client(self, client: int, network: Network, until_s: float) -> None:
        random = Random(self.random.getrandbits(64))
        self.calls += await run_client(
            client, network, self.history, random, self.plan.processes, until_s
        )

    @asynccontextmanager
    async def _connected(self, network: Network) -> AsyncGenerator[RemoteDatabase]:
        """A client that is as patient as it takes."""
        target = Target(
            host="simulated",
            port=1,
            random=Random(self.random.getrandbits(64)),
            open_stream=network.open_stream,
            keep_alive_interval_s=1.0,
            keep_alive_timeout_s=3.0,
        )
        async with AsyncExitStack() as stack:
            while True:
                try:
                    db = await stack.enter_async_context(connect_to(target, 1, 60.0))
                    break
                except TreeStoreError:
                    await trio.sleep(0.1)
            yield db

    async def _prepare(self, network: Network, _machine: Machine) -> None:
        """What has to be there before anything goes wrong."""
        async with self._connected(network) as db:
            for name in LISTS:
                await db.documents.store(name, VERSION, [])

    async def _settle(self, network: Network, machine: Machine) -> None:
        """All is well again: read everything that there is, so that it is judged."""
        await machine.writable()
        async with self._connected(network) as db:
            last = Process(-1, db, self.history, Random(self.random.getrandbits(64)))
            await last.look_at_everything()
            async with db.snapshot() as snapshot:
                for watcher in self.watchers:
                    watcher.finish_at(snapshot.lsn)
            for watcher in self.watchers:
                await watcher.finished.wait()

    async def _end(self, _network: Network, machine: Machine) -> None:
        """Stop the server properly, and check what it leaves."""
        life = machine.life
        assert life is not None
        life.stop()
        await life.ended.wait()
        if life.error is not None:
            self.history.fault(f"The last stop failed: {life.error!r}")
            return
        store = open_engine(
            DIRECTORY,
            machine.options,
            Environment(machine.disk.clone(), machine.clock_ns, machine.random),
        )
        report = check_engine(store.engine)
        if not report.ok:
            self.history.fault(f"The last check found {report.errors}.")
        if store.report.replayed_transactions:
            self.history.fault("A store that was closed properly had something to replay.")
        store.close()

    def result(self) -> Result:
        """What came of it."""
        outcomes = Counter(f"{call.name} {call.outcome}" for call in self.history.calls)
        return Result(
            seed=self.seed,
            violations=judge(self.history),
            digest=self.trace.digest(),
            events=self.trace.events,
            calls=len(self.history.calls),
            outcomes=dict(sorted(outcomes.items())),
            lives=0 if self.machine is None else self.machine.lives,
            faults={} if self.faults is None else self.faults.played,
            virtual_s=self.virtual_s,
            trace=self.trace.lines,
        )


def replay_command(seed: int) -> str:
    """What plays a seed again, with all that happens in it."""
    return f"python -m scripts.simulation.service --seed {seed} --trace"


def run_seeds(seeds: Sequence[int], jobs: int) -> Iterator[Result]:
    """Play many worlds, on so many processes; results as they come."""
    if jobs == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=50) as pool:
        yield from pool.imap_unordered(run, seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--trace", action="store_true", help="print every event")
    given = parser.parse_args(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if given.trace:
        result = run(given.seed, keep_trace=True)
        for line in result.trace or ():
            console.print(line)
        _report(console, result)
        return 1 if result.violations else 0
    began, bad, calls, lives = time.perf_counter(), 0, 0, 0
    seeds = range(given.seed, given.seed + given.seeds)
    for result in run_seeds(seeds, given.jobs):
        calls += result.calls
        lives += result.lives
        if result.violations:
            bad += 1
            _report(console, result)
    took = time.perf_counter() - began
    console.print(
        f"{len(seeds)} seeds, {bad} of them bad; {calls} calls, {lives} lives of the server; "
        f"{len(seeds) / took:.2f} seeds/s, {calls / took:.0f} calls/s"
    )
    return 1 if bad else 0


def _report(console: Console, result: Result) -> None:
    console.print(
        f"seed {result.seed}: {result.calls} calls, {result.lives} lives, {result.events} events, "
        f"{result.virtual_s:.1f} s, trace {result.digest}"
    )
    for violation in result.violations:
        console.print(f"  {violation}")
    if result.violations:
        console.print(f"  again: {replay_command(result.seed)}")


if __name__ == "__main__":
    sys.exit(main())
