"""All users together: prepare, put the load on, take it off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import trio

from treestore.loadtest.accounts import POSTING_INDEXES, Books
from treestore.loadtest.content import INDEXES
from treestore.loadtest.faces import Face, Open, patiently
from treestore.loadtest.ledger import Ledger
from treestore.loadtest.plan import Plan
from treestore.loadtest.statistics import Statistics
from treestore.loadtest.user import User
from treestore.loadtest.world import Names, World

ACCOUNTS_PER_USER = 2
ACCOUNTS_MIN = 20
CONNECTING_AT_A_TIME = 20
TOLD_EVERY_S = 0.5

Tell = Callable[[float, Statistics], None]
"""How many seconds the users work so far, and what came of it."""


def new_world(plan: Plan, name: str) -> World:
    """A run that has not begun.

    Args:
        plan: what is asked for.
        name: tells its collections from those of other runs.
    """
    return World(
        plan, Names.of(name), Ledger(plan.seed), Books(), Statistics(timeout_s=plan.timeout_s)
    )


async def load(
    world: World, open_face: Open, tell: Tell = lambda seconds, statistics: None
) -> None:
    """Let the users work until their time is up, or ``world.end`` is set.

    Args:
        world: of `new_world`; it has the outcome afterwards.
        open_face: opens a connection.
        tell: told twice a second how far it is.

    Raises:
        TreeStoreError: the users could not be prepared; once they work, errors are counted.
    """
    users = [User(world, number) for number in range(world.plan.users)]
    async with open_face() as face:
        await _create(world, face)
    opening = trio.CapacityLimiter(CONNECTING_AT_A_TIME)
    begin = trio.Event()

    async def use_server(
        user: User, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with AsyncExitStack() as connection:
            async with opening:
                face = await connection.enter_async_context(open_face())
                await user.prepare(face)
            task_status.started()
            await begin.wait()
            await user.work(face)

    async with trio.open_nursery() as nursery:
        # All are connected before the first call.
        async with trio.open_nursery() as preparing:
            for user in users:
                preparing.start_soon(nursery.start, use_server, user)
        world.statistics.begin()
        nursery.start_soon(_keep_time, world, tell)
        begin.set()
    world.statistics.end()


async def _create(world: World, face: Face) -> None:
    accounts = world.books.open_accounts(max(ACCOUNTS_MIN, ACCOUNTS_PER_USER * world.plan.users))
    collections, names = face.collections, world.names
    await patiently(lambda: collections.create(names.documents, indexes=INDEXES))
    await patiently(lambda: collections.create(names.postings, indexes=POSTING_INDEXES))
    await patiently(lambda: collections.insert_many(names.accounts, accounts))


async def _keep_time(world: World, tell: Tell) -> None:
    began = trio.current_time()
    while (left := began + world.plan.duration_s - trio.current_time()) > 0:
        tell(world.plan.duration_s - left, world.statistics)
        with trio.move_on_after(min(left, TOLD_EVERY_S)):
            await world.end.wait()
            return
    world.end.set()


async def drop(world: World, face: Face) -> None:
    """Remove the run's collections."""
    for name in world.names.all:
        await patiently(partial(face.collections.drop, name))
