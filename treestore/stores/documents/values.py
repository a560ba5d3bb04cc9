"""Values that JSON can hold, which is what metadata and unknown keys are made of."""

from __future__ import annotations

from typing import Any, Final

from treestore.errors import InvalidArgument
from treestore.stores.documents.layout import encode

METADATA_DEPTH_MAX: Final = 100
"""Levels of a metadata value, at most."""

SCALARS: Final = frozenset({str, int, float, bool, type(None)})
"""Types that need no look inside."""


def check_json(value: Any, what: str) -> None:
    """Raise `InvalidArgument` unless ``value`` is made of what JSON can hold."""
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if type(item) in SCALARS:
            continue
        if depth >= METADATA_DEPTH_MAX:
            raise InvalidArgument(f"{what} is nested more than {METADATA_DEPTH_MAX} levels deep.")
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise InvalidArgument(f"{what} has the key {key!r}; keys are strings.")
            stack.extend((inside, depth + 1) for inside in item.values())
        elif isinstance(item, list | tuple):
            stack.extend((inside, depth + 1) for inside in item)
        elif not isinstance(item, str | int | float):
            raise InvalidArgument(
                f"{what} holds a {type(item).__name__}; it is made of strings, numbers, "
                f"booleans, null, lists and objects."
            )


def check_metadata(metadata: Any, what: str = "metadata") -> dict[str, Any]:
    """``metadata`` itself, {} for None; `InvalidArgument` unless it is JSON-like."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise InvalidArgument(f"{what} is a dict, not {type(metadata).__name__}.")
    check_json(metadata, what)
    try:
        encode(metadata)
    except (OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise not_json(error, what) from None
    return metadata


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
