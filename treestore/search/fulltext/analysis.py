"""Analyzers: how the text of an attribute becomes words, as its schema says.

In this order, the same for texts and for queries:

1. Unicode normal form NFKC;
2. runs of letters, digits and their marks are words (Chinese: a dictionary says where words end);
3. words of more than ``token_length_max`` characters, as written, are dropped;
4. lower case, unless ``case_sensitive`` (Turkish has its own);
5. accents are taken off (``ascii_folding``);
6. stop words are dropped (``remove_stopwords``), whatever their case; the others keep their places;
7. stems (``stemming``), or every run of some letters of each word (``ngram``).

What comes after 5 sees words without accents only, so that "café" and "cafe" are one whatever a
language's stop words and stems are. A run of letters has no stem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final

import attrs
from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

from treestore.model.namespaces import FullTextSchema
from treestore.search.languages import (
    Analyzer,
    Word,
    analysis_version,
    chinese_words,
    normalized,
    stop_filter,
    turkish_case,
    whole_words,
    word_tokenizer,
)
from treestore.search.names import CHINESE, STEMMED, TURKISH
from treestore.search.query import QUERY_CHARACTERS_MAX
from treestore.search.stopwords import folded_stop_words

FORMAT_VERSION: Final = 1
"""Of what is made of texts here. Raise it with every change, and indexes are rebuilt."""

ELEMENT_GAP: Final = QUERY_CHARACTERS_MAX + 1
"""Positions between two strings of an array: more than any phrase of a query spans."""

POSITION_MAX: Final = (1 << 32) - (1 << 20)
"""Words beyond are not indexed: the index counts positions in 32 bits."""


def clean(text: str) -> str:
    """The text as it is analysed: NFKC, with a replacement for half a surrogate pair."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-8", "replace").decode()
        text = normalized(text)
    return text


class AttributeAnalyzer(Analyzer):
    """Cuts the texts of one attribute into words. Made by `attribute_analyzer`; free of threads."""

    def __init__(self, schema: FullTextSchema) -> None:
        stemmed = schema.language in STEMMED
        self.is_ngram = schema.tokenizer == "ngram"
        self.stops = stemmed and schema.remove_stopwords
        self.stems = stemmed and schema.stemming and not self.is_ngram
        self._cuts_chinese = schema.language == CHINESE and not self.is_ngram
        self._is_turkish = schema.language == TURKISH
        self._lowers_turkish = self._is_turkish and not schema.case_sensitive
        self._ngrams = schema.ngram_min, schema.ngram_max
        self._characters_max = schema.token_length_max
        self._long = re.compile(rf"\S{{{schema.token_length_max + 1}}}")
        self._stop_chain: TextAnalyzer | None = None
        chain = _begun(schema)
        if self.stops and schema.case_sensitive:
            # The words keep their case, so that another chain has to tell.
            lower = attrs.evolve(schema, case_sensitive=False)
            self._stop_chain = _stopping(_begun(lower), lower).build()
        elif self.stops:
            chain = _stopping(chain, schema)
        if self.stems:
            chain = chain.filter(Filter.stemmer(schema.language))
        super().__init__(schema.language, chain.build(), _begun(schema).build())
        plain = not schema.case_sensitive and not schema.ascii_folding
        self.keeps_beginnings = schema.language == "english" and self.stems and plain
        self._surface_is_lower = plain
        self._folds = schema.ascii_folding
        self._word_chain = _begun(schema, Tokenizer.raw()).build()
        self._is_stop: dict[str, bool] = {}

    @property
    def is_native(self) -> bool:
        """Whether the index can cut the texts itself, with `chain`: but see `has_long`."""
        return not (self.is_ngram or self._cuts_chinese or self._stop_chain or self._lowers_turkish)

    @property
    def has_surfaces(self) -> bool:
        """Whether words as written differ from those that are compared otherwise."""
        return self.stops or self.stems or self.is_ngram or self._cuts_chinese

    def has_long(self, text: str) -> bool:
        """Whether a text may have a word that is too long: the index does not drop it itself."""
        return self._long.search(text) is not None

    # -- texts ----------------------------------------------------------------------------------

    def words(self, text: str) -> list[Word]:
        """See `Analyzer.words`."""
        if self._cuts_chinese:
            return self._chinese(text)
        text = self._cased(text)
        words = self._kept(text, self.chain)
        return list(self._runs(words, all_of=True)) if self.is_ngram else list(words)

    def _cased(self, text: str) -> str:
        return turkish_case(text) if self._lowers_turkish else text

    def _chinese(self, text: str) -> list[Word]:
        at: list[int] | None = None
        if self._folds and not text.isascii():
            # Before it is cut: a word with an accent would be cut there.
            letters = [letter if letter.isascii() else _folded(letter) for letter in text]
            folded = "".join(letters)
            if len(folded) != len(text):
                at = [n for n, letter in enumerate(letters) for _ in letter] + [len(text)]
            text = folded
        words = [
            Word(self.surface(part), position, start, end)
            for part, position, start, end in chinese_words(text, self._characters_max)
        ]
        if at is None:
            return words
        return [its._replace(start=at[its.start], end=at[its.end - 1] + 1) for its in words]

    def words_of(self, texts: Sequence[str]) -> list[Word]:
        """The words of normalised texts that no phrase goes across."""
        if len(texts) == 1:
            return self.words(texts[0])
        found: list[Word] = []
        start = 0
        for text in texts:
            words = self.words(text)
            if words:
                if start + words[-1].position > POSITION_MAX:
                    break
                found += [word._replace(position=start + word.position) for word in words]
                start = found[-1].position + ELEMENT_GAP
        return found

    def written(self, text: str) -> list[str]:
        """The words of a normalised text as they are written, for prefixes and fuzzy words."""
        if self._cuts_chinese:
            text = " ".join(word.text for word in self.words(text))
        return self._surfaces(text)

    def _surfaces(self, text: str) -> list[str]:
        text = self._cased(text)
        if self.has_long(text):
            return [word.text for word in self._kept(text, self.surface_chain, stops=False)]
        return self.surface_chain.analyze(text)

    def surface_text(self, text: str) -> str:
        """See `Analyzer.surface_text`."""
        if self._cuts_chinese or self.has_long(text):
            return " ".join(self.written(text))
        return self._cased(text)

    def _kept(self, text: str, chain: TextAnalyzer, *, stops: bool = True) -> Iterator[Word]:
        """The words of a chain that are not too long, nor stop words that it does not know."""
        checked = stops and self._stop_chain is not None
        for token in chain.pre_tokenize(text).tokens:
            start, end = token.char_offset_from, token.char_offset_to
            if end - start > self._characters_max or (checked and self._stopped(text[start:end])):
                continue
            yield Word(token.text, token.position, start, end)

    def _stopped(self, word: str) -> bool:
        found = self._is_stop.get(word)
        if found is None:
            assert self._stop_chain is not None
            if len(self._is_stop) >= _WORDS_KEPT:
                self._is_stop.clear()
            found = self._is_stop[word] = not self._stop_chain.analyze(
                turkish_case(word) if self._is_turkish else word
            )
        return found

    def _runs(self, words: Iterator[Word], *, all_of: bool) -> Iterator[Word]:
        """The runs of letters of each word. Their positions count letters, so that a phrase of runs
        is a part of a word; between two words there are more than any word has, so that it cannot
        be taken for one. A word that was dropped keeps the place of one letter."""
        least, most = self._ngrams
        gap = self._characters_max + 1
        at = before = 0
        for text, position, start, end in words:
            length = len(text)
            if length > self._characters_max:
                continue  # Folded, it became too long.
            at += position - before
            before = position
            same = length == end - start
            smallest = min(least if all_of else most, length)
            for first in range(length - smallest + 1):
                for size in range(smallest, min(most, length - first) + 1):
                    begins = start + first if same else start
                    ends = begins + size if same else end
                    yield Word(text[first : first + size], at + first, begins, ends)
            at += length + gap

    # -- queries --------------------------------------------------------------------------------

    def query_words(self, text: str) -> list[Word]:
        """See `Analyzer.query_words`. Of runs of letters the longest are looked for; of a phrase
        that is longer than the gap between two strings, the beginning."""
        if self.is_ngram:
            runs = self._runs(self._kept(text, self.chain), all_of=False)
            return [run for run in runs if run.position < ELEMENT_GAP]
        return whole_words(self.words(text)) if self._cuts_chinese else self.words(text)

    def surfaces(self, text: str) -> list[str]:
        """See `Analyzer.surfaces`."""
        if self._cuts_chinese:
            text = " ".join(word.text for word in self.query_words(text))
        return self._surfaces(text)

    def surface(self, word: str) -> str:
        """See `Analyzer.surface`."""
        if self._surface_is_lower:
            return self._cased(word).lower()
        return "".join(self._word_chain.analyze(self._cased(word)))


