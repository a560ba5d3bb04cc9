"""Changes of a document: JSON merge patches and MongoDB's update operators.

`compile_update` understands a patch once; `Update.apply` makes a new document of an old one and
leaves the old one as it is.

A patch whose names all begin with ``$`` is one of operators, each with an object of paths and
operands; any other one is a merge patch (RFC 7396): objects are merged, null removes, anything else
replaces. A path goes through objects by name, and through lists by an element's number. No two
operators of a patch may change the same value, or one inside another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final

import attrs

from treestore.errors import InvalidArgument
from treestore.query.expression import Path
from treestore.query.filter import compile
from treestore.query.paths import MISSING
from treestore.query.values import NUMBER, OBJECT, bracket, order_key

PATHS_MAX: Final = 1000
"""Paths that one patch changes."""

PATH_SIZE_MAX: Final = 1000
"""Characters of a path."""

NAMES_MAX: Final = 100
"""Names of a path."""

DEPTH_MAX: Final = 100
"""Levels of a merge patch."""

GAP_MAX: Final = 1000
"""Elements of null that setting an element behind a list's end may add."""

Change = Callable[[Any], Any]
"""Of what is at a path, or MISSING: what is to be there, or MISSING."""


@attrs.frozen
class Update:
    """A patch that was understood. Made by `compile_update`.

    Attributes:
        paths: what it may change: paths of operators, top fields of a merge patch.
        apply: of a document, the new one. It raises `InvalidArgument` where the patch does not fit
            the document; the sentence names the path.
    """

    paths: tuple[Path, ...]
    apply: Callable[[dict[str, Any]], dict[str, Any]] = attrs.field(eq=False, repr=False)


def compile_update(patch: Any) -> Update:
    """Understand a patch.

    Raises:
        InvalidArgument: it is none; says where it goes wrong and how.
    """
    if not isinstance(patch, Mapping):
        raise InvalidArgument(
            'A patch is an object: {"field": value, …}, or operators as in {"$set": {"field": 1}}.'
        )
    for name in patch:
        if not isinstance(name, str):
            raise InvalidArgument(f"A patch has the name {name!a:.60}; names are strings.")
    operators = [name for name in patch if name.startswith("$")]
    if not operators:
        return _merge_patch(dict(patch))
    if len(operators) < len(patch):
        raise InvalidArgument(
            f"A patch has either operators or fields, not {operators[0]:.60} beside fields."
        )
    steps: list[tuple[Path, Change]] = []
    renames: list[tuple[Path, Path]] = []
    for operator, operands in patch.items():
        make = _MAKERS.get(operator)
        if make is None and operator != "$rename":
            raise InvalidArgument(
                f"There is no update operator {operator!a:.60}. Operators: "
                f"{', '.join(sorted(_MAKERS))}, $rename."
            )
        if not isinstance(operands, Mapping):
            raise InvalidArgument(f"{operator} is an object of paths and operands.")
        for name, operand in operands.items():
            path = _path(name, operator)
            if make is None:
                renames.append((path, _path(operand, f"{operator}.{name:.60}")))
            else:
                steps.append((path, make(operand, f"{operator}.{name:.60}")))
    paths = [path for path, _ in steps] + [path for pair in renames for path in pair]
    _check_apart(paths)
    return Update(tuple(paths), _Operators(steps, renames).apply)


def _path(name: Any, operator: str) -> Path:
    if not isinstance(name, str):
        raise InvalidArgument(f"{operator}: a path is a string, not {type(name).__name__}.")
    if len(name) > PATH_SIZE_MAX:
        raise InvalidArgument(f"{operator}: a path has at most {PATH_SIZE_MAX} characters.")
    names = tuple(name.split("."))
    if len(names) > NAMES_MAX:
        raise InvalidArgument(f"{operator}: a path has at most {NAMES_MAX} names.")
    for part in names:
        if not part or part.startswith("$"):
            raise InvalidArgument(
                f"{operator}.{name:.60}: the names of a path are not empty and do not begin with $."
            )
    return names


def _check_apart(paths: list[Path]) -> None:
    if len(paths) > PATHS_MAX:
        raise InvalidArgument(f"A patch changes at most {PATHS_MAX} paths, not {len(paths)}.")
    ordered = sorted(paths)
    for one, other in pairwise(ordered):
        # What begins with a path comes right behind it in this order.
        if other[: len(one)] == one:
            raise InvalidArgument(
                f"The patch changes {'.'.join(one):.60} and {'.'.join(other):.60} at once; "
                "do it one after the other."
            )


@attrs.frozen
class _Operators:
    """Applies operators, then renames."""

    steps: list[tuple[Path, Change]]
    renames: list[tuple[Path, Path]]

    def apply(self, document: dict[str, Any]) -> dict[str, Any]:
        """See `Update.apply`."""
        for path, change in self.steps:
            document = _changed(document, path, 0, change)
        for source, target in self.renames:
            document = _renamed(document, source, target)
        return document


