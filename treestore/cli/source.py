"""Reading a file as a document: PageIndex JSON or Markdown."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import attrs
import msgspec

from treestore.errors import InvalidArgument
from treestore.stores.documents.markdown import parse_markdown

FORMATS = ("json", "markdown")
SUFFIXES = {".json": "json", ".md": "markdown", ".markdown": "markdown"}

FILE_SIZE_BYTES_MAX = 1 << 30
"""Larger files are refused before they fill the memory."""

_HALF_PAIR = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
"""An escape of JSON that is no character by itself; only asked where parsing failed."""

_CHILDREN = ("structure", "result", "nodes", "child_nodes", "children")


@attrs.frozen
class Source:
    """A file's content, ready for ``documents.store``."""

    structure: Any
    node_count: int
    size_bytes: int
    digest: str
    """SHA-256 of the file, in hexadecimal."""


def read_source(file: Path, kind: str | None = None) -> Source:
    """Read and parse ``file``.

    Args:
        kind: one of `FORMATS`; by default the suffix decides, else the content.

    Raises:
        InvalidArgument: one sentence that says what is wrong with it.
    """
    content = _read(file)
    text = _decode(content)
    kind = kind or SUFFIXES.get(file.suffix.lower()) or _sniff(text)
    structure = _parse_json(text) if kind == "json" else parse_markdown(text, doc_name=file.stem)
    if kind == "markdown" and not structure["structure"]:
        raise InvalidArgument("The file is empty.")
    digest = hashlib.sha256(content).hexdigest()
    return Source(structure, count_nodes(structure), len(content), digest)


def _read(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise InvalidArgument("It is a directory; name the files in it.")
        with file.open("rb") as stream:
            content = stream.read(FILE_SIZE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise InvalidArgument("There is no such file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidArgument(f"It cannot be read: {reason}.") from None
    if len(content) > FILE_SIZE_BYTES_MAX:
        raise InvalidArgument(f"It is larger than {FILE_SIZE_BYTES_MAX >> 20} MiB.")
    return content


def _decode(content: bytes) -> str:
    if content.startswith(b"%PDF-"):
        raise InvalidArgument("It is a PDF; turn it into a tree with PageIndex first.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"It is not UTF-8 text: see byte {error.start}.") from None
    if not text.strip():
        raise InvalidArgument("The file is empty.")
    return text


def _sniff(text: str) -> str:
    return "json" if text.lstrip()[:1] in ("{", "[") else "markdown"


def _parse_json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        if _HALF_PAIR.search(text):
            raise InvalidArgument(
                "It holds half of a surrogate pair, which is no character."
            ) from None
        raise InvalidArgument(f"It is not JSON: {error}.") from None
    except RecursionError:
        raise InvalidArgument("It is nested too deeply.") from None


def count_nodes(structure: Any) -> int:
    """About how many nodes the tree has, for the progress bar; the store counts exactly."""
    count = 0
    stack = [structure]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            count += "title" in value or "node_id" in value
            stack.extend(value[key] for key in _CHILDREN if key in value)
    return count
