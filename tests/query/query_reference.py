"""A second implementation of docs/collection-queries.md over a list of documents: slow, and none of
the first one's code."""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any

from tests.query import reference


def id_of(document: dict[str, Any]) -> str:
    given: str = document["_id"] if "_id" in document else document["id"]
    return given


def matches(document: dict[str, Any], filter: dict[str, Any]) -> bool:
    return reference.matches({**document, "_id": id_of(document)}, filter)


def compare_keys(left: Any, right: Any) -> int:
    """Of ("empty list",) or ("value", value)."""
    if left[0] != right[0]:
        return -1 if left[0] == "empty list" else 1
    return 0 if left[0] == "empty list" else reference.compare(left[1], right[1])


def sort_key(document: dict[str, Any], path: str, direction: int) -> Any:
    found: list[Any] = []
    for value in reference.lead(document, path.split(".")):
        if value is reference.NOTHING:
            found.append(("value", None))
        elif value == [] and isinstance(value, list):
            found.append(("empty list",))
        elif isinstance(value, list):
            found += [("value", element) for element in value]
        else:
            found.append(("value", value))
    found.sort(key=cmp_to_key(compare_keys))
    if not found:
        return ("value", None)
    return found[0] if direction > 0 else found[-1]


def ordered(documents: list[dict[str, Any]], sort: list[tuple[str, int]]) -> list[dict[str, Any]]:
    last = 1

    def compare(left: dict[str, Any], right: dict[str, Any]) -> int:
        for path, direction in sort:
            if path == "_id":
                order = (id_of(left) > id_of(right)) - (id_of(left) < id_of(right))
            else:
                order = compare_keys(
                    sort_key(left, path, direction), sort_key(right, path, direction)
                )
            if order:
                return order * direction
        order = (id_of(left) > id_of(right)) - (id_of(left) < id_of(right))
        return order * last

    for _, direction in sort:
        last = direction
    return sorted(documents, key=cmp_to_key(compare))


def find(
    documents: list[dict[str, Any]],
    filter: dict[str, Any],
    sort: list[tuple[str, int]],
) -> list[dict[str, Any]]:
    return ordered([each for each in documents if matches(each, filter)], sort)
