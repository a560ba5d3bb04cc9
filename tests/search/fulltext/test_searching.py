"""Requests, ties, growth, estimates and highlights of searches in a namespace's texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.ranking.cranfield import read_collection
from scripts.ranking.figures import Figures
from tests.search.test_query import PIECES
from treestore.errors import InvalidArgument
from treestore.model.namespaces import FullTextSchema
from treestore.search.fulltext.generations import NamespaceTexts
from treestore.search.fulltext.highlights import Highlights
from treestore.search.fulltext.index import Identity, View
from treestore.search.fulltext.request import make_request
from treestore.search.fulltext.searching import LOOK_UPS_MAX, Search
from treestore.search.fulltext.writers import Writers

ROWS = 3000


def build(folder: Path, schema: dict[str, FullTextSchema], rows: Sequence[Any]) -> Any:
    texts = NamespaceTexts(folder, Identity(b"d", 1, 1), Writers())
    texts.open(schema)
    for number, row in enumerate(rows):
        texts.add(number, row)
    texts.commit()
    return texts


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    """Rows whose words are as unequal as in a language."""
    rng = Random(2)
    words = [f"w{number}" for number in range(400)]
    shares = [1 / (number + 1) for number in range(400)]
    rows = [
        {
            "a": " ".join(rng.choices(words, shares, k=rng.randrange(1, 30))),
            "b": " ".join(rng.choices(words, shares, k=3)),
        }
        for _ in range(ROWS)
    ]
    rows += [{"a": "same text"} for _ in range(200)]
    schema = {"a": FullTextSchema(language="none"), "b": FullTextSchema(language="none")}
    texts = build(tmp_path_factory.mktemp("texts"), schema, rows)
    yield texts.serving.view
    texts.close()


def best(view: View, text: Any, top_k: int, **options: Any) -> list[tuple[int, float]]:
    hits = Search(view, make_request(text, tuple(view.fields.fields))).best(top_k, **options)
    return [(hit.row, hit.score) for hit in hits]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["w1 w2 w3", "w0", '"w0 w1"', "w1* w2", "+w0 w7 -w1", "w399 w0"])
def test_few_allowed_rows_are_the_best_of_all(view: View, text: str) -> None:
    """However the rows are said to be allowed, and however many they are."""
    rng = np.random.default_rng(4)
    everything = best(view, text, ROWS)
    for count in (0, 1, 5, 60, LOOK_UPS_MAX, LOOK_UPS_MAX + 1, 2500):
        only = rng.permutation(ROWS)[:count].astype(np.int64)
        chosen = set(only.tolist())
        wanted = [hit for hit in everything if hit[0] in chosen]
        for top_k in (1, 10, 100):
            by_rows = best(view, text, top_k, only=only)
            by_asking = best(view, text, top_k, allowed=lambda rows, its=only: np.isin(rows, its))
            hinted = best(
                view, text, top_k, allowed=lambda rows, its=only: np.isin(rows, its), share=0.001
            )
            assert [row for row, _ in by_rows] == [row for row, _ in wanted[:top_k]]
            assert [row for row, _ in by_asking] == [row for row, _ in wanted[:top_k]]
            assert [row for row, _ in hinted] == [row for row, _ in wanted[:top_k]]
            scores = [score for _, score in wanted[:top_k]]
            assert np.allclose([score for _, score in by_rows], scores, rtol=1e-5)


def test_allowed_counts_beside_few_rows(view: View) -> None:
    only = np.arange(100, dtype=np.int64)
    even = best(view, "w0", 50, only=only, allowed=lambda rows: rows % 2 == 0)
    assert even
    assert [row for row, _ in best(view, "w0", 100, only=only) if row % 2 == 0] == [
        row for row, _ in even
    ]


@pytest.mark.parametrize("top_k", [1, 7, 150, 300])
def test_equal_rows_come_in_the_order_of_their_keys(view: View, top_k: int) -> None:
    keys = np.random.default_rng(9).permutation(ROWS + 200)
    found = best(view, "same text", top_k, tie_key=lambda rows: [int(keys[row]) for row in rows])
    wanted = sorted(range(ROWS, ROWS + 200), key=lambda row: keys[row])
    assert [row for row, _ in found] == wanted[:top_k]
    assert len({score for _, score in found}) == 1
    assert [row for row, _ in best(view, "same text", top_k)] == list(range(ROWS, ROWS + 200))[
        :top_k
    ]


def test_a_row_that_is_not_indexed_ties_with_its_equals(view: View) -> None:
    own = {-5: view.fields.cut({"a": "same text"}), 9999: view.fields.cut({"a": "same text"})}
    found = best(view, "same text", 3, unindexed=own)
    assert [row for row, _ in found] == [-5, ROWS, ROWS + 1]
    assert [row for row, _ in best(view, "same", 300, unindexed=own)][-1] == 9999


def test_a_row_that_is_given_counts_as_it_is_given(view: View) -> None:
    own = {ROWS: view.fields.cut({"a": "something else"})}
    assert ROWS not in [row for row, _ in best(view, "same text", 300, unindexed=own)]
    assert [row for row, _ in best(view, "something", 300, unindexed=own)] == [ROWS]


def test_fewer_rows_than_the_index_are_fetched(view: View) -> None:
    search = Search(view, make_request("w1 w2 w3", ("a", "b")))
    assert len(search.best(10)) == 10
    assert search.fetched < 100
    assert len(search.best(10, allowed=lambda rows: rows % 10 == 0, share=0.1)) == 10
    assert search.fetched < 1000


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("w0", 1.0, 1.0), ("nothing", 0, 0), ("w0 w1", 0.7, 1.3), ("+w0 +w1", 0.5, 1.6),
        ("w0 -w1", 0.5, 1.6), ("a:w5", 1.0, 1.0), ("w1*", 0.4, 1.5), ("same", 1.0, 1.0),
    ],
)  # fmt: skip
def test_how_many_rows_fit_is_about_right(view: View, text: str, low: float, high: float) -> None:
    search = Search(view, make_request(text, ("a", "b")))
    fitting = len(search.best(10_000))
    assert low * fitting <= search.estimate() <= high * fitting + (0.05 * fitting if high else 0)


# --- what is asked ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        None, 7, b"x", ["a"], "", "  ", "!?", "-a", "\ud800", "x" * 10_001, "a " * 501, {},
        {"query": None}, {"query": "a", "fields": []}, {"query": "a", "fields": "a"},
        {"query": "a", "fields": ["c"]}, {"query": "a", "fields": [["a"]]},
        {"query": "a", "weights": {"c": 1}}, {"query": "a", "weights": 2},
        {"query": "a", "weights": {"a": 0}}, {"query": "a", "weights": {"a": -1}},
        {"query": "a", "weights": {"a": float("nan")}}, {"query": "a", "weights": {"a": "1"}},
        {"query": "a", "weights": {"a": True}}, {"query": "a", "weights": {"a": 10**400}},
        {"query": "a", "weights": {"b": 1}, "fields": ["a"]}, {"query": "a", "mode": "some"},
        {"query": "a", "mode": 3}, {"query": "a", "mode": ["any"]}, {"query": "a", "fuzzy": 3},
        {"query": "a", "fuzzy": True}, {"query": "a", "boost": 3}, {3: "a"},
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(text: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        make_request(text, ("a", "b"))
    assert len(str(refused.value)) > 20


def test_a_namespace_without_texts_says_so() -> None:
    with pytest.raises(InvalidArgument, match="full_text"):
        make_request("a", ())


@pytest.mark.slow
def test_thousands_of_hostile_queries_are_answered(tmp_path: Path) -> None:
    rng = Random(17)
    schema = {
        "title": FullTextSchema(),
        "text": FullTextSchema(language="chinese", ascii_folding=True),
        "tags": FullTextSchema(tokenizer="ngram", case_sensitive=True, ngram_min=1, ngram_max=4),
        "a-b": FullTextSchema(language="french", case_sensitive=True, stemming=False),
    }
    row = {"title": "The tax", "text": "C++ 南京市长江大桥", "tags": ["tax", "of"], "a-b": "Été"}
    texts = build(tmp_path, schema, [row, {}, {"title": ""}])
    view = texts.serving.view
    refused = answered = found = 0
    for _ in range(2000):
        query = rng.choice(["", " "]).join(
            rng.choices([*PIECES, "a-b:", "tags:", "x,+c*", "C++*", "+("], k=rng.randrange(1, 12))
        )
        try:
            request = make_request(
                {"query": query, "mode": rng.choice(["any", "all", "phrase"])}, tuple(schema)
            )
        except InvalidArgument:
            refused += 1
            continue
        search = Search(view, request)
        own = {7: view.fields.cut(row)}
        hits = search.best(10, unindexed=own)
        assert {hit.row for hit in hits} <= {0, 7}
        assert len(hits) != 1, query  # They have the same texts.
        assert 0 <= search.estimate() <= 4
        if hits:
            found += bool(Highlights(request, view.fields).of(row))
        answered += 1
    texts.close()
    assert refused > 100
    assert answered > 800
    assert found > 150


@given(st.text(max_size=40))
def test_any_text_is_a_request_or_refused(text: str) -> None:
    try:
        request = make_request(text, ("a", "two words", "x-y"))
    except InvalidArgument:
        return
    assert request.clauses


def test_names_of_attributes_before_a_colon() -> None:
    def fields_of(query: str, *names: str) -> list[str | None]:
        return [clause.field for clause in make_request(query, names).clauses]

    assert fields_of("Title:a title:b TITLE:c", "title", "Title") == ["Title", "title", "title"]
    assert fields_of('x-y:a "x-y:b" x.y:c', "x-y", "x.y") == ["x-y", None, "x.y"]
    assert fields_of("x-y:a", "x") == [None]
    assert fields_of('größe:"a b"', "Größe") == ["Größe"]


def test_a_stop_word_of_one_attribute_is_not_required(tmp_path: Path) -> None:
    schema = {"title": FullTextSchema(), "name": FullTextSchema(remove_stopwords=False)}
    rows = [{"title": "The Who", "name": "x"}, {"title": "tax", "name": "the"}, {"name": "the tax"}]
    rows.append({"title": "the tax", "name": "y"})
    texts = build(tmp_path, schema, rows)
    view = texts.serving.view
    assert {row for row, _ in best(view, {"query": "the tax", "mode": "all"}, 5)} == {1, 2, 3}
    assert {row for row, _ in best(view, "+the", 5)} == {1, 2}
    assert best(view, {"query": "the", "fields": ["title"]}, 5) == []
    assert {row for row, _ in best(view, "tax -name:the", 5)} == {3}
    texts.close()


def test_phrases_stay_within_a_string(tmp_path: Path) -> None:
    schema = {"tags": FullTextSchema(), "runs": FullTextSchema(tokenizer="ngram")}
    rows = [{"tags": ["the tax of", "house"], "runs": ["ab", "cd"]}, {"tags": "tax of house"}]
    texts = build(tmp_path, schema, rows)
    view = texts.serving.view
    assert [row for row, _ in best(view, '"tax house"', 5)] == []
    assert [row for row, _ in best(view, '"tax of house"', 5)] == [1]
    assert [row for row, _ in best(view, 'tags:"the tax"', 5)] == [0, 1]
    assert best(view, 'runs:"ab cd"', 5) == []
    assert [row for row, _ in best(view, 'runs:"ab"', 5)] == [0]
    texts.close()


def test_runs_of_letters_find_parts_of_words(tmp_path: Path) -> None:
    schema = {"t": FullTextSchema(tokenizer="ngram", ngram_min=2, ngram_max=3)}
    texts = build(tmp_path, schema, [{"t": "warehouse"}, {"t": "mouse"}, {"t": "car house"}])
    view = texts.serving.view
    assert {row for row, _ in best(view, {"query": "rehous", "mode": "all"}, 5)} == {0}
    assert {row for row, _ in best(view, {"query": "house", "mode": "all"}, 5)} == {0, 2}
    assert {row for row, _ in best(view, '"ar house"', 5)} == {2}
    assert best(view, '"r house"', 5) == []  # A word shorter than the runs is found whole only.
    assert {row for row, _ in best(view, "house", 5)} == {0, 1, 2}
    (highlight,) = (
        Highlights(make_request("rehous", ("t",)), view.fields).of({"t": "A warehouse"}).values()
    )
    assert [highlight.snippet[a:b] for a, b in highlight.ranges] == ["rehous"]
    texts.close()


def test_highlights_are_of_the_attributes_that_were_looked_into(tmp_path: Path) -> None:
    schema = {
        "title": FullTextSchema(ascii_folding=True, language="french"),
        "tags": FullTextSchema(),
        "note": FullTextSchema(),
    }
    texts = build(tmp_path, schema, [])
    row = {"title": "Les cafés", "tags": ["a house", "taxes on cafes"], "note": None}

    def marks(text: Any, names: Any = None) -> dict[str, list[str]]:
        request = make_request(text, tuple(schema))
        found = Highlights(request, texts.serving.view.fields).of(row, names)
        return {
            name: [its.snippet[start:end] for start, end in its.ranges]
            for name, its in found.items()
        }

    assert marks("cafe tax") == {"title": ["cafés"], "tags": ["taxes", "cafes"]}
    assert marks("title:cafe tags:house") == {"title": ["cafés"], "tags": ["house"]}
    assert marks({"query": "cafe", "fields": ["title"]}) == {"title": ["cafés"]}
    assert marks("caf*", ["title"]) == {"title": ["cafés"]}
    assert marks("nothing") == {}
    assert marks("cafe", ["note", "unknown"]) == {}
    texts.close()


# --- how good it is --------------------------------------------------------------------------


@pytest.mark.slow
def test_cranfield(tmp_path: Path, data_directory: Path) -> None:
    """Sums over attributes, and BM25 of one attribute alone."""
    folder = data_directory / "cranfield"
    if not folder.is_dir():
        pytest.skip("no Cranfield collection to test with")
    collection = read_collection(folder)
    ids = [its.number for its in collection.abstracts]
    rows = [{"title": its.title, "body": its.text} for its in collection.abstracts]
    schema = {"title": FullTextSchema(), "body": FullTextSchema()}
    texts = build(tmp_path, schema, rows)

    def quality(**options: Any) -> tuple[float, float]:
        figures = Figures()
        for question in collection.questions:
            found = best(texts.serving.view, {"query": question.text, **options}, 1000)
            order = [ids[row] for row, _ in found]
            figures.add(order, order, question.relevant)
        return figures.ndcg, figures.map

    assert np.allclose(quality(), (0.520, 0.425), atol=0.002)
    assert np.allclose(quality(weights={"title": 0.5}), (0.525, 0.432), atol=0.002)
    assert np.allclose(quality(fields=["body"]), (0.508, 0.409), atol=0.002)
    texts.close()
