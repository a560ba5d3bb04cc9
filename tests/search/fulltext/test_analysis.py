"""What analyzers make of texts, said word by word."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.model.namespaces import FullTextSchema
from treestore.search.fulltext import analysis
from treestore.search.fulltext.analysis import (
    ELEMENT_GAP,
    AttributeAnalyzer,
    attribute_analyzer,
    clean,
    fingerprint,
)
from treestore.search.names import LANGUAGES, STEMMED
from treestore.search.query import QUERY_CHARACTERS_MAX


def words(text: str, **options: object) -> list[str]:
    analyzer = attribute_analyzer(FullTextSchema(**options))  # type: ignore[arg-type]
    return [word.text for word in analyzer.words(clean(text))]


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("The Taxes on houses", {}, "tax hous"),
        ("The Taxes on houses", {"stemming": False}, "taxes houses"),
        ("The Taxes on houses", {"remove_stopwords": False}, "the tax on hous"),
        ("The TAXES, Taxes THE the", {"case_sensitive": True}, "TAXES Tax"),
        ("The Taxes", {"case_sensitive": True, "remove_stopwords": False}, "The Tax"),
        ("Café naïve", {"language": "none"}, "café naïve"),
        ("Café naïve", {"language": "none", "ascii_folding": True}, "cafe naive"),
        ("ﬁne Ｆｕｌｌ", {"language": "none"}, "fine full"),
        ("Die Häuser für Straßen", {"language": "german"}, "haus strass"),
        ("fur FÜR für", {"language": "german", "ascii_folding": True}, ""),
        ("même meme à a", {"language": "french", "ascii_folding": True}, ""),
        ("între intre și si", {"language": "romanian", "ascii_folding": True}, "intre intre"),
        ("même été", {"language": "french"}, "été"),
        ("meme", {"language": "french"}, "mem"),
        ("а дома и сады", {"language": "russian"}, "дом сад"),
        ("abcdefg abcde abcd", {"language": "none", "token_length_max": 5}, "abcde abcd"),
        ("äöüßé äöüßéé", {"language": "none", "token_length_max": 5}, "äöüßé"),
        ("house a", {"tokenizer": "ngram", "ngram_min": 3, "ngram_max": 3}, "hou ous use"),
        ("ab abc", {"tokenizer": "ngram", "ngram_min": 3, "ngram_max": 3}, "ab abc"),
        ("abc", {"tokenizer": "ngram", "ngram_min": 1, "ngram_max": 2}, "a ab b bc c"),
        ("长江大桥", {"language": "chinese"}, "长江 大桥 长江大桥"),
        ("长江大", {"language": "chinese", "tokenizer": "ngram", "ngram_max": 2}, "长江 江大"),
        ("Café X", {"language": "chinese", "ascii_folding": True}, "cafe x"),
        ("Abc", {"language": "chinese", "case_sensitive": True}, "Abc"),
        ("a\ud800b", {"language": "none"}, "a b"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_text(text: str, options: dict[str, object], expected: str) -> None:
    assert words(text, **options) == expected.split()


LETTERS = "aeéèêcçnñoöøuüßsSÄÅæŒłđ tTxz-'’"


@given(
    st.text(st.sampled_from(LETTERS), max_size=18),
    st.sampled_from(LANGUAGES),
    st.booleans(),
    st.sampled_from(["word", "ngram"]),
)
def test_accents_make_no_difference_once_they_are_folded(
    text: str, language: str, case_sensitive: bool, tokenizer: str
) -> None:
    """Whatever the stop words and stems of the language are."""
    options = {"case_sensitive": case_sensitive, "tokenizer": tokenizer, "language": language}
    plain = "".join(map(analysis._folded, text))
    assert words(text, ascii_folding=True, **options) == words(plain, ascii_folding=True, **options)


@given(st.text(st.sampled_from(LETTERS), max_size=30), st.sampled_from(STEMMED), st.booleans())
def test_case_makes_no_difference_by_default(text: str, language: str, folding: bool) -> None:
    if language == "turkish" or text.upper().lower() != text.lower():
        return
    options = {"language": language, "ascii_folding": folding}
    assert words(text, **options) == words(text.upper(), **options)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_reads_text_and_query_alike(language: str) -> None:
    analyzer = attribute_analyzer(FullTextSchema(language=language))
    text = "Houses the дома 长江大桥 évolution"
    assert {word.text for word in analyzer.query_words(text)} <= set(words(text, language=language))


def test_a_phrase_does_not_reach_into_the_next_string() -> None:
    analyzer = attribute_analyzer(FullTextSchema(language="none"))
    first, second, third = analyzer.words_of(["a b", "", "c"])
    assert (first.position, second.position) == (0, 1)
    assert third.position - second.position == ELEMENT_GAP > QUERY_CHARACTERS_MAX


def test_words_too_far_into_an_array_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert analysis.POSITION_MAX + QUERY_CHARACTERS_MAX < 1 << 32
    monkeypatch.setattr(analysis, "POSITION_MAX", 10 * ELEMENT_GAP)
    analyzer = attribute_analyzer(FullTextSchema(language="none"))
    assert len(analyzer.words_of(["a"] * 100)) == 11


def offsets(analyzer: AttributeAnalyzer, text: str) -> list[str]:
    return [text[word.start : word.end] for word in analyzer.words(text)]


def test_where_words_are_in_the_text() -> None:
    folding = FullTextSchema(language="none", ascii_folding=True)
    assert offsets(attribute_analyzer(folding), "Straße, Œuvre") == ["Straße", "Œuvre"]
    runs = attrs.evolve(folding, tokenizer="ngram", ascii_folding=False)
    assert offsets(attribute_analyzer(runs), "abc") == ["ab", "abc", "bc"]
    chinese = attrs.evolve(folding, language="chinese")
    assert offsets(attribute_analyzer(chinese), "ß 长江 é x") == ["ß", "长江", "é", "x"]


def test_a_fingerprint_tells_what_matters() -> None:
    base = FullTextSchema()
    known = {fingerprint({"a": base})}
    for changed in (
        {"language": "german"}, {"stemming": False}, {"remove_stopwords": False},
        {"case_sensitive": True}, {"ascii_folding": True}, {"tokenizer": "ngram"},
        {"token_length_max": 39},
    ):  # fmt: skip
        its = fingerprint({"a": attrs.evolve(base, **changed)})
        assert its not in known
        known.add(its)
    assert fingerprint({"b": base}) not in known
    assert fingerprint({"a": base, "b": base}) not in known
    assert fingerprint({"a": attrs.evolve(base, ngram_max=7)}) in known  # No runs of letters.
    assert "tantivy" in fingerprint({"a": base})
