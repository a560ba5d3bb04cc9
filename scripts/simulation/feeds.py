"""What feeds of changes must hold, as pure functions over what watchers saw.

* *Each once, in order, transactions whole*: within a piece.
* *One history*: a transaction's LSN is the same transaction to every watcher, and what one saw
  within another's stretch, that one saw too. So nothing that was shown was taken back.
* *True*: values come from calls that wrote them there and did not fail.
* *Complete*: what was acknowledged while somebody watched is there.
* *In the order of commits*: a call that ended before another began has the lower LSN.
* *Enough*: the snapshot and the changes behind it give the state that others read at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scripts.simulation.history import Call, Piece, Value

Write = tuple[str | None, Value]
Transactions = dict[int, tuple[Write, ...]]


def check_feeds(pieces: Sequence[Piece], calls: Sequence[Call]) -> Iterator[str]:
    """One sentence for each broken promise."""
    found: list[str] = []
    seen: list[Transactions] = []
    for piece in pieces:
        found += _check_piece(piece)
        seen.append(_transactions(piece))
    if not found:
        found += _check_history(pieces, seen)
        for piece, transactions in zip(pieces, seen, strict=True):
            found += _check_calls(piece, transactions, calls)
        found += _check_ends(pieces, seen)
    yield from found


def _check_piece(piece: Piece) -> Iterator[str]:
    """Each once, in order, whole."""
    lsn, open_lsn = piece.lsn, 0
    positions: set[str] = set()
    for change_lsn, _, _, last, position in piece.changes:
        if position in positions:
            yield f"The change at {position} came twice: {piece}"
        positions.add(position)
        if open_lsn and change_lsn != open_lsn:
            yield f"Transaction {open_lsn} was left before its last change: {piece}"
        elif not open_lsn and change_lsn <= lsn:
            yield f"Transaction {change_lsn} came after {lsn}: {piece}"
        lsn, open_lsn = change_lsn, 0 if last else change_lsn
    if open_lsn and piece.ended:
        yield f"Transaction {open_lsn} never came to its end: {piece}"


def _transactions(piece: Piece) -> Transactions:
    """The whole ones."""
    found: dict[int, list[Write]] = {}
    for lsn, name, value, _, _ in piece.changes:
        if lsn <= piece.end_lsn:
            found.setdefault(lsn, []).append((name, value))
    return {lsn: tuple(writes) for lsn, writes in found.items()}


def _check_history(pieces: Sequence[Piece], seen: Sequence[Transactions]) -> Iterator[str]:
    """Watchers agree, wherever their stretches overlap."""
    everything: dict[int, tuple[tuple[Write, ...], Piece]] = {}
    for piece, transactions in zip(pieces, seen, strict=True):
        for lsn, writes in transactions.items():
            other, witness = everything.setdefault(lsn, (writes, piece))
            if other != writes:
                yield f"Transaction {lsn} is {writes} to {piece}, and {other} to {witness}"
    for piece, transactions in zip(pieces, seen, strict=True):
        for lsn, (writes, witness) in everything.items():
            if piece.lsn < lsn <= piece.end_lsn and lsn not in transactions:
                yield f"{piece} missed transaction {lsn} ({writes}), which {witness} saw"


def _check_calls(piece: Piece, transactions: Transactions, calls: Sequence[Call]) -> Iterator[str]:
    """What was seen was written, what was written was seen, in that order."""
    place = {
        write: lsn
        for lsn, writes in transactions.items()
        for write in writes
        if write[1] is not None
    }
    writers: dict[Write, Call] = {
        (name, value): call
        for call in calls
        for name, value in call.writes.items()
        if value is not None
    }
    for write, lsn in place.items():
        call = writers.get(write)
        if call is None or call.outcome == "failed":
            yield f"Transaction {lsn} wrote {write}, which nobody did: {call}; {piece}"
    latest: tuple[int, Call] | None = None
    events: list[tuple[float, int, int, Call]] = []
    for call in calls:
        writes = [(n, v) for n, v in call.writes.items() if v is not None and (n, v) in place]
        if len({place[write] for write in writes}) > 1:
            yield f"{call} is more than one transaction: {piece}"
        if writes:
            lsn = place[writes[0]]
            events.append((call.began, 0, lsn, call))
            if call.outcome == "ok":
                events.append((call.ended, 1, lsn, call))
        yield from _check_missing(piece, place, call)
    for _, ending, lsn, call in sorted(events, key=lambda event: event[:2]):
        if ending and (latest is None or lsn > latest[0]):
            latest = lsn, call
        elif not ending and latest is not None and lsn < latest[0]:
            yield f"{call} began after {latest[1]} ended, and is before it in the feed: {piece}"


def _check_missing(
    piece: Piece, place: dict[tuple[str | None, Value], int], call: Call
) -> Iterator[str]:
    """A call that was made and acknowledged while the watcher watched is there."""
    if call.outcome != "ok" or not piece.covers(call):
        return
    for name, value in call.writes.items():
        if value is not None and not name.startswith("doc-") and (name, value) not in place:
            yield f"{piece} missed {name} = {value}: {call}"


def _check_ends(pieces: Sequence[Piece], seen: Sequence[Transactions]) -> Iterator[str]:
    """Snapshot and changes give the same state to all who came to the end."""
    end: tuple[dict[str, Value], Piece] | None = None
    for piece, transactions in zip(pieces, seen, strict=True):
        if not piece.ended:
            continue
        values = dict(piece.values)
        for _, writes in sorted(transactions.items()):
            values.update((name, value) for name, value in writes if name is not None)
        if end is None:
            end = values, piece
        elif values != end[0]:
            yield f"{piece} ends with {values}, and {end[1]} with {end[0]}"
