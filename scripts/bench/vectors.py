"""Nearest vectors: recall and latency beside numpy, faiss and hnswlib.

    python -m scripts.bench.vectors --sizes 10000x128,100000x768,1000000x128 --json out.json

Each set: one sealed segment with a tenth of its rows dead, a tail of 4,096 rows, and filters that
leave 100, 50, 10 and 1 % of the rows. All systems answer the same queries, one after the other, in
one thread each; the truth is an exact scan in float64 of what the filter left.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# numpy reads it when it is imported: every system gets one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import attrs
import numpy as np
from numpy.typing import NDArray

from scripts.bench.vectors_data import clouds, texts
from treestore.search.vectors.distances import Query
from treestore.search.vectors.library import Flags, Floats, Ordinals, faiss
from treestore.search.vectors.search import Part, search
from treestore.search.vectors.segment import Segment, SegmentContent, write_segment
from treestore.search.vectors.tail import Tail

K = 10
QUERIES = 200
TAIL_ROWS = 4096
DEAD_SHARE = 0.1
FILTERS = (1.0, 0.5, 0.1, 0.01)
HNSW_EF = (64, 128, 256)

Ask = Callable[[Floats], Sequence[int]]


@attrs.frozen(kw_only=True)
class Line:
    """One system in one set with one filter; times in milliseconds, ``cpu`` the median of what the
    asking thread itself needed, which says more where other programs run."""

    data: str
    filter: float
    system: str
    recall: float
    p50: float
    p99: float
    cpu: float
    note: str = ""


@attrs.define
class Scene:
    """One set of vectors: the segment's first, then the tail's."""

    name: str
    vectors: Floats
    queries: Floats
    sealed: int
    segment: Segment
    tail: Tail
    alive: Flags
    built_s: float
    stall_ms: float

    def allowed(self, share: float) -> Flags:
        """Rows that are alive and pass a filter."""
        random = np.random.default_rng(17)
        return self.alive & (random.random(len(self.vectors)) < share)


# -- making a set -------------------------------------------------------------------------------


def make_scene(name: str, vectors: Floats, folder: Path) -> Scene:
    """Seal all but the queries and the tail's rows, and watch what that does to other threads."""
    queries, rest = vectors[:QUERIES], vectors[QUERIES:]
    sealed = len(rest) - TAIL_ROWS
    database, number = uuid.UUID(int=1), uuid.uuid4()
    path = folder / number.hex
    content = SegmentContent(
        rows=np.arange(sealed),
        ids=[b"%d" % row for row in range(sealed)],
        dim=vectors.shape[1],
        metric="cosine",
        vectors=[rest[:sealed]],
    )
    with stalls() as watched:
        begun = time.perf_counter()
        written = write_segment(path, content, database=database, segment=number, seed=1)
        built = time.perf_counter() - begun
    segment = Segment.open(
        path, database=database, segment=number, checksum=written.checksum, verify="index"
    )
    path.unlink()
    tail = Tail(vectors.shape[1])
    tail.append(np.arange(sealed, len(rest)), rest[sealed:])
    alive = np.random.default_rng(3).random(len(rest)) >= DEAD_SHARE
    stall = max(watched) * 1000
    return Scene(name, rest, queries, sealed, segment, tail, alive, built, stall)


@contextlib.contextmanager
def stalls() -> Generator[list[float]]:
    """How much later than asked for another thread wakes up, in seconds, measured each ms."""
    found = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            begun = time.perf_counter()
            time.sleep(0.001)
            found.append(time.perf_counter() - begun - 0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


# -- the systems --------------------------------------------------------------------------------


def ours(scene: Scene, allowed: Flags, *, exact: bool = False) -> Ask:
    """A segment and a tail."""
    parts = [
        Part(scene.segment, allowed[: scene.sealed]),
        Part(scene.tail.view(), allowed[scene.sealed :]),
    ]

    def ask(query: Floats) -> Sequence[int]:
        found = search(
            parts, Query(query, "cosine"), K, exact=exact, ties=lambda _, at: at.tolist()
        )
        return [hit.position + hit.part * scene.sealed for hit in found.hits]

    return ask


def numpy_exact(scene: Scene, allowed: Flags) -> Ask:
    """A product with all rows of length 1, or with those that are left where they are few."""
    unit = normalized(scene.vectors)
    some = np.flatnonzero(allowed)
    few = len(some) < len(unit) // 4
    left = unit[some] if few else unit

    def ask(query: Floats) -> Sequence[int]:
        near = left @ query
        if not few:
            near[~allowed] = -np.inf
        best = np.argpartition(-near, K)[:K]
        found = best[np.argsort(-near[best])]
        rows: list[int] = (some[found] if few else found).tolist()
        return rows

    return ask


def faiss_flat(scene: Scene, allowed: Flags) -> Ask:
    """faiss's exact index with a bitmap of the rows that count."""
    index = faiss.IndexFlatIP(scene.vectors.shape[1])
    index.add(normalized(scene.vectors))
    bits = np.packbits(allowed, bitorder="little")
    parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits)))

    def ask(query: Floats, _keep: Any = bits) -> Sequence[int]:
        rows: list[int] = index.search(query[None, :], K, params=parameters)[1][0].tolist()
        return rows

    return ask


