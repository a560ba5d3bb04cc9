"""Ranking, on judgements that people made.

The floors lie a little below what ``python -m scripts.ranking`` prints: nothing here depends on
time, and vectors only on how a machine rounds. Average precisions are lower here, as they are those
of the first hundred hits.
"""

from __future__ import annotations

from pathlib import Path

import httpx  # noqa: ASYNC127 - litestar brings it along
import pytest
import trio

import treestore
from scripts.lsa import Lsa
from scripts.ranking import documents, namespaces
from scripts.ranking.cranfield import Collection, read_collection
from scripts.ranking.namespaces import WAYS
from tests.integration.servers import Server

pytestmark = pytest.mark.slow

ON_SERVERS = ("words", "both, rrf", "both, weighted, words × 0.5")
QUESTIONS_ON_SERVERS = 40


@pytest.fixture(scope="module")
def collection(data_directory: Path) -> Collection:
    return read_collection(data_directory / "cranfield")


@pytest.fixture(scope="module")
def lsa(collection: Collection) -> Lsa:
    return namespaces.learn(collection)


async def test_documents_rank_as_well_as_they_did(collection: Collection, tmp_path: Path) -> None:
    with trio.fail_after(300):
        figures = await documents.measure(collection, tmp_path / "data", depth=100)
    assert figures.ndcg >= 0.52
    assert figures.map >= 0.42
    assert figures.recall >= 0.76


async def test_namespaces_rank_as_well_as_they_did(
    collection: Collection, lsa: Lsa, tmp_path: Path
) -> None:
    reached: dict[str, tuple[float, ...]] = {}
    with trio.fail_after(300):
        async with treestore.open(tmp_path / "data") as db:
            await namespaces.store(db, collection, lsa)
            for name, way in WAYS.items():
                # A hundred hits of both take long to fuse: there, ten have to do.
                depth = 10 if way.words and way.vector else 100
                figures = await namespaces.measure(
                    namespaces.asks(db), collection.questions, lsa, way, depth
                )
                reached[name] = figures.ndcg, figures.map, figures.recall
    least = {
        "words": (0.52, 0.415, 0.76),
        "words, title × 0.5": (0.523, 0.42, 0.765),
        "vectors": (0.56, 0.465, 0.80),
        "both, rrf": (0.555, 0, 0),
        "both, rrf, words × 0.5": (0.56, 0, 0),
        "both, weighted": (0.56, 0, 0),
        "both, weighted, words × 0.5": (0.567, 0, 0),
    }
    assert reached.keys() == least.keys()
    missed = {
        name: reached[name]
        for name, floors in least.items()
        if any(one < floor for one, floor in zip(reached[name], floors, strict=True))
    }
    assert not missed


async def test_servers_rank_as_the_library_does(
    collection: Collection, lsa: Lsa, tmp_path: Path
) -> None:
    queries = [
        {**WAYS[name].query(question.text, lsa.embed(question.text)), "top_k": 10}
        for question in collection.questions[:QUESTIONS_ON_SERVERS]
        for name in ON_SERVERS
    ]
    with trio.fail_after(120):
        async with treestore.open(tmp_path / "embedded") as db:
            await namespaces.store(db, collection, lsa)
            expected = [await namespaces.asks(db)(query) for query in queries]
        server = Server.start(tmp_path / "served")
        try:
            async with (
                treestore.connect(server.tcp) as db,
                httpx.AsyncClient(base_url=f"http://{server.http}", timeout=60) as client,
            ):
                await namespaces.store(db, collection, lsa)
                for ask in (namespaces.asks(db), namespaces.asks_http(client)):
                    assert [await ask(query) for query in queries] == expected
        finally:
            server.kill()
