"""``chaos.py load``: a thousand connections, a mixed workload, and every document verified.

Each writer owns some documents, so that what should be there is known exactly; readers read
anybody's. Where a call fails, its documents are looked at once it is known what became of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import attrs
import trio

import treestore
from scripts.torture.process import ServerProcess
from treestore.client.remote import RemoteDatabase
from treestore.errors import NotFound, TreeStoreError
from treestore.loadtest.statistics import Statistics

T = TypeVar("T")

DOCUMENTS_EACH = 5
CALL_TIMEOUT_S = 30.0
THINK_S = 0.5
"""Mean pause of a user between two calls; a thousand users then make 2,000 calls a second at most,
so that what is measured is the service under load, not a closed loop at its limit."""

READS = ("get_node", "get_subtree", "get_children", "get")


@attrs.define
class Result:
    """What a run did and found."""

    connections: int
    writers: int
    duration_s: float
    statistics: Statistics = attrs.Factory(lambda: Statistics(timeout_s=CALL_TIMEOUT_S))
    documents: int = 0
    nodes: int = 0
    wrong: list[str] = attrs.Factory(list)
    """What was not as it should be."""
    seed: int = 1

    @property
    def ok(self) -> bool:
        """Nothing was wrong, and no call failed."""
        return not self.wrong and not self.statistics.total().errors


@attrs.define
class User:
    """One connection with its own random choices."""

    number: int
    db: RemoteDatabase
    random: Random
    result: Result
    known: dict[str, list[str] | None]
    """Documents of all writers: policy -> titles of its nodes in order; None: deleted. A policy is
    left out while its owner changes it."""

    async def call(self, name: str, work: Awaitable[T]) -> T:
        """Await one call, counted and timed."""
        return await self.result.statistics.call(name, work, wanted=NotFound)

    async def read(self) -> None:
        """Read somebody's document, and see that it is whole."""
        policy = self.random.choice(list(self.known) or ["none"])
        before = self.known.get(policy)
        documents, choice = self.db.documents, self.random.choice(READS)
        try:
            if choice == "get":
                await self.call(choice, documents.get(policy, "v1"))
            elif choice == "get_node":
                await self.call(choice, documents.get_node(policy, "root", version_id="v1"))
            elif choice == "get_children":
                await self.call(choice, documents.get_children(policy, version_id="v1"))
            else:
                nodes = await self.call(choice, documents.get_subtree(policy, version_id="v1"))
                after = self.known.get(policy)
                titles = [node.title for node in nodes]
                if before is not None and before is after and titles != before:
                    self.result.wrong.append(f"{policy} was read as {titles}, not {before}")
        except NotFound:
            if before is not None and before is self.known.get(policy):
                self.result.wrong.append(f"{policy} was not found")

    async def write(self) -> None:
        """Store, extend, change or delete one of one's own documents."""
        policy = f"user{self.number}-{self.random.randrange(DOCUMENTS_EACH)}"
        titles = self.known.pop(policy, None)
        documents, dice = self.db.documents, self.random.random()
        if titles is None or dice < 0.3:
            fresh = [f"{self.random.getrandbits(40):x}" for _ in range(self.random.randrange(1, 9))]
            await self.call("store", documents.store(policy, "v1", {"structure": tree(fresh)}))
            titles = fresh
        elif dice < 0.6:
            title = f"{self.random.getrandbits(40):x}"
            await self.call(
                "update_node",
                documents.update_node(policy, "root", version_id="v1", title=title),
            )
            titles = [title, *titles[1:]]
        elif dice < 0.85:
            title = f"{self.random.getrandbits(40):x}"
            nodes = [{"title": title, "parent_id": "root"}]
            await self.call("insert_nodes", documents.insert_nodes(policy, nodes, version_id="v1"))
            titles = [*titles, title]
        else:
            await self.call("delete", documents.delete(policy, "v1"))
            titles = None
        self.known[policy] = titles


def tree(titles: list[str]) -> list[dict[str, Any]]:
    """A root with children."""
    inside = [{"title": title, "text": title * 20} for title in titles[1:]]
    return [{"node_id": "root", "title": titles[0], "text": titles[0] * 50, "nodes": inside}]


async def load(
    address: str,
    connections: int,
    writers: int,
    duration_s: float,
    seed: int,
    progress: Callable[[int], None] = lambda seconds: None,
) -> Result:
    """Put a server under load, then verify every document.

    Args:
        address: of the server.
        connections: clients, of one connection each.
        writers: how many of them write; the others read.
        duration_s: how long.
        seed: of the users' choices.
        progress: told the seconds so far.
    """
    result = Result(connections, writers, duration_s, seed=seed)
    known: dict[str, list[str] | None] = {}
    end = trio.Event()
    async with trio.open_nursery() as nursery:
        # All are connected before the first call.
        for number in range(connections):
            random = Random(f"{seed} {number}")
            await nursery.start(use_server, address, number, random, result, known, writers, end)
        result.statistics.begin()
        until = trio.current_time() + duration_s
        while trio.current_time() < until:
            progress(int(duration_s - (until - trio.current_time())))
            await trio.sleep(0.5)
        end.set()
    result.statistics.end()
    async with treestore.connect(address) as db:
        await _verify(db, known, result)
    return result


async def use_server(
    address: str,
    number: int,
    random: Random,
    result: Result,
    known: dict[str, list[str] | None],
    writers: int,
    end: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with treestore.connect(address, connections=1, timeout=CALL_TIMEOUT_S) as db:
        user = User(number, db, random, result, known)
        task_status.started()
        while not end.is_set():
            await trio.sleep(random.expovariate(1 / THINK_S))
            with suppress(TreeStoreError):  # Counted where it was met.
                await (user.write() if number < writers else user.read())


async def _verify(db: RemoteDatabase, known: dict[str, list[str] | None], result: Result) -> None:
    stored: set[str] = set()
    cursor: str | None = None
    while True:
        page = await db.documents.list(limit=500, cursor=cursor)
        stored.update(document.policy_id for document in page.items)
        cursor = page.next_cursor
        if cursor is None:
            break
    for policy, titles in known.items():
        if titles is None:
            if policy in stored:
                result.wrong.append(f"{policy} was deleted and is there")
            continue
        if policy not in stored:
            result.wrong.append(f"{policy} is gone")
            continue
        nodes = await db.documents.get_subtree(policy, version_id="v1")
        found = [(node.title, node.text) for node in nodes]
        if [title for title, _ in found] != titles:
            result.wrong.append(f"{policy} holds {[title for title, _ in found]}, not {titles}")
        result.documents += 1
        result.nodes += len(nodes)
    expected = sum(titles is not None for titles in known.values())
    if not result.statistics.total().errors and len(stored) != expected:
        result.wrong.append(f"{len(stored)} documents are stored, not {expected}")
    report = await db.admin.check()
    result.wrong += report.errors


def run(
    connections: int,
    writers: int,
    duration_s: float,
    seed: int,
    progress: Callable[[int], None] = lambda seconds: None,
) -> Result:
    """`load` on a server of its own, in a scratch directory."""
    with tempfile.TemporaryDirectory(prefix="treestore-load-") as directory:
        flags = ("--max-connections", str(connections + 50))
        server = ServerProcess(Path(directory) / "data", Path(directory) / "server.log", flags)
        server.start()
        try:
            host, port = server.tcp
            return trio.run(
                load, f"{host}:{port}", connections, writers, duration_s, seed, progress
            )
        finally:
            server.kill()
