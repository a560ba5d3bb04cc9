"""Rows that leave the tail for segments, and come back: what runs in transactions.

Nobody here touches a file. Whoever makes one does so from a pinned state, beside everything, and
comes here with its manifest once the file is safe. Meanwhile rows have died, and each function
settles that:

* `seal`: rows leave the tail; those that are not in it any more are the segment's first dead;
* `replace_segments`: one segment takes the place of others; rows left out must be dead;
* `forget_segment`: there is no file, and will be none: the live rows go back to the tail.

Each is one command (``Call(seal, …, long=True)`` for the writer). They return None, and change
nothing, where what they are to change is gone: the namespace was dropped, or somebody else replaced
a segment. They raise `ValueError` where what they are told cannot be.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treestore.stores.access import Read, Write
from treestore.stores.json_values import encode
from treestore.stores.namespaces.layout import (
    AFTER,
    Space,
    dropped_key,
    packed_row,
    row_in,
    row_of,
)
from treestore.stores.namespaces.manifests import (
    SegmentManifest,
    decode_manifest,
    manifest_key,
    manifests,
    part_key,
)

Rows = npt.NDArray[np.int64]

PART_ROWS: Final = 1 << 16
"""Rows of one part of a segment's list."""

RANGE_MIN: Final = 8
"""So many keys next to each other are removed as a range."""

_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


# --- what there is ---------------------------------------------------------------------------


