"""Values of attributes: what each type takes, and the one form in which it is kept.

========  ===========================================  =====================================
type      takes                                        kept as
========  ===========================================  =====================================
string    a string                                     it
int       a whole number of 64 bits with its sign      it
float     a finite number                              a float
bool      True, False                                  it
datetime  a datetime, a date, an ISO 8601 string       ``2024-07-01T12:00:00.000000Z``, in UTC;
                                                       without a timezone it is in UTC, a day is
                                                       its midnight
uuid      a UUID, or a string that is one              36 characters in lower case
array<T>  a list of these, without null                a list
========  ===========================================  =====================================

Moments have 27 characters, so they sort as strings do. Null is a value of every type.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

from treestore.errors import InvalidArgument
from treestore.model.namespaces import AttributeSchema, NamespaceSchema
from treestore.stores.json_values import encode, not_json, shown

ATTRIBUTES_SIZE_BYTES_MAX: Final = 16 << 20
"""Attributes of one document, as msgpack."""

ARRAY_ITEMS_MAX: Final = 10_000

Convert = Callable[[Any], Any]


class Unfit(Exception):
    """A value is none of its type; the text goes on after "…, not "."""


def _string(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise Unfit


def _int(value: Any) -> int:
    if type(value) is not int:
        if isinstance(value, bool):
            raise Unfit
        try:
            value = operator.index(value)  # numpy's ints too
        except TypeError:
            raise Unfit from None
    if not -(2**63) <= value < 2**63:
        raise Unfit
    return int(value)


def _float(value: Any) -> float:
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise Unfit
        try:
            value = float(value)
        except (OverflowError, ValueError):
            raise Unfit from None
    if not math.isfinite(value):
        raise Unfit
    return float(value)


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Unfit


def iso_moment(value: Any) -> str:
    """A moment as it is kept.

    Raises:
        Unfit: it is none.
    """
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            if value.tzinfo is not None:
                value = value.astimezone(UTC).replace(tzinfo=None)
            return f"{value.isoformat(timespec='microseconds')}Z"
        if isinstance(value, date):
            return f"{value.isoformat()}T00:00:00.000000Z"
    except (ValueError, OverflowError):
        pass
    raise Unfit


def iso_uuid(value: Any) -> str:
    """A UUID as it is kept.

    Raises:
        Unfit: it is none.
    """
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str) and 32 <= len(value) <= 45:
        try:
            return str(UUID(value))
        except ValueError:
            pass
    raise Unfit


CONVERTS: Final[Mapping[str, Convert]] = {
    "string": _string,
    "int": _int,
    "float": _float,
    "bool": _bool,
    "datetime": iso_moment,
    "uuid": iso_uuid,
}
"""Type → what makes a value of it, or raises `Unfit`."""

WANTED: Final[Mapping[str, str]] = {
    "string": "a string",
    "int": "a whole number of 64 bits",
    "float": "a finite number",
    "bool": "True or False",
    "datetime": "a moment (ISO 8601 or a datetime)",
    "uuid": "a UUID",
}


def element_of(kind: str) -> str | None:
    """The type of the elements of an array's type; None of others."""
    return kind[6:-1] if kind.startswith("array<") else None


def _array_of(convert: Convert) -> Convert:
    def array(value: Any) -> list[Any]:
        if not isinstance(value, list | tuple) or len(value) > ARRAY_ITEMS_MAX:
            raise Unfit
        return [convert(item) for item in value]

    return array


def convert_of(kind: str) -> Convert:
    """What makes a value of a type, or raises `Unfit`; null is up to the caller."""
    inner = element_of(kind)
    return CONVERTS[kind] if inner is None else _array_of(CONVERTS[inner])


def wanted_of(kind: str) -> str:
    """A type for a message."""
    inner = element_of(kind)
    if inner is None:
        return WANTED[kind]
    return f"a list of at most {ARRAY_ITEMS_MAX}, each {WANTED[inner]}"


class Attributes:
    """Checks attributes against a schema."""

    def __init__(self, schema: NamespaceSchema) -> None:
        self._schemas = schema.attributes
        self._converts = {name: convert_of(one.type) for name, one in schema.attributes.items()}

    def check(self, attributes: Any) -> dict[str, Any]:
        """The attributes as they are kept.

        Raises:
            InvalidArgument: the schema does not know one, or its value is not of its type.
        """
        if not isinstance(attributes, Mapping):
            raise InvalidArgument(f"attributes are an object (a dict), not {shown(attributes)}.")
        converts = self._converts
        kept: dict[str, Any] = {}
        for name, value in attributes.items():
            convert = converts.get(name) if isinstance(name, str) else None
            if convert is None:
                raise self._unknown(attributes)
            if value is None:
                kept[name] = None
                continue
            try:
                kept[name] = convert(value)
            except Unfit:
                raise _unfit(name, self._schemas[name], value) from None
        return kept

    def _unknown(self, attributes: Mapping[Any, Any]) -> InvalidArgument:
        names = [shown(name) for name in attributes if name not in self._converts]
        known = ", ".join(self._converts) or "none"
        return InvalidArgument(
            f"The schema has no attribute {', '.join(names[:10])}; it has {known:.500}. Add others "
            "with update_schema."
        )


def _unfit(name: str, schema: AttributeSchema, value: Any) -> InvalidArgument:
    return InvalidArgument(
        f"attribute {shown(name)} is {wanted_of(schema.type)}, not {shown(value)}."
    )


def packed_attributes(attributes: Mapping[str, Any]) -> bytes:
    """Attributes that were checked, as msgpack.

    Raises:
        InvalidArgument: they are too large, or a string is no Unicode.
    """
    try:
        packed = encode(attributes)
    except UnicodeEncodeError as error:
        raise not_json(error, "an attribute") from None
    if len(packed) > ATTRIBUTES_SIZE_BYTES_MAX:
        raise InvalidArgument(
            f"its attributes have {len(packed)} bytes; they have at most "
            f"{ATTRIBUTES_SIZE_BYTES_MAX}."
        )
    return packed
