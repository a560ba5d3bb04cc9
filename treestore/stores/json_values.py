"""JSON values: what a caller may store as arguments, results, metadata and the like.

The encoder takes more than JSON has, and turns it into something else: a set into a list, a date
into a string. So such values are looked at first, by the same function wherever they are given: at
a client before they are sent, and in the store. What is stored is then what was given, whichever
face it came through (``tests/services/test_json_values.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, cast

import msgspec

from treestore.errors import InvalidArgument
from treestore.stores.operation import Wire

DEPTH_MAX: Final = 100
"""Levels of lists and objects in a JSON value, at most."""

SCALARS: Final = frozenset({str, int, bool, type(None)})
"""Types that need no look inside. Not float: JSON has no NaN and no infinity."""

_NAMES: Final = frozenset({str})


def plain(value: Any) -> Any:
    """What stands for a value that the encoder does not know: of a subclass of a string or a number
    (numpy's, a marked-up text), the string or number itself.

    Raises:
        TypeError: there is nothing like it in JSON.
    """
    # Not str(value), float(value): these ask the subclass, which may say something else.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, int):
        return int.__pos__(value)
    raise TypeError(f"a value of type {type(value).__name__}")


encode = msgspec.msgpack.Encoder(enc_hook=plain).encode
"""As msgpack; a subclass of a string or a number as the string or number that it is."""


def check_json(value: Any, what: str, *, depth_max: int = DEPTH_MAX) -> None:
    """Raise `InvalidArgument` unless ``value`` is made of what JSON can hold.

    Tuples count as lists. How long numbers and the whole may be is checked where it is encoded.

    Args:
        what: begins the message's sentence.
        depth_max: levels of lists and objects, at most.
    """
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict):
            if not _NAMES.issuperset(map(type, item)):
                _check_names(item, what)
            inside: Any = item.values()
        elif isinstance(item, list | tuple):
            inside = item
        else:
            _check_scalar(item, what)
            continue
        if depth >= depth_max:
            raise InvalidArgument(f"{what} is nested more than {depth_max} levels deep.")
        # Most lists and objects hold scalars alone: that is found without a look at each.
        if not SCALARS.issuperset(map(type, inside)):
            stack += [(value, depth + 1) for value in inside if type(value) not in SCALARS]


def _check_scalar(item: Any, what: str) -> None:
    if isinstance(item, float):
        if not math.isfinite(item):
            raise InvalidArgument(f"{what} holds {item}, which JSON has no number for.")
    elif item is not None and not isinstance(item, str | int):
        raise InvalidArgument(
            f"{what} holds a value of type {type(item).__name__}; it is made of strings, numbers, "
            f"booleans, null, lists and objects."
        )


def _check_names(item: dict[Any, Any], what: str) -> None:
    for name in item:
        if not isinstance(name, str):
            raise InvalidArgument(f"{what} has the key {shown(name)}; keys are strings.")


def shown(value: Any) -> str:
    """``value`` for a message: its repr, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # An int of thousands of digits; lists without end.
        return f"this {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def check_object(value: Any, what: str) -> None:
    """Raise `InvalidArgument` unless ``value`` is a JSON object, or None."""
    if value is not None:
        if not isinstance(value, dict):
            raise InvalidArgument(f"{what} is a dict, not {type(value).__name__}.")
        check_json(value, what)


def check_metadata(metadata: Any, what: str = "metadata") -> dict[str, Any]:
    """``metadata`` itself, {} for None; `InvalidArgument` unless it is a JSON object."""
    check_object(metadata, what)
    if metadata is None:
        return {}
    try:
        encode(metadata)
    except (OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise not_json(error, what) from None
    return cast("dict[str, Any]", metadata)


def not_json(error: Exception, where: str = "The structure") -> InvalidArgument:
    """The error for values that JSON cannot hold, from what the encoder raised."""
    if isinstance(error, UnicodeEncodeError):
        reason = "half of a surrogate pair, which is no character"
    elif isinstance(error, RecursionError):
        reason = "values nested too deeply"
    elif isinstance(error, OverflowError):
        reason = "a whole number of more than 64 bits"
    else:
        reason = f"what JSON cannot hold ({error})"
    return InvalidArgument(f"{where} holds {reason}.")


# --- as parameters of operations ---------------------------------------------------------------


def check_inside(*names: str) -> Any:
    """A check of JSON values that lie in objects: those under these names, of one object or of each
    in a list. What is no such object is the operation's to refuse."""

    def check(given: Any, what: str) -> None:
        if isinstance(given, Mapping):
            for name in names:
                check_json(given.get(name), f"{what}.{name}")
        elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
            for index, item in enumerate(given):
                if isinstance(item, Mapping):
                    check(item, f"{what}[{index}]")

    return check


Json = Annotated[Any, Wire(Any, check=check_json)]
"""Any JSON value: strings, finite numbers, booleans, None, lists (or tuples) and dicts of them."""

JsonObject = Annotated[dict[str, Any], Wire(dict[str, Any], check=check_object)]
"""A dict of JSON values by name."""

JsonList = Annotated[Sequence[Any], Wire(list[Any], check=check_json)]
"""A list of JSON values."""
