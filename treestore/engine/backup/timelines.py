"""Timelines: which histories of a database there are, and how one left the other."""

from __future__ import annotations

from typing import Any

import attrs

from treestore.engine.backup.files import read_json, write_json
from treestore.engine.disk import Disk
from treestore.engine.log import LogIdentity
from treestore.errors import CorruptionError, NotFound

TIMELINES = "TIMELINES"
"""The file in the data directory of a restored store."""

FORMAT = "treestore-timelines"


@attrs.frozen
class Timeline:
    """One timeline.

    Attributes:
        number: what slots and segments carry.
        id: 32 hex digits; tells two restores apart that took the same number.
        parent: the timeline that it left; None for the first.
        fork_lsn: the last record that it shares with its parent.
        fork_time_ns: the time of that record.
        created_at_ns: when it was made.
    """

    number: int
    id: str
    parent: int | None = None
    fork_lsn: int = 0
    fork_time_ns: int = 0
    created_at_ns: int = 0


@attrs.frozen
class Leg:
    """The part of a timeline that a way to a later one uses.

    Attributes:
        timeline: its number.
        until_lsn: its last record that counts; None for the last leg.
    """

    timeline: int
    until_lsn: int | None


@attrs.frozen
class History:
    """A timeline and those that led to it, the first one first."""

    database_uuid: bytes
    timelines: tuple[Timeline, ...]

    @property
    def last(self) -> Timeline:
        """The timeline whose history it is."""
        return self.timelines[-1]

    @classmethod
    def initial(cls, database_uuid: bytes) -> History:
        """The history of a store that was never restored."""
        return cls(database_uuid, (Timeline(1, database_uuid.hex()),))

    def to_list(self) -> list[dict[str, Any]]:
        """For JSON."""
        return [attrs.asdict(timeline) for timeline in self.timelines]

    @classmethod
    def from_list(cls, database_uuid: bytes, found: list[dict[str, Any]], path: str) -> History:
        """The reverse of `to_list`.

        Raises:
            CorruptionError: it is no history; ``path`` is named.
        """
        try:
            timelines = tuple(Timeline(**fields) for fields in found)
        except TypeError:
            timelines = ()
        parents = [timeline.parent for timeline in timelines]
        if not timelines or parents != [None, *(one.number for one in timelines[:-1])]:
            raise CorruptionError(f"{path} has an impossible history.", file=path, offset=0)
        return cls(database_uuid, timelines)

    def legs(self, timeline: Timeline, lsn: int) -> list[Leg] | None:
        """The way from a point on ``timeline`` to the end of this history; None where that point
        does not lie on it."""
        if timeline not in self.timelines:
            return None
        index = self.timelines.index(timeline)
        following = self.timelines[index + 1 :]
        if following and lsn > following[0].fork_lsn:
            return None
        numbers = [timeline.number, *(one.number for one in following)]
        # A restore of a restore may leave a timeline before it has a record of its own.
        ends: list[int | None] = [one.fork_lsn for one in following]
        return [Leg(*pair) for pair in zip(numbers, [*ends, None], strict=True)]


def write_history(disk: Disk, path: str, history: History) -> None:
    """Write a new file with a history, synced."""
    document = {
        "format": FORMAT,
        "database_uuid": history.database_uuid.hex(),
        "timelines": history.to_list(),
    }
    write_json(disk, path, document)


def read_history(disk: Disk, path: str) -> History:
    """What `write_history` wrote.

    Raises:
        NotFound: there is no such file.
        CorruptionError: it is not as it was written.
    """
    document = read_json(disk, path)
    if document.get("format") != FORMAT:
        raise CorruptionError(f"{path} is no history of timelines.", file=path, offset=0)
    uuid = bytes.fromhex(document["database_uuid"])
    return History.from_list(uuid, document["timelines"], path)


def history_of(disk: Disk, directory: str, identity: LogIdentity) -> History:
    """The history of the store in ``directory``.

    Raises:
        CorruptionError: its file is missing, damaged, or another store's.
    """
    path = f"{directory}/{TIMELINES}"
    try:
        history = read_history(disk, path)
    except NotFound as error:
        if identity.timeline == 1:
            return History.initial(identity.database_uuid)
        raise CorruptionError(
            f"{path} is missing, and the store is on timeline {identity.timeline}: it is needed "
            "for backups and archiving. Put it back.",
            file=path,
            offset=0,
        ) from error
    if (history.database_uuid, history.last.number) != (identity.database_uuid, identity.timeline):
        raise CorruptionError(f"{path} belongs to another store.", file=path, offset=0)
    return history
