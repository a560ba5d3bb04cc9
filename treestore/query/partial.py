"""Decodes of a document only the fields at its top that a query looks at.

What a filter needs is mostly a field or two: going over the others takes a third of the time that
making objects of them takes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypedDict

import msgspec

from treestore.query.expression import Element, Expression, Not

Document = dict[str, Any]
Decode = Callable[[bytes], Document]

_decode_whole: Decode = msgspec.msgpack.Decoder(Document).decode


@lru_cache(maxsize=256)
def decoder_of(names: frozenset[str]) -> Decode:
    """A decoder that leaves out all fields but these."""
    # Made like this, a name need not be one of Python's.
    make: Any = TypedDict
    try:
        fields = make("fields", dict.fromkeys(names, Any), total=False)
        decode: Decode = msgspec.msgpack.Decoder(fields).decode
    except (UnicodeEncodeError, TypeError, ValueError):
        return _decode_whole  # No name of a document's field.
    return decode


def names_in(expression: Expression) -> frozenset[str]:
    """The fields at the top of a document that a filter looks at."""
    found: set[str] = set()
    waiting: list[Any] = [expression]
    while waiting:
        part = waiting.pop()
        waiting += getattr(part, "parts", ())
        if isinstance(part, Not):
            waiting.append(part.part)
        elif hasattr(part, "path"):
            # Paths inside of $elemMatch begin at the element.
            found.update(part.path[:1])
    return frozenset(found)


def weight_of(expression: Expression) -> int:
    """How many conditions a filter may look at for each document."""
    weight = 0
    waiting: list[Any] = [expression]
    while waiting:
        part = waiting.pop()
        waiting += getattr(part, "parts", ())
        if isinstance(part, Not | Element):
            waiting.append(part.part)
        weight += 1
    return weight
