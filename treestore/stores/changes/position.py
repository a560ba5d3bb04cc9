"""Positions of a feed: where in which history of which database."""

from __future__ import annotations

import re
from typing import Any

import attrs

from treestore.engine.log import LogIdentity
from treestore.errors import InvalidArgument

_FORM = re.compile(r"([0-9a-f]{8})-(\d{1,20})-(\d{1,20})(?:\+(\d{1,20}))?", re.ASCII)

LSN_MAX = (1 << 64) - 1


@attrs.frozen
class FeedPosition:
    """A place in a feed.

    Its text, ``str``, is what programs keep; to them it is opaque::

        1f3a9c2e-1-4711       behind the transaction with LSN 4711, of timeline 1
        1f3a9c2e-1-4711+12    within it, behind its twelfth note

    Attributes:
        database: the first eight digits of its uuid.
        timeline: a restore begins a new one.
        lsn: of a transaction (its last record).
        notes: how many of the transaction's notes are done; None: all of it.
    """

    database: str
    timeline: int
    lsn: int
    notes: int | None = None

    def __str__(self) -> str:
        return self.prefix + (f"{self.lsn}" if self.notes is None else f"{self.lsn}+{self.notes}")

    @property
    def prefix(self) -> str:
        """What all positions of one history begin with."""
        return f"{self.database}-{self.timeline}-"

    @property
    def read_after_lsn(self) -> int:
        """The record that reading begins after."""
        return self.lsn if self.notes is None else self.lsn - 1

    @classmethod
    def at(cls, identity: LogIdentity, lsn: int) -> FeedPosition:
        """The position behind a transaction of the log at hand."""
        return cls(identity.database_uuid.hex()[:8], identity.timeline, lsn)

    @classmethod
    def parse(cls, given: Any, identity: LogIdentity) -> FeedPosition:
        """What a caller gave as ``from_lsn``: an LSN of this history, or a position.

        Raises:
            InvalidArgument: it is neither.
        """
        if isinstance(given, int) and not isinstance(given, bool):
            if not 0 <= given <= LSN_MAX:
                raise InvalidArgument(f"from_lsn is an LSN, 0 or more, not {given!r:.40}.")
            return cls.at(identity, given)
        found = _FORM.fullmatch(given) if isinstance(given, str) else None
        if found is None:
            raise InvalidArgument(
                "from_lsn is an LSN, or the position of a change or a snapshot as it was given, "
                f"not {given!r:.80}."
            )
        database, timeline, lsn, notes = found.groups()
        if int(lsn) > LSN_MAX or (notes is not None and int(lsn) == 0):
            raise InvalidArgument(f"from_lsn {given!r} is no position.")
        return cls(database, int(timeline), int(lsn), None if notes is None else int(notes))
