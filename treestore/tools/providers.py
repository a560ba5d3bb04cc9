"""What the tools reach outside of the store: given by the program that runs the agent."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs


@attrs.frozen(kw_only=True)
class Study:
    """One study of the medical literature.

    Attributes:
        title: of the article.
        id: where it is found: a PubMed id, a DOI.
        year: of publication; None where unknown.
        journal: likewise "".
        finding: what it found, in a sentence or two; "" where the source has none.
        url: where it can be read; "" where unknown.
    """

    title: str
    id: str = ""
    year: int | None = None
    journal: str = ""
    finding: str = ""
    url: str = ""


@runtime_checkable
class LiteratureProvider(Protocol):
    """Searches the medical literature.

    ``search`` may be a coroutine function or a plain one (only a plain one serves the blocking
    executor). What it raises becomes the result of the tool, as a failure that names the error.
    """

    def search(
        self, condition: str, treatment: str, limit: int
    ) -> Sequence[Study | dict[str, Any]] | Awaitable[Sequence[Study | dict[str, Any]]]:
        """At most ``limit`` studies of the treatment of the condition, the best first."""
        ...
