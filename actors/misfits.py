"""What to say to parameters that do not fit, on every edge."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from treestore.stores.operation import Operation

_MISFIT: Final = re.compile(r"Invalid enum value (.+) - at `\$\.((\w+)(?:\[\d+\])?)`").fullmatch
"""How msgspec says it."""


def misfit(operation: Operation, error: Exception) -> str | None:
    """The words that a parameter can be, where ``error`` says that it is none of them."""
    match = _MISFIT(str(error))
    if match is None:
        return None
    given, where, name = match.groups()
    fields = msgspec.structs.fields(operation.parameters)
    words = [word for field in fields if field.name == name for word in _words_of(field.type)]
    if not words:
        return None
    *others, last = (f'"{word}"' for word in words)
    return f"{where} is {', '.join(others)} or {last}, not {given}."


def _words_of(kind: Any) -> list[str]:
    """The words that a parameter of this type is, or is made of."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for part in get_args(kind) for word in _words_of(part)]