def hnsw(scene: Scene) -> tuple[Callable[[int], Ask], float] | None:
    """hnswlib's graph over all rows, the dead ones marked; None where it is not installed."""
    try:
        library: Any = importlib.import_module("hnswlib")
    except ImportError:
        return None
    begun = time.perf_counter()
    index = library.Index(space="cosine", dim=scene.vectors.shape[1])
    index.init_index(len(scene.vectors), M=16, ef_construction=100)
    index.set_num_threads(1)
    index.add_items(scene.vectors, np.arange(len(scene.vectors)))
    for row in np.flatnonzero(~scene.alive).tolist():
        index.mark_deleted(row)

    def with_effort(ef: int) -> Ask:
        def ask(query: Floats) -> Sequence[int]:
            index.set_ef(ef)
            rows: list[int] = index.knn_query(query, k=K)[0][0].tolist()
            return rows

        return ask

    return with_effort, time.perf_counter() - begun


def normalized(vectors: NDArray[Any]) -> NDArray[Any]:
    """Rows of length 1."""
    result: NDArray[Any] = vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    return result


# -- measuring ----------------------------------------------------------------------------------


def truth(scene: Scene, allowed: Flags) -> Ordinals:
    """The nearest rows of each query, from distances in float64."""
    queries = normalized(scene.queries.astype(np.float64))
    some = np.flatnonzero(allowed)
    best = np.full((len(queries), 0), -np.inf)
    found = np.full((len(queries), 0), -1)
    for start in range(0, len(some), 1 << 13):
        chosen = some[start : start + (1 << 13)]
        near = queries @ normalized(scene.vectors[chosen].astype(np.float64)).T
        best = np.concatenate([best, near], axis=1)
        found = np.concatenate([found, np.broadcast_to(chosen, near.shape)], axis=1)
        top = np.argpartition(-best, K, axis=1)[:, :K]
        best = np.take_along_axis(best, top, axis=1)
        found = np.take_along_axis(found, top, axis=1)
    return found


def measure(scene: Scene, share: float, system: str, ask: Ask, wanted: Ordinals) -> Line:
    """Ask every query once to warm up, and once for the clock."""
    for query in scene.queries[:20]:
        ask(query)
    hits, times, needed = 0, [], []
    for query, best in zip(scene.queries, wanted, strict=True):
        begun, at = time.perf_counter(), time.thread_time()
        found = ask(query)
        needed.append(time.thread_time() - at)
        times.append(time.perf_counter() - begun)
        # Texts repeat: another row that is as near as the last one is as good.
        near = normalized(scene.vectors[list(found)].astype(np.float64)) @ query
        last = (normalized(scene.vectors[best].astype(np.float64)) @ query).min()
        hits += int(np.count_nonzero(near >= last - 1e-9 * abs(last)))
    p50, p99 = np.percentile(np.array(times) * 1000, [50, 99]).tolist()
    recall = hits / wanted.size
    cpu = float(np.median(needed)) * 1000
    return Line(
        data=scene.name, filter=share, system=system, recall=recall, p50=p50, p99=p99, cpu=cpu
    )


