"""The names of the log's files. Numbers are 16 hexadecimal digits, so names sort like them."""

from __future__ import annotations

import re
from typing import Final

SEGMENT_SUFFIX: Final = ".log"
SPARE_SUFFIX: Final = ".spare"
NEW_SUFFIX: Final = ".new"
SAVED_SUFFIX: Final = ".saved"

_NUMBERED = re.compile(r"([0-9a-f]{16})(\.log|\.spare|\.new)")
_SAVED = re.compile(r"torn-[0-9a-f]{16}-[0-9a-f]{16}\.saved")


def segment_name(sequence: int) -> str:
    """A segment of the log."""
    return f"{sequence:016x}{SEGMENT_SUFFIX}"


def spare_name(number: int) -> str:
    """A whole, synced file that waits to become a segment."""
    return f"{number:016x}{SPARE_SUFFIX}"


def new_name(number: int) -> str:
    """A file that is being filled; worthless after a crash."""
    return f"{number:016x}{NEW_SUFFIX}"


def saved_name(lsn: int, offset: int) -> str:
    """The bytes that recovery cut off behind ``lsn``, at ``offset`` of the segment."""
    return f"torn-{lsn:016x}-{offset:016x}{SAVED_SUFFIX}"


def number_in(name: str, suffix: str) -> int | None:
    """The number in a name of that kind; None for names of other kinds."""
    match = _NUMBERED.fullmatch(name)
    return int(match[1], 16) if match and match[2] == suffix else None


def is_saved(name: str) -> bool:
    """Whether it is a file of bytes that recovery cut off."""
    return _SAVED.fullmatch(name) is not None
