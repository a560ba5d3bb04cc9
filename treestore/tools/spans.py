"""The sentences of a text that fit a query best.

A text is cut into sentences, each is scored by BM25 over the sentences of the same text (so that
a word which stands in every sentence counts little), sentences that hold the query's words next
to each other in its order get a bonus, and the best ones that touch are joined into one span.
Ties go to the sentence that comes first. The same text and query always give the same spans.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from math import log

import attrs

SENTENCE_SIZE_MAX = 600
"""Characters of a sentence at most; a longer one is cut at a semicolon or a blank."""

_K1 = 1.2
_B = 0.5
"""Sentences differ less in length than documents do: half of the usual correction."""
_ADJACENT_BONUS = 0.5
"""For each pair of query words that stand together, as a share of the rarer one's weight."""
_JOIN_SHARE = 0.5
"""A neighbour of a span joins it where it has at least this share of the span's best score."""

_WORD = re.compile(r"\w+", re.UNICODE)
_ENDINGS = re.compile(
    # A full stop with what closes it; one of East Asian text, which no blank follows;
    r"[.!?]+[\"'\u2019\u201d)\]]*(?=\s)|[\u3002\uff01\uff1f]+"
    # an empty line; a line break before an item of a list.
    r"|\n\s*\n|\n(?=\s*[-*\u2022(]|\s*\d+[.)]\s)"
)
# What numbers an item of a list.
_NUMBER = re.compile(r"\d{1,4}|[a-zA-Z]")
# Words whose dot ends no sentence: ever; before a number; unless a capital letter follows.
_ALWAYS = frozenset({"cf", "dr", "e.g", "i.e", "mr", "mrs", "ms", "prof", "v", "vs"})
_NUMBERED = frozenset(
    {"art", "ch", "eq", "fig", "no", "nos", "p", "para", "pp", "pt", "sec", "vol"}
)
_WITHIN = frozenset({"al", "approx", "co", "corp", "ed", "etc", "inc", "jr", "ltd", "sr", "u.s"})
_STOP_WORDS = frozenset(
    (
        *("a", "an", "and", "any", "are", "as", "at", "be", "by", "can", "do", "does", "for"),
        *("from", "has", "have", "how", "if", "in", "is", "it", "its", "may", "must", "no", "not"),
        *("of", "on", "or", "shall", "should", "such", "than", "that", "the", "their", "there"),
        *("this", "to", "was", "were", "what", "when", "where", "which", "who", "will", "with"),
    )
)


@attrs.frozen(kw_only=True)
class Span:
    """A part of a text.

    Attributes:
        start, end: characters of the text, ``text[start:end]``.
        score: higher is better; scores of different texts cannot be compared.
        matched: the query's words that it holds, as in the query.
    """

    start: int
    end: int
    score: float
    matched: tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a text, in one spelling: case, accents' form and plain English endings apart.

    Text without blanks between words (Chinese, Japanese) gives pairs of characters.
    """
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _is_cjk(word[0]):
            found += [word] if len(word) == 1 else [a + b for a, b in pairwise(word)]
        else:
            found.append(_stem(word))
    return found


def _is_cjk(character: str) -> bool:
    return "\u3040" <= character <= "\u9fff" or "\U00020000" <= character <= "\U0003ffff"


def _stem(word: str) -> str:
    """Plurals and two common endings of verbs cut off, where enough of the word is left."""
    if not word.isascii() or len(word) < 4 or word.isdigit():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "xes", "ches", "shes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            word = word[: -len(ending)]
            return word[:-1] if word[-1] == word[-2] and word[-1] not in "ls" else word
    return word.removesuffix("e") if len(word) > 4 else word


def query_words(query: str) -> list[str]:
    """The words of a query that say something; all of them where none does."""
    found = words(query)
    telling = [word for word in found if word not in _STOP_STEMS]
    return telling or found


_STOP_STEMS = _STOP_WORDS | {_stem(word) for word in _STOP_WORDS}


def sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence of ``text`` begins and ends, without the white space around it."""
    bounds: list[tuple[int, int]] = []
    start = 0
    for ending in _ENDINGS.finditer(text):
        if ending.group()[0] == "." and (
            _is_abbreviation(text, ending.start())
            or _NUMBER.fullmatch(text[start : ending.start()].strip())
        ):
            continue
        _add(bounds, text, start, ending.end())
        start = ending.end()
    _add(bounds, text, start, len(text))
    return bounds


