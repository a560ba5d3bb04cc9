"""What rankings are judged by, and the vectors that they are measured with."""

from __future__ import annotations

import math

import pytest

from scripts.lsa import Lsa
from scripts.ranking.figures import Figures, gain, interval, precision, recall

TEXTS = [
    "The car needs petrol and a driver.",
    "An automobile needs petrol; a driver steers it.",
    "Whoever is the driver pays for petrol.",
    "The bank lends money at interest.",
    "Interest on money that a bank lends is paid monthly.",
    "Money in the bank bears interest.",
]


def test_figures_of_one_question() -> None:
    relevant = {1, 2, 3}
    assert gain([1, 3, 2, 9], relevant) == 1
    assert gain([9, 1], relevant) == pytest.approx(
        (1 / math.log2(3)) / (1 + 1 / math.log2(3) + 1 / 2)
    )
    assert gain([*range(10, 20), 1, 2, 3], relevant) == 0
    assert precision([1, 9, 2], relevant) == pytest.approx((1 + 2 / 3) / 3)
    assert recall([9, 1, 2], relevant, 2) == pytest.approx(1 / 3)


def test_figures_of_several_questions() -> None:
    figures = Figures()
    figures.add([1], [1], {1})
    figures.add([9], [9, 1], {1})
    figures.add([9], [9, 8], {1})
    assert (figures.ndcg, figures.map, figures.recall) == pytest.approx((1 / 3, 1 / 2, 2 / 3))
    assert figures.odd.gains == [1, 0]


def test_an_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    few, many = [0.0, 0.5, 1.0] * 10, [0.0, 0.5, 1.0] * 1000
    low, high = interval(few)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1 / 6 / 30), rel=0.1)
    least, most = interval(many)
    assert most - least < (high - low) / 5
    assert interval([0.25] * 9) == (0.25, 0.25)


def cosine(lsa: Lsa, one: str, other: str) -> float:
    a, b = lsa.embed(one), lsa.embed(other)
    assert a is not None
    assert b is not None
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / (math.hypot(*a) * math.hypot(*b))


def test_words_of_the_same_texts_are_near_each_other() -> None:
    lsa = Lsa(TEXTS, dim=2)
    assert lsa.dim == 2
    assert cosine(lsa, "cars", "automobiles") > 0.9
    assert abs(cosine(lsa, "cars", "banks")) < 0.3


def test_texts_without_a_known_word_have_no_vector() -> None:
    lsa = Lsa(TEXTS)
    assert lsa.dim <= len(TEXTS)
    assert lsa.embed("") is None
    assert lsa.embed("the and of") is None
    assert lsa.embed("zeppelin") is None
    for text in TEXTS:
        vector = lsa.embed(text)
        assert vector is not None
        assert len(vector) == lsa.dim
