"""Languages: how a text becomes words that are compared.

For a stemmed language, a text is normalised (Unicode NFKC), cut into runs of letters and digits
(and marks: `word_tokenizer`), words of more than `WORD_CHARACTERS_MAX` are dropped, the others
lower-cased (`turkish_case`), stop words dropped (a word keeps its position all the same), and
stemmed. ``none`` stops after lower-casing: for any other language. ``chinese`` has no spaces: a
dictionary cuts it into words; each of these, and the shorter words inside it, are found.

A change here changes what an index has to hold: raise `ANALYSIS_VERSION`, and indexes are rebuilt.
"""

from __future__ import annotations

import importlib.metadata
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Final, NamedTuple

import tantivy
from tantivy import Filter, PreTokenizedString, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

from treestore.search.names import CHINESE, MARKED, STEMMED, TURKISH
from treestore.search.stopwords import STOP_WORDS

ANALYSIS_VERSION: Final = 2

WORD_CHARACTERS_MAX: Final = 100
"""Longer words are not indexed: no word of a language, and a hash still fits."""

STEMS_KEPT: Final = 50_000
"""Words whose stems are remembered, for highlights."""

QUERIED_KEPT: Final = 10_000
"""Likewise words that were asked for."""

SURFACE: Final = "surface"
"""Name of the tokenizer that leaves words as they are written, but for their case."""


def normalized(text: str) -> str:
    """The text in Unicode normal form NFKC: what is analysed, and what snippets are cut from."""
    return text if unicodedata.is_normalized("NFKC", text) else unicodedata.normalize("NFKC", text)


class Word(NamedTuple):
    """One word of a text.

    Attributes:
        text: as it is compared: its stem.
        position: which word of the text it is, dropped ones counted.
        start, end: where it is in the (normalised) text, in characters.
    """

    text: str
    position: int
    start: int
    end: int


def stop_filter(language: str) -> Filter:
    """What drops a language's stop words, in lower case."""
    own = STOP_WORDS.get(language)
    return Filter.stopword(language) if own is None else Filter.custom_stopword(own.split())


def word_tokenizer(language: str | None) -> Tokenizer:
    """What cuts a text into words: where the language has marks, these belong to the word. It
    takes three times as long, and other languages' marks are one with their letters in NFKC."""
    if language in MARKED:
        return Tokenizer.regex(r"[\p{Alphabetic}\p{N}\p{M}]+")
    return Tokenizer.simple()


def _simple(language: str | None) -> TextAnalyzer:
    builder = TextAnalyzerBuilder(word_tokenizer(language))
    # In bytes of UTF-8, so the limit is generous.
    builder = builder.filter(Filter.remove_long(4 * WORD_CHARACTERS_MAX)).filter(Filter.lowercase())
    if language in STEMMED:
        builder = builder.filter(stop_filter(language)).filter(Filter.stemmer(language))
    return builder.build()


@cache
def surface_analyzer() -> TextAnalyzer:
    """Words as they are written, in lower case."""
    return _simple(None)


class Analyzer:
    """Cuts texts into words, by default as their language has it. Made by `analyzer`; free of
    threads."""

    def __init__(
        self,
        language: str,
        chain: TextAnalyzer | None = None,
        surface_chain: TextAnalyzer | None = None,
    ) -> None:
        self.language = language
        self.surface_chain = surface_analyzer() if surface_chain is None else surface_chain
        if chain is None:
            chain = _simple(language) if language != CHINESE else self.surface_chain
        self.chain: TextAnalyzer = chain
        self.keeps_beginnings = language == "english"
        """Whether a word nearly always begins as its stem does, but for the stem's last letter."""
        self._stems: dict[str, str] = {}
        self._queried: dict[str, tuple[Word, ...]] = {}

    def stem(self, word: str) -> str:
        """What a single word is compared as; "" for a stop word."""
        found = self._stems.get(word)
        if found is None:
            if len(self._stems) >= STEMS_KEPT:
                self._stems.clear()
            found = self._stems[word] = "".join(self.chain.analyze(word))
        return found

    def words(self, text: str) -> list[Word]:
        """The words of a normalised text, in order."""
        return [
            Word(token.text, token.position, token.char_offset_from, token.char_offset_to)
            for token in self.chain.pre_tokenize(text).tokens
        ]

    def pre_tokenized(self, text: str) -> PreTokenizedString:
        """The words of a normalised text, in the form an index takes."""
        return self.chain.pre_tokenize(text)

    def query_words(self, text: str) -> list[Word]:
        """The words that a query's text stands for."""
        return self.words(text)

    def known_query_words(self, text: str) -> Sequence[Word]:
        """`query_words`, remembered: the same words are asked for again and again."""
        found = self._queried.get(text)
        if found is None:
            if len(self._queried) >= QUERIED_KEPT:
                self._queried.clear()
            found = tuple(self.query_words(text))
            if len(text) <= WORD_CHARACTERS_MAX:
                self._queried[text] = found
        return found

    def surfaces(self, text: str) -> list[str]:
        """The words of a query's text as they are written, in lower case."""
        return self.surface_chain.analyze(text)

    def surface(self, word: str) -> str:
        """A single word as it is written, in lower case."""
        return word.lower()

    def surface_text(self, text: str) -> str:
        """The text for a field of words as they are written."""
        return text