def _changed(value: Any, path: Path, at: int, change: Change) -> Any:
    """``value`` with what is at the rest of ``path`` changed; a copy where that differs."""
    if at == len(path):
        return change(value)
    name = path[at]
    if value is MISSING:
        inner = _changed(MISSING, path, at + 1, change)
        return MISSING if inner is MISSING else {name: inner}
    if isinstance(value, dict):
        inner = _changed(value.get(name, MISSING), path, at + 1, change)
        if inner is MISSING:
            return {key: each for key, each in value.items() if key != name}
        return {**value, name: inner}
    if isinstance(value, list | tuple):
        return _changed_list(list(value), path, at, change)
    if _removes(change):
        return value
    raise InvalidArgument(
        f"{'.'.join(path):.80}: there is no {name:.60} in a {type(value).__name__}; set "
        f"{'.'.join(path[:at]):.80} to an object first."
    )


def _changed_list(elements: list[Any], path: Path, at: int, change: Change) -> list[Any]:
    name = path[at]
    if not (name.isascii() and name.isdecimal() and (name == "0" or name[0] != "0")):
        if _removes(change):
            return elements
        raise InvalidArgument(
            f"{'.'.join(path):.80}: there is a list at {'.'.join(path[:at]):.80}, whose elements "
            f"have numbers; {name:.60} is none."
        )
    index = int(name) if len(name) < 10 else 1 << 32
    old = elements[index] if index < len(elements) else MISSING
    inner = _changed(old, path, at + 1, change)
    if inner is MISSING:
        if old is not MISSING:
            # Others keep their places.
            elements[index] = None
    elif old is not MISSING:
        elements[index] = inner
    else:
        gap = index - len(elements)
        if gap > GAP_MAX:
            raise InvalidArgument(
                f"{'.'.join(path):.80}: the list has {len(elements)} elements; an element is set "
                f"at most {GAP_MAX} behind its end."
            )
        elements += [None] * gap
        elements.append(inner)
    return elements


def _renamed(document: dict[str, Any], source: Path, target: Path) -> dict[str, Any]:
    value: Any = document
    for name in source:
        if isinstance(value, list | tuple):
            raise InvalidArgument(
                f"$rename.{'.'.join(source):.80}: the path leads into a list; rename fields only."
            )
        value = value.get(name, MISSING) if isinstance(value, dict) else MISSING
    if value is MISSING:
        return document
    kept = value
    document = _changed(document, source, 0, _remove)
    renamed: dict[str, Any] = _changed(document, target, 0, lambda _: kept)
    return renamed


# --- operators -------------------------------------------------------------------------------


def _remove(_value: Any) -> Any:
    return MISSING


def _removes(change: Change) -> bool:
    """Whether there is nothing to be done where the way ends early."""
    return change is _remove or getattr(change, "only_lists", False)


def _set(operand: Any, _where: str) -> Change:
    return lambda _: operand


def _unset(_operand: Any, _where: str) -> Change:
    return _remove


def _number(value: Any, where: str) -> None:
    if bracket(value) != NUMBER or not math.isfinite(value):
        raise InvalidArgument(f"{where} is a number, not {_shown(value)}.")


def _arithmetic(
    name: str, calculate: Callable[[Any, Any], Any], start: int
) -> Callable[[Any, str], Change]:
    def make(operand: Any, where: str) -> Change:
        _number(operand, where)

        def change(value: Any) -> Any:
            old = start if value is MISSING else value
            if bracket(old) != NUMBER:
                raise InvalidArgument(f"{where}: there is {_shown(old)} in its place, no number.")
            try:
                new = calculate(old, operand)
            except OverflowError:
                new = math.inf
            whole = isinstance(new, int)
            if not (-(2**63) <= new < 2**64 if whole else math.isfinite(new)):
                raise InvalidArgument(f"{where}: the result is too large for a number.")
            return new

        return change

    make.__name__ = name
    return make


def _better(sign: int) -> Callable[[Any, str], Change]:
    def make(operand: Any, _where: str) -> Change:
        wanted = order_key(operand)

        def change(value: Any) -> Any:
            if value is MISSING:
                return operand
            found = order_key(value)
            return operand if (wanted < found if sign < 0 else wanted > found) else value

        return change

    return make


def _list_at(value: Any, where: str) -> list[Any]:
    if value is MISSING:
        return []
    if not isinstance(value, list | tuple):
        raise InvalidArgument(f"{where}: there is {_shown(value)} in its place, no list.")
    return list(value)


