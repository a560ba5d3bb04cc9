"""What a path leads to in a document.

A path goes through an object by the name of a field; through a list, by a name that is a number,
to that element, and, whatever the name, to every element that is an object. So it can lead to
several values. Where an object has no such field, or the way ends at a value that is neither
object nor list, it leads to `MISSING`; an element of a list that is no object is passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from treestore.query.expression import Path


class _Missing:
    """The only one of its kind."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""There is no value: something else than null, though ``null`` in a filter means both."""


def compiled(path: Path) -> Callable[[Any], list[Any]]:
    """A function that gives everything that ``path`` leads to, lists as they are."""
    if not path:
        return lambda document: [document]
    if len(path) == 1:
        name, at = path[0], _index(path[0])

        def one(document: Any) -> list[Any]:
            if isinstance(document, dict):
                return [document.get(name, MISSING)]
            return _step([document], name, at)

        return one

    steps = [(name, _index(name)) for name in path]

    def many(document: Any) -> list[Any]:
        values = [document]
        for name, index in steps:
            values = _step(values, name, index)
        return values

    return many


def _index(name: str) -> int | None:
    """The place in a list that a name stands for."""
    if name.isascii() and name.isdecimal() and (name == "0" or name[0] != "0"):
        return int(name)
    return None


def _step(values: list[Any], name: str, index: int | None) -> list[Any]:
    """One name further. A list or object that is reached twice is followed once: what is nested
    in turns could otherwise be reached in exponentially many ways."""
    found: list[Any] = []
    seen: set[int] = set()
    missing = False

    def add(value: Any) -> None:
        if isinstance(value, dict | list | tuple):
            if id(value) in seen:
                return
            seen.add(id(value))
        found.append(value)

    for value in values:
        if isinstance(value, dict):
            inner = value.get(name, MISSING)
            if inner is MISSING:
                missing = True
            else:
                add(inner)
        elif isinstance(value, list | tuple):
            if index is not None and index < len(value):
                add(value[index])
            for element in value:
                if isinstance(element, dict):
                    inner = element.get(name, MISSING)
                    if inner is MISSING:
                        missing = True
                    else:
                        add(inner)
        else:
            missing = True
    if missing:
        found.append(MISSING)
    return found


def spread(values: list[Any]) -> list[Any]:
    """The values, and after each list its elements."""
    if not any(isinstance(value, list | tuple) for value in values):
        return values
    found: list[Any] = []
    for value in values:
        found.append(value)
        if isinstance(value, list | tuple):
            found += value
    return found
