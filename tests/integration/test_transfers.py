"""Bank transfers from two client processes: money moves, and none is made or lost."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

import treestore
from tests.integration.servers import Server

ACCOUNTS = 8
BALANCE = 100
TRANSFERS = 60

PROGRAM = """
import random, sys, trio, treestore

ACCOUNTS, TRANSFERS = map(int, sys.argv[2:4])
rng = random.Random(int(sys.argv[4]))

async def transfer(txn):
    giver, taker = rng.sample(range(ACCOUNTS), 2)
    amount = rng.randint(1, 60)
    has = int(await txn.kv.get(b"account%d" % giver))
    if has < amount:
        return False
    await txn.kv.put(b"account%d" % giver, b"%d" % (has - amount))
    other = int(await txn.kv.get(b"account%d" % taker))
    await txn.kv.put(b"account%d" % taker, b"%d" % (other + amount))
    return True

async def audit(txn):
    return sum([int(value) async for _, value in txn.kv.scan(prefix=b"account")])

async def teller(db, moved):
    for _ in range(TRANSFERS // 4):
        moved.append(await db.run_transaction(transfer, attempts=1000))
        assert await db.run_transaction(audit) == int(sys.argv[5])

async def main():
    moved = []
    async with treestore.connect(sys.argv[1]) as db, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(teller, db, moved)
    print(sum(moved))

trio.run(main)
"""


async def test_the_sum_of_all_accounts_stays(tmp_path: Path) -> None:
    server = await trio.to_thread.run_sync(Server.start, tmp_path / "data")
    moved: list[int] = []

    async def client(seed: int) -> None:
        numbers = map(str, (ACCOUNTS, TRANSFERS, seed, ACCOUNTS * BALANCE))
        done = await trio.run_process(
            [sys.executable, "-c", PROGRAM, server.tcp, *numbers], capture_stdout=True
        )
        moved.append(int(done.stdout))

    try:
        with trio.fail_after(100):
            async with treestore.connect(server.tcp) as db:
                await db.kv.batch([(b"account%d" % n, b"%d" % BALANCE) for n in range(ACCOUNTS)])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client, 1)
                    nursery.start_soon(client, 2)
                accounts = [int(value) async for _, value in db.kv.scan(prefix=b"account")]
                stats = await db.admin.stats()
    finally:
        if server.process.poll() is None:
            server.stop()
    assert sum(accounts) == ACCOUNTS * BALANCE
    assert min(accounts) >= 0
    assert sum(moved) > TRANSFERS
    assert stats.transactions_committed >= sum(moved)
    assert stats.transactions_open == 0
