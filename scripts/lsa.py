"""Latent semantic analysis: vectors of texts, learnt from the texts themselves.

Words that occur in the same texts point in similar directions, so that texts with the same subject
are near each other although they have no word in common. It needs numpy, and no model that somebody
trained: stems of words are counted, weighted by log and entropy (a word that is spread evenly over
all texts tells nothing), and the texts' matrix is cut down to the directions in which it reaches
furthest (a truncated singular value decomposition).

All texts are in memory as rows of numbers, one for each different word: right for some thousand
texts. A larger collection learns from a sample of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

Floats = NDArray[np.float64]


class Lsa:
    """Learns from texts, then gives vectors to these and to others, questions for instance.

    Args:
        texts: what to learn from.
        dim: numbers of a vector; fewer where the texts do not differ in so many directions. 100 to
            300 are usual.
        language: whose stop words and stems count.

    Attributes:
        dim: how many numbers a vector has.
    """

    def __init__(self, texts: Sequence[str], dim: int = 200, language: str = "english") -> None:
        builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.lowercase())
        builder = builder.filter(Filter.stopword(language)).filter(Filter.stemmer(language))
        self._analyzer = builder.build()
        bags = [Counter[str](self._analyzer.analyze(text)) for text in texts]
        self._columns = {word: n for n, word in enumerate(sorted(set().union(*bags)))}
        counts = np.zeros((len(bags), len(self._columns)))
        for row, bag in enumerate(bags):
            counts[row, [self._columns[word] for word in bag]] = list(bag.values())
        shares = counts / counts.sum(axis=0)
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        entropy = -(shares * logs).sum(axis=0)
        self._weights: Floats = 1 - entropy / math.log(max(2, len(bags)))
        matrix = np.log1p(counts) * self._weights
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        np.divide(matrix, lengths, out=matrix, where=lengths > 0)
        self._basis = _furthest(matrix, dim)
        self.dim = self._basis.shape[1]

    def embed(self, text: str) -> list[float] | None:
        """The vector of a text; its length means nothing. None where the text has no word that was
        learnt, and so no direction."""
        bag = Counter(self._analyzer.analyze(text))
        known = {self._columns[word]: count for word, count in bag.items() if word in self._columns}
        columns = list(known)
        weights = np.log1p(list(known.values())) * self._weights[columns]
        vector: list[float] = (weights @ self._basis[columns]).tolist()
        return vector if any(vector) else None


def _furthest(matrix: Floats, dim: int) -> Floats:
    """The directions (columns) in which the rows reach furthest: right singular vectors, by way of
    the eigenvectors of the products of all pairs of rows."""
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    kept = [n for n in np.argsort(-values)[:dim] if values[n] > 1e-9 * values[-1]]
    basis: Any = matrix.T @ (vectors[:, kept] / np.sqrt(values[kept]))
    return np.asarray(basis, dtype=np.float64)
