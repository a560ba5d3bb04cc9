"""JSON values: what a caller may store as arguments, results, metadata and the like.

The encoder takes more than JSON has, and turns it into something else: a set into a list, a date
into a string. So such values are looked at first, by the same function wherever they are given: at
a client before they are sent, and in the store. What is stored is then what was given, whichever
face it came through (``tests/services/test_json_values.py``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Final, cast
from uuid import UUID

import attrs
import msgspec

from treestore.errors import InvalidArgument
from treestore.stores.operation import Wire

DEPTH_MAX: Final = 100
"""Levels of lists and objects in a JSON value, at most."""

SCALARS: Final = frozenset({str, int, bool, type(None)})
"""Types that need no look inside. Not float: JSON has no NaN and no infinity."""

_NAMES: Final = frozenset({str})

_PLAIN: Final = SCALARS | {float, bytes}

_KNOWN: Final = (str, int, float, bytes, bytearray, memoryview)

NESTING_MAX: Final = 1000
"""Levels that are looked at: the encoder refuses what has more."""


def plain(value: Any) -> Any:
    """What stands for a value that the encoder does not know: of a subclass of a string or a number
    (a marked-up text), the string or number itself; likewise of numpy's numbers.

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
    if _is_numpy_scalar(value):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")


def _is_numpy_scalar(value: Any) -> bool:
    # By name: most programs never load numpy. Numbers and booleans only: what its dates give as
    # values of Python depends on their unit.
    if type(value).__module__ != "numpy" or getattr(value, "shape", None) != ():
        return False
    return value.dtype.kind in "biuf"


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
        raise _no_value(item, what)


def check_values(value: Any, what: str) -> None:
    """Raise `InvalidArgument` unless each value in ``value`` has a form of its own where it goes.

    For what is not JSON alone: it may be bytes or a set, and days, moments and UUIDs may be in it,
    too. Decimals, durations, objects and the like may not: the encoder would make strings or maps
    of them, and a filter then compare with that string.
    """
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        kind = item.__class__
        if kind is dict:
            inside = item.values()
        elif kind is list:
            inside = item
        else:
            inside = _values_in(item, what, depth)
        if not _PLAIN.issuperset(map(type, inside)):
            if depth > NESTING_MAX:
                return
            stack += [(value, depth + 1) for value in inside if value.__class__ not in _PLAIN]


def _values_in(item: Any, what: str, depth: int) -> Collection[Any]:
    """What there is to look at in ``item``, which is neither a plain dict nor a plain list."""
    if item is None or isinstance(item, _KNOWN) or _is_numpy_scalar(item):
        return ()
    if isinstance(item, dict):
        return item.values()
    if isinstance(item, list | tuple | set | frozenset):
        return item
    if depth and isinstance(item, date | UUID):
        return ()
    if attrs.has(type(item)) and type(item).__module__.startswith("treestore.model."):
        return attrs.asdict(item, recurse=False).values()
    if depth:
        raise _no_value(item, what)
    raise InvalidArgument(f"{what} cannot be sent: it is of type {type(item).__name__}.")


def _no_value(item: Any, what: str) -> InvalidArgument:
    return InvalidArgument(
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
    return InvalidArgument(f"{where} holds {reason_of(error)}.")


def reason_of(error: Exception) -> str:
    """What there was that the encoder could not take."""
    if isinstance(error, UnicodeEncodeError):
        return "half of a surrogate pair, which is no character"
    if isinstance(error, RecursionError):
        return "values nested too deeply"
    if isinstance(error, OverflowError):
        return "a whole number of more than 64 bits"
    return f"what JSON cannot hold ({error})"


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

    def check_all(given: Any, what: str) -> None:
        check(given, what)
        check_values(given, what)

    return check_all


Json = Annotated[Any, Wire(Any, check=check_json)]
"""Any JSON value: strings, finite numbers, booleans, None, lists (or tuples) and dicts of them."""

JsonObject = Annotated[dict[str, Any], Wire(dict[str, Any], check=check_object)]
"""A dict of JSON values by name."""

JsonList = Annotated[Sequence[Any], Wire(list[Any], check=check_json)]
"""A list of JSON values."""
