"""What searches answer."""

from __future__ import annotations

from typing import Literal

import attrs

from treestore.model.documents import Node
from treestore.search.marking import marked

__all__ = ["Consistency", "Hit", "Mode"]

Mode = Literal["any", "all", "phrase"]
"""Whether any or all of a query's words are wanted, or all as one phrase."""

Consistency = Literal["strong", "eventual"]
"""What is searched: all that was acknowledged, or what the index has got to."""


@attrs.frozen(kw_only=True)
class Hit:
    """A node that a search found.

    Attributes:
        node: as the snapshot holds it.
        score: how well it fits; larger is better. Comparable within one answer only.
        snippet: the part of the text (else of the summary, else of the title) that shows best why
            it was found, about 200 characters; plain text in Unicode normal form NFKC, not made
            safe for HTML.
        highlights: where in ``snippet`` the query's words are: ``(start, end)`` in characters,
            ascending, not overlapping.
    """

    node: Node
    score: float
    snippet: str = ""
    highlights: tuple[tuple[int, int], ...] = ()

    def marked(self, before: str = "<mark>", after: str = "</mark>", *, escape: bool = True) -> str:
        """The snippet with marks around the highlights.

        Args:
            before, after: put in as they are.
            escape: make all the rest safe for HTML; False for a terminal.
        """
        return marked(self.snippet, self.highlights, before, after, escape=escape)
