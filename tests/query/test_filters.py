"""The rules of docs/filters.md, one by one, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from treestore.errors import InvalidArgument
from treestore.query import compile
from treestore.query.expression import And, Equal, Glob, In, Not, Or, Range

NAN = float("nan")
TALLINN = timezone(timedelta(hours=2))

HOLDS: list[tuple[Any, Any]] = [
    ({}, {}),
    ({}, {"a": 1}),
    ({"a": 1}, {"a": 1.0}),
    ({"a": None}, {}),
    ({"a": None}, {"a": None}),
    ({"a": {"$gte": None}}, {}),
    ({"a.b": None}, {"a": 4}),
    ({"a.b": None}, {"a": [{"c": 1}]}),
    ({"a.b": 1}, {"a": [{"c": 1}, {"b": 1}]}),
    ({"a.0": 1}, {"a": [1, 2]}),
    ({"a.0": 1}, {"a": {"0": 1}}),
    ({"a.1.b": 2}, {"a": [{"b": 1}, {"b": 2}]}),
    ({"a.0.b": 2}, {"a": [[{"b": 2}]]}),
    ({"a": 1}, {"a": [0, 1]}),
    ({"a": [0, 1]}, {"a": [0, 1]}),
    ({"a": [0, 1]}, {"a": [[0, 1]]}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}),
    ({"a": {}}, {"a": {}}),
    ({"a": {"$ne": 5}}, {}),
    ({"a": {"$ne": 5}}, {"a": [4, 6]}),
    ({"a": {"$not": {"$gt": 5}}}, {"a": "x"}),
    ({"a": {"$gt": 1, "$lt": 0}}, {"a": [-1, 2]}),
    ({"a": {"$gt": 2**53}}, {"a": 2**53 + 1}),
    ({"a": {"$lt": float(2**53 + 2)}}, {"a": 2**53 + 1}),
    ({"a": NAN}, {"a": NAN}),
    ({"a": {"$gte": NAN}}, {"a": NAN}),
    ({"a": {"$gt": "a"}}, {"a": "ä"}),
    ({"a": {"$gt": False}}, {"a": True}),
    ({"a": {"$gt": [1]}}, {"a": [1, 0]}),
    ({"a": {"$in": [1, None]}}, {}),
    ({"a": {"$in": [[1]]}}, {"a": [1]}),
    ({"a": {"$nin": []}}, {}),
    ({"a": {"$exists": True}}, {"a": None}),
    ({"a": {"$exists": False}}, {}),
    ({"a": {"$type": "number"}}, {"a": 1}),
    ({"a": {"$type": ["null", "array"]}}, {"a": []}),
    ({"a": {"$type": "double"}}, {"a": [1, 1.5]}),
    ({"a": {"$contains": 1}}, {"a": [1.0]}),
    ({"a": {"$contains": "bc"}}, {"a": "abcd"}),
    ({"a": {"$contains": [1]}}, {"a": [[1]]}),
    ({"a": {"$containsAny": ["x", "b"]}}, {"a": ["b"]}),
    ({"a": {"$all": [1, 2]}}, {"a": [2, 3, 1]}),
    ({"a": {"$all": [1]}}, {"a": 1}),
    ({"a": {"$size": 0}}, {"a": []}),
    ({"a": {"$regex": "^b", "$options": "m"}}, {"a": "a\nb"}),
    ({"a": {"$regex": "É"}}, {"a": "éÉ"}),
    ({"a": {"$regex": "a|É", "$options": "i"}}, {"a": "é"}),
    ({"a": {"$regex": "a.b", "$options": "s"}}, {"a": ["x", "a\nb"]}),
    ({"a": {"$glob": "*.txt"}}, {"a": "dir/a.txt"}),
    ({"a": {"$glob": "a*\nb"}}, {"a": "axx\n\nb"}),
    ({"a": {"$glob": "[!a-c]?"}}, {"a": "dé"}),
    ({"a": {"$glob": "[]-]\\*"}}, {"a": "]*"}),
    ({"a": {"$glob": ""}}, {"a": ""}),
    ({"a": {"$iglob": "*SMITH*"}}, {"a": "John Smith"}),
    ({"a": {"$elemMatch": {"b": 1, "c": 2}}}, {"a": [{"b": 1}, {"b": 1, "c": 2}]}),
    ({"a": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, {"a": [0, 2]}),
    ({"$or": [{"a": 1}, {"b": 2}]}, {"b": 2}),
    ({"$nor": [{"a": 1}, {"b": 2}]}, {}),
    ({"$not": {"a": 1}}, {"a": 2}),
    ({"a": datetime(2024, 5, 1, tzinfo=UTC)}, {"a": "2024-05-01"}),
    ({"a": datetime(2024, 5, 1, 2, tzinfo=TALLINN)}, {"a": "2024-05-01T00:00:00Z"}),
    ({"a": {"$lt": datetime(2024, 5, 1, 12, tzinfo=UTC)}}, {"a": "2024-05-01"}),
    ({"a": {"$lt": datetime(2024, 5, 1, tzinfo=UTC)}}, {"a": "2024-05-01T01:00:00+02:00"}),
    ({"a": {"$in": [datetime(2024, 5, 1, tzinfo=UTC)]}}, {"a": ["2024-05-01"]}),
    ({"a": date(2024, 5, 1)}, {"a": "2024-05-01"}),
    ({"a": {"$gte": "2024-05-01"}}, {"a": datetime(2024, 5, 1, tzinfo=UTC)}),
    ({"a": {"$type": "date"}}, {"a": datetime(2024, 5, 1, tzinfo=UTC)}),
]

DOES_NOT: list[tuple[Any, Any]] = [
    ({"a": 1}, {}),
    ({"a": 1}, {"a": True}),
    ({"a": True}, {"a": 1}),
    ({"a": 1}, {"a": "1"}),
    ({"a.b": None}, {"a": []}),
    ({"a.b": None}, {"a": [4]}),
    ({"a.b": 1}, {"a": [[{"b": 1}]]}),
    ({"a.00": 1}, {"a": [1]}),
    ({"a.5": None}, {"a": [1]}),
    ({"a": {"$ne": 5}}, {"a": [4, 5]}),
    ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}),
    ({"a": {"$gt": 5}}, {"a": "7"}),
    ({"a": {"$gt": 0}}, {"a": True}),
    ({"a": {"$gt": None}}, {"a": 1}),
    ({"a": float(2**53)}, {"a": 2**53 + 1}),
    ({"a": {"$lt": 5}}, {"a": NAN}),
    ({"a": {"$gt": NAN}}, {"a": 5}),
    ({"a": {"$in": []}}, {}),
    ({"a": {"$all": []}}, {"a": []}),
    ({"a": {"$containsAny": []}}, {"a": [1]}),
    ({"a": {"$contains": "b"}}, {"a": ["abc"]}),
    ({"a": {"$size": 1}}, {"a": "x"}),
    ({"a": {"$exists": True}}, {}),
    ({"a.b": {"$exists": True}}, {"a": [1]}),
    ({"a": {"$type": "int"}}, {"a": True}),
    ({"a": {"$regex": "b$"}}, {"a": "b\n"}),
    ({"a": {"$regex": "a"}}, {"a": 5}),
    ({"a": {"$glob": "*.txt"}}, {"a": "a.txt.gz"}),
    ({"a": {"$glob": "a"}}, {"a": "A"}),
    ({"a": {"$elemMatch": {"b": 1, "c": 2}}}, {"a": [{"b": 1}, {"c": 2}]}),
    ({"a": {"$elemMatch": {"$gt": 1}}}, {"a": 2}),
    ({"a": datetime(2024, 5, 1, tzinfo=UTC)}, {"a": "1 May"}),
    ({"a": {"$gt": datetime(2024, 5, 1, tzinfo=UTC)}}, {"a": "z"}),
]


@pytest.mark.parametrize(("source", "document"), HOLDS)
def test_it_holds(source: Any, document: Any) -> None:
    assert compile(source).matches(document)
    assert not compile({"$nor": [source]}).matches(document)


@pytest.mark.parametrize(("source", "document"), DOES_NOT)
def test_it_does_not_hold(source: Any, document: Any) -> None:
    assert not compile(source).matches(document)
    assert compile({"$not": source}).matches(document)


def nested(levels: int) -> Any:
    source: Any = {"a": 1}
    for _ in range(levels):
        source = {"$and": [source]}
    return source


def deep_value(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


REFUSED: list[tuple[Any, str]] = [
    (5, "A filter is an object"),
    ([], "A filter is an object"),
    ({"$and": []}, r"\$and is a list of at least one filter"),
    ({"$or": {"a": 1}}, r"\$or is a list"),
    ({"$or": [{"a": 1}, 5]}, r"\$or\[1\] is an object"),
    ({"$or": [{}, {"age": {"$gtt": 1}}]}, r"\$or\[1\]\.age\.\$gtt: there is no operator"),
    ({"a": {"$Eq": 1}}, r"Did you mean \$eq\?"),
    ({"a": {"$containsany": 1}}, r"Did you mean \$containsAny\?"),
    ({"$gt": 1}, "belongs to a field"),
    ({"$where": "1"}, "there is no operator"),
    ({5: 1}, "name of a field is a string"),
    ({"a": {"$gt": 1, "b": 2}}, "either operators or fields"),
    ({"a": {"b": 2, "$gt": 1}}, "either operators or fields"),
    ({"a": {"$not": 5}}, "object of operators"),
    ({"a": {"$not": {}}}, "object of operators"),
    ({"a": {"$in": 5}}, "list of values"),
    ({"a": {"$in": "abc"}}, "list of values"),
    ({"a": {"$exists": 1}}, "true or false"),
    ({"a": {"$type": "text"}}, "is no type"),
    ({"a": {"$type": []}}, "at least one type"),
    ({"a": {"$size": -1}}, "0 or more"),
    ({"a": {"$size": True}}, "0 or more"),
    ({"a": {"$regex": 5}}, "is a pattern"),
    ({"a": {"$regex": "("}}, "cannot be used: missing"),
    ({"a": {"$regex": "(?=x)"}}, "cannot be used"),
    ({"a": {"$regex": "x" * 1001}}, "longer than 1000"),
    ({"a": {"$regex": "((äöü){1,99}b){1,10}"}}, "too complex"),
    ({"a": {"$regex": "a", "$options": "x"}}, r"\$options are letters"),
    ({"a": {"$options": "i"}}, r"those of a \$regex"),
    ({"a": {"$regex": "a)(b", "$options": "i"}}, "cannot be used"),
    ({"a": {"$glob": "[a"}}, "has no ]"),
    ({"a": {"$glob": "a\\"}}, "stands before nothing"),
    ({"a": {"$glob": "[b-a]"}}, "backwards"),
    ({"a": {"$elemMatch": 5}}, "is an object"),
    ({"": 1}, "empty name"),
    ({"a..b": 1}, "empty name"),
    ({"a" * 1001: 1}, "at most 1000 characters"),
    ({".".join("a" * 101): 1}, "at most 100 names"),
    ({"a": b"x"}, "not bytes"),
    ({"a": {"$eq": {1, 2}}}, "not set"),
    ({"a": {"b": {5: 1}}}, "names of an object are strings"),
    ({"a": "\ud800"}, "surrogate"),
    ({"\ud800": 1}, "surrogate"),
    ({"a": {"b": {"\ud800": 1}}}, "surrogate"),
    (nested(250), "more than 250 levels"),
    ({"a": deep_value(101)}, "more than 100 levels"),
    ({"a": {"$in": [0] * 10_001}}, "at most 10000 values"),
    ({"$or": [{"a": 1}] * 1001}, "more than 1000 conditions"),
]


@pytest.mark.parametrize(("source", "message"), REFUSED)
def test_what_is_wrong_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        compile(source)


def test_as_deep_as_allowed() -> None:
    assert compile(nested(249)).matches({"a": 1})
    assert compile({"a": deep_value(100)}).matches({"a": deep_value(100)})


def test_endless_nesting_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["$not"] = endless
    with pytest.raises(InvalidArgument, match="levels deep"):
        compile(endless)
    around: list[Any] = []
    around.append(around)
    with pytest.raises(InvalidArgument, match="levels deep"):
        compile({"a": around})


def test_the_operand_is_the_filters_own() -> None:
    values = [1]
    made = compile({"a": {"$in": values}})
    values.append(2)
    assert not made.matches({"a": 2})


def test_no_pattern_backtracks() -> None:
    assert not compile({"a": {"$regex": "^(a+)+$"}}).matches({"a": "a" * 1_000_000 + "b"})
    assert not compile({"a": {"$glob": "*a" * 40 + "b"}}).matches({"a": "a" * 100_000})


def test_no_path_is_followed_exponentially_often() -> None:
    """Lists in objects in lists, all with the name of the first element: 2**40 ways, 40 levels."""
    document: Any = {"0": 1}
    for _ in range(40):
        document = {"0": [document]}
    assert not compile({".".join(["0"] * 100): 1}).matches(document)


def test_the_normal_form() -> None:
    assert compile(None).expression == compile({}).expression == And(())
    assert compile({"a": 1}).expression == Equal(("a",), 1)
    assert compile({"$and": [{"a": {"$ne": 1}}, {"b.c": {"$in": [1, 2]}, "d": {"$gt": 3}}]}) == (
        compile({"a": {"$not": {"$eq": 1}}, "$and": [{"b.c": {"$in": [1, 2]}}, {"d": {"$gt": 3}}]})
    )
    assert compile({"$nor": [{"a": {"$nin": [1]}, "b.c": {"$lte": "x"}}]}).expression == Not(
        And((Not(In(("a",), (1,))), Range(("b", "c"), "$lte", "x")))
    )
    assert compile({"a": {"$in": []}}).expression == Or(())
    assert Equal(("a",), 1) != Equal(("a",), True)
    assert Equal(("a",), [1]) == Equal(("a",), [1.0])
    assert hash(Equal(("a",), [1])) == hash(Equal(("a",), [1.0]))


def test_a_globs_prefix() -> None:
    assert Glob(("a",), "law/2024*").prefix == "law/2024"
    assert Glob(("a",), "law").prefix == "law"
    assert Glob(("a",), "law", ignore_case=True).prefix == ""


def test_ints_beyond_every_float() -> None:
    for operator, wanted in (("$gt", False), ("$lt", True), ("$ne", True), ("$eq", False)):
        matches = compile({"a": {operator: 10**400}}).matches
        assert [matches({"a": value}) for value in (1, 1.5, float("inf"))] == [
            wanted,
            wanted,
            operator in ("$gt", "$ne"),
        ]
