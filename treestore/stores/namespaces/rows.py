"""Numbers of rows: one for each version of each document, never the same twice in a namespace.

A row's number is the microsecond of its transaction since 2020 times 4096 and a counter, so rows
that are written later mostly have larger numbers, and transactions that write at a time have no
number in common and none to compete for. Every number has eight bytes (see `MOMENT_MIN`), and they
last until the year 2091.

A clock may stand still, or fall back. So the stretch that a transaction takes is looked at first:
every row that a document has is a key of its vectors, every other row of a segment is one of its
dead. Only that stretch is read, which nobody else writes to who is not of the same microsecond.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from treestore.errors import ResourceExhausted
from treestore.stores.access import Read
from treestore.stores.namespaces.layout import Space, packed_row, row_in

MOMENT_MIN: Final = 1 << 44
"""The earliest moment that counts, July 2020: from it on rows have eight bytes."""

ROW_MAX: Final = 2**63 - 1
ROWS_PER_MOMENT: Final = 4096

_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def first_of(moment: datetime) -> int:
    """The first number of a moment."""
    return max((moment - _EPOCH) // _MICROSECOND, MOMENT_MIN) * ROWS_PER_MOMENT


def new_rows(txn: Read, space: Space, count: int) -> int:
    """The first of ``count`` numbers in a row that nobody has.

    Raises:
        ResourceExhausted: the clock says that it is 2091.
    """
    first = first_of(txn.now)
    wanted = count
    while True:
        if first + wanted > ROW_MAX:
            raise ResourceExhausted("There are no numbers for rows left; is the clock right?")
        taken = max(_last(txn, prefix, first, wanted) for prefix in (space.vectors, space.dead))
        if taken < first:
            return first
        # Behind them there may be others, those of a long transaction, all of one moment. Not much
        # more is looked at than there are of these: whoever else writes there makes this conflict.
        first = taken + 1
        wanted *= 8


def _last(txn: Read, prefix: bytes, first: int, count: int) -> int:
    """The last row in a stretch; -1 where there is none."""
    start, end = prefix + packed_row(first), prefix + packed_row(min(first + count, ROW_MAX))
    for key, _ in txn.scan(start, end, reverse=True):
        return row_in(key)
    return -1