def pre_tokenized(text: str, words: Sequence[Word]) -> PreTokenizedString:
    """Words in the form an index takes."""
    tokens = [tantivy.Token(word.text, word.position, word.start, word.end) for word in words]
    return PreTokenizedString(text, tokens)


def chinese_words(text: str, characters_max: int) -> Iterator[Word]:
    """The words, as written, that a text is cut into; before each the shorter ones in it."""
    from rjieba import tokenize

    inner = iter(tokenize(text, "search"))
    position = -1
    for whole, start, end in tokenize(text, "default"):
        counts = any(map(str.isalnum, whole)) and len(whole) <= characters_max
        position += counts
        for part, begins, ends in inner:
            if counts:
                yield Word(part, position, begins, ends)
            if (begins, ends) == (start, end):
                break


def whole_words(words: Sequence[Word]) -> list[Word]:
    """The longest word at each position."""
    return [
        max(same, key=lambda word: word.end - word.start)
        for _, same in groupby(words, key=lambda word: word.position)
    ]


def turkish_case(text: str) -> str:
    """The text with those capitals in lower case that are others in Turkish: "I" is that of "ı",
    "İ" that of "i". Lower-cased as elsewhere they would be "i", and "i" with one more dot."""
    return text.translate(_TURKISH_CASE)


_TURKISH_CASE: Final = {ord("I"): "ı", ord("İ"): "i"}


class TurkishAnalyzer(Analyzer):
    """Knows that "i" has its dot in capitals too."""

    def words(self, text: str) -> list[Word]:
        """See `Analyzer.words`."""
        return super().words(turkish_case(text))

    def pre_tokenized(self, text: str) -> PreTokenizedString:
        """See `Analyzer.pre_tokenized`."""
        return super().pre_tokenized(turkish_case(text))

    def surfaces(self, text: str) -> list[str]:
        """See `Analyzer.surfaces`."""
        return super().surfaces(turkish_case(text))

    def surface(self, word: str) -> str:
        """See `Analyzer.surface`."""
        return super().surface(turkish_case(word))

    def surface_text(self, text: str) -> str:
        """See `Analyzer.surface_text`."""
        return turkish_case(text)


class ChineseAnalyzer(Analyzer):
    """Cuts Chinese with a dictionary and, for what it does not hold, a model of word borders."""

    def words(self, text: str) -> list[Word]:
        """Each word that the text is cut into, and the shorter ones in it at the same position."""
        return [
            Word(part.lower(), position, start, end)
            for part, position, start, end in chinese_words(text, WORD_CHARACTERS_MAX)
        ]

    def query_words(self, text: str) -> list[Word]:
        """The words that the text is cut into, without those in them."""
        return whole_words(self.words(text))

    def pre_tokenized(self, text: str) -> PreTokenizedString:
        """See `Analyzer.pre_tokenized`."""
        return pre_tokenized(text, self.words(text))

    def surfaces(self, text: str) -> list[str]:
        """See `Analyzer.surfaces`. Cut as the index cuts them: "c++" is a word here, "c" there."""
        return [
            part
            for word in self.query_words(text)
            for part in self.surface_chain.analyze(word.text)
        ]

    def surface_text(self, text: str) -> str:
        """See `Analyzer.surface_text`."""
        return " ".join(word.text for word in self.words(text))


@cache
def analyzer(language: str) -> Analyzer:
    """The analyzer of one of `LANGUAGES`."""
    kinds = {CHINESE: ChineseAnalyzer, TURKISH: TurkishAnalyzer}
    return kinds.get(language, Analyzer)(language)


@cache
def analysis_version() -> str:
    """What makes texts into words: an index made by another one is rebuilt."""
    libraries = ("tantivy", "rjieba")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in libraries]
    return f"{ANALYSIS_VERSION}, {', '.join(versions)}, Unicode {unicodedata.unidata_version}"
