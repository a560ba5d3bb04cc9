"""Watchers: they follow the feed of changes through everything that goes wrong."""

from __future__ import annotations

from random import Random

import trio

from scripts.simulation.clients import FAMILIES, NEVER, registers
from scripts.simulation.history import History, Piece, Value
from scripts.simulation.network import Network
from scripts.simulation.values import decoded
from treestore.client.connection import Target
from treestore.client.remote import RemoteDatabase, connect_to
from treestore.errors import FeedExpired, TreeStoreError
from treestore.model.changes import Change

LOOK_S = 0.5
"""How often one that waits looks whether it is done."""


class Watcher:
    """One of them. It leaves now and then, comes back, and goes on from where it was."""

    def __init__(self, number: int, network: Network, history: History, random: Random) -> None:
        self.number = number
        self.finished = trio.Event()
        self._history = history
        self._random = random
        self._piece: Piece | None = None
        self._until_lsn: int | None = None
        self._target = Target(
            host="simulated",
            port=1,
            random=Random(random.getrandbits(64)),
            open_stream=network.open_stream,
            keep_alive_interval_s=1.0,
            keep_alive_timeout_s=3.0,
        )

    def finish_at(self, lsn: int) -> None:
        """Nothing is written any more: end when everything up to there was seen."""
        self._until_lsn = lsn

    async def run(self) -> None:
        """Watch until there is nothing left to be seen."""
        random = self._random
        while not self.finished.is_set():
            timeout = random.choice((0.5, 3.0, 30.0))
            try:
                async with connect_to(self._target, random.choice((1, 2)), timeout) as db:
                    with trio.move_on_after(random.choice((2.0, 100.0)) * random.random()):
                        await self._watch(db)
            except NEVER as error:
                self._history.fault(f"Watcher {self.number}: {error!r}")
            except TreeStoreError:
                await trio.sleep(0.1)

    async def _watch(self, db: RemoteDatabase) -> None:
        """Go on, from a snapshot where there is nothing to go on from."""
        piece = self._piece
        if piece is None:
            piece = await self._begin(db)
            self._piece = piece
            self._history.pieces.append(piece)
        try:
            async with db.watch(piece.position, values=True) as feed:
                while not self.finished.is_set():
                    with trio.move_on_after(LOOK_S):
                        self._take(piece, await anext(feed))
                        continue
                    piece.position = feed.position
                    self._finish_if_done(piece)
                    if self._random.random() < 0.1:
                        await trio.sleep(self._random.choice((0.01, 1.0)))
        except FeedExpired:
            # Fell behind what is kept; what it saw must be right all the same.
            self._piece = None

    async def _begin(self, db: RemoteDatabase) -> Piece:
        async with db.snapshot() as snapshot:
            opened = self._history.mark()
            values: dict[str, Value] = {name: None for f in FAMILIES for name in registers(f)}
            async for key, value in snapshot.kv.scan():
                values[key.decode()] = decoded(value)
            lsn = snapshot.lsn
            return Piece(self.number, lsn, snapshot.position, values, opened, end_lsn=lsn)

    def _take(self, piece: Piece, change: Change) -> None:
        name = None if change.key is None else change.key.decode()
        seen = (change.lsn, name, decoded(change.value), change.last, change.position)
        piece.changes.append(seen)
        piece.position = change.position
        if change.last:
            piece.end_lsn = change.lsn

    def _finish_if_done(self, piece: Piece) -> None:
        """Positions read like ``database-timeline-lsn``: known here, opaque to users."""
        place = piece.position.rpartition("-")[2]
        if self._until_lsn is None or "+" in place or int(place) < self._until_lsn:
            return
        piece.end_lsn = max(piece.end_lsn, self._until_lsn)
        piece.ended = self._history.mark()
        self.finished.set()
