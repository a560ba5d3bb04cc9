"""The asyncio and the blocking client with a real server that is killed and started again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import treestore
from tests.client.served import PATIENCE_S, eventually
from tests.integration.servers import Server
from treestore.errors import OutcomeUnknown

KILLS = 1


class Killed:
    """A server on one port, over and over."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.server = Server.start(data)
        self.address = self.server.tcp

    def restart(self) -> None:
        self.server.kill()
        self.server = Server.start(self.data, "--port", self.address.rpartition(":")[2])


@pytest.fixture
def killed(tmp_path: Path):
    killed = Killed(tmp_path / "data")
    yield killed
    killed.server.kill()


@pytest.mark.slow
def test_asyncio(killed: Killed) -> None:
    async def main() -> None:
        done: dict[bytes, bool] = {}
        stop = asyncio.Event()

        async def write(db: treestore.RemoteDatabase, name: int) -> None:
            number = 0
            while not stop.is_set():
                key = b"%d/%05d" % (name, number)
                try:
                    await db.kv.put(key, key)
                    done[key] = True
                except OutcomeUnknown:
                    done[key] = False
                number += 1

        async def more(count: int) -> None:
            enough = len(done) + count
            await eventually(lambda: len(done) >= enough)

        async with asyncio.timeout(6 * PATIENCE_S), treestore.connect(killed.address) as db:
            tasks = [asyncio.create_task(write(db, name)) for name in range(8)]
            for _ in range(KILLS):
                await more(100)
                await asyncio.to_thread(killed.restart)
            await more(100)
            stop.set()
            await asyncio.gather(*tasks)
            stored = {key async for key, _ in db.kv.scan()}
        assert stored <= done.keys()
        assert stored >= {key for key, certain in done.items() if certain}
        assert sum(done.values()) > len(done) - 20

    asyncio.run(main())


@pytest.mark.slow
def test_blocking(killed: Killed) -> None:
    done: dict[bytes, bool] = {}
    errors: list[Exception] = []
    stop = threading.Event()

    def write(db: treestore.BlockingDatabase, name: int) -> None:
        number = 0
        while not stop.is_set():
            key = b"%d/%05d" % (name, number)
            try:
                db.kv.put(key, key)
                done[key] = True
            except OutcomeUnknown:
                done[key] = False
            except Exception as error:
                errors.append(error)
                return
            number += 1

    def more(count: int) -> None:
        enough = len(done) + count
        while len(done) < enough and not errors:
            stop.wait(0.01)

    with treestore.connect_sync(killed.address) as db:
        threads = [threading.Thread(target=write, args=(db, name)) for name in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            more(50)
            killed.restart()
        more(50)
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        stored = {key for key, _ in db.kv.scan()}
    assert stored <= done.keys()
    assert stored >= {key for key, certain in done.items() if certain}


PROGRAM = """
import asyncio, sys
import treestore

async def main():
    async with treestore.connect(sys.argv[1]) as db:
        await db.documents.store("p", "v", [{"title": "Whole", "node_id": "1"}])
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(db.kv.put(b"%d" % number, b""))
        node = await db.documents.get_node("p", "1")
        print(node.title, len([key async for key, _ in db.kv.scan()]))
    print(sorted({"trio", "trio_asyncio", "actors"} & sys.modules.keys()))

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_plain_asyncio_program_needs_no_trio(killed: Killed) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, killed.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Whole 100\n[]\n", "")