_WORDS_KEPT: Final = 50_000


def _begun(schema: FullTextSchema, tokenizer: Tokenizer | None = None) -> TextAnalyzerBuilder:
    """Words as they are written, but for case and accents."""
    builder = TextAnalyzerBuilder(tokenizer or word_tokenizer(schema.language))
    # Its limit is in bytes of UTF-8 and excluded; that in characters is checked afterwards.
    builder = builder.filter(Filter.remove_long(4 * schema.token_length_max + 1))
    if not schema.case_sensitive:
        builder = builder.filter(Filter.lowercase())
    return builder.filter(Filter.ascii_fold()) if schema.ascii_folding else builder


def _stopping(builder: TextAnalyzerBuilder, schema: FullTextSchema) -> TextAnalyzerBuilder:
    builder = builder.filter(stop_filter(schema.language))
    folded = folded_stop_words(schema.language, _folded) if schema.ascii_folding else []
    return builder.filter(Filter.custom_stopword(folded)) if folded else builder


@cache
def _folding() -> TextAnalyzer:
    return TextAnalyzerBuilder(Tokenizer.raw()).filter(Filter.ascii_fold()).build()


def _folded(word: str) -> str:
    return "".join(_folding().analyze(word))


def canonical(schema: FullTextSchema) -> FullTextSchema:
    """The schema with what makes no difference at its default, so that equal analyzers are one."""
    default = FullTextSchema()
    if schema.tokenizer == "word":
        schema = attrs.evolve(schema, ngram_min=default.ngram_min, ngram_max=default.ngram_max)
    else:
        schema = attrs.evolve(schema, stemming=default.stemming)
    if schema.language not in STEMMED:
        schema = attrs.evolve(
            schema, stemming=default.stemming, remove_stopwords=default.remove_stopwords
        )
    return schema


@lru_cache(maxsize=256)
def _analyzer(schema: FullTextSchema) -> AttributeAnalyzer:
    return AttributeAnalyzer(schema)


def attribute_analyzer(schema: FullTextSchema) -> AttributeAnalyzer:
    """The analyzer of an attribute; the same one for all that are analysed alike."""
    return _analyzer(canonical(schema))


def fingerprint(attributes: Mapping[str, FullTextSchema]) -> str:
    """What makes the texts of these attributes into words. An index with another one is rebuilt."""
    parts: list[Any] = [FORMAT_VERSION, analysis_version()]
    parts += [(name, *attrs.astuple(canonical(its))) for name, its in attributes.items()]
    return repr(parts)
