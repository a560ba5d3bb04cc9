"""Patches: what each operator does, what is refused, and that the old document stays as it is."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.query.test_properties import DOCUMENTS, NAMES, PATHS, VALUES
from treestore.errors import InvalidArgument
from treestore.query.update import compile_update
from treestore.query.values import order_key

DOCUMENT = {"_id": "x", "n": 1, "f": 1.5, "s": "t", "o": {"a": 1, "b": 2}, "l": [1, 2, {"k": 3}, 2]}

CASES: list[tuple[Any, dict[str, Any] | None]] = [
    ({}, {}),
    ({"n": 2, "o": {"a": None, "c": {"d": None, "e": 1}}}, {"n": 2, "o": {"b": 2, "c": {"e": 1}}}),
    ({"l": [None]}, {"l": [None]}),
    ({"n": {"a": 1}}, {"n": {"a": 1}}),
    ({"$set": {"o.a": 5, "p.q": 1, "l.2.k": 4}}, None),
    ({"$set": {"l.5": 9}}, {"l": [1, 2, {"k": 3}, 2, None, 9]}),
    ({"$unset": {"o.a": "", "l.0": 1, "nowhere.x": 1, "n.x": 1}}, None),
    ({"$inc": {"n": 2, "f": 1, "new": 3, "o.a": -1}}, None),
    ({"$mul": {"n": 3, "new": 5}}, {"n": 3, "new": 0}),
    ({"$min": {"n": 0, "f": 2, "s": 1, "new": 7}}, {"n": 0, "s": 1, "new": 7}),
    ({"$max": {"n": 0, "f": 2, "s": True}}, {"f": 2, "s": True}),
    ({"$push": {"l": 5, "new": [1]}}, {"l": [1, 2, {"k": 3}, 2, 5], "new": [[1]]}),
    ({"$push": {"l": {"$each": [8, 9], "$position": 1}}}, {"l": [1, 8, 9, 2, {"k": 3}, 2]}),
    ({"$push": {"l": {"$each": [8], "$slice": -2}}}, {"l": [2, 8]}),
    ({"$push": {"l": {"$each": [8], "$slice": 0}}}, {"l": []}),
    ({"$addToSet": {"l": 2.0}}, {}),
    ({"$addToSet": {"l": {"$each": [{"k": 3}, 4, 4]}}}, {"l": [1, 2, {"k": 3}, 2, 4]}),
    ({"$pull": {"l": 2}}, {"l": [1, {"k": 3}]}),
    ({"$pull": {"l": {"$gte": 2}}}, {"l": [1, {"k": 3}]}),
    ({"$pull": {"l": {"k": {"$gt": 2}}}}, {"l": [1, 2, 2]}),
    ({"$pull": {"nowhere": 1, "n.x": 1}}, {}),
    ({"$pullAll": {"l": [1, {"k": 3}]}}, {"l": [2, 2]}),
    ({"$pop": {"l": 1}}, {"l": [1, 2, {"k": 3}]}),
    ({"$pop": {"l": -1, "nowhere": 1}}, {"l": [2, {"k": 3}, 2]}),
    ({"$rename": {"nowhere": "a", "o.a": "p.a"}}, {"o": {"b": 2}, "p": {"a": 1}}),
]
EXPECTED: dict[int, dict[str, Any]] = {
    4: {"o": {"a": 5, "b": 2}, "p": {"q": 1}, "l": [1, 2, {"k": 4}, 2]},
    6: {"o": {"b": 2}, "l": [None, 2, {"k": 3}, 2]},
    7: {"n": 3, "f": 2.5, "new": 3, "o": {"a": 0, "b": 2}},
}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_what_a_patch_does(number: int) -> None:
    patch, changed = CASES[number]
    before = deepcopy(DOCUMENT)
    made = compile_update(patch).apply(before)
    assert made == {**DOCUMENT, **(EXPECTED[number] if changed is None else changed)}
    assert before == DOCUMENT


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (5, "an object"),
        ({1: 2}, "strings"),
        ({"a": {1: 2}}, "strings"),
        ({"$set": {"a": 1}, "b": 1}, "either"),
        ({"$ste": {"a": 1}}, "no update operator"),
        ({"$set": 1}, "object of paths"),
        ({"$set": {"": 1}}, "not empty"),
        ({"$set": {"a..b": 1}}, "not empty"),
        ({"$set": {"a.$b": 1}}, r"\$"),
        ({"$set": {5: 1}}, "string"),
        ({"$rename": {"a": 5}}, "string"),
        ({"$set": {"a" * 1001: 1}}, "1000"),
        ({"$set": {"a.b": 1, "a": 2}}, "at once"),
        ({"$set": {"a": 1}, "$inc": {"a": 1}}, "at once"),
        ({"$rename": {"a": "a.b"}}, "at once"),
        ({"$inc": {"a": "1"}}, "number"),
        ({"$inc": {"a": True}}, "number"),
        ({"$inc": {"a": float("nan")}}, "number"),
        ({"$push": {"a": {"$each": 5}}}, "list"),
        ({"$push": {"a": {"$each": [], "$sort": 1}}}, "sort"),
        ({"$push": {"a": {"$each": [], "$slice": 1.5}}}, "whole"),
        ({"$pop": {"a": 2}}, "1"),
        ({"$pullAll": {"a": 2}}, "list"),
        ({"$pull": {"a": {"$gtt": 2}}}, "gtt"),
    ],
)
def test_what_is_no_patch_is_refused(patch: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        compile_update(patch)


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ({"$set": {"n.x": 1}}, "there is no x"),
        ({"$set": {"l.x": 1}}, "numbers"),
        ({"$set": {"l.99999999999999999999": 1}}, "behind its end"),
        ({"$inc": {"s": 1}}, "no number"),
        ({"$inc": {"n": 2**64}}, "too large"),
        ({"$mul": {"f": 1e308, "n": 2**200}}, "too large"),
        ({"$push": {"n": 1}}, "no list"),
        ({"$pull": {"n": 1}}, "no list"),
        ({"$rename": {"l.0": "x"}}, "list"),
    ],
)
def test_what_does_not_fit_the_document_is_refused(patch: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        compile_update(patch).apply(deepcopy(DOCUMENT))


def test_deep_patches_are_refused() -> None:
    patch: Any = 1
    for _ in range(200):
        patch = {"a": patch}
    with pytest.raises(InvalidArgument, match="deep"):
        compile_update(patch)


OPERATORS = st.sampled_from(
    ["$set", "$unset", "$inc", "$mul", "$min", "$max", "$push", "$addToSet", "$pull", "$pop"]
)


@given(
    DOCUMENTS,
    st.dictionaries(NAMES, VALUES, max_size=3)
    | st.dictionaries(
        OPERATORS,
        st.dictionaries(PATHS, VALUES | st.sampled_from([1, -1]), max_size=2),
        max_size=2,
    ),
)
def test_a_patch_fits_or_is_refused_and_changes_nothing_in_place(document: Any, patch: Any) -> None:
    kept = deepcopy(document)
    try:
        made = compile_update(patch).apply(document)
    except InvalidArgument:
        made = None
    assert order_key(document) == order_key(kept)
    assert made is None or isinstance(made, dict)


@given(DOCUMENTS, PATHS, VALUES)
def test_what_was_set_is_there(document: Any, path: str, value: Any) -> None:
    try:
        made: Any = compile_update({"$set": {path: value}}).apply(document)
    except InvalidArgument:
        return
    for name in path.split("."):
        made = made[int(name)] if isinstance(made, list) else made[name]
    assert order_key(made) == order_key(value)
