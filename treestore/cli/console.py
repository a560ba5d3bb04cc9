"""What commands print: tables and trees for people, one JSON document for machines."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import msgspec
from rich.console import Console
from rich.text import Text

WIDE = 1_000
"""Columns where output goes to a file or a pipe: nothing is wrapped or cut there."""


class _Console(Console):
    """A console that leaves a closed pipe to `treestore.cli.program`, like every other error."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def output() -> Console:
    """The console for results: standard output, in colour only on a terminal."""
    return _console(sys.stdout)


def errors() -> Console:
    """The console for progress and remarks: standard error."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    # rich looks at NO_COLOR itself, and draws no colours on anything but a terminal.
    width = None if stream.isatty() else WIDE
    return _Console(file=stream, width=width, highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """Print ``value`` (attrs classes, lists, dicts …) as one JSON document."""
    encoded = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(encoded.decode() + "\n")


def clean(text: str, keep: str = "") -> str:
    """``text`` without control characters, ``keep`` excepted.

    Stored text is somebody else's: an escape sequence in it must not reach the terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char in keep or char.isprintable() or char == "\u00a0" else "\ufffd"
        for char in text
    )


def styled(text: str, style: str = "", keep: str = "") -> Text:
    """``text`` as it is (brackets are not markup), without control characters."""
    return Text(clean(text, keep), style=style)


def size(count: float) -> str:
    """Bytes for people: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def plural(count: int, word: str) -> str:
    """``1 node``, ``2,000 nodes``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
