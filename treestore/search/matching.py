"""Rows that are in no index yet, matched and scored one by one.

The same rules and the same BM25 as the index's, with the index's own statistics, so that their
scores compare with those of its hits.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Protocol

import attrs

from treestore.search.compiling import CONTENT, Fields
from treestore.search.languages import Analyzer, analyzer, normalized, surface_analyzer
from treestore.search.query import Asked, StemLook, SurfaceLook, Wanted

K1: Final = 1.2
B: Final = 0.75

VALUE_GAP: Final = 2
"""Positions between two texts of a row, as tantivy counts: no phrase without stop words goes over
the gap, and one with such is looked for in each text (``compiling.py``)."""

ROWS_KEPT: Final = 4096
"""Rows that stay cut into words, for the next search."""


class Statistics(Protocol):
    """What BM25 asks of an index."""

    def rarity(self, field: str, word: str) -> float:
        """The inverse document frequency of a word."""
        ...

    def mean_length(self, field: str) -> float:
        """Words of a row in the field, on average."""
        ...


@attrs.frozen
class Counted:
    """One text of a row: how many words, and where each one is."""

    length: int
    positions: Mapping[str, Sequence[int]]


@attrs.frozen
class Row:
    """One row, cut into words: its stems by field, and its words as written."""

    stems: Mapping[str, Counted]
    surfaces: Mapping[str, frozenset[str]]


@lru_cache(maxsize=ROWS_KEPT)
def cut(language: str, names: tuple[str, ...], texts: tuple[str, ...]) -> Row:
    """A row from its texts, which belong to the fields ``names``."""
    chain = analyzer(language)
    stems: dict[str, Counted] = {}
    surfaces: dict[str, frozenset[str]] = {}
    content: dict[str, list[int]] = {}
    length = start = 0
    for name, text in zip(names, texts, strict=True):
        text = normalized(text)
        positions: dict[str, list[int]] = {}
        words = chain.words(text)
        for word in words:
            positions.setdefault(word.text, []).append(word.position)
            content.setdefault(word.text, []).append(start + word.position)
        stems[name] = Counted(len(words), positions)
        surfaces[name] = _surfaces(chain, text)
        length += len(words)
        start += (words[-1].position if words else 0) + VALUE_GAP
    stems[CONTENT] = Counted(length, content)
    return Row(stems, surfaces)


def _surfaces(chain: Analyzer, text: str) -> frozenset[str]:
    return frozenset(surface_analyzer().analyze(chain.surface_text(text)))


def score(
    row: Row, wanted: Sequence[Wanted], fields: Fields, statistics: Statistics
) -> float | None:
    """How well a row fits; None where it does not."""
    return score_asked(row, [fields.asked(one) for one in wanted], statistics)


def score_asked(row: Row, asked: Sequence[Asked], statistics: Statistics) -> float | None:
    """How well a row fits; None where it does not."""
    total = 0.0
    musts = found = 0
    for one in asked:
        its = _score_of(row, one, statistics)
        if one.occur == "not":
            if its is not None:
                return None
            continue
        musts += one.occur == "must"
        if its is not None:
            found += 1
            total += its
        elif one.occur == "must":
            return None
    return total if found or musts else None


def _score_of(row: Row, one: Asked, statistics: Statistics) -> float | None:
    scores: list[float] = []
    for surface in one.surfaces:
        words = row.surfaces.get(surface.name)
        if words and _has_surfaces(words, surface):
            scores.append(surface.weight * len(surface.words))
    for look in one.stems:
        text = row.stems.get(look.field)
        if text is not None:
            scores += _stem_scores(text, look, statistics)
    return math.fsum(scores) if scores else None


def _stem_scores(text: Counted, look: StemLook, statistics: Statistics) -> list[float]:
    scores: list[float] = []
    field, weight, words, strict = look
    if strict:
        count = _phrases(text, words)
        if count:
            rarity = sum(statistics.rarity(field, stem) for _, stem in words)
            mean = statistics.mean_length(field)
            scores.append(weight * _bm25(rarity, count, text.length, mean))
        return scores
    for _, stem in words:
        places = text.positions.get(stem)
        if places:
            mean = statistics.mean_length(field)
            rarity = statistics.rarity(field, stem)
            scores.append(weight * _bm25(rarity, len(places), text.length, mean))
    return scores


def _phrases(text: Counted, words: Sequence[tuple[int, str]]) -> int:
    """How often the words are in the text at these distances."""
    first = text.positions.get(words[0][1], ())
    others = [(at, set(text.positions.get(stem, ()))) for at, stem in words[1:]]
    return sum(all(start + at in places for at, places in others) for start in first)


def _bm25(rarity: float, count: int, length: int, mean: float) -> float:
    norm = K1 * (1 - B + B * length / mean) if mean else K1
    return rarity * count * (K1 + 1) / (count + norm)


def _indexed_lengths() -> tuple[int, ...]:
    """The 256 lengths that an index tells apart: all up to 40, then eight for each doubling."""
    lengths = [*range(40)]
    base, step = 16, 2
    while len(lengths) < 256:
        lengths += [24 + base + step * n for n in range(8)]
        base, step = 2 * base, 2 * step
    return tuple(lengths)


INDEXED_LENGTHS: Final = _indexed_lengths()


def indexed_length(length: int) -> int:
    """What an index remembers of a text's length: one byte."""
    return INDEXED_LENGTHS[bisect_right(INDEXED_LENGTHS, length) - 1]


def rarity(rows: float, holding: float) -> float:
    """Inverse document frequency: of ``rows``, ``holding`` hold the word."""
    return math.log(1 + (rows - holding + 0.5) / (holding + 0.5))


def _has_surfaces(surfaces: frozenset[str], look: SurfaceLook) -> bool:
    last = len(look.words) - 1
    for number, surface in enumerate(look.words):
        if look.prefix and number == last:
            if not any(word.startswith(surface) for word in surfaces):
                return False
        elif look.fuzzy:
            if not any(is_near(surface, word, look.fuzzy) for word in surfaces):
                return False
        elif surface not in surfaces:
            return False
    return True


def is_near(word: str, other: str, letters: int) -> bool:
    """Whether the words differ in at most so many letters: one put in, left out, replaced, or two
    neighbours swapped."""
    if abs(len(word) - len(other)) > letters:
        return False
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        after = [i]
        for j, its in enumerate(other, 1):
            cost = min(row[j] + 1, after[j - 1] + 1, row[j - 1] + (letter != its))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == its:
                cost = min(cost, before[j - 2] + 1)
            after.append(cost)
        if min(after) > letters:
            return False
        before, row = row, after
    return row[-1] <= letters
