"""How a query was answered, for people; and how well approximate searches find."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random

import attrs
import numpy as np

from treestore.errors import InvalidArgument
from treestore.model.namespaces import (
    NamespaceExplanation,
    PartExplanation,
    Recall,
    WordsExplanation,
)
from treestore.search.vectors.planning import WANTED_RECALL
from treestore.search.vectors.search import PartReport
from treestore.search.vectors.segment import Segment
from treestore.stores.access import Read
from treestore.stores.namespaces.asking import RecallRequest
from treestore.stores.namespaces.layout import packed_row
from treestore.stores.namespaces.live.pieces import Piece
from treestore.stores.namespaces.live.querying import Execution, Trace
from treestore.stores.namespaces.search import Asked


def explained(
    execution: Execution, trace: Trace, asked: Asked, took_ms: float
) -> NamespaceExplanation:
    """What an execution did, which has run.

    Args:
        took_ms: until there was a view that had followed to the state.
    """
    began = time.perf_counter()
    pieces = execution.pieces
    filtered_ms = _since(began)
    estimated = execution.estimate()
    began = time.perf_counter()
    hits = execution.hits()
    times = {"view": took_ms, "filter": filtered_ms, "search": _since(began)}
    allowed = sum(piece.count for piece in pieces)
    parts = tuple(
        _part(piece, report, asked)
        for piece, report in zip(trace.vector.pieces, trace.vector.parts, strict=True)
    )
    words = None
    if asked.request.text is not None:
        report = trace.words
        words = WordsExplanation(
            estimated=report.estimated, fetched=report.fetched, unindexed=report.unindexed
        )
    return NamespaceExplanation(
        plan=_sentence(asked, parts, words, execution.visible, allowed),
        source="view",
        documents=execution.visible,
        estimated=estimated,
        allowed=allowed,
        hits=len(hits),
        parts=parts,
        words=words,
        times=times,
    )


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _part(piece: Piece, report: PartReport, asked: Asked) -> PartExplanation:
    return PartExplanation(
        segment=piece.part.segment,
        rows=report.rows,
        allowed=report.allowed,
        way=report.way,
        costs=_costs(piece, report, asked.wanted),
        probes=report.probes,
        lists=report.lists,
        estimated=report.estimated,
        compared=report.compared,
        recall=report.recall,
    )


def _costs(piece: Piece, report: PartReport, wanted: int) -> dict[str, float]:
    source = piece.content.vectors
    index = source.index if isinstance(source, Segment) else None
    if index is None or not report.allowed:
        return {}
    costs = {"exact": index.costs.comparing(report.allowed)}
    share = report.allowed / index.rows
    calibration = index.calibration
    if calibration is not None and report.allowed > wanted:
        effort = calibration.effort(wanted, share, WANTED_RECALL, index.costs)
        if effort is not None:
            costs["index"] = index.costs.indexed(effort, share)
    return costs


def _sentence(
    asked: Asked,
    parts: Sequence[PartExplanation],
    words: WordsExplanation | None,
    visible: int,
    allowed: int,
) -> str:
    said = [f"{allowed:,} of {visible:,} documents may be found"]
    if asked.vector is not None:
        by_index = sum(part.way == "index" for part in parts)
        compared = sum(part.compared for part in parts)
        said.append(
            f"the indexes of {by_index} of {len(parts)} parts name candidates, and {compared:,} "
            "vectors are compared exactly"
            if by_index
            else f"{compared:,} vectors are compared exactly"
        )
    if words is not None:
        said.append(
            f"about {words.estimated:,} have the words, of which the best {words.fetched:,} are "
            "looked at"
        )
    if asked.vector is None and words is None:
        said.append("their columns give the order")
    return "; ".join(said) + "."


# -- recall -------------------------------------------------------------------------------------


def measured(
    txn: Read,
    asked: Asked,
    given: RecallRequest,
    random: Random,
    execute: Callable[[Asked], Execution],
) -> Recall:
    """Compare approximate searches with exact ones.

    Args:
        execute: makes an execution of a query.
    """
    if asked.there.schema.vector is None:
        raise InvalidArgument("The namespace has no vectors; there is nothing to measure.")
    top_k = given.request.top_k
    own = given.queries is None
    vectors = given.queries
    if vectors is None:
        vectors = tuple(_sampled(txn, asked, execute(asked).pieces, given.sample, random))
    shares: list[float] = []
    times: dict[bool, list[float]] = {False: [], True: []}
    for vector in vectors:
        found: dict[bool, list[bytes]] = {}
        for exact in (False, True):
            # One more than is wanted: the query finds itself.
            request = attrs.evolve(
                given.request, vector=vector, exact=exact, top_k=top_k + own, offset=0
            )
            began = time.perf_counter()
            hits = execute(Asked.of(txn, request)).found()
            times[exact].append(_since(began))
            found[exact] = [hit.ranked.packed_id for hit in hits]
        wanted = found[True][own:]
        if wanted:
            there = set(found[False])
            shares.append(sum(packed in there for packed in wanted) / len(wanted))
    return Recall(
        recall=statistics.fmean(shares) if shares else 1.0,
        worst=min(shares, default=1.0),
        queries=len(vectors),
        top_k=top_k,
        approximate_ms=statistics.median(times[False]) if times[False] else 0.0,
        exact_ms=statistics.median(times[True]) if times[True] else 0.0,
    )


def _sampled(
    txn: Read, asked: Asked, pieces: Sequence[Piece], count: int, random: Random
) -> Iterator[bytes]:
    """Vectors of some rows that may be found, drawn at random."""
    having = [piece for piece in pieces if piece.content.vectors is not None]
    rows = np.concatenate(
        [np.empty(0, np.int64), *(one.content.rows[one.ordinals()] for one in having)]
    )
    prefix = asked.there.space.vectors
    drawn = random.sample(range(len(rows)), min(len(rows), 2 * count))
    found = 0
    for at in drawn:
        vector = txn.get(prefix + packed_row(int(rows[at])))
        if vector:
            yield vector
            found += 1
            if found == count:
                return
