"""Where in the log something is: `Tip` (what it follows) and `LogPosition` (and where)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.frozen
class LogIdentity:
    """Whose log it is: stamped into every segment and checked when it is opened.

    Attributes:
        database_uuid: 16 bytes.
        timeline: a restore starts a new one, so that an old log is never replayed onto it.
    """

    database_uuid: bytes = attrs.field(validator=attrs.validators.instance_of(bytes))
    timeline: int = 1

    def __attrs_post_init__(self) -> None:
        if len(self.database_uuid) != 16:
            raise ValueError("a database uuid has 16 bytes")


@attrs.frozen
class Tip:
    """The state of the chain after a group: exactly what the next group must follow.

    Attributes:
        lsn: the number of its last record; 0 before the first one.
        group: its number; 0 before the first one.
        chain: its checksum, which the next group repeats.
        time_ns: its time, below which no later group's may fall.
    """

    lsn: int = 0
    group: int = 0
    chain: int = 0
    time_ns: int = 0


@attrs.frozen
class LogPosition:
    """Everything up to and including the record ``lsn``, which ends a group.

    A meta slot persists it (`to_tuple`), and recovery replays what lies behind it. ``lsn`` alone
    says what is meant; ``sequence``, ``epoch`` and ``offset`` say where that was when the
    position was taken, which spares recovery the way there. Where the segment was written
    afresh since, the epochs differ and recovery looks for the LSN instead.

    Attributes:
        lsn, group, chain, time_ns: the state of the chain, see `Tip`.
        sequence: the segment's sequence number.
        epoch: the epoch of the segment's activation.
        offset: where in the segment the next group would start, in bytes.
    """

    lsn: int
    group: int = 0
    chain: int = 0
    time_ns: int = 0
    sequence: int = 0
    epoch: int = 0
    offset: int = 0

    def to_tuple(self) -> tuple[int, int, int, int, int, int, int]:
        """All fields, for a meta slot: unsigned, each below 2**64."""
        return (
            self.lsn,
            self.group,
            self.chain,
            self.time_ns,
            self.sequence,
            self.epoch,
            self.offset,
        )

    @classmethod
    def from_tuple(cls, fields: Sequence[int]) -> LogPosition:
        """The position that `to_tuple` gave."""
        return cls(*fields)

    @property
    def tip(self) -> Tip:
        """The state of the chain at this position."""
        return Tip(self.lsn, self.group, self.chain, self.time_ns)
