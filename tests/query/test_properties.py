"""Random filters over random documents, against a second implementation and the laws of logic."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.query import reference
from treestore.query import Filter, compile
from treestore.query.expression import And, Element, Not, Or
from treestore.query.values import order_key

NAMES = st.sampled_from(["a", "b", "0", "1"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
SCALARS = st.sampled_from(
    [
        *(None, True, False, 0, 1, 2, -1, 1.0, 0.5, -0.0, 2**53, 2**53 + 1, float(2**53), 2**63),
        *(float("nan"), float("inf"), float("-inf")),
        *("", "a", "ab", "b", "A\nb", "ä", "1"),
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=3)
# Of small pieces, so that patterns and texts often meet.
PATTERNS = st.lists(st.sampled_from(["a", "b", ".", "a*", "^", "(a|b)", "[^a]"])).map("".join)
GLOBS = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]"])).map("".join)

OPERATORS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains"]), VALUES),
    st.tuples(
        st.sampled_from(["$in", "$nin", "$all", "$containsAny"]), st.lists(VALUES, max_size=3)
    ),
    st.tuples(st.just("$exists"), st.booleans()),
    st.tuples(st.just("$size"), st.integers(0, 3)),
    st.tuples(
        st.just("$type"),
        st.sampled_from(["null", "bool", "int", "float", "number", "string", "list", "object"]),
    ),
    st.tuples(st.just("$regex"), PATTERNS),
    st.tuples(st.just("$glob"), GLOBS),
).map(lambda pair: dict([pair]))
CONDITIONS: st.SearchStrategy[Any] = st.recursive(
    OPERATORS | st.lists(OPERATORS, min_size=1, max_size=2).map(lambda all: all[0] | all[-1]),
    lambda inner: st.one_of(
        inner.map(lambda part: {"$not": part}), inner.map(lambda part: {"$elemMatch": part})
    ),
    max_leaves=3,
)
FILTERS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(PATHS, CONDITIONS | SCALARS, max_size=2),
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)
        ).map(lambda pair: dict([pair])),
        inner.map(lambda part: {"$not": part}),
        st.tuples(PATHS, inner).map(lambda pair: {pair[0]: {"$elemMatch": pair[1]}}),
    ),
    max_leaves=4,
)


@given(DOCUMENTS, FILTERS)
def test_it_says_what_the_reference_says(document: Any, source: Any) -> None:
    assert compile(source).matches(document) is reference.matches(document, source)


@given(DOCUMENTS, FILTERS, FILTERS)
def test_de_morgan(document: Any, one: Any, other: Any) -> None:
    def holds(source: Any) -> bool:
        return compile(source).matches(document)

    assert holds({"$nor": [one, other]}) is holds({"$and": [{"$not": one}, {"$not": other}]})
    assert holds({"$not": {"$and": [one, other]}}) is holds(
        {"$or": [{"$not": one}, {"$nor": [other]}]}
    )
    assert holds({"$not": {"$not": one}}) is holds(one)


@given(DOCUMENTS, PATHS, VALUES, st.lists(VALUES, max_size=4))
def test_what_operators_mean_in_terms_of_others(
    document: Any, path: str, value: Any, values: Any
) -> None:
    def holds(condition: Any) -> bool:
        return compile({path: condition}).matches(document)

    assert holds({"$ne": value}) is not holds({"$eq": value})
    assert holds({"$nin": values}) is not holds({"$in": values})
    assert holds({"$in": values}) is any(holds({"$eq": one}) for one in values)
    assert holds({"$gte": value}) is (holds({"$gt": value}) or holds({"$eq": value}))
    assert holds({"$lte": value}) is (holds({"$lt": value}) or holds({"$eq": value}))


@given(VALUES, VALUES)
def test_the_sort_key_is_the_references_order(left: Any, right: Any) -> None:
    one, other = order_key(left), order_key(right)
    assert (one > other) - (one < other) == reference.compare(left, right)
    assert (one == other) is (reference.compare(left, right) == 0)
    assert one != other or hash(one) == hash(other)


@given(FILTERS)
def test_the_normal_form_is_one(source: Any) -> None:
    """It compares by value, makes the same predicate, and And and Or are flat."""
    made = compile(source)
    assert Filter.of(made.expression) == made == compile(source)

    def walk(part: Any) -> None:
        for inner in getattr(part, "parts", ()):
            assert type(inner) is not type(part)
            walk(inner)
        if isinstance(part, And | Or):
            assert len(part.parts) != 1
        if isinstance(part, Not | Element):
            walk(part.part)

    walk(made.expression)
