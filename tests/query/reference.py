"""A second implementation of docs/filters.md: slow, recursive, and none of the first one's code."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterator
from typing import Any

NOTHING = object()
KINDS = ["null", "number", "string", "object", "list", "bool"]


def kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    names: dict[Any, str] = {str: "string", dict: "object", list: "list"}
    return names[type(value)]


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1, over all kinds."""
    if kind(left) != kind(right):
        return -1 if KINDS.index(kind(left)) < KINDS.index(kind(right)) else 1
    if kind(left) == "list":
        for one, other in zip(left, right, strict=False):
            if order := compare(one, other):
                return order
        return (len(left) > len(right)) - (len(left) < len(right))
    if kind(left) == "object":
        return compare(
            [[name, left[name]] for name in sorted(left)],
            [[name, right[name]] for name in sorted(right)],
        )
    if kind(left) == "null":
        return 0
    if isinstance(left, float) and math.isnan(left):
        return 0 if isinstance(right, float) and math.isnan(right) else -1
    if isinstance(right, float) and math.isnan(right):
        return 1
    return (left > right) - (left < right)


def lead(value: Any, names: list[str]) -> Iterator[Any]:
    if not names:
        yield value
    elif isinstance(value, dict):
        if names[0] in value:
            yield from lead(value[names[0]], names[1:])
        else:
            yield NOTHING
    elif isinstance(value, list):
        if re.fullmatch("0|[1-9][0-9]*", names[0]) and int(names[0]) < len(value):
            yield from lead(value[int(names[0])], names[1:])
        for element in value:
            if isinstance(element, dict):
                yield from lead(element, names)
    else:
        yield NOTHING


def spread(values: list[Any]) -> list[Any]:
    inner = [element for value in values if isinstance(value, list) for element in value]
    return values + inner


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def equal(value: Any, operand: Any) -> bool:
    if value is NOTHING:
        return operand is None
    return compare(value, operand) == 0


def ranged(operator: str, value: Any, operand: Any) -> bool:
    if operand is None:
        return operator in ("$gte", "$lte") and equal(value, None)
    if value is NOTHING or kind(value) != kind(operand):
        return False
    if is_nan(value) or is_nan(operand):
        return operator in ("$gte", "$lte") and is_nan(value) and is_nan(operand)
    order = compare(value, operand)
    return {"$gt": order > 0, "$gte": order >= 0, "$lt": order < 0, "$lte": order <= 0}[operator]


def contains(value: Any, operand: Any) -> bool:
    if isinstance(value, list):
        return any(compare(element, operand) == 0 for element in value)
    return isinstance(value, str) and isinstance(operand, str) and operand in value


def typed(value: Any, name: str) -> bool:
    if value is NOTHING:
        return False
    if name in ("int", "float"):
        return kind(value) == "number" and isinstance(value, int) == (name == "int")
    return kind(value) == {"array": "list", "boolean": "bool"}.get(name, name)


def about_element(operand: Any) -> bool:
    names = set(operand)
    if not names or not all(name.startswith("$") for name in names):
        return False
    if names & {"$and", "$or", "$nor"}:
        return False
    return about_element(operand["$not"]) if "$not" in names else True


def operator_holds(values: list[Any], operator: str, operand: Any, whole: dict[str, Any]) -> bool:
    each = spread(values)
    if operator == "$eq":
        return any(equal(value, operand) for value in each)
    if operator in ("$gt", "$gte", "$lt", "$lte"):
        return any(ranged(operator, value, operand) for value in each)
    if operator == "$in":
        return any(equal(value, one) for value in each for one in operand)
    if operator == "$all":
        return bool(operand) and all(any(equal(value, one) for value in each) for one in operand)
    if operator == "$exists":
        return any(value is not NOTHING for value in values) is operand
    if operator == "$type":
        names = [operand] if isinstance(operand, str) else operand
        return any(typed(value, name) for value in each for name in names)
    if operator == "$contains":
        return any(contains(value, operand) for value in values)
    if operator == "$containsAny":
        return any(contains(value, one) for value in values for one in operand)
    if operator == "$size":
        return any(isinstance(value, list) and len(value) == operand for value in values)
    if operator == "$regex":
        flags = sum(getattr(re, letter.upper()) for letter in whole.get("$options", ""))
        return any(isinstance(value, str) and re.search(operand, value, flags) for value in each)
    if operator == "$glob":
        return any(isinstance(value, str) and fnmatch.fnmatchcase(value, operand) for value in each)
    if operator == "$options":
        return True
    if operator == "$elemMatch":
        plain = about_element(operand)
        return any(
            field_holds([element], operand) if plain else matches(element, operand)
            for value in values
            if isinstance(value, list)
            for element in value
        )
    if operator == "$not":
        return not field_holds(values, operand)
    raise AssertionError(operator)


def field_holds(values: list[Any], condition: Any) -> bool:
    if not (isinstance(condition, dict) and any(name.startswith("$") for name in condition)):
        return any(equal(value, condition) for value in spread(values))
    for operator, operand in condition.items():
        if operator == "$ne":
            holds = not operator_holds(values, "$eq", operand, condition)
        elif operator == "$nin":
            holds = not operator_holds(values, "$in", operand, condition)
        else:
            holds = bool(operator_holds(values, operator, operand, condition))
        if not holds:
            return False
    return True


def matches(document: Any, source: dict[str, Any]) -> bool:
    for name, condition in source.items():
        if name == "$and":
            holds = all(matches(document, part) for part in condition)
        elif name == "$or":
            holds = any(matches(document, part) for part in condition)
        elif name == "$nor":
            holds = not any(matches(document, part) for part in condition)
        elif name == "$not":
            holds = not matches(document, condition)
        else:
            holds = field_holds(list(lead(document, name.split("."))), condition)
        if not holds:
            return False
    return True
