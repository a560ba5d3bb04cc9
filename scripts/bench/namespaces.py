"""Namespaces as users meet them: embedded and over TCP, everything on, beside exact numpy and FTS5.

    python -m scripts.bench.namespaces [--sizes 10000x768,100000x768] [--bulk 1000000]
        [--quick] [--json FILE] [--markdown docs/benchmarks.md]

Vectors are of overlapping clusters, texts pieces of the D.C. Code. A tenth of the documents was
deleted, and some are in no segment yet. Systems take turns of a few queries each, so that whatever
else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Final

# By default the threads of numpy's library spin for some 25 ms after each call, and so take a
# processor from whoever has the next turn: before numpy is loaded.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

import attrs
import numpy as np
import trio
from numpy.typing import NDArray

import treestore
from scripts.bench.fulltext import pieces
from scripts.bench.machine import describe_machine
from scripts.bench.measure import percentiles_ms
from scripts.bench.report import put_between
from scripts.bench.servers.treestore import memory_bytes_of, run_treestore
from scripts.bench.systems.search_store import ask_fts, fts, questions
from scripts.bench.vectors_data import clouds

Floats = NDArray[np.float32]
Ask = Callable[[int], Awaitable[Any]]

TOP_K: Final = 10
TURN: Final = 10
QUERIES: Final = 300
TAIL: Final = 4000
LOOP_SEARCHES: Final = 8
LOOP_SECONDS: Final = 6.0
ASKED: Final = 100
"""Queries after a bulk import."""

BEGIN: Final = "<!-- results of namespaces -->"
END: Final = "<!-- end of results of namespaces -->"


@attrs.frozen
class Sizes:
    """How much of everything."""

    rows: int
    dim: int
    queries: int
    upserts: int


def schema(dim: int, *, text: bool) -> dict[str, Any]:
    """Of the namespaces here."""
    attributes: dict[str, Any] = {"bucket": {"type": "int"}}
    if text:
        language = {"language": "english"}
        attributes["title"] = {"type": "string", "full_text": language}
        attributes["text"] = {"type": "string", "full_text": language}
    return {"vector": {"dim": dim, "metric": "cosine"}, "attributes": attributes}


async def settled(db: Any) -> None:
    """Wait until nothing is being sealed, joined or indexed."""
    quiet = 0
    while quiet < 8:
        await trio.sleep(0.25)
        stats = await db.admin.stats()
        busy = stats.namespace_upkeep or stats.namespace_text_lag_rows > 1000
        quiet = 0 if busy else quiet + 1


@attrs.frozen
class Data:
    """What is stored, and what is asked for.

    Attributes:
        vectors: by the id of the document; NaN where it was deleted.
        queries: of the same clusters.
    """

    vectors: Floats
    queries: Floats


async def fill(db: Any, sizes: Sizes, texts: Sequence[dict[str, Any]]) -> Data:
    """The namespace ``n``."""
    rng = np.random.default_rng(2)
    await db.namespaces.create("n", schema(sizes.dim, text=True))
    count = sizes.rows + TAIL + sizes.queries
    vectors, tail, queries = np.split(
        np.concatenate(list(clouds(count, sizes.dim))), [sizes.rows, sizes.rows + TAIL]
    )
    for at in range(0, sizes.rows, 500):
        documents = [
            {"id": id, "vector": vectors[id], "attributes": {"bucket": id % 100, **texts[id]}}
            for id in range(at, min(at + 500, sizes.rows))
        ]
        await db.namespaces.upsert("n", documents)
        await settled_below(db, 3 * 8192)
    await settled(db)
    gone = rng.choice(sizes.rows, sizes.rows // 10, replace=False)
    for at in range(0, len(gone), 5000):
        await db.namespaces.delete("n", [int(id) for id in gone[at : at + 5000]])
    tail = tail[: sizes.rows // 20]
    reused = gone[: len(tail)]
    for at in range(0, len(tail), 500):
        documents = [
            {"id": int(id), "vector": vector, "attributes": {"bucket": int(id) % 100}}
            for id, vector in zip(reused[at : at + 500], tail[at : at + 500], strict=True)
        ]
        await db.namespaces.upsert("n", documents)
    vectors[reused] = tail
    vectors[gone[len(tail) :]] = np.nan
    await settled(db)
    return Data(vectors, queries)


async def settled_below(db: Any, rows: int) -> None:
    """Wait until at most so many documents are in no segment."""
    while (await db.admin.stats()).namespace_tail_rows > rows:  # noqa: ASYNC110
        await trio.sleep(0.1)


async def turns(asks: dict[str, Ask], count: int) -> dict[str, list[float]]:
    """Seconds of each query of each system, taking turns."""
    found: dict[str, list[float]] = {name: [] for name in asks}
    for first in range(0, count, TURN):
        for name, ask in asks.items():
            for number in range(first, min(first + TURN, count)):
                began = perf_counter()
                await ask(number)
                found[name].append(perf_counter() - began)
    return {name: times[len(times) // 10 :] for name, times in found.items()}


async def vector_queries(
    db: Any, label: str, sizes: Sizes, data: Data
) -> dict[str, dict[str, float]]:
    """Nearest ten, under filters, with their recall; beside an exact scan in numpy."""
    vectors, queries = data.vectors, data.queries
    live = np.flatnonzero(~np.isnan(vectors[:, 0]))
    matrix = vectors[live] / np.linalg.norm(vectors[live], axis=1, keepdims=True)
    found: dict[str, dict[str, float]] = {}
    for share, filter in ((100, None), (50, {"bucket": {"$lt": 50}}), (1, {"bucket": 7})):
        kept = live % 100 < 50 if share == 50 else live % 100 == 7 if share == 1 else live >= 0
        chosen = matrix if share == 100 else np.ascontiguousarray(matrix[kept])
        ids = live[kept]
        truth: dict[int, set[int]] = {}

        async def ours(number: int, filter: Any = filter) -> Any:
            return await db.namespaces.query(
                "n",
                vector=queries[number],
                filter=filter,
                top_k=TOP_K,
                include_attributes=False,
            )

        async def exact(
            number: int, chosen: Floats = chosen, ids: Any = ids, truth: Any = truth
        ) -> Any:
            await trio.lowlevel.checkpoint()
            query = queries[number] / np.linalg.norm(queries[number])
            products = chosen @ query
            best = np.argpartition(products, -TOP_K)[-TOP_K:]
            truth[number] = set(ids[best].tolist())

        times = await turns({"ours": ours, "numpy": exact}, sizes.queries)
        hits = 0
        for number in range(sizes.queries):
            hits += len({hit.id for hit in await ours(number)} & truth[number])
        numbers = percentiles_ms(times["ours"])
        numbers["recall@10"] = hits / (TOP_K * sizes.queries)
        numbers["numpy p50"] = percentiles_ms(times["numpy"])["p50"]
        numbers["numpy / ours"] = numbers["numpy p50"] / numbers["p50"]
        found[f"{label}: vector, filter keeps {share} %"] = numbers
    return found


async def text_queries(
    db: Any, label: str, data: Data, texts: Sequence[dict[str, Any]], folder: Path
) -> dict[str, dict[str, float]]:
    """Three words; beside FTS5 on the same rows. And words and a vector together."""
    rows = fts(folder / "fts", list(texts))
    queries = data.queries
    asked = questions(list(texts), len(queries))

    async def words(number: int) -> Any:
        return await db.namespaces.query(
            "n", text=asked[number], top_k=TOP_K, include_attributes=False
        )

    async def sqlite(number: int) -> Any:
        await trio.lowlevel.checkpoint()
        return ask_fts(rows, asked[number])

    async def both(number: int) -> Any:
        return await db.namespaces.query(
            "n",
            vector=queries[number],
            text=asked[number],
            top_k=TOP_K,
            include_attributes=False,
        )

    times = await turns({"words": words, "fts5": sqlite, "both": both}, len(queries))
    rows.close()
    (folder / "fts").unlink()
    numbers = percentiles_ms(times["words"])
    numbers["fts5 p50"] = percentiles_ms(times["fts5"])["p50"]
    numbers["fts5 / ours"] = numbers["fts5 p50"] / numbers["p50"]
    return {
        f"{label}: BM25, three words": numbers,
        f"{label}: hybrid": percentiles_ms(times["both"]),
    }


class _Steps(trio.abc.Instrument):
    """How long each step of each task holds the event loop."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.seconds.append(perf_counter() - self._began)


