"""Markdown as a document tree, in the shape that PageIndex gives it."""

from __future__ import annotations

import re
from typing import Any

from treestore.errors import InvalidArgument

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")

PREFACE_TITLE = "Preface"
"""Title of the node that holds what comes before the first heading."""


def parse_markdown(text: str, *, doc_name: str = "") -> dict[str, Any]:
    """PageIndex-like JSON of a Markdown text, for ``documents.store``.

    Every heading (``#`` to ``######``) begins a node; a node lies below the nearest earlier
    heading of a smaller level, so levels may be skipped. A node's ``text`` runs from its heading
    line to the line before the next heading: its own text, without its children's. What comes
    before the first heading (front matter between ``---`` lines included) is a first root named
    "Preface", so no text is lost. Headings in fenced code and in front matter are text;
    headings underlined with ``===`` or ``---`` are not recognised and stay text.

    Args:
        text: the Markdown.
        doc_name: "doc_name" of the result.

    Returns:
        ``{"doc_name", "line_count", "structure"}`` with nodes of ``title``, ``node_id``,
        ``line_num`` (1 the first), ``text`` and, where they have children, ``nodes``.

    Raises:
        InvalidArgument: ``text`` is no string.
    """
    if not isinstance(text, str):
        raise InvalidArgument(f"Markdown is a string, not {type(text).__name__}.")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    headings = _headings(lines)
    structure: list[dict[str, Any]] = []
    number = 0
    first = headings[0][0] if headings else len(lines)
    preface = "\n".join(lines[:first]).strip()
    if preface:
        line_num = next(i for i, line in enumerate(lines, 1) if line.strip())
        structure.append(_node(PREFACE_TITLE, number, line_num, preface))
        number += 1
    parents: list[tuple[int, dict[str, Any]]] = []
    ends = [line for line, _, _ in headings] + [len(lines)]
    for (line, level, title), end in zip(headings, ends[1:], strict=True):
        node = _node(title, number, line + 1, "\n".join(lines[line:end]).strip())
        number += 1
        while parents and parents[-1][0] >= level:
            parents.pop()
        if parents:
            parents[-1][1].setdefault("nodes", []).append(node)
        else:
            structure.append(node)
        parents.append((level, node))
    return {"doc_name": doc_name, "line_count": len(lines), "structure": structure}


def _node(title: str, number: int, line_num: int, text: str) -> dict[str, Any]:
    return {"title": title, "node_id": f"{number:04d}", "line_num": line_num, "text": text}


def _headings(lines: list[str]) -> list[tuple[int, int, str]]:
    """Line index, level and title of every heading."""
    headings: list[tuple[int, int, str]] = []
    fence = ""
    for index in range(_front_matter_end(lines), len(lines)):
        line = lines[index]
        found = _FENCE.fullmatch(line)
        if fence:
            if found and found[1].startswith(fence) and not found[2].strip():
                fence = ""
            continue
        # A fence of backticks cannot have one in its info string: that is inline code.
        if found and not (found[1][0] == "`" and "`" in found[2]):
            fence = found[1]
            continue
        heading = _HEADING.fullmatch(line)
        if heading:
            headings.append((index, len(heading[1]), (heading[2] or "").strip()))
    return headings


def _front_matter_end(lines: list[str]) -> int:
    if lines[0].rstrip() == "---":
        for index in range(1, len(lines)):
            if lines[index].rstrip() in ("---", "..."):
                return index + 1
    return 0
