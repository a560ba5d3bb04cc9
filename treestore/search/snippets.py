"""Snippets: the part of a text that shows best why it was found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from treestore.search.languages import Analyzer, Word, normalized
from treestore.search.matching import is_near
from treestore.search.query import Wanted

SNIPPET_CHARACTERS: Final = 200
"""About how long a snippet is."""

HITS_MAX: Final = 100
"""Words of a stretch that are looked at for a snippet."""

STRETCH_CHARACTERS: Final = 10_000
"""A text is looked through in stretches of this length; of a hit in the first, the others are not
looked at."""

BEGINNING: Final = 2
"""Letters that a word has in common with its stem, and it has all of the stem but the last one
("dying", found by "die", is not marked)."""

_WORD: Final = re.compile(r"[^\W_]+")

Ranges = tuple[tuple[int, int], ...]


class Highlighter:
    """Finds a query's words in texts of one language."""

    def __init__(self, wanted: Sequence[Wanted], analyzer: Analyzer) -> None:
        positive = [one for one in wanted if one.clause.occur != "not"]
        self._analyzer = analyzer
        self._stems = {stem for one in positive for _, stem in one.words}
        self._prefixes = tuple(
            one.surfaces[-1] for one in positive if one.clause.prefix and one.surfaces
        )
        self._fuzzy = [
            (surface, one.clause.fuzzy)
            for one in positive
            if one.clause.fuzzy
            for surface in one.surfaces
        ]
        self._beginnings: set[str] = set()
        if not self._prefixes and not self._fuzzy and analyzer.keeps_beginnings:
            self._beginnings = {stem[: max(BEGINNING, len(stem) - 1)] for stem in self._stems}

    def snippet(self, texts: Sequence[str]) -> tuple[str, Ranges]:
        """The best part of the first text with a word in it, else the beginning of the first one
        that is not empty; and where in it the words are."""
        first = ""
        for text in texts:
            text = normalized(text)
            first = first or text
            for start in range(0, len(text), STRETCH_CHARACTERS):
                stretch = text[start : start + STRETCH_CHARACTERS]
                hits = self._hits(stretch)
                if hits:
                    return _window(stretch, hits[:HITS_MAX])
        return _cut(first, 0, SNIPPET_CHARACTERS), ()

    def _hits(self, text: str) -> list[Word]:
        # Nearly always a word begins as its stem does, and then this is many times as quick.
        found = self._begun(text) if self._beginnings else None
        if found:
            return found
        return [word for word in self._analyzer.words(text) if self._hit(word, text)]

    def _begun(self, text: str) -> list[Word]:
        """The words that begin as one of the stems does."""
        lower = text.lower()
        if len(lower) != len(text):
            return []  # A letter became two: what is found there would be somewhere else here.
        found: dict[int, Word] = {}
        for beginning in self._beginnings:
            start = lower.find(beginning)
            while start >= 0:
                match = _WORD.match(lower, start)
                assert match is not None
                end = match.end()
                if start == 0 or not lower[start - 1].isalnum():
                    stem = self._analyzer.stem(match[0])
                    if stem in self._stems:
                        found[start] = Word(stem, 0, start, end)
                start = lower.find(beginning, end)
        return [found[start] for start in sorted(found)] if len(found) > 1 else [*found.values()]

    def _hit(self, word: Word, text: str) -> bool:
        if word.text in self._stems:
            return True
        if not self._prefixes and not self._fuzzy:
            return False
        surface = self._analyzer.surface(text[word.start : word.end])
        return surface.startswith(self._prefixes or ("\0",)) or any(
            is_near(other, surface, letters) for other, letters in self._fuzzy
        )


def _window(text: str, hits: list[Word]) -> tuple[str, Ranges]:
    """The part with the most different words, then the most words."""
    if len(text) <= SNIPPET_CHARACTERS:
        return text, tuple((word.start, word.end) for word in _separate(hits))
    best, best_score = 0, (0, 0)
    inside: Counter[str] = Counter()
    last = 0
    for first, hit in enumerate(hits):
        end = hit.start + SNIPPET_CHARACTERS
        while last < len(hits) and (last <= first or hits[last].end <= end):
            inside[hits[last].text] += 1
            last += 1
        its_score = len(inside), last - first
        if its_score > best_score:
            best, best_score = first, its_score
        if last == len(hits):
            break  # What begins later holds no more.
        inside[hit.text] -= 1
        if not inside[hit.text]:
            del inside[hit.text]
    # A little of what stands before.
    start = max(0, hits[best].start - SNIPPET_CHARACTERS // 4)
    start = _word_start(text, start, hits[best].start)
    end = max(start + SNIPPET_CHARACTERS, hits[best].end)
    snippet = _cut(text, start, end)
    end = start + len(snippet)
    return snippet, tuple(
        (word.start - start, word.end - start)
        for word in _separate(hits)
        if start <= word.start and word.end <= end
    )


def _separate(words: list[Word]) -> list[Word]:
    """Without those that lie within another one: Chinese words hold others."""
    if len(words) == 1:
        return words
    kept: list[Word] = []
    for word in sorted(words, key=lambda word: (word.start, -word.end)):
        if not kept or word.start >= kept[-1].end:
            kept.append(word)
    return kept


def _word_start(text: str, start: int, before: int) -> int:
    """The first beginning of a word at or after ``start``, unless that is too far."""
    if start == 0:
        return 0
    space = text.find(" ", start - 1, before)
    return start if space < 0 else space + 1


def _cut(text: str, start: int, end: int) -> str:
    """``text[start:end]``, or a little less where that would cut a word."""
    if end >= len(text):
        return text[start:]
    space = text.rfind(" ", start + (end - start) // 2, end + 1)
    return text[start : end if space < 0 else space]