async def loop_steps(db: Any, queries: Floats) -> dict[str, float]:
    """What holds the loop while eight searches run at a time."""
    steps, done = _Steps(), 0

    async def search(number: int) -> None:
        nonlocal done
        while True:
            number = (number + 1) % len(queries)
            await db.namespaces.query("n", vector=queries[number], top_k=TOP_K)
            done += 1

    with trio.move_on_after(LOOP_SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(LOOP_SEARCHES):
                nursery.start_soon(search, number * 10)
            trio.lowlevel.add_instrument(steps)
            try:
                await trio.sleep_forever()
            finally:
                trio.lowlevel.remove_instrument(steps)
    return {**percentiles_ms(steps.seconds[1:]), "searches/s": done / LOOP_SECONDS}


async def upserts(db: Any, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Durable upserts of some documents a call, one call after the other."""
    found: dict[str, dict[str, float]] = {}
    vectors = np.concatenate(list(clouds(sizes.upserts, 128, seed=5)))
    for each in (1, 50, 1000):
        name = f"u{each}"
        await db.namespaces.create(name, schema(128, text=False))
        times: list[float] = []
        began = perf_counter()
        calls = min(len(vectors) // each, 400)
        for number in range(calls):
            some = vectors[number * each : (number + 1) * each]
            documents = [
                {"id": number * each + n, "vector": one, "attributes": {"bucket": n % 9}}
                for n, one in enumerate(some)
            ]
            before = perf_counter()
            await db.namespaces.upsert(name, documents)
            times.append(perf_counter() - before)
        rate = calls * each / (perf_counter() - began)
        (hit,) = await db.namespaces.query(name, vector=vectors[calls * each - 1], top_k=1)
        assert hit.id == calls * each - 1, "it is found when it is acknowledged"
        found[f"upserts, {each} a call"] = {**percentiles_ms(times), "documents/s": rate}
    return found


async def bulk_import(count: int, folder: Path) -> dict[str, float]:
    """A large import into a store of its own; in a process of its own, for its memory."""

    queries: list[Floats] = []

    def documents() -> Iterator[dict[str, Any]]:
        number = 0
        for block in clouds(count + ASKED, 128, seed=6):
            for vector in block:
                if number >= count:
                    queries.append(vector)
                    continue
                attributes = {"bucket": number % 100}
                yield {"id": number, "vector": vector.tobytes(), "attributes": attributes}
                number += 1

    treestore.tune()
    async with treestore.open(folder / "bulk") as db:
        await db.namespaces.create("b", schema(128, text=False))
        began = perf_counter()
        report = await db.namespaces.bulk("b", documents())
        took = perf_counter() - began
        assert report.stored == count, report
        before = perf_counter()
        await db.namespaces.query("b", vector=queries[0], top_k=TOP_K)
        first = perf_counter() - before
        await settled(db)
        sealed = perf_counter() - began
        times: list[float] = []
        near = 0
        for query in queries:
            before = perf_counter()
            found = await db.namespaces.query("b", vector=query, top_k=TOP_K)
            times.append(perf_counter() - before)
            exact = await db.namespaces.query("b", vector=query, top_k=TOP_K, exact=True)
            near += len({hit.id for hit in found} & {hit.id for hit in exact})
        peak = memory_bytes_of("self")[1] / 2**20
    return {
        "durable after s": took,
        "documents/s": count / took,
        "first query ms": first * 1000,
        "indexed after s": sealed,
        "peak memory MiB": peak,
        "recall@10": near / (TOP_K * len(queries)),
        **percentiles_ms(times),
    }


async def measure(sizes: Sizes, folder: Path) -> dict[str, Any]:
    """One size; milliseconds, where nothing else is said."""
    treestore.tune()
    texts = pieces(sizes.rows)
    found: dict[str, Any] = {}
    async with treestore.open(folder / "data") as db:
        data = await fill(db, sizes, texts)
        found |= await vector_queries(db, "embedded", sizes, data)
        found |= await text_queries(db, "embedded", data, texts, folder)
        loop = await loop_steps(db, data.queries)
        found[f"event loop, {LOOP_SEARCHES} searches at a time"] = loop
    began = perf_counter()
    async with treestore.open(folder / "data") as db:
        opened = perf_counter() - began
        query = data.queries[0]
        before = perf_counter()
        await db.namespaces.query("n", vector=query, top_k=TOP_K)
        cold = perf_counter() - before
        before = perf_counter()
        await db.namespaces.query("n", vector=query, top_k=TOP_K)
        warm = perf_counter() - before
        found["cold and warm"] = {
            "store opened": opened * 1000,
            "first query": cold * 1000,
            "second query": warm * 1000,
        }
    with run_treestore(folder / "data") as server:
        async with treestore.connect(server.address) as db:
            found |= await vector_queries(db, "TCP", sizes, data)
            found |= await text_queries(db, "TCP", data, texts, folder)
    if sizes.upserts:
        # Last: what they leave is sealed and joined for a while, beside whatever comes next.
        async with treestore.open(folder / "data") as db:
            found |= await upserts(db, sizes)
    return found


def markdown(results: dict[str, Any]) -> str:
    """The results as a part of a page."""
    facts = ", ".join(f"{key}: {value}" for key, value in describe_machine(Path.cwd()).items())
    lines = [f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. {facts}."]
    for title, rows in results.items():
        lines += ["", f"### {title}", "", "| what | measured |", "|---|---|"]
        for name, numbers in rows.items():
            shown = ", ".join(f"{key} {value:,.4g}" for key, value in numbers.items())
            lines.append(f"| {name} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", default="10000x768,100000x768")
    parser.add_argument("--bulk", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only-bulk", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    queries, writes, bulk = (50, 5_000, 20_000) if given.quick else (QUERIES, 400_000, given.bulk)
    if given.only_bulk:
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps(trio.run(bulk_import, given.bulk, Path(name))))
        return
    results: dict[str, Any] = {}
    asked = ["5000x64"] if given.quick else given.sizes.split(",")
    for size in asked:
        rows, dim = map(int, size.split("x"))
        sizes = Sizes(rows, dim, queries, writes if size == asked[-1] else 0)
        with tempfile.TemporaryDirectory() as name:
            results[f"{rows:,} × {dim}"] = trio.run(measure, sizes, Path(name))
    again = [sys.executable, "-m", "scripts.bench.namespaces", "--only-bulk", "--bulk", str(bulk)]
    done = subprocess.run(again, capture_output=True, text=True, check=True)
    results[f"Bulk import of {bulk:,} × 128"] = {"embedded": json.loads(done.stdout)}
    for title, its in results.items():
        print(f"\n{title}")
        width = max(map(len, its))
        for label, numbers in its.items():
            shown = "  ".join(f"{key} {value:,.4g}" for key, value in numbers.items())
            print(f"{label:<{width}}  {shown}")
    if given.json:
        given.json.write_text(json.dumps(results, indent=2))
    if given.markdown:
        put_between(given.markdown, BEGIN, END, markdown(results))


if __name__ == "__main__":
    main()
