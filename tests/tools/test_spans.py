"""Sentences of a text, and which of them fit a query."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treestore.tools.spans import SENTENCE_SIZE_MAX, find_spans, sentences, words


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Up to 2.000 EUR. See No. 5 there.", ["Up to 2.000 EUR.", "See No. 5 there."]),
        ("The answer is no. Ask again.", ["The answer is no.", "Ask again."]),
        ("Ask Dr. Smith of Acme Inc. in Rome.", ["Ask Dr. Smith of Acme Inc. in Rome."]),
        ("See § 16-2301. Then go.", ["See § 16-2301.", "Then go."]),
        ("He said “stop.” She went.", ["He said “stop.”", "She went."]),
        ("Head\n\nBody\n- one\n- two\n1. three", ["Head", "Body", "- one", "- two", "1. three"]),
        ("第一条。第二条。", ["第一条。", "第二条。"]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == parts


@given(st.text() | st.text(alphabet="ab .!?\n-1"), st.integers(1, 40))
@example("0" * 18 + "  ", 31)
def test_sentences_cover_the_text(text: str, times: int) -> None:
    text *= times
    bounds = sentences(text)
    at = 0
    for start, end in bounds:
        assert at <= start < end <= start + SENTENCE_SIZE_MAX
        assert not text[at:start].strip()
        assert text[start:end].strip() == text[start:end]
        at = end
    assert not text[at:].strip()


def test_the_best_sentence_comes_first() -> None:
    text = (
        "Trips are approved by the line manager. Trips abroad need a director. "
        "Economy class is booked on flights. Premium economy class may be booked on flights above "
        "six hours. Meals are paid up to 40 EUR a day."
    )
    best = find_spans(text, "Which class may be booked on a long flight above six hours?")[0]
    assert "above six hours" in text[best.start : best.end]
    assert "Meals" not in text[best.start : best.end]
    assert {"class", "flight", "six"} <= set(best.matched)
    assert find_spans(text, "director")[0].matched == ("director",)
    assert find_spans(text, "zebra") == []
    assert find_spans("", "director") == find_spans(text, "?!") == []


def test_words_that_stand_together_count_more() -> None:
    text = "The class was economy and cheap. Some text between. Book economy class only."
    best = find_spans(text, "economy class", top_k=1)[0]
    assert text[best.start : best.end] == "Book economy class only."


def test_endings_and_case_do_not_matter() -> None:
    assert words("Policies APPROVED boxes") == words("policy approving box")
    text = "Nothing here. 東京都の規則は有効です。"
    assert text[find_spans(text, "規則")[0].start :].startswith("東京")


def test_neighbours_are_one_span_and_nothing_is_given_twice() -> None:
    text = "Flights are paid. Flights are booked early. Hotels too. Flights again."
    spans = find_spans(text, "flights", top_k=9)
    covered = [at for span in spans for at in range(span.start, span.end)]
    assert len(covered) == len(set(covered))
    assert text[spans[0].start : spans[0].end] == "Flights again."
    assert text[spans[1].start : spans[1].end] == "Flights are paid. Flights are booked early."


@given(st.text(alphabet="ab c.", max_size=200), st.text(alphabet="ab c", max_size=20))
def test_spans_are_of_the_text_best_first_and_always_the_same(text: str, query: str) -> None:
    spans = find_spans(text, query, 5)
    assert spans == find_spans(text, query, 5)
    assert [span.score for span in spans] == sorted((s.score for s in spans), reverse=True)
    for span in spans:
        inside = words(text[span.start : span.end])
        assert span.score > 0
        assert span.matched
        assert set(span.matched) <= set(inside)
