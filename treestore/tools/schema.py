"""A model's arguments, checked against the JSON schema of a tool.

The part of JSON Schema that tool definitions use: ``type`` (one or several), ``properties``,
``required``, ``additionalProperties: false``, ``items``, ``enum``, ``minimum``, ``maximum``,
``minLength``, ``maxLength``, ``minItems``, ``maxItems``, ``default``. A definition that says more
is refused by `check_schema`, so that no rule is stated to a model and then not kept.

Whatever a model, or a program, hands in: the answer is a list of problems, never an exception.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from typing import Any, Final

Schema = dict[str, Any]

ARGUMENTS_SIZE_MAX: Final = 256 << 10
"""Characters and members of all arguments together, at most."""

DEPTH_MAX: Final = 16
"""Levels of lists and objects in arguments, at most."""

PROBLEMS_MAX: Final = 8
"""Problems that are named; a model mends the first ones first."""

_KEYWORDS = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "enum"),
        *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
        *("default", "description"),
    }
)
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


class Unusable(Exception):
    """Arguments that are no JSON object of a moderate size; the message says why."""


def parse_arguments(given: object) -> dict[str, Any]:
    """A model's arguments as a dict of plain JSON values.

    Takes a dict, or the JSON text of an object, as some models' interfaces hand it on. None and
    the empty string stand for no arguments.

    Raises:
        Unusable: it is neither, or too large, too deep, or holds what JSON cannot say.
    """
    if isinstance(given, str):
        given = _parsed(given)
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise Unusable(f"Arguments are a JSON object, not {_article(given)}.")
    _measure(given)
    result: dict[str, Any] = _plain(given)
    return result


def _parsed(text: str) -> object:
    if not text.strip():
        return None
    if len(text) > ARGUMENTS_SIZE_MAX:
        raise Unusable(f"Arguments have at most {ARGUMENTS_SIZE_MAX} characters, not {len(text)}.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"Arguments are no JSON: {str(error)[:100]}.") from None


def _measure(given: dict[Any, Any]) -> None:
    """Refuse what is too large or too deep, cycles included, without recursion."""
    size = 0
    level: list[Any] = [given]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict | list | tuple | str):
                size += len(value)
            if size > ARGUMENTS_SIZE_MAX:
                raise Unusable(
                    f"Arguments are too large: at most {ARGUMENTS_SIZE_MAX} characters together."
                )
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list | tuple):
                below += value
        if not below:
            return
        level = below
    raise Unusable(f"Arguments are nested deeper than {DEPTH_MAX} levels.")


def _plain(value: Any) -> Any:
    """``value`` made of plain JSON values, copied."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Unusable("Arguments hold a whole number of more than 64 bits.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unusable(f"Arguments hold {value}, which JSON cannot say.")
        return float(value)
    if isinstance(value, dict):
        return {_name(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    raise Unusable(f"Arguments hold {_article(value)}, which JSON cannot say.")


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise Unusable(f"Arguments have {_article(name)} as a name; names are strings.")
    return _unicode(name)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable("Arguments hold half of a surrogate pair, which is no character.") from None
    return str(text)


def _article(value: object) -> str:
    name = type(value).__name__
    return "null" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


# --- validation ------------------------------------------------------------------------------


def find_problems(schema: Schema, arguments: dict[str, Any]) -> list[str]:
    """What keeps ``arguments`` (of `parse_arguments`) from fitting the schema, as sentences."""
    problems = []
    for problem in _object_problems(schema, arguments, ""):
        problems.append(problem)
        if len(problems) == PROBLEMS_MAX:
            break
    return problems


def with_defaults(schema: Schema, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with the schema's defaults for what is missing or null."""
    filled = {
        name: property_["default"]
        for name, property_ in schema["properties"].items()
        if "default" in property_ and arguments.get(name) is None
    }
    return {**arguments, **filled}


def _problems(schema: Schema, value: Any, at: str) -> Iterator[str]:
    types = _types_of(schema)
    kind = next((name for name in types if _is(value, name)), None)
    if kind is None:
        yield f"{at} is {_either(types)}, not {_described(value)}."
        return
    if "enum" in schema and value not in schema["enum"]:
        hint = _close(value, schema["enum"])
        yield f"{at} is one of {', '.join(map(repr, schema['enum']))}, not {_shown(value)}.{hint}"
    if kind in ("integer", "number"):
        yield from _limits(schema, value, at, "imum", "")
    elif kind == "string":
        yield from _limits(schema, len(value), at, "Length", " characters")
    elif kind == "array":
        yield from _limits(schema, len(value), at, "Items", " items")
        for number, item in enumerate(value):
            yield from _problems(schema.get("items", {}), item, f"{at}[{number}]")
    elif kind == "object":
        yield from _object_problems(schema, value, f"{at}.")


def _object_problems(schema: Schema, value: dict[str, Any], prefix: str) -> Iterator[str]:
    properties: dict[str, Schema] = schema.get("properties", {})
    required = schema.get("required", ())
    for name in required:
        if value.get(name) is None and "null" not in _types_of(properties[name]):
            yield f"{prefix}{name} is missing."
    for name, member in value.items():
        if name in properties:
            # Models say null where they mean nothing.
            if member is not None:
                yield from _problems(properties[name], member, prefix + name)
        elif schema.get("additionalProperties") is False:
            known = ", ".join(properties) or "none"
            hint = _close(name, list(properties))
            where = f" of {prefix.removesuffix('.')}" if prefix else ""
            yield f"There is no argument {_shown(name)}{where}; there are: {known}.{hint}"


def _types_of(schema: Schema) -> list[str]:
    types = schema.get("type", list(_TYPES))
    return [types] if isinstance(types, str) else list(types)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _limits(schema: Schema, size: float, at: str, suffix: str, unit: str) -> Iterator[str]:
    least, most = schema.get(f"min{suffix}"), schema.get(f"max{suffix}")
    verb = "has" if unit else "is"
    if least is not None and size < least:
        yield f"{at} {verb} at least {least}{unit}, not {size}."
    if most is not None and size > most:
        yield f"{at} {verb} at most {most}{unit}, not {size}."


_NAMES = {
    "string": "a string",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def _either(types: list[str]) -> str:
    return " or ".join(_NAMES[name] for name in types)


def _described(value: Any) -> str:
    name = next(name for name in ("boolean", "integer", *_TYPES) if _is(value, name))
    if name in ("array", "object", "null"):
        return _NAMES[name]
    return f"{_NAMES[name]} {_shown(value)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _close(name: Any, known: list[Any]) -> str:
    """Did you mean …?"""
    if not isinstance(name, str):
        return ""
    found = difflib.get_close_matches(name[:60], [str(other) for other in known], n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def did_you_mean(name: object, known: list[str]) -> str:
    """A hint to the known name that is like this one; "" without one."""
    return _close(name, known)


# --- definitions -----------------------------------------------------------------------------


def check_schema(schema: Schema) -> None:
    """Raise `ValueError` for a definition that asks for what is not checked here."""
    unknown = schema.keys() - _KEYWORDS
    if unknown:
        raise ValueError(f"not checked: {sorted(unknown)}")
    for name in _types_of(schema):
        if name not in _TYPES:
            raise ValueError(f"no such type: {name}")
    for member in [*schema.get("properties", {}).values(), schema.get("items")]:
        if member is not None:
            check_schema(member)
    missing = set(schema.get("required", ())) - schema.get("properties", {}).keys()
    if missing:
        raise ValueError(f"required, but no property: {sorted(missing)}")
