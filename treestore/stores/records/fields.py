"""Checks of parameters. Each returns what is stored, or raises with a sentence."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from treestore.errors import InvalidArgument
from treestore.stores.documents.layout import packed_name
from treestore.stores.json_values import check_json, check_object, encode, not_json, shown

JSON_SIZE_BYTES_MAX: Final = 16 << 20
"""Size of a JSON value, as msgpack."""

TEXT_SIZE_MAX: Final = 1_000_000
"""Characters of a text that is no JSON value: a snippet, a thought, an error."""

LIMIT_MAX: Final = 10_000
"""Items of one page of a listing."""

LATENCY_MS_MAX: Final = 1e12


def to_json(value: Any, what: str) -> msgspec.Raw:
    """A value that JSON can hold, as msgpack.

    Raises:
        InvalidArgument: it holds something else: bytes, NaN, a key that is no string, …
    """
    check_json(value, what)
    try:
        data = encode(value)
    except (OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise not_json(error, what) from None
    if len(data) > JSON_SIZE_BYTES_MAX:
        raise InvalidArgument(f"{what} has {len(data)} bytes; at most {JSON_SIZE_BYTES_MAX}.")
    return msgspec.Raw(data)


def to_json_object(value: Any, what: str) -> msgspec.Raw:
    """A JSON object, {} for None."""
    check_object(value, what)
    return to_json({} if value is None else value, what)


def to_name(value: Any, what: str) -> str:
    """A name: 1 to 200 bytes of UTF-8."""
    packed_name(what, value)
    return str(value)


def to_name_or_none(value: Any, what: str) -> str | None:
    """A name, or None."""
    return None if value is None else to_name(value, what)


def to_text(value: Any, what: str) -> str:
    """A text, which may be empty."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} is a string, not {type(value).__name__}.")
    if len(value) > TEXT_SIZE_MAX:
        raise InvalidArgument(f"{what} has {len(value)} characters; at most {TEXT_SIZE_MAX}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{what} holds half of a surrogate pair, which is no character."
        ) from None
    return value


def to_text_or_none(value: Any, what: str) -> str | None:
    """A text, or None."""
    return None if value is None else to_text(value, what)


def to_flag(value: Any, what: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidArgument(f"{what} is True or False, not {shown(value)}.")
    return value


def to_flag_or_none(value: Any, what: str) -> bool | None:
    """True, False or None."""
    return None if value is None else to_flag(value, what)


def to_number(value: Any, what: str, low: float, high: float) -> float | None:
    """A finite number from ``low`` to ``high``, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidArgument(f"{what} is a number from {low:g} to {high:g}, not {shown(value)}.")
    return float(value)


def to_latency(value: Any) -> float | None:
    """Milliseconds, or None."""
    return to_number(value, "latency_ms", 0, LATENCY_MS_MAX)


def to_confidence(value: Any, what: str = "confidence") -> float | None:
    """A number from 0 to 1, or None."""
    return to_number(value, what, 0, 1)


def to_count(value: Any, what: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidArgument(f"{what} is a number from {low} to {high}, not {shown(value)}.")
    return value


def to_count_or_none(value: Any, what: str, low: int, high: int) -> int | None:
    """A whole number, or None."""
    return None if value is None else to_count(value, what, low, high)
