"""Reads a filter as a user writes it, and says where it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final, cast
from uuid import UUID

from treestore.errors import InvalidArgument
from treestore.query import patterns
from treestore.query.expression import (
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
    RangeOperator,
    Regex,
    Size,
    Type,
    both,
    either,
)
from treestore.query.values import ALIASES, TYPES

DEPTH_MAX: Final = 250
"""Levels of conditions inside conditions. Whatever follows them calls itself at most three times a
level, so that there is room left on the stack of whoever asks."""

VALUE_DEPTH_MAX: Final = 100
"""Levels of a value that is compared with."""

CONDITIONS_MAX: Final = 1000
"""Conditions of a filter."""

VALUES_MAX: Final = 10_000
"""Values of one list that is compared with."""

PATH_SIZE_MAX: Final = 1000
"""Characters of a path."""

NAMES_MAX: Final = 100
"""Names of a path."""


class Parser:
    """Reads one filter.

    Every complaint names the way to the fault: ``$or[1].age.$gt``.
    """

    def __init__(self) -> None:
        self._conditions = 0

    def filter(self, source: Any, where: str, depth: int) -> Expression:
        """A whole filter: conditions on fields, and ``$and $or $nor $not``."""
        self._check_depth(depth, where)
        if not isinstance(source, dict):
            raise InvalidArgument(
                f"{where or 'A filter'} is an object of conditions, such as "
                f'{{"age": {{"$gte": 21}}}}, not {_shown(source)}.'
            )
        parts: list[Expression] = []
        for name, condition in source.items():
            at = _joined(where, name)
            if not isinstance(name, str):
                raise InvalidArgument(f"{at}: the name of a field is a string.")
            if name.startswith("$"):
                parts.append(self._logical(name, condition, at, depth))
            else:
                parts.append(self._field(_path(name, at), condition, at, depth))
        return both(parts)

    def _check_depth(self, depth: int, where: str) -> None:
        if depth > DEPTH_MAX:
            raise InvalidArgument(
                f"The filter is nested more than {DEPTH_MAX} levels deep, at {_cut(where)}."
            )

    def _logical(self, name: str, condition: Any, at: str, depth: int) -> Expression:
        if name == "$not":
            return Not(self.filter(condition, at, depth + 1))
        if name not in ("$and", "$or", "$nor"):
            if name in _OPERATORS:
                raise InvalidArgument(
                    f'{at}: {name} belongs to a field: {{"field": {{"{name}": …}}}}.'
                )
            raise InvalidArgument(f"{at}: there is no operator {_shown(name)}.{_known(name)}")
        if not isinstance(condition, list | tuple) or not condition:
            raise InvalidArgument(f"{at} is a list of at least one filter.")
        parts: list[Expression] = []
        for number, part in enumerate(condition):  # A comprehension is one more call a level.
            parts.append(self.filter(part, f"{at}[{number}]", depth + 1))
        if name == "$and":
            return both(parts)
        return either(parts) if name == "$or" else Not(either(parts))

    def _field(self, path: Path, condition: Any, at: str, depth: int) -> Expression:
        """What is asked of one field: operators, or a value to be equal to."""
        self._check_depth(depth, at)
        if isinstance(condition, dict) and any(map(_is_operator, condition)):
            return self._operators(path, condition, at, depth)
        self._count(at)
        return Equal(path, _operand(condition, at))

    def _operators(self, path: Path, condition: Any, at: str, depth: int) -> Expression:
        parts: list[Expression] = []
        for name, operand in condition.items():
            here = _joined(at, name)
            if not _is_operator(name):
                raise InvalidArgument(
                    f"{here}: an object has either operators or fields; {_shown(name)} is no "
                    f"operator."
                )
            self._count(here)
            if name == "$not":
                if (
                    not isinstance(operand, dict)
                    or not operand
                    or not all(map(_is_operator, operand))
                ):
                    raise InvalidArgument(f"{here} is an object of operators.")
                self._check_depth(depth + 1, here)
                parts.append(Not(self._operators(path, operand, here, depth + 1)))
            elif name == "$elemMatch":
                parts.append(self._element(path, operand, here, depth + 1))
            elif name == "$options":
                if "$regex" not in condition:
                    raise InvalidArgument(f"{here}: $options are those of a $regex beside it.")
            elif name == "$regex":
                parts.append(_regex(path, operand, condition.get("$options", ""), here))
            elif name in _OPERATORS:
                parts.append(_OPERATORS[name](path, name, operand, here))
            else:
                raise InvalidArgument(f"{here}: there is no operator {_shown(name)}.{_known(name)}")
        return both(parts)

    def _element(self, path: Path, operand: Any, at: str, depth: int) -> Expression:
        self._check_depth(depth, at)
        if _is_about_element(operand):
            return Element(path, self._operators((), operand, at, depth))
        return Element(path, self.filter(operand, at, depth))

    def _count(self, at: str) -> None:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            raise InvalidArgument(
                f"The filter has more than {CONDITIONS_MAX} conditions, at {_cut(at)}; for a "
                f"choice of many values use $in."
            )


def _is_operator(name: Any) -> bool:
    return isinstance(name, str) and name.startswith("$")


def _is_about_element(operand: Any) -> bool:
    """Whether the object after $elemMatch has operators on the element, and not a filter."""
    for _ in range(DEPTH_MAX):
        if not (isinstance(operand, dict) and operand and all(map(_is_operator, operand))):
            return False
        if not operand.keys().isdisjoint(("$and", "$or", "$nor")):
            return False
        if "$not" not in operand:
            return True
        # It has both readings; what it negates tells which one is meant.
        operand = operand["$not"]
    return False


# --- words of the complaints -----------------------------------------------------------------


def _shown(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return f"a {type(value).__name__}"
    return _cut(ascii(value))


def _cut(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."


def _joined(where: str, name: Any) -> str:
    shown = name if isinstance(name, str) and name.isprintable() else ascii(name)
    return _cut(f"{where}.{shown}" if where else shown)


def _known(name: str) -> str:
    """A hint for somebody who misspelled an operator."""
    wanted = name.lower()
    for known in (*_OPERATORS, "$and", "$or", "$nor", "$not", "$regex", "$elemMatch"):
        if known.lower() == wanted or known.lower() == wanted.rstrip("s"):
            return f" Did you mean {known}?"
    return f" Operators: {', '.join(sorted(_OPERATORS))}, $regex, $elemMatch, $not."


# --- paths and values ------------------------------------------------------------------------


def _path(text: str, at: str) -> Path:
    if len(text) > PATH_SIZE_MAX:
        raise InvalidArgument(f"{at}: a path has at most {PATH_SIZE_MAX} characters.")
    names = tuple(text.split("."))
    if "" in names:
        raise InvalidArgument(f"{at}: the path {_shown(text)} has an empty name in it.")
    if len(names) > NAMES_MAX:
        raise InvalidArgument(f"{at}: a path has at most {NAMES_MAX} names.")
    _check_text(text, at)
    return names


def _check_text(text: str, at: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{at} holds half of a surrogate pair, which is no character."
        ) from None


def _operand(value: Any, at: str) -> Any:
    """A value to compare with, checked and copied: what the caller changes later is not seen."""
    return _copied(value, at, 0)


def _copied(value: Any, at: str, depth: int) -> Any:
    if depth > VALUE_DEPTH_MAX:
        raise InvalidArgument(f"{at}: the value is nested more than {VALUE_DEPTH_MAX} levels deep.")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        _check_text(value, at)
        return value
    if isinstance(value, list | tuple):
        if len(value) > VALUES_MAX:
            raise InvalidArgument(f"{at}: a list has at most {VALUES_MAX} values.")
        return [_copied(element, at, depth + 1) for element in value]
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise InvalidArgument(f"{at}: the names of an object are strings.")
        for name in value:
            _check_text(name, at)
        return {name: _copied(inner, at, depth + 1) for name, inner in value.items()}
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    if isinstance(value, date):
        # As it travels: so a filter means the same to an embedded store and over a wire.
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise InvalidArgument(
        f"{at}: a value is null, a boolean, a number, a string, a date, a list or an object, not "
        f"{type(value).__name__}."
    )


def _values(operand: Any, at: str) -> tuple[Any, ...]:
    if not isinstance(operand, list | tuple):
        raise InvalidArgument(f"{at} is a list of values, not {_shown(operand)}.")
    return tuple(_operand(operand, at))


# --- operators on a field --------------------------------------------------------------------


def _equal(path: Path, name: str, operand: Any, at: str) -> Expression:
    return Equal(path, _operand(operand, at))


def _not_equal(path: Path, name: str, operand: Any, at: str) -> Expression:
    return Not(_equal(path, name, operand, at))


def _range(path: Path, name: str, operand: Any, at: str) -> Expression:
    value = _operand(operand, at)
    if value is None:
        return Equal(path, None) if name.endswith("e") else Or(())
    return Range(path, cast("RangeOperator", name), value)


def _in(path: Path, name: str, operand: Any, at: str) -> Expression:
    values = _values(operand, at)
    return In(path, values) if values else Or(())


def _not_in(path: Path, name: str, operand: Any, at: str) -> Expression:
    return Not(_in(path, name, operand, at))


def _all(path: Path, name: str, operand: Any, at: str) -> Expression:
    values = _values(operand, at)
    return both([Equal(path, value) for value in values]) if values else Or(())


def _exists(path: Path, name: str, operand: Any, at: str) -> Expression:
    if not isinstance(operand, bool):
        raise InvalidArgument(f"{at} is true or false, not {_shown(operand)}.")
    return Exists(path) if operand else Not(Exists(path))


def _type(path: Path, name: str, operand: Any, at: str) -> Expression:
    names = operand if isinstance(operand, list | tuple) else [operand]
    types: set[str] = set()
    for given in names:
        known = ALIASES.get(given, given) if isinstance(given, str) else None
        if known not in TYPES:
            raise InvalidArgument(
                f"{at}: {_shown(given)} is no type; types are {', '.join(sorted(TYPES))}."
            )
        types.add(known)
    if not types:
        raise InvalidArgument(f"{at} names at least one type.")
    return Type(path, frozenset(types))


def _contains(path: Path, name: str, operand: Any, at: str) -> Expression:
    return Contains(path, (_operand(operand, at),))


def _contains_any(path: Path, name: str, operand: Any, at: str) -> Expression:
    values = _values(operand, at)
    return Contains(path, values) if values else Or(())


def _size(path: Path, name: str, operand: Any, at: str) -> Expression:
    if isinstance(operand, bool) or not isinstance(operand, int) or operand < 0:
        raise InvalidArgument(f"{at} is a number of elements, 0 or more, not {_shown(operand)}.")
    return Size(path, operand)


def _regex(path: Path, operand: Any, options: Any, at: str) -> Expression:
    if not isinstance(operand, str):
        raise InvalidArgument(f"{at} is a pattern, not {_shown(operand)}.")
    if not isinstance(options, str) or not set(options) <= set(patterns.OPTIONS):
        raise InvalidArgument(
            f"{at}: $options are letters of {patterns.OPTIONS!r}, not {_shown(options)}."
        )
    _check_text(operand, at)
    letters = "".join(letter for letter in patterns.OPTIONS if letter in options)
    _check_pattern(lambda: patterns.regex(operand, letters), at)
    return Regex(path, operand, letters)


def _glob(path: Path, name: str, operand: Any, at: str) -> Expression:
    if not isinstance(operand, str):
        raise InvalidArgument(f"{at} is a pattern, not {_shown(operand)}.")
    _check_text(operand, at)
    ignore_case = name == "$iglob"
    _check_pattern(lambda: patterns.glob(operand, ignore_case=ignore_case), at)
    return Glob(path, operand, ignore_case)


def _check_pattern(compile: Callable[[], Any], at: str) -> None:
    try:
        compile()
    except ValueError as error:
        raise InvalidArgument(f"{at}: the pattern cannot be used: {error}.") from None


_OPERATORS: dict[str, Callable[[Path, str, Any, str], Expression]] = {
    "$eq": _equal,
    "$ne": _not_equal,
    "$gt": _range,
    "$gte": _range,
    "$lt": _range,
    "$lte": _range,
    "$in": _in,
    "$nin": _not_in,
    "$all": _all,
    "$exists": _exists,
    "$type": _type,
    "$contains": _contains,
    "$containsAny": _contains_any,
    "$size": _size,
    "$glob": _glob,
    "$iglob": _glob,
}
