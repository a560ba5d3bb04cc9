"""What mypy and basedpyright say about programs that use the services: each face has its types.

A line that ends in ``# wrong`` must be complained about, and no other may be.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
from collections.abc import Callable, Coroutine
from typing import Any, assert_type

import asyncio
import treestore
from treestore.services import Services, Stores
from treestore.stores.operation import Async, ReadOnly, ReadWrite
from treestore import BlockingDatabase, Change, Database, Node, Page, Document, RemoteDatabase
from treestore.client import BlockingSnapshot, RemoteSnapshot
from treestore.client.blocking import BlockingTransaction
from treestore.client.transaction import RemoteTransaction


async def embedded(db: Database) -> None:
    assert_type(await db.kv.get(b"a"), bytes | None)
    assert_type(await db.documents.get_node("p", "1", version_id="v"), Node)
    async for key, value in db.kv.scan(prefix=b"a", reverse=True):
        assert_type(key, bytes)
    async with db.kv.scan() as items:
        assert_type(await anext(items), tuple[bytes, bytes])
    db.kv.get("a")  # wrong
    db.kv.get(b"a", default=b"")  # wrong
    db.kv.scan(b"a")  # wrong
    db.documents.get_node("p")  # wrong
    result: bytes | None = db.kv.get(b"a")  # wrong
    for item in db.kv.scan():  # wrong
        print(item)
    async with db.snapshot() as snapshot:
        assert_type(await snapshot.kv.get(b"a"), bytes | None)
        await snapshot.kv.put(b"a", b"1")  # wrong
        await snapshot.documents.delete("p", "v")  # wrong
    async with db.transaction(timeout=5) as txn:
        assert_type(txn, Stores[Async, ReadWrite])
        assert_type(await txn.kv.get(b"a"), bytes | None)
        await txn.kv.put(b"a", b"1")
        await txn.kv.put(b"a", "1")  # wrong
        await txn.admin.stats()  # wrong

    async def count(txn: Stores[Async, ReadWrite]) -> int:
        return len(await txn.kv.get(b"a") or b"")

    assert_type(await db.run_transaction(count, attempts=3), int)
    await db.run_transaction(count, 3)  # wrong


async def remote(address: str) -> None:
    async with treestore.connect(address, api_key="key", timeout=5) as db:
        assert_type(db, RemoteDatabase)
        assert_type(await db.kv.delete(b"a"), bool)
        assert_type(await db.documents.list(prefix="p"), Page[Document])
        asyncio.create_task(db.kv.get(b"a"))
        call: Callable[[bytes], Coroutine[Any, Any, bytes | None]] = db.kv.get
        print(call)
        async for key, value in db.kv.scan():
            assert_type(value, bytes)
        await db.kv.put(b"a", "1")  # wrong
        await db.kv.put(b"a", value=1)  # wrong
        await db.documents.get_node(policy="p", node_id="1")  # wrong
        db.documents.no_such_operation  # wrong
        async with db.snapshot() as snapshot:
            assert_type(snapshot, RemoteSnapshot)
            assert_type(await snapshot.documents.get_nodes("p", ["1"]), list[Node])
            await snapshot.kv.put(b"a", b"1")  # wrong
        async with db.transaction() as txn:
            assert_type(txn, RemoteTransaction)
            assert_type(await txn.kv.delete(b"a"), bool)
            await txn.admin.stats()  # wrong

        async def count(txn: RemoteTransaction) -> int:
            return len(await txn.kv.get(b"a") or b"")

        assert_type(await db.run_transaction(count), int)
        with db.snapshot():  # wrong
            pass
        async for change in db.watch(service="kv"):
            assert_type(change, Change)
    treestore.connect(address, timeout="5")  # wrong
    with treestore.connect(address):  # wrong
        pass


def blocking(address: str) -> None:
    with treestore.connect_sync(address, api_key=None) as db:
        assert_type(db, BlockingDatabase)
        assert_type(db.kv.get(b"a"), bytes | None)
        assert_type(db.kv.put(b"a", b"1"), None)
        assert_type(db.documents.get_children("p"), list[Node])
        for key, value in db.kv.scan():
            assert_type(key, bytes)
        with db.kv.scan() as items:
            assert_type(next(items), tuple[bytes, bytes])
        stream = db.kv.scan(limit=1)
        assert_type(list(stream), list[tuple[bytes, bytes]])
        stream.close()
        db.kv.get("a")  # wrong
        db.kv.get(b"a").upper()  # wrong
        db.documents.get_node("p", "1", version="v")  # wrong
        with db.transaction() as transaction:
            assert_type(transaction.kv.delete(b"a"), bool)
        assert_type(db.run_transaction(lambda txn: txn.kv.delete(b"a")), bool)
        for change in db.watch(prefix=b"a"):
            assert_type(change, Change)
        db.watch(nothing=1)  # wrong
        with db.snapshot() as snapshot:
            assert_type(snapshot, BlockingSnapshot)
            assert_type(snapshot.kv.get(b"a"), bytes | None)
            snapshot.kv.put(b"a", b"1")  # wrong
            snapshot.kv.delete(b"a")  # wrong
        with db.transaction() as txn:
            assert_type(txn, BlockingTransaction)
            assert_type(txn.kv.delete(b"a"), bool)
            txn.admin.stats()  # wrong
        assert_type(db.run_transaction(lambda txn: txn.kv.delete(b"a")), bool)
    treestore.connect_sync(address, connections="2")  # wrong


async def mixed(db: BlockingDatabase) -> None:
    await db.kv.put(b"a", b"1")  # wrong
    async for item in db.kv.scan():  # wrong
        print(item)
"""

WRONG = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("typing") / "program.py"
    path.write_text(PROGRAM)
    return path


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )


def test_there_are_programs_to_reject() -> None:
    assert len(WRONG) > 20


@pytest.mark.slow
def test_mypy(program: Path) -> None:
    done = run("mypy", "--strict", "--no-error-summary", "--no-pretty", program)
    found = re.findall(rf"{re.escape(program.name)}:(\d+): error: (.*)", done.stdout)
    assert found, done.stdout + done.stderr
    complaints = {int(line): text for line, text in found}
    assert complaints.keys() == WRONG, difference(complaints)


@pytest.mark.slow
def test_basedpyright(program: Path) -> None:
    done = run("basedpyright", "--outputjson", "--pythonpath", sys.executable, program)
    report = json.loads(done.stdout)
    complaints = {
        found["range"]["start"]["line"] + 1: found["message"]
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    }
    assert complaints.keys() == WRONG, difference(complaints)


def difference(complaints: dict[int, str]) -> str:
    lines = PROGRAM.splitlines()
    return "\n".join(
        f"{number}: {lines[number - 1].strip()}: {complaints.get(number, 'no complaint')}"
        for number in sorted(WRONG ^ complaints.keys())
    )
