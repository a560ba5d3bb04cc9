"""What a tool works on, and what it answers."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import attrs

from treestore.model.documents import Node
from treestore.tools.facts import CaseFacts
from treestore.tools.providers import LiteratureProvider

PAGES_MAX = 50
"""Pages of a node that are listed one by one."""


class ToolFailure(Exception):
    """A tool cannot do what it was asked; the model is told why.

    Attributes:
        fields: what the result holds beside ``success`` and ``error``.
    """

    def __init__(self, error: str, /, **fields: Any) -> None:
        super().__init__(error)
        self.fields = fields


@attrs.frozen(kw_only=True)
class Outcome:
    """What a tool found.

    Attributes:
        result: fields of the result, without ``success``.
        observation: the result in a sentence, for the trajectory.
        nodes: ids of the policy's nodes that were visited, in that order.
    """

    result: dict[str, Any]
    observation: str
    nodes: tuple[str, ...] = ()


@attrs.define(kw_only=True)
class Case:
    """One case under work: what all its tools share.

    Attributes:
        db: the services that tools call.
        case_id: the case.
        policy_id: the policy that it is decided by.
        version_id: which version; None until the first tool needs it, then fixed.
        as_of: the day whose version counts, where no version was named.
        facts: of the case.
        literature: where studies are looked up; None: nowhere.
    """

    db: Any
    case_id: str
    policy_id: str
    version_id: str | None = None
    as_of: date | datetime | str | None = None
    facts: CaseFacts = attrs.field(factory=CaseFacts)
    literature: LiteratureProvider | None = None

    async def version(self) -> str:
        """The version that the whole case reads: looked up once, so that it stays the same when a
        new one comes into effect meanwhile."""
        if self.version_id is not None:
            return self.version_id
        if self.as_of is not None:
            found = await self.db.versions.as_of(self.policy_id, self.as_of)
        else:
            found = await self.db.documents.get(self.policy_id)
        version_id: str = found.version_id
        self.version_id = version_id
        return version_id


def pages_of(node: Node) -> list[int]:
    """The pages of a node's own range; empty where it has none."""
    first = node.page_start if node.page_start is not None else node.page_end
    last = node.page_end if node.page_end is not None else node.page_start
    if first is None or last is None:
        return []
    return list(range(first, min(last, first + PAGES_MAX - 1) + 1))


def shortened(text: str, size_max: int) -> str:
    """``text`` on one line, cut at a blank where it is longer."""
    line = " ".join(text.split())
    if len(line) <= size_max:
        return line
    cut = line.rfind(" ", size_max // 2, size_max)
    return line[: cut if cut > 0 else size_max - 1] + "\u2026"


def unicode_of(text: str) -> str:
    """``text`` with halves of surrogate pairs, which are no characters, written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def counted(number: int, noun: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