def _is_abbreviation(text: str, dot: int) -> bool:
    """Whether the dot belongs to a word such as ``No.`` or ``e.g.``, or to an initial."""
    begin = dot
    while begin and text[begin - 1] not in "([\u201c\"'" and not text[begin - 1].isspace():
        begin -= 1
    word = text[begin:dot].casefold()
    following = text[dot + 1 : dot + 40].lstrip()[:1]
    if word in _NUMBERED:
        return following.isdigit() or following == "\u00a7"
    if word in _WITHIN:
        return not following.isupper()
    return word in _ALWAYS or (len(word) == 1 and word.isalpha() and word not in ("a", "i"))


def _add(bounds: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    start, end = _trimmed(text, start, end)
    while end - start > SENTENCE_SIZE_MAX:
        cut = _cut_of(text, start)
        bounds.append(_trimmed(text, start, cut))
        start, end = _trimmed(text, cut, end)
    if start < end:
        bounds.append((start, end))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The bounds without white space at their ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _cut_of(text: str, start: int) -> int:
    limit = start + SENTENCE_SIZE_MAX
    for mark in (";", ":", ",", " "):
        at = text.rfind(mark, start + SENTENCE_SIZE_MAX // 4, limit)
        if at >= 0:
            return at + (mark != " ")
    return limit


# --- ranking ---------------------------------------------------------------------------------


@attrs.frozen
class _Scored:
    at: int
    score: float
    matched: frozenset[str]


def find_spans(text: str, query: str, top_k: int = 3) -> list[Span]:
    """The ``top_k`` best spans of ``text`` for ``query``, best first; none where nothing fits."""
    wanted = query_words(query)
    bounds = sentences(text)
    if not wanted or not bounds:
        return []
    scored = _score([words(text[start:end]) for start, end in bounds], wanted)
    taken: set[int] = set()
    spans: list[Span] = []
    by_number = {sentence.at: sentence for sentence in scored}
    for best in sorted(scored, key=lambda sentence: (-sentence.score, sentence.at)):
        if len(spans) == top_k:
            break
        if best.at in taken:
            continue
        first, last = _joined(best, by_number, taken)
        taken.update(range(first, last + 1))
        matched = frozenset[str]().union(*(by_number[at].matched for at in range(first, last + 1)))
        spans.append(
            Span(
                start=bounds[first][0],
                end=bounds[last][1],
                score=round(best.score, 4),
                matched=tuple(dict.fromkeys(word for word in wanted if word in matched)),
            )
        )
    return spans


def _joined(best: _Scored, scored: dict[int, _Scored], taken: set[int]) -> tuple[int, int]:
    """The best sentence, with the neighbours that belong to it (one on each side)."""
    least = best.score * _JOIN_SHARE

    def belongs(at: int) -> bool:
        other = scored.get(at)
        return other is not None and at not in taken and other.score >= least

    first = best.at - 1 if belongs(best.at - 1) else best.at
    last = best.at + 1 if belongs(best.at + 1) else best.at
    return first, last


def _score(parts: list[list[str]], wanted: list[str]) -> list[_Scored]:
    """The sentences that hold any of the words, with their scores."""
    counts = [Counter(part) for part in parts]
    mean = sum(map(len, parts)) / len(parts) or 1.0
    weights = {
        word: _weight(len(parts), sum(word in count for count in counts)) for word in set(wanted)
    }
    pairs = [(a, b) for a, b in pairwise(wanted) if a != b]
    scored = []
    for at, (part, count) in enumerate(zip(parts, counts, strict=True)):
        matched = frozenset(word for word in weights if word in count)
        if not matched:
            continue
        length = 1 - _B + _B * len(part) / mean
        score = sum(
            weights[word] * count[word] * (_K1 + 1) / (count[word] + _K1 * length)
            # In the query's order: a sum of floats depends on it.
            for word in dict.fromkeys(wanted)
            if word in matched
        )
        near = set(pairwise(part))
        score += _ADJACENT_BONUS * sum(
            min(weights[a], weights[b]) for a, b in pairs if (a, b) in near
        )
        scored.append(_Scored(at, score, matched))
    return scored


def _weight(sentences_count: int, holding: int) -> float:
    """BM25's inverse frequency in the form that is never negative."""
    return log(1 + (sentences_count - holding + 0.5) / (holding + 0.5))
