"""Makes a predicate of a filter's normal form: closures, built once, called for each document."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from treestore.query import patterns
from treestore.query.expression import (
    And,
    Contains,
    Element,
    Equal,
    Exists,
    Expression,
    Glob,
    In,
    Not,
    Or,
    Path,
    Range,
    Regex,
    Size,
    Type,
)
from treestore.query.paths import MISSING, compiled, spread
from treestore.query.values import Test, equals, in_range, one_of, type_names

Predicate = Callable[[Any], bool]

_SCALARS = frozenset({str, int, float, bool, type(None)})


def predicate(expression: Expression) -> Predicate:
    """Whether a document satisfies ``expression``.

    Raises:
        ValueError: a pattern is wrong.
    """
    made = _MAKERS[type(expression)](expression)
    return made


def _and(expression: And) -> Predicate:
    parts = tuple(map(predicate, expression.parts))
    if len(parts) == 2:
        first, second = parts
        return lambda document: first(document) and second(document)

    def test(document: Any) -> bool:
        for part in parts:  # noqa: SIM110 - half the time that all() takes
            if not part(document):
                return False
        return True

    return test


def _or(expression: Or) -> Predicate:
    parts = tuple(map(predicate, expression.parts))

    def test(document: Any) -> bool:
        for part in parts:  # noqa: SIM110 - likewise
            if part(document):
                return True
        return False

    return test


def _not(expression: Not) -> Predicate:
    part = predicate(expression.part)
    return lambda document: not part(document)


def _any_value(path: Path, test: Test, *, missing: bool = False) -> Predicate:
    """Whether ``test`` holds for any value at ``path``, or an element of a list there.

    Args:
        missing: what to say where there is no value.
    """
    values_at = compiled(path)

    def holds(document: Any) -> bool:
        for value in spread(values_at(document)):
            if missing if value is MISSING else test(value):
                return True
        return False

    if len(path) != 1:
        return holds
    (name,) = path

    def holds_for_one(document: Any) -> bool:
        # Most conditions are on a field that is no list: a third of the time.
        if document.__class__ is dict:
            value = document.get(name, MISSING)
            if value is MISSING:
                return missing
            if value.__class__ in _SCALARS:
                return test(value)
        return holds(document)

    return holds_for_one


def _any_whole(path: Path, test: Test) -> Predicate:
    """Whether ``test`` holds for any value at ``path``; a list counts as one."""
    values_at = compiled(path)

    def holds(document: Any) -> bool:
        for value in values_at(document):  # noqa: SIM110 - likewise
            if value is not MISSING and test(value):
                return True
        return False

    return holds


def _equal(expression: Equal) -> Predicate:
    value = expression.value
    return _any_value(expression.path, equals(value), missing=value is None)


def _in(expression: In) -> Predicate:
    values = expression.values
    return _any_value(
        expression.path, one_of(values), missing=any(value is None for value in values)
    )


def _range(expression: Range) -> Predicate:
    return _any_value(expression.path, in_range(expression.operator, expression.value))


def _exists(expression: Exists) -> Predicate:
    return _any_whole(expression.path, lambda value: True)


def _type(expression: Type) -> Predicate:
    types = expression.types
    return _any_value(expression.path, lambda value: not types.isdisjoint(type_names(value)))


def _contains(expression: Contains) -> Predicate:
    test = one_of(expression.values)
    parts = [value for value in expression.values if isinstance(value, str)]

    def contains(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return any(map(test, value))
        return isinstance(value, str) and any(part in value for part in parts)

    return _any_whole(expression.path, contains)


def _size(expression: Size) -> Predicate:
    count = expression.count
    return _any_whole(
        expression.path, lambda value: isinstance(value, list | tuple) and len(value) == count
    )


def _if_string(test: Callable[[str], bool], value: Any) -> bool:
    return isinstance(value, str) and test(value)


def _regex(expression: Regex) -> Predicate:
    test = patterns.regex(expression.pattern, expression.options)
    return _any_value(expression.path, partial(_if_string, test))


def _glob(expression: Glob) -> Predicate:
    test = patterns.glob(expression.pattern, ignore_case=expression.ignore_case)
    return _any_value(expression.path, partial(_if_string, test))


def _element(expression: Element) -> Predicate:
    part = predicate(expression.part)
    return _any_whole(
        expression.path,
        lambda value: isinstance(value, list | tuple) and any(map(part, value)),
    )


_MAKERS: dict[type, Callable[[Any], Predicate]] = {
    And: _and,
    Or: _or,
    Not: _not,
    Equal: _equal,
    In: _in,
    Range: _range,
    Exists: _exists,
    Type: _type,
    Contains: _contains,
    Size: _size,
    Regex: _regex,
    Glob: _glob,
    Element: _element,
}
