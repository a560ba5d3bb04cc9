"""Everything bad that happens, when the seed says so.

Each fault is a coroutine that does one thing and comes back once it is over; several may be under
way at a time. `calm` ends all of it, so that what the clients see last can be compared with what
they were told before.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

import attrs
import trio

from scripts.simulation.machine import Machine
from scripts.simulation.network import Network

RESTART_S = 1.0
"""How long somebody takes to notice a read-only store, and to restart it."""


@attrs.define(eq=False)
class Faults:
    """Plays faults on one machine and its network."""

    machine: Machine
    network: Network
    random: Random
    played: dict[str, int] = attrs.field(factory=dict)

    async def play(self, until_s: float, pause_s: float, names: frozenset[str] | None) -> None:
        """One fault after the other, about ``pause_s`` apart, until that time.

        Args:
            names: of the methods to choose from; None for all.
        """
        random = self.random
        mix = [(fault, n) for fault, n in _MIX.items() if names is None or fault.__name__ in names]
        faults, weights = [fault for fault, _ in mix], [weight for _, weight in mix]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, until_s)
            while trio.current_time() < until_s:
                await trio.sleep(pause_s * 2 * random.random())
                fault = random.choices(faults, weights)[0]
                name = fault.__name__
                self.played[name] = self.played.get(name, 0) + 1
                self.machine.trace.note("fault", name)
                nursery.start_soon(fault, self)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        self.calm()

    async def _watch(self, until_s: float) -> None:
        """Restart what has become read-only."""
        while trio.current_time() < until_s:
            await trio.sleep(RESTART_S * (0.5 + self.random.random()))
            life = self.machine.life
            if life is not None and life.database is not None and life.database.engine.failed:
                self._end(life.stop if self.random.random() < 0.5 else self._kill)

    def _end(self, end: Callable[[], None]) -> None:
        if self.random.random() < 0.4:
            # The next life may end early: while it recovers, or soon after.
            self.machine.die_early(self.random.randint(1, 60))
        end()

    def _kill(self) -> None:
        life = self.machine.life
        if life is not None:
            life.kill(power=self.random.random() < 0.5)

    def calm(self) -> None:
        """All is well from now on, as far as it lies with the world."""
        conditions = self.network.conditions
        conditions.latency_s, conditions.fragments, conditions.refuse_chance = 0.0005, 0.2, 0.0
        self.machine.disk.capacity_bytes = None
        self.machine.disk.heal()
        self.machine.die_early(None)
        life = self.machine.life
        if life is not None:
            life.threads.slow = 1.0
            life.step_of_death = None

    # -- the machine ----------------------------------------------------------------------------

    async def power_fails(self) -> None:
        """At once, or in the middle of what is done on the disk."""
        life = self.machine.life
        if life is None:
            return
        if self.random.random() < 0.3:
            self._end(lambda: life.kill(power=True))
        else:
            self._end(lambda: None)
            life.place_of_death = self.random.choice(("", "/log/"))
            life.step_of_death = self.random.randint(1, 30)

    async def process_is_killed(self) -> None:
        """The operating system goes on, and may fail itself soon after."""
        if self.random.random() < 0.5:
            self.machine.die_early(self.random.randint(1, 60))
        life = self.machine.life
        if life is not None:
            life.kill(power=False)

    async def server_is_restarted(self) -> None:
        """Properly."""
        life = self.machine.life
        if life is not None:
            self._end(life.stop)

    async def checkpoint_is_hit(self) -> None:
        """The power fails within a checkpoint."""
        life = self.machine.life
        if life is None or life.database is None:
            return
        life.database.checkpointer.ask()
        life.place_of_death = "/pages"
        life.step_of_death = self.random.randint(1, 8)

    # -- the disk -------------------------------------------------------------------------------

    async def disk_fails(self) -> None:
        """One call fails: what was to be synced may be lost although the system goes on."""
        op = self.random.choice(("sync", "sync", "write", "read", "rename", "sync_directory"))
        path = self.random.choice(("/log/", "/log/", "/pages", ""))
        self.machine.disk.fail_next(op, errno.EIO, path, skip=self.random.randrange(4))

    async def disk_is_full(self) -> None:
        """For a while."""
        disk = self.machine.disk
        disk.capacity_bytes = disk.used_bytes() + self.random.choice((0, 2_000, 40_000, 200_000))
        await trio.sleep(3 * self.random.random())
        self.machine.disk.capacity_bytes = None

    async def disk_is_slow(self) -> None:
        """For a while."""
        life = self.machine.life
        if life is not None:
            life.threads.slow = self.random.choice((10.0, 100.0, 1000.0))
            await trio.sleep(3 * self.random.random())
            life.threads.slow = 1.0

    # -- the network ----------------------------------------------------------------------------

    async def connections_are_reset(self) -> None:
        """Some of them."""
        for connection in list(self.network.connections):
            if self.random.random() < 0.5:
                connection.reset()
                self.network.connections.remove(connection)

    async def connections_are_cut(self) -> None:
        """Half-open: in one direction or both; some are reset later, others time out."""
        kind = self.random.randrange(3)
        cut = [c for c in self.network.connections if self.random.random() < 0.5]
        for connection in cut:
            connection.cut(to_server=kind != 0, to_client=kind != 1)
        await trio.sleep(4 * self.random.random())
        if self.random.random() < 0.5:
            for connection in cut:
                connection.reset()

    async def network_is_slow(self) -> None:
        """For a while; messages come in small pieces."""
        conditions = self.network.conditions
        conditions.latency_s = self.random.choice((0.01, 0.1, 0.5))
        conditions.fragments = self.random.random()
        await trio.sleep(3 * self.random.random())
        conditions.latency_s, conditions.fragments = 0.0005, 0.2

    async def connecting_is_hard(self) -> None:
        """For a while."""
        self.network.conditions.refuse_chance = 0.7
        await trio.sleep(2 * self.random.random())
        self.network.conditions.refuse_chance = 0.0


class _Fault(Protocol):
    __name__: str

    def __call__(self, faults: Faults, /) -> Awaitable[None]: ...


_MIX: dict[_Fault, int] = {
    Faults.power_fails: 6,
    Faults.process_is_killed: 3,
    Faults.server_is_restarted: 2,
    Faults.checkpoint_is_hit: 3,
    Faults.disk_fails: 4,
    Faults.disk_is_full: 2,
    Faults.disk_is_slow: 3,
    Faults.connections_are_reset: 4,
    Faults.connections_are_cut: 4,
    Faults.network_is_slow: 3,
    Faults.connecting_is_hard: 1,
}
