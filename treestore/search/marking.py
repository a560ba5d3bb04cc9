"""Marks around a snippet's highlights. Imports nothing: clients use it too."""

from __future__ import annotations

import html
from collections.abc import Sequence


def marked(
    snippet: str, ranges: Sequence[tuple[int, int]], before: str, after: str, *, escape: bool
) -> str:
    """The snippet with marks around the highlights.

    Args:
        escape: make everything but the marks safe for HTML.
    """
    safe = html.escape if escape else str
    parts: list[str] = []
    at = 0
    for start, end in ranges:
        parts += (safe(snippet[at:start]), before, safe(snippet[start:end]), after)
        at = end
    return "".join((*parts, safe(snippet[at:])))
