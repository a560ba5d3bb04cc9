"""Queries answered from the tree: `exact.py`, and words and both at once beside it.

The reference for the executor, and what answers where there is no view.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from treestore.model.namespaces import NamespaceHit
from treestore.search.fulltext.index import View as IndexView
from treestore.stores.access import Read
from treestore.stores.namespaces import exact
from treestore.stores.namespaces.answer import answer
from treestore.stores.namespaces.live import hybrid
from treestore.stores.namespaces.live.legs import Found
from treestore.stores.namespaces.live.querying import NoIndex
from treestore.stores.namespaces.live.words import Words, cut_records, rows_of
from treestore.stores.namespaces.search import Asked, Request


def search(txn: Read, request: Request, index: IndexView | None) -> list[NamespaceHit]:
    """The best hits of a state, by looking at every document.

    Args:
        index: whose numbers words are scored with. It may be of another state.

    Raises:
        NotFound, InvalidArgument: see `treestore.stores.namespaces.search.query`.
        Unavailable: words are asked for, and there is no index.
    """
    if request.text is None:
        return exact.search(txn, request)
    asked = Asked.of(txn, request)
    if index is None:
        raise NoIndex("The full-text index of this namespace is being built; try again later.")
    return answer(txn, asked, [one.ranked for one in found(txn, asked, index)])


def found(txn: Read, asked: Asked, index: IndexView) -> list[Found]:
    """The best ones behind `Asked.after` for words, or words and a vector."""
    rows = exact.rows_of(txn, asked)
    numbers = np.fromiter(rows, np.int64, len(rows))
    missing = np.setdiff1d(numbers, rows_of(index), assume_unique=True).tolist()
    prefix = asked.there.space.documents
    records = {rows[row]: txn.get(prefix + rows[row]) or b"" for row in missing}
    unindexed = cut_records(index, records)
    words = Words(index, asked, unindexed, {row: rows[row] for row in unindexed})
    if asked.vector is None:
        return words.among_rows(rows, asked.wanted, asked.after)

    def both(depth: int) -> tuple[list[Found], list[Found]]:
        near = exact.nearest(txn, asked, rows, depth)
        return [Found(ranked=one, row=None) for one in near], words.among_rows(rows, depth, b"")

    best = hybrid.fused(asked, both)
    return hybrid.with_distances(asked, best, partial(hybrid.distances_in_tree, txn, asked))
