"""Measures the steps that `treestore.search.choice` adds up: ``python -m scripts.bench.choice``.

Prints a `Costs` with what they take on this machine. Each step is timed at two sizes or more, and
the least of several runs counts, as other programs can only make a run longer. Vectors are random:
what a comparison takes does not depend on what is compared. What Python does around a segment is
not measured: ``segment`` and ``index`` are only the shares of numpy and faiss.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from itertools import cycle
from typing import Any

import numpy as np
import tantivy
from numpy.typing import NDArray

from treestore.search.choice import Costs

# Its stubs know the C++ constructors only.
faiss: Any = importlib.import_module("faiss")

Vectors = NDArray[np.float32]

ROWS = 50_000
DIMS = (128, 768)
LISTS = 256
RUNS = 25


def least_us(run: Callable[[], Any], runs: int = RUNS) -> float:
    """The shortest of several runs, in microseconds."""
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter_ns()
        run()
        best = min(best, time.perf_counter_ns() - start)
    return best / 1000


def fitted(rows: list[list[float]], times: list[float]) -> list[float]:
    """Costs of steps, none below 0, from how often each was done and how long it took all told."""
    counts, taken = np.array(rows), np.array(times)
    # By ratio: a microsecond matters where all takes ten.
    solution, *_ = np.linalg.lstsq(counts / taken[:, None], np.ones(len(taken)))
    return [max(0.0, float(each)) for each in solution]


def exact_costs() -> dict[str, float]:
    """Comparing rows exactly, gathered and in a row."""
    random = np.random.default_rng(1)
    gathered: list[list[float]] = []
    gathered_us: list[float] = []
    scanned: list[list[float]] = []
    scanned_us: list[float] = []
    for dim in DIMS:
        vectors = random.standard_normal((ROWS, dim), dtype=np.float32)
        query = vectors[0]
        for count in (100, 1000, 10_000):
            # Others each time: no processor's cache has them.
            choices = cycle(
                [np.sort(random.choice(ROWS, count, replace=False)) for _ in range(RUNS)]
            )
            gathered.append([1, count, count * dim])
            gathered_us.append(least_us(partial(gather, vectors, choices, query)))
        for count in (10_000, ROWS):
            scanned.append([1, count, count * dim])
            scanned_us.append(least_us(partial(np.matmul, vectors[:count], query)))
    base, row, number = fitted(gathered, gathered_us)
    _, scan_row, scan_number = fitted(scanned, scanned_us)
    return {
        "segment": base,
        "gather_row": row,
        "gather_number": number,
        "scan_row": scan_row,
        "scan_number": scan_number,
    }


def gather(vectors: Vectors, choices: Iterator[Any], query: Vectors) -> Vectors:
    """Compare the next choice of rows with a query."""
    products: Vectors = vectors[next(choices)] @ query
    return products


def index_costs() -> dict[str, float]:
    """Asking an `IndexIVFRaBitQ` with a bitmap, at several numbers of probes."""
    random = np.random.default_rng(2)
    counts: list[list[float]] = []
    times: list[float] = []
    bits = np.packbits(random.random(ROWS) < 0.5, bitorder="little")
    selector = faiss.IDSelectorBitmap(bits)
    for dim in DIMS:
        vectors = random.standard_normal((ROWS, dim), dtype=np.float32)
        for lists in (LISTS // 4, LISTS):
            quantizer = faiss.IndexFlatL2(dim)
            index = faiss.IndexIVFRaBitQ(quantizer, dim, lists, faiss.METRIC_L2, True)
            index.cp.niter = 4
            index.train(vectors[: lists * 50])
            index.add(vectors)
            for probes in (lists // 16, lists // 4, lists // 2):
                options = faiss.IVFRaBitQSearchParameters(nprobe=probes, sel=selector)
                codes = ROWS * probes / lists
                counts.append([1, lists * dim, codes, codes * dim])
                search = partial(index.search, vectors[:1], 100, params=options)
                times.append(least_us(search, 9))
    base, number, code, code_number = fitted(counts, times)
    return {"index": base, "list_number": number, "code": code, "code_number": code_number}


def text_costs() -> dict[str, float]:
    """Words that more or fewer rows have, more or fewer hits, and a filter on the rows."""
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("row", indexed=True, fast=True)
    builder.add_text_field("body", stored=False)
    schema = builder.build()
    index = tantivy.Index(schema)
    writer = index.writer(50_000_000, 1)
    random = np.random.default_rng(3)
    shares = {"rare": 0.01, "some": 0.1, "most": 0.8}
    has = {word: random.random(ROWS) < share for word, share in shares.items()}
    filler = random.integers(0, 5000, (ROWS, 12))
    for row in range(ROWS):
        words = [word for word, rows in has.items() if rows[row]]
        body = " ".join([*words, *(f"w{number}" for number in filler[row])])
        writer.add_document(tantivy.Document(row=row, body=[body]))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()
    counts: list[list[float]] = []
    times: list[float] = []
    for word, rows in has.items():
        query = tantivy.Query.term_query(schema, "body", word)
        for limit in (10, 300, 3000):
            fetched = min(limit, int(rows.sum()))

            def search(query: Any = query, limit: int = limit) -> Any:
                hits = searcher.search(query, limit, count=False).hits
                return searcher.fast_field_values("row", [address for _, address in hits])

            counts.append([1, int(rows.sum()), fetched])
            times.append(least_us(search))
    base, posting, hit = fitted(counts, times)
    most = tantivy.Query.term_query(schema, "body", "most")
    allowed: list[list[float]] = []
    allowed_us: list[float] = []
    for count in (10, 100, 1000):
        chosen = random.choice(ROWS, count, replace=False).tolist()

        def score(chosen: Any = chosen) -> Any:
            only = tantivy.Query.term_set_query(schema, "row", chosen)
            both = tantivy.Query.boolean_query(
                [(tantivy.Occur.Must, most), (tantivy.Occur.Must, only)]
            )
            return searcher.search(both, 10, count=False).hits

        allowed.append([1, count])
        allowed_us.append(least_us(score))
    _, scored_row = fitted(allowed, allowed_us)
    return {"text": base, "posting": posting, "hit": hit, "scored_row": scored_row}


def main() -> None:
    """Measure and print."""
    costs = Costs(**{**exact_costs(), **index_costs(), **text_costs()})
    versions = (f"{name} {metadata.version(name)}" for name in ("faiss-cpu", "tantivy", "numpy"))
    print(", ".join(versions))
    for name in Costs.__annotations__:
        print(f"    {name}: float = {getattr(costs, name):.2g}")


if __name__ == "__main__":
    main()