def _is_modified(operand: Any) -> bool:
    return isinstance(operand, dict) and any(
        isinstance(name, str) and name.startswith("$") for name in operand
    )


def _each(operand: Any, where: str, others: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """The elements to add, and what else an operand with ``$each`` says."""
    if not _is_modified(operand):
        return [operand], {}
    for name in operand:
        if name != "$each" and name not in others:
            raise InvalidArgument(
                f"{where} has no {name!a:.60}; beside $each there is "
                f"{', '.join(others) or 'nothing'}."
            )
    elements = operand.get("$each", MISSING)
    if not isinstance(elements, list | tuple):
        raise InvalidArgument(f"{where}.$each is a list.")
    return list(elements), operand


def _whole(options: dict[str, Any], name: str, where: str) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{where}.{name} is a whole number, not {_shown(value)}.")
    return value


def _push(operand: Any, where: str) -> Change:
    elements, options = _each(operand, where, ("$position", "$slice"))
    position, size = _whole(options, "$position", where), _whole(options, "$slice", where)

    def change(value: Any) -> Any:
        found = _list_at(value, where)
        at = len(found) if position is None else position
        found[at:at] = elements
        if size is not None:
            # Of a negative size, so many from the end.
            found = found[:size] if size >= 0 else found[size:]
        return found

    return change


def _add_to_set(operand: Any, where: str) -> Change:
    elements, _ = _each(operand, where, ())

    def change(value: Any) -> Any:
        found = _list_at(value, where)
        seen = set(map(order_key, found))
        for element in elements:
            key = order_key(element)
            if key not in seen:
                seen.add(key)
                found.append(element)
        return found

    return change


def _pull(operand: Any, where: str) -> Change:
    """Removes the elements that equal a value, or that satisfy a condition: operators on the
    element, or, for elements that are objects, a filter."""
    if _is_modified(operand):
        # As {"element": {"$gt": 3}} asks it of a field; of an element that is a list, as a whole.
        logical = not {"$and", "$or", "$nor"}.isdisjoint(operand)
        inner = compile(operand if logical else {"element": operand}).matches
        matches = inner if logical else (lambda element: inner({"element": element}))
    elif bracket(operand) == OBJECT:
        inner = compile(operand).matches
        matches = lambda element: isinstance(element, dict) and inner(element)  # noqa: E731
    else:
        wanted = order_key(operand)
        matches = lambda element: order_key(element) == wanted  # noqa: E731
    return _without(matches, where)


def _pull_all(operand: Any, where: str) -> Change:
    if not isinstance(operand, list | tuple):
        raise InvalidArgument(f"{where} is a list of values.")
    unwanted = set(map(order_key, operand))
    return _without(lambda element: order_key(element) in unwanted, where)


def _without(matches: Callable[[Any], bool], where: str) -> Change:
    def change(value: Any) -> Any:
        if value is MISSING:
            return MISSING
        return [element for element in _list_at(value, where) if not matches(element)]

    change.only_lists = True  # type: ignore[attr-defined]
    return change


def _pop(operand: Any, where: str) -> Change:
    if isinstance(operand, bool) or operand not in (1, -1):
        raise InvalidArgument(f"{where} is 1 for the last element or -1 for the first one.")

    def change(value: Any) -> Any:
        if value is MISSING:
            return MISSING
        found = _list_at(value, where)
        return found[:-1] if operand == 1 else found[1:]

    change.only_lists = True  # type: ignore[attr-defined]
    return change


def _shown(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return f"a {type(value).__name__}"
    return f"{value!a:.60}"


_MAKERS: dict[str, Callable[[Any, str], Change]] = {
    "$set": _set,
    "$unset": _unset,
    "$inc": _arithmetic("inc", lambda old, by: old + by, 0),
    "$mul": _arithmetic("mul", lambda old, by: old * by, 0),
    "$min": _better(-1),
    "$max": _better(1),
    "$push": _push,
    "$addToSet": _add_to_set,
    "$pull": _pull,
    "$pullAll": _pull_all,
    "$pop": _pop,
}


# --- merge patches ---------------------------------------------------------------------------


def _merge_patch(patch: dict[str, Any]) -> Update:
    _check_depth(patch, 1)

    def apply(document: dict[str, Any]) -> dict[str, Any]:
        merged: dict[str, Any] = _merged(document, patch)
        return merged

    return Update(tuple((name,) for name in patch), apply)


def _check_depth(patch: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise InvalidArgument(f"The patch is nested more than {DEPTH_MAX} levels deep.")
    if isinstance(patch, dict):
        for name, value in patch.items():
            if not isinstance(name, str):
                raise InvalidArgument(f"A patch has the name {name!a:.60}; names are strings.")
            _check_depth(value, depth + 1)


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for name, inner in patch.items():
        if inner is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), inner)
    return merged
