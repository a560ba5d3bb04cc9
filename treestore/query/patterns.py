"""Regular expressions and globs, matched in time proportional to the text.

RE2 does not backtrack, so no pattern that a user sends can keep the store busy for long: it has no
back-references and no look-around, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import re2

PATTERN_SIZE_MAX: Final = 1000
"""Characters of a pattern, at most."""

PROGRAM_SIZE_MAX: Final = 4000
"""Steps of a compiled pattern, at most: each letter of a text costs up to so many."""

OPTIONS: Final = "ims"
"""``i`` ignores case, ``m`` lets ^ and $ match at every line, ``s`` lets . match a line's end."""


def regex(pattern: str, options: str = "") -> Callable[[str], bool]:
    """Whether a text holds a match of ``pattern``.

    Raises:
        ValueError: the pattern is wrong or too long; says why.
    """
    _check_size(pattern)
    # In front, not around it: the pattern keeps its own brackets.
    return _compiled(f"(?{options}){pattern}" if options else pattern)


def glob(pattern: str, *, ignore_case: bool = False) -> Callable[[str], bool]:
    """Whether a whole text matches: ``*`` any letters or none, ``?`` one, ``[a-z]`` one of these,
    ``[!a-z]`` one other, a backslash before a letter takes its meaning away.

    Raises:
        ValueError: likewise.
    """
    _check_size(pattern)
    flags = "(?is)" if ignore_case else "(?s)"
    return _compiled(rf"{flags}\A(?:{_translated(pattern)})\z")


def _check_size(pattern: str) -> None:
    if len(pattern) > PATTERN_SIZE_MAX:
        raise ValueError(f"the pattern is longer than {PATTERN_SIZE_MAX} characters")


def _compiled(pattern: str) -> Callable[[str], bool]:
    options: Any = re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        program = re2.compile(pattern.encode(), options)
    except re2.error as error:
        detail = error.args[0] if error.args else ""
        if isinstance(detail, bytes):
            detail = detail.decode(errors="replace")
        raise ValueError(str(detail)) from None
    if program.programsize > PROGRAM_SIZE_MAX:
        raise ValueError("the pattern is too complex; repeat less in it")
    search = program.search
    return lambda text: search(text.encode(errors="surrogatepass")) is not None


def _translated(pattern: str) -> str:
    """A glob as a regular expression."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            if not parts or parts[-1] != ".*":
                parts.append(".*")
        elif letter == "?":
            parts.append(".")
        elif letter == "[":
            text, at = _set(pattern, at)
            parts.append(text)
        else:
            if letter == "\\":
                if at == len(pattern):
                    raise ValueError("a backslash at the end stands before nothing")
                letter = pattern[at]
                at += 1
            parts.append(_literal(letter))
    return "".join(parts)


def _set(pattern: str, at: int) -> tuple[str, int]:
    """The set whose ``[`` stands before ``at``, and where it has ended."""
    negated = pattern[at : at + 1] in ("!", "^")
    at += negated
    # A bracket right at the start is one of the letters.
    end = pattern.find("]", at + 1)
    if end < 0:
        raise ValueError("a [ has no ]; to match the bracket itself, write [[]")
    body = pattern[at:end]
    parts: list[str] = []
    i = 0
    while i < len(body):
        if body[i + 1 : i + 2] == "-" and i + 2 < len(body):
            if body[i] > body[i + 2]:
                raise ValueError(f"the range {body[i : i + 3]} runs backwards")
            parts.append(f"{_literal(body[i])}-{_literal(body[i + 2])}")
            i += 3
        else:
            parts.append(_literal(body[i]))
            i += 1
    return f"[{'^' if negated else ''}{''.join(parts)}]", end + 1


def _literal(letter: str) -> str:
    """A letter that stands for itself, in a set too."""
    if letter.isalnum() or letter == "_":
        return letter
    return f"\\x{{{ord(letter):x}}}"