def tail(txn: Read, number: int, *, after: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Rows that no segment holds, ascending, each with the packed id of its document.

    Args:
        after: only those behind this row.
    """
    prefix = Space(number).tail
    start = prefix if after is None else prefix + packed_row(after + 1)
    for keys, ids in txn.batches(start, prefix + AFTER):
        for key, packed in zip(keys, ids, strict=True):
            yield row_in(key), packed


def tail_rows(txn: Read, number: int) -> Rows:
    """The rows alone, ascending."""
    return _rows_at(txn, Space(number).tail)


def dead_rows(txn: Read, number: int) -> Rows:
    """Rows of segments that died, ascending."""
    return _rows_at(txn, Space(number).dead)


def _rows_at(txn: Read, prefix: bytes, low: int | None = None, high: int | None = None) -> Rows:
    """The rows that the keys of a prefix end with, from ``low`` to ``high``, both included."""
    start = prefix if low is None else prefix + packed_row(low)
    end = prefix + AFTER if high is None else prefix + packed_row(high) + b"\0"
    size = len(prefix) + 9
    parts = [
        np.frombuffer(b"".join(keys), np.uint8).reshape(-1, size)[:, -8:]
        for keys in txn.key_batches(start, end)
    ]
    if not parts:
        return np.empty(0, np.int64)
    return np.concatenate(parts).copy().view(">i8").astype(np.int64).ravel()


def segment_rows(txn: Read, number: int, segment: int) -> Rows:
    """The rows that a segment was made of, ascending, dead ones included."""
    space = Space(number)
    start = part_key(space, segment, 0)
    end = manifest_key(space, segment) + AFTER
    parts = [unpacked_rows(value) for _, value in txn.scan(start, end)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def live_rows(txn: Read, number: int, segment: int) -> Rows:
    """The rows of a segment that are not dead, ascending."""
    rows = segment_rows(txn, number, segment)
    return rows[~np.isin(rows, dead_rows(txn, number), assume_unique=True)]


def rows_with_ids(txn: Read, number: int, rows: Rows) -> list[tuple[int, bytes]]:
    """Those of some rows that documents have, with the packed ids: every document is looked at.

    For `forget_segment`, from a pinned state; ascending.
    """
    prefix = Space(number).documents
    found: list[tuple[int, bytes]] = []
    wanted = set(rows.tolist())
    for keys, records in txn.batches(prefix, prefix + AFTER):
        for key, record in zip(keys, records, strict=True):
            if (row := row_of(record)) in wanted:
                found.append((row, key[len(prefix) :]))
    found.sort()
    return found


def packed_rows(rows: Rows) -> bytes:
    """Ascending rows as they are stored: differences, compressed."""
    differences = np.diff(rows, prepend=np.int64(0))
    return zlib.compress(differences.astype("<i8").tobytes(), 1)


def unpacked_rows(packed: bytes) -> Rows:
    """The other way round.

    Raises:
        ValueError: these are no rows.
    """
    try:
        differences = np.frombuffer(zlib.decompress(packed), "<i8")
    except zlib.error as error:
        raise ValueError(f"the rows of a segment cannot be read: {error}") from None
    return np.cumsum(differences, dtype=np.int64)


def as_rows(rows: Iterable[int] | Rows) -> Rows:
    """Rows as an ascending array, none twice."""
    given = rows if isinstance(rows, np.ndarray) else np.fromiter(rows, np.int64)
    unique = np.unique(given.astype(np.int64))
    if len(unique) != len(given):
        raise ValueError("a row is given twice")
    return unique


# --- what changes ----------------------------------------------------------------------------


def seal(
    txn: Write, number: int, manifest: SegmentManifest, rows: Iterable[int] | Rows
) -> int | None:
    """Enter a segment: its rows leave the tail.

    Args:
        number: of the namespace.
        rows: that the file holds: rows of the tail of some earlier state. Those that died since
            become dead rows of the segment.

    Returns:
        The number of the segment; None where the namespace is gone.

    Raises:
        ValueError: there are no rows, or one of them is in another segment.
    """
    space = Space(number)
    if txn.get(dropped_key(number)) is not None:
        return None
    wanted = as_rows(rows)
    if not len(wanted):
        raise ValueError("a segment has rows")
    there = _rows_at(txn, space.tail, int(wanted[0]), int(wanted[-1]))
    sealed = np.isin(there, wanted, assume_unique=True)
    gone = wanted[~np.isin(wanted, there, assume_unique=True)].tolist()
    for row in gone:
        if txn.get(space.vectors + packed_row(row)) is not None:
            raise ValueError(f"row {row} is in another segment")
        if txn.get(space.dead + packed_row(row)) is not None:
            raise ValueError(f"row {row} is a dead one of another segment")
    _remove(txn, space.tail, there, sealed)
    for row in gone:
        txn.put(space.dead + packed_row(row), b"")
    return _enter(txn, space, manifest, wanted)


def _remove(txn: Write, prefix: bytes, rows: Rows, chosen: npt.NDArray[np.bool_]) -> None:
    """Remove the keys of the chosen ones of ``rows``, which are all that there are between the
    first and the last."""
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False)).tolist()
    for first, end in zip(edges[0::2], edges[1::2], strict=True):
        if end - first < RANGE_MIN:
            for row in rows[first:end].tolist():
                txn.delete(prefix + packed_row(row))
        else:
            low, high = packed_row(int(rows[first])), packed_row(int(rows[end - 1]))
            txn.delete_range(prefix + low, prefix + high + b"\0")


def _enter(txn: Write, space: Space, manifest: SegmentManifest, rows: Rows) -> int:
    last = max((segment for segment, _ in manifests(txn, space.number)), default=0)
    segment = max((txn.now - _EPOCH) // _MICROSECOND, last + 1, 1)
    manifest.rows = len(rows)
    if manifest.created_at is None:
        manifest.created_at = txn.now
    txn.put(manifest_key(space, segment), encode(manifest))
    for part, at in enumerate(range(0, len(rows), PART_ROWS)):
        txn.put(part_key(space, segment, part), packed_rows(rows[at : at + PART_ROWS]))
    return segment


def replace_segments(
    txn: Write,
    number: int,
    old: Sequence[int],
    manifest: SegmentManifest | None,
    rows: Iterable[int] | Rows,
) -> int | None:
    """One segment in the place of others, without those of their rows that are dead.

    Args:
        number: of the namespace.
        old: numbers of the segments.
        manifest: of the new one; None where no row is left.
        rows: that the new file holds: all of the others' but dead ones. Those that died since the
            file was begun stay dead rows.

    Returns:
        The number of the new segment (0 where there is none); None where one of the old ones is
        gone.

    Raises:
        ValueError: a row is of no old segment, or one is left out that lives.
    """
    space = Space(number)
    if any(txn.get(manifest_key(space, segment)) is None for segment in old):
        return None
    kept = as_rows(rows)
    had = np.concatenate([segment_rows(txn, number, segment) for segment in old])
    if np.isin(kept, had, assume_unique=True, invert=True).any():
        raise ValueError("a row is in none of the segments that are replaced")
    if (manifest is None) != (not len(kept)):
        raise ValueError("a segment has rows, and rows have a segment")
    dropped = np.sort(had[~np.isin(had, kept, assume_unique=True)])
    if len(dropped):
        dead = _rows_at(txn, space.dead, int(dropped[0]), int(dropped[-1]))
        chosen = np.isin(dead, dropped, assume_unique=True)
        if chosen.sum() != len(dropped):
            raise ValueError("a row that lives would be in no segment")
        _remove(txn, space.dead, dead, chosen)
    segment = 0 if manifest is None else _enter(txn, space, manifest, kept)
    for one in old:
        _remove_manifest(txn, space, one)
    return segment


def _remove_manifest(txn: Write, space: Space, segment: int) -> None:
    key = manifest_key(space, segment)
    txn.delete(key)
    txn.delete_range(key, key + AFTER)


def forget_segment(
    txn: Write, number: int, segment: int, rows: Sequence[tuple[int, bytes]]
) -> int | None:
    """Give a segment up, whose file is lost: its live rows go back to the tail.

    Args:
        number: of the namespace.
        rows: the segment's rows that documents have, with the packed ids of these, from
            `rows_with_ids` of some earlier state. (Rows of a segment only ever die.)

    Returns:
        How many rows went back; None where the segment is gone.

    Raises:
        ValueError: ``rows`` lacks one that lives, or has one of another segment.
    """
    space = Space(number)
    if txn.get(manifest_key(space, segment)) is None:
        return None
    had = segment_rows(txn, number, segment)
    given = dict(rows)
    if np.isin(as_rows(given), had, assume_unique=True, invert=True).any():
        raise ValueError("a row is in another segment")
    dead = _rows_at(txn, space.dead, int(had[0]), int(had[-1]))
    chosen = np.isin(dead, had, assume_unique=True)
    died = set(dead[chosen].tolist())
    if len(had) - len(died) != len(given.keys() - died):
        raise ValueError("a row that lives would be in no segment, nor in the tail")
    _remove(txn, space.dead, dead, chosen)
    back = [
        (space.tail + packed_row(row), packed)
        for row, packed in sorted(given.items())
        if row not in died
    ]
    txn.put_sorted(back)
    _remove_manifest(txn, space, segment)
    return len(back)


def update_manifest(txn: Write, number: int, segment: int, **fields: Any) -> bool:
    """Other values of some fields of a manifest: of a file that was made again.

    Returns:
        Whether there is such a segment.
    """
    key = manifest_key(Space(number), segment)
    record = txn.get(key)
    if record is None:
        return False
    manifest = decode_manifest(record)
    for name in ("uuid", "size_bytes", "checksum", "info"):
        if name in fields:
            setattr(manifest, name, fields.pop(name))
    if fields:
        raise ValueError(f"a manifest's {', '.join(fields)} does not change")
    txn.put(key, encode(manifest))
    return True
