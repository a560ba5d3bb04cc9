"""The search index on a real disk: processes killed while they index, folders lost and damaged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

import treestore
from tests.integration.servers import Server

KILLS = int(os.environ.get("TREESTORE_KILLS", "6"))

WRITER = """
import sys, trio, treestore
async def main():
    async with treestore.open(sys.argv[1]) as db:
        number = int(sys.argv[2])
        while True:
            name = f"word{number}"
            nodes = [{"node_id": str(n), "text": name} for n in range(40)]
            await db.documents.store(name, "v1", nodes)
            print(number, flush=True)
            number += 1
trio.run(main)
"""


async def test_what_was_acknowledged_is_found_after_a_kill(tmp_path: Path) -> None:
    """Killed at any moment, the index goes on from where its last commit was."""
    rng = Random(5)
    last = -1
    with trio.fail_after(60 + 30 * KILLS):
        for _ in range(KILLS):
            arguments = [sys.executable, "-c", WRITER, str(tmp_path / "data"), str(last + 1)]
            process = await trio.to_thread.run_sync(
                partial(subprocess.Popen, arguments, stdout=subprocess.PIPE, text=True)
            )
            wanted = last + rng.randrange(2, 60)
            output: Any = process.stdout
            while last < wanted:
                line = await trio.to_thread.run_sync(output.readline)
                assert line, "the writer died by itself"
                last = int(line)
            await trio.sleep(rng.random() * 0.3)
            process.kill()
            rest = await trio.to_thread.run_sync(process.communicate)
            last = max([last, *(int(line) for line in rest[0].split("\n") if line)])
            async with treestore.open(tmp_path / "data") as db:
                for number in {0, last, max(0, last - 1), rng.randrange(last + 1)}:
                    hits = await db.documents.search(f"word{number}", top_k=50)
                    assert len(hits) == 40, (number, last)
                stats = await db.admin.stats()
                assert stats.search_lag_records == 0 or stats.search_nodes <= stats.nodes
                check = await db.admin.check(search=True)
                assert check.ok
                assert not check.warnings
                last = max(last, stats.documents - 1)


def lose(folder: Path) -> None:
    shutil.rmtree(folder)


def lose_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def spoil_meta(folder: Path) -> None:
    (folder / "meta.json").write_bytes(b"{")


def flip(suffix: str) -> Any:
    def flip_a_byte(folder: Path) -> None:
        path = max(folder.glob(f"*.{suffix}"), key=lambda path: path.stat().st_size)
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 0x40
        path.write_bytes(data)

    flip_a_byte.__name__ = f"flip_{suffix}"
    return flip_a_byte


def cut(folder: Path) -> None:
    for path in folder.glob("*.store"):
        os.truncate(path, path.stat().st_size // 2)


def remove_one(folder: Path) -> None:
    next(folder.glob("*.fast")).unlink()


SUFFIXES = ("term", "idx", "pos", "store", "fast", "fieldnorm")
DAMAGES = [lose, lose_meta, spoil_meta, cut, remove_one, *map(flip, SUFFIXES)]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_a_lost_or_damaged_index_is_made_again(tmp_path: Path, damage: Any) -> None:
    nodes = [{"node_id": f"{n}", "text": f"the needle{n} of stack{n % 7}"} for n in range(500)]
    with trio.fail_after(120):
        async with treestore.open(tmp_path / "data") as db:
            await db.documents.store("p", "v1", nodes)
            while (await db.admin.stats()).search_lag_records:  # noqa: ASYNC110
                await trio.sleep(0.05)
            expected = {hit.node.node_id for hit in await db.documents.search("stack3", top_k=99)}
            assert len(expected) == 71
        damage(tmp_path / "data" / "search" / "documents")
        async with treestore.open(tmp_path / "data") as db:
            found = await db.documents.search("stack3", top_k=99)
            assert {hit.node.node_id for hit in found} == expected
            stats = await db.admin.stats()
            assert stats.search_rebuilds == 1
            assert stats.search_rebuild_nodes == stats.search_rebuild_nodes_total == 500
            assert not stats.search_rebuilding
            assert not (await db.admin.check(search=True)).warnings


async def test_an_index_of_another_state_is_made_again(tmp_path: Path) -> None:
    """A copy of the data from before, with the index of today: it is ahead of the tree."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    with trio.fail_after(120):
        async with treestore.open(data) as db:
            await db.documents.store("old", "v1", [{"text": "needle old"}])
        await trio.to_thread.run_sync(shutil.copytree, data, copy)
        async with treestore.open(data) as db:
            await db.documents.store("new", "v1", [{"text": "needle new"}])
            while (await db.admin.stats()).search_lag_records:  # noqa: ASYNC110
                await trio.sleep(0.05)
        await trio.to_thread.run_sync(shutil.rmtree, copy / "search", True)
        await trio.to_thread.run_sync(shutil.copytree, data / "search", copy / "search")
        async with treestore.open(copy) as db:
            hits = await db.documents.search("needle")
            assert [hit.node.policy_id for hit in hits] == ["old"]
            assert (await db.admin.stats()).search_rebuilds == 1


async def test_a_server_serves_while_it_rebuilds(tmp_path: Path) -> None:
    data = tmp_path / "data"
    nodes = [{"node_id": f"{n}", "text": f"needle{n} " + "filler " * 50} for n in range(6000)]
    with trio.fail_after(120):
        async with treestore.open(data) as db:
            await db.documents.store("p", "v1", nodes)
        await trio.to_thread.run_sync(shutil.rmtree, data / "search", True)
        server = await trio.to_thread.run_sync(Server.start, data)
        try:
            async with treestore.connect(server.tcp) as db:
                hits = await db.documents.search("needle5999", consistency="eventual")
                assert [hit.node.node_id for hit in hits] in ([], ["5999"])
                (hit,) = await db.documents.search("needle5999")
                assert hit.node.node_id == "5999"
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
                await trio.to_thread.run_sync(server.stop)
