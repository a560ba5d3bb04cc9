"""What was written, as those know who were told that it was.

Every write of a document (a deletion too) is a revision: 1, 2, 3 … A write that was begun may have
been applied as long as nobody said otherwise. So what a read may find are the revision that was
acknowledged last *when the read began*, and every later one that was begun by the time it ended,
save those that the server refused. A read that finds anything else has found lost, stale or foreign
data. Revisions whose outcome nobody could tell may show for ever.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

from treestore.loadtest.content import Json, document, document_id

HISTORY = 32
"""Acknowledgements remembered for each document. A read during which there were more of them may
find any of the earlier ones, too."""

PROBLEMS_KEPT = 1_000


@attrs.define
class Entry:
    """One document, of one owner who makes one call at a time.

    Attributes:
        begun: the newest revision that was sent.
        settled: the newest that was acknowledged; 0: never written.
        absent: revisions that are deletions (and 0).
        refused: revisions of which the server said that nothing was changed.
        unsure: revisions that are under way, or whose outcome is unknown.
        history: when (a tick of the ledger) which revision was acknowledged.
    """

    id: str
    user: int
    begun: int = 0
    settled: int = 0
    absent: set[int] = attrs.Factory(lambda: {0})
    refused: set[int] = attrs.Factory(set)
    unsure: set[int] = attrs.Factory(set)
    history: deque[tuple[int, int]] = attrs.Factory(lambda: deque([(0, 0)], HISTORY))

    @property
    def certain(self) -> bool:
        """Whether there is but one thing that it can be."""
        return not self.unsure

    @property
    def present(self) -> bool:
        """Whether it is there, by the last acknowledgement."""
        return self.settled not in self.absent

    def floor(self, since: int) -> int:
        """The revision that was acknowledged last at that tick, or an earlier one."""
        for tick, revision in reversed(self.history):
            if tick <= since:
                return revision
        return 0

    def may_be(self, revision: int, since: int) -> bool:
        """Whether a read that began at tick ``since`` may find this revision now."""
        floor = self.floor(since)
        if revision == floor or revision in self.unsure:
            return True
        return floor < revision <= self.begun and revision not in self.refused

    def may_be_absent(self, since: int) -> bool:
        """Whether that read may find nothing."""
        return any(self.may_be(revision, since) for revision in self.absent)


@attrs.define
class Ledger:
    """All users' documents.

    Attributes:
        seed: of the contents.
        tick: how many acknowledgements there were.
        wrong: how many answers, or stored documents, were not as they should be.
        problems: sentences about the first of them.
    """

    seed: int
    entries: dict[str, Entry] = attrs.Factory(dict)
    ids: list[str] = attrs.Factory(list)
    tick: int = 0
    acknowledged: int = 0
    refused: int = 0
    wrong: int = 0
    problems: list[str] = attrs.Factory(list)

    def add(self, user: int, slot: int) -> Entry:
        """A document that may come to be."""
        entry = Entry(document_id(user, slot), user)
        self.entries[entry.id] = entry
        self.ids.append(entry.id)
        return entry

    def begin(self, entry: Entry, *, deletes: bool = False) -> int:
        """A write is sent; returns its revision."""
        entry.begun += 1
        entry.unsure.add(entry.begun)
        if deletes:
            entry.absent.add(entry.begun)
        return entry.begun

    def acknowledge(self, entry: Entry, revision: int) -> None:
        """It was applied."""
        self.tick += 1
        self.acknowledged += 1
        entry.unsure.discard(revision)
        entry.settled = revision
        entry.history.append((self.tick, revision))

    def refuse(self, entry: Entry, revision: int) -> None:
        """It was not, and never will be."""
        self.refused += 1
        entry.unsure.discard(revision)
        entry.refused.add(revision)

    def content(self, entry: Entry, revision: int | None = None) -> Json:
        """What is stored at a revision; None: at the one that was acknowledged last."""
        which = entry.settled if revision is None else revision
        return document(self.seed, entry.id, entry.user, which)

    def complain(self, problem: str) -> None:
        """Something is not as it should be."""
        self.wrong += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)

    def hold(self, what: str, id: str, found: Any, since: int) -> bool:
        """Hold what a read found against what it may find; a complaint where it may not.

        Args:
            what: what found it, for the sentence.
            id: which document.
            found: the document, or None.
            since: `tick` when the read began.
        """
        entry = self.entries.get(id)
        if entry is None:
            self.complain(f"{what}: {id} was found and never written")
            return False
        if found is None:
            good = entry.may_be_absent(since)
            if not good:
                self.complain(f"{what}: {id} is gone; it was acknowledged as {_expected(entry)}")
            return good
        revision = found.get("revision") if isinstance(found, dict) else None
        if not isinstance(revision, int) or revision > entry.begun or revision < 0:
            self.complain(f"{what}: {id} has a revision that was never written: {revision!r:.40}")
            return False
        if not entry.may_be(revision, since) or revision in entry.absent:
            self.complain(
                f"{what}: {id} was found as revision {revision}; expected {_expected(entry)}"
            )
            return False
        if found != (content := self.content(entry, revision)):
            names = sorted(
                name for name in found.keys() | content.keys()
                if name not in found or name not in content or found[name] != content[name]
            )  # fmt: skip
            self.complain(f"{what}: {id} revision {revision} differs in {', '.join(names)}")
            return False
        return True


def _expected(entry: Entry) -> str:
    names = [_name(entry, entry.settled), *(_name(entry, each) for each in sorted(entry.unsure))]
    return " or ".join(names)


def _name(entry: Entry, revision: int) -> str:
    return "absent" if revision in entry.absent else f"revision {revision}"