def measure_scene(scene: Scene, hnsw_rows_max: int) -> Iterator[Line]:
    """All systems, with all filters."""
    graph = hnsw(scene) if scene.sealed <= hnsw_rows_max else None
    for share in FILTERS:
        allowed = scene.allowed(share)
        wanted = truth(scene, allowed)
        line = measure(scene, share, "treestore", ours(scene, allowed), wanted)
        report = search(
            [Part(scene.segment, allowed[: scene.sealed])],
            Query(scene.queries[0], "cosine"),
            K,
            ties=lambda _, at: at.tolist(),
        ).parts[0]
        note: str = report.way
        if report.way == "index":
            note = f"{report.probes} of {report.lists} lists, {report.compared} compared"
        yield attrs.evolve(line, note=note)
        yield measure(scene, share, "exact", ours(scene, allowed, exact=True), wanted)
        yield measure(scene, share, "numpy", numpy_exact(scene, allowed), wanted)
        yield measure(scene, share, "faiss flat", faiss_flat(scene, allowed), wanted)
        if graph is not None and share == 1.0:
            with_effort, built = graph
            for ef in HNSW_EF:
                line = measure(scene, share, f"hnswlib ef {ef}", with_effort(ef), wanted)
                yield attrs.evolve(line, note=f"built in {built:.1f} s")


def measure_threads(scene: Scene, threads: int) -> dict[str, float]:
    """Searches on several threads at a time, and what another thread notices of them."""
    ask = ours(scene, scene.allowed(1.0))
    queries = list(scene.queries) * 5
    with stalls() as watched, ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        list(pool.map(ask, queries))
        took = time.perf_counter() - begun
    late = np.array(watched) * 1000
    return {
        "threads": threads,
        "searches_per_s": len(queries) / took,
        "stall_p99_ms": float(np.percentile(late, 99)),
        "stall_max_ms": float(late.max()),
    }


# -- the command --------------------------------------------------------------------------------


def scenes(sizes: str, lsa_dim: int, folder: Path) -> Iterator[Scene]:
    """Each set in turn."""
    for size in filter(None, sizes.split(",")):
        rows, dim = map(int, size.split("x"))
        pieces = list(clouds(rows + TAIL_ROWS + QUERIES, dim))
        vectors = np.concatenate(pieces)
        np.random.default_rng(2).shuffle(vectors)
        yield make_scene(f"clusters {rows:,} x {dim}", vectors, folder)
    if lsa_dim:
        found = texts(lsa_dim)
        if found is None:
            print("no D.C. Code below TREESTORE_TEST_DATA: its set is left out", file=sys.stderr)
        else:
            yield make_scene(f"texts {len(found):,} x {lsa_dim}", found, folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--sizes", default="10000x128,100000x128,100000x768,1000000x128")
    parser.add_argument("--lsa", type=int, default=256, help="dimensions of the texts; 0: none")
    parser.add_argument(
        "--hnsw-rows-max",
        type=int,
        default=100_000,
        help="no hnswlib beyond this: it takes minutes to build",
    )
    parser.add_argument("--json", type=Path, help="write what was measured there too")
    chosen = parser.parse_args(arguments)
    everything: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for scene in scenes(chosen.sizes, chosen.lsa, Path(folder)):
            print(
                f"\n{scene.name}: sealed in {scene.built_s:.1f} s, "
                f"{scene.segment.mapped_bytes / 2**20:,.0f} MiB; another thread was at most "
                f"{scene.stall_ms:.1f} ms late meanwhile"
            )
            print("filter  system           recall   p50 ms   p99 ms   cpu ms")
            lines = []
            for line in measure_scene(scene, chosen.hnsw_rows_max):
                lines.append(line)
                print(
                    f"{line.filter:>6.0%}  {line.system:<16} {line.recall:>6.3f} {line.p50:>8.2f} "
                    f"{line.p99:>8.2f} {line.cpu:>8.2f}  {line.note}",
                    flush=True,
                )
            threads = [measure_threads(scene, count) for count in (1, 8)]
            for found in threads:
                print(
                    f"{found['threads']} threads: {found['searches_per_s']:,.0f} searches/s; "
                    f"another thread is late by {found['stall_p99_ms']:.1f} ms (p99), "
                    f"{found['stall_max_ms']:.1f} ms (most)"
                )
            everything.append(
                {
                    "data": scene.name,
                    "built_s": scene.built_s,
                    "build_stall_ms": scene.stall_ms,
                    "bytes": scene.segment.mapped_bytes,
                    "lines": [attrs.asdict(line) for line in lines],
                    "threads": threads,
                }
            )
            del scene
    if chosen.json:
        chosen.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
