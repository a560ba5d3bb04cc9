"""Keys and records of versions; docs/versions.md draws them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import attrs
import msgspec

from treestore.model.versions import PolicyVersion
from treestore.stores.documents.layout import AFTER, packed_name
from treestore.stores.json_values import encode
from treestore.stores.keys import Keyspace

DAY_MIN: Final = date.min.toordinal()
"""An open start."""

DAY_MAX: Final = date.max.toordinal()
"""An open end."""

_DAY_COMPLEMENT: Final = (1 << 24) - 1
_NUMBER_COMPLEMENT: Final = (1 << 64) - 1
_EPOCH: Final = datetime(1, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def packed_day(day: int) -> bytes:
    """A day's ordinal as 3 bytes that ascend."""
    return day.to_bytes(3, "big")


def packed_day_down(day: int) -> bytes:
    """The same, descending."""
    return (_DAY_COMPLEMENT - day).to_bytes(3, "big")


def day_down(data: bytes) -> int:
    """The day that `packed_day_down` wrote."""
    return _DAY_COMPLEMENT - int.from_bytes(data, "big")


def packed_number(number: int) -> bytes:
    """A revision or rank."""
    return number.to_bytes(8, "big")


def packed_number_down(number: int) -> bytes:
    """The same, descending."""
    return (_NUMBER_COMPLEMENT - number).to_bytes(8, "big")


def microseconds(moment: datetime) -> int:
    """A moment as microseconds since the year 1."""
    return (moment - _EPOCH) // MICROSECOND


def moment_of(count: int) -> datetime:
    """The moment that `microseconds` counted."""
    return _EPOCH + count * MICROSECOND


class Shelf:
    """One policy's prefixes."""

    __slots__ = ("packed", "periods", "policy_id")

    def __init__(self, policy_id: str) -> None:
        self.policy_id = policy_id
        self.packed = packed_name("policy_id", policy_id)
        self.periods = Keyspace.VERSION_PERIODS + self.packed

    @property
    def head(self) -> bytes:
        return Keyspace.POLICIES + self.packed

    @property
    def records(self) -> bytes:
        return Keyspace.VERSIONS + self.packed

    def record(self, version_id: str) -> bytes:
        """Where a version's present record is."""
        return Keyspace.VERSIONS + self.packed + packed_name("version_id", version_id)

    def history(self, version_id: str) -> bytes:
        """A version's states: then the revision, descending."""
        return Keyspace.VERSION_HISTORY + self.packed + packed_name("version_id", version_id)

    @property
    def tags(self) -> bytes:
        return Keyspace.VERSION_TAGS + self.packed

    def tag(self, tag: str) -> bytes:
        """Versions with a tag: then their place in the order of time."""
        return Keyspace.VERSION_TAGS + self.packed + packed_name("A tag", tag)

    @property
    def steps(self) -> bytes:
        """Who rules from a day on: then the day, descending."""
        return self.periods + b"\x00"

    @property
    def resumptions(self) -> bytes:
        """Steps that do not begin with their version's start: then the day."""
        return self.periods + b"\x01"

    @property
    def spans(self) -> bytes:
        """Periods: then level, start, rank."""
        return self.periods + b"\x02"

    @property
    def order(self) -> bytes:
        """All versions: then start (0 where undated) and rank."""
        return self.periods + b"\x03"

    @property
    def journal(self) -> bytes:
        """Revisions by their time: then microseconds, descending."""
        return self.periods + b"\x04"

    @property
    def rules(self) -> bytes:
        """What was true for a block of revisions: then level, block, day descending."""
        return self.periods + b"\x05"

    @property
    def stored(self) -> bytes:
        """Documents in the order of storing: then a revision."""
        return self.periods + b"\x06"

    def everything(self) -> list[tuple[bytes, bytes]]:
        """The ranges of keys that hold all that is known of the policy's versions."""
        keyspaces = (
            Keyspace.POLICIES,
            Keyspace.VERSIONS,
            Keyspace.VERSION_HISTORY,
            Keyspace.VERSION_TAGS,
            Keyspace.VERSION_PERIODS,
        )
        return [(space + self.packed, space + self.packed + AFTER) for space in keyspaces]


def after(prefix: bytes) -> bytes:
    """The end of the keys that are ``prefix`` and a number of up to 8 bytes, or a day."""
    return prefix + AFTER * 13


class Head(msgspec.Struct, array_like=True):
    """What is known of a policy as a whole."""

    revision: int = 0
    """Number of its last change."""
    recorded_us: int = 0
    """Time of its last change."""
    versions: int = 0
    """Versions with a record."""
    dated: int = 0
    """Those with a period."""
    states: int = 0
    """Entries of the history."""


class Step(msgspec.Struct, array_like=True, frozen=True):
    """Who rules from one day to the day before the next step."""

    version_id: str | None = None
    """None: nobody."""
    first: int = 0
    """Where its period starts."""
    rank: int = 0
    since: int = 0
    """The revision that made it so."""


class Span(msgspec.Struct, array_like=True, frozen=True):
    """A period: its start and rank are in the key."""

    version_id: str
    last: int


class Rule(msgspec.Struct, array_like=True, frozen=True):
    """Who ruled: the first day is in the key."""

    version_id: str
    last: int


@attrs.frozen
class Period:
    """When a version is in effect, and how it compares with others."""

    version_id: str
    first: int
    last: int
    rank: int

    def beats(self, step: Step) -> bool:
        """Whether it rules a day of its own that ``step`` ruled without it."""
        return step.version_id is None or (self.first, self.rank) > (step.first, step.rank)


@attrs.frozen
class Record:
    """A version as it is stored: its state, and what only the store knows."""

    state: PolicyVersion
    rank: int
    """The revision that recorded it last."""
    stored: int = 0
    """The revision that stored its document last; 0: none is stored."""
    declared: bool = False
    """Whether ``versions`` said something of it, rather than a document's storing alone."""

    @property
    def dated(self) -> bool:
        """Whether it has a period."""
        return self.state.effective_from is not None or self.state.effective_to is not None

    @property
    def period(self) -> Period | None:
        """When it is in effect; None where it is undated."""
        if not self.dated:
            return None
        first, last = self.state.effective_from, self.state.effective_to
        return Period(
            self.state.version_id,
            DAY_MIN if first is None else first.toordinal(),
            DAY_MAX if last is None else last.toordinal(),
            self.rank,
        )

    @property
    def place(self) -> bytes:
        """Its place in the order of time: start, then rank."""
        period = self.period
        return packed_day(period.first if period else 0) + packed_number(self.rank)


class _Own(msgspec.Struct):
    own: tuple[int, int, bool] = msgspec.field(name="_")


decode_head = msgspec.msgpack.Decoder(Head).decode
decode_step = msgspec.msgpack.Decoder(Step).decode
decode_span = msgspec.msgpack.Decoder(Span).decode
decode_rule = msgspec.msgpack.Decoder(Rule).decode
decode_state = msgspec.msgpack.Decoder(PolicyVersion).decode
_decode_own = msgspec.msgpack.Decoder(_Own).decode


def encode_record(record: Record) -> bytes:
    """The msgpack of the `PolicyVersion`, with what is the store's own in front."""
    fields: dict[str, Any] = {"_": (record.rank, record.stored, record.declared)}
    fields.update(attrs.asdict(record.state, recurse=False))
    return encode(fields)


def decode_record(data: bytes) -> Record:
    """What `encode_record` wrote."""
    return Record(decode_state(data), *_decode_own(data).own)
