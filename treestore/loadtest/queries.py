"""A user's queries: by index, each answer checked as far as the user can know it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from treestore.loadtest.content import GROUPS, SCORE_MAX, TAGS, Json
from treestore.loadtest.faces import Face
from treestore.loadtest.ledger import Entry
from treestore.loadtest.world import World

LIMIT = 20


class Queries:
    """One user's."""

    def __init__(
        self, world: World, face: Face, user: int, random: Random, mine: list[Entry]
    ) -> None:
        self._world = world
        self._collections = face.collections
        self._user = user
        self._random = random
        self._mine = mine

    async def query(self) -> None:
        """One of the kinds."""
        kinds = (self._own_range, self._group, self._tag, self._own_count)
        await self._random.choice(kinds)()

    def _own(self) -> list[Json]:
        """One's own documents as they are: nobody else changes them."""
        content = self._world.ledger.content
        return [content(entry) for entry in self._mine if entry.present]

    @property
    def _certain(self) -> bool:
        return all(entry.certain for entry in self._mine)

    async def _own_range(self) -> None:
        """A range of one's own, in order: exactly known."""
        least = self._random.randrange(SCORE_MAX)
        filter = {"user": self._user, "score": {"$gte": least}}
        found = await self._find("find range", filter, sort="score")
        wanted = [document for document in self._own() if document["score"] >= least]
        wanted.sort(key=lambda document: (document["score"], document["_id"]))
        if self._certain and found != wanted:
            self._wrong(filter, found, wanted)

    async def _own_count(self) -> None:
        filter = {"user": self._user}
        call = self._collections.count(self._world.names.documents, filter)
        found = await self._world.statistics.call("count", call)
        wanted = sum(entry.present for entry in self._mine)
        if self._certain and found != wanted:
            self._world.ledger.complain(f"count {filter} gave {found}, not {wanted}")

    async def _group(self) -> None:
        """The best of everybody's, by an equality."""
        group = self._random.randrange(GROUPS)
        await self._everybodys(
            "find equal",
            {"group": group},
            "-score",
            lambda document: document["group"] == group,
            lambda document: (document["score"], document["_id"]),
            descending=True,  # The ids of equal scores, too.
        )

    async def _tag(self) -> None:
        """Everybody's, by an element of a list."""
        tag = self._random.choice(TAGS)
        await self._everybodys(
            "find element",
            {"tags": tag},
            None,
            lambda document: tag in document["tags"],
            lambda document: (document["_id"],),
        )

    async def _everybodys(
        self,
        name: str,
        filter: Json,
        sort: str | None,
        fits: Callable[[Json], bool],
        rank: Callable[[Json], tuple[Any, ...]],
        *,
        descending: bool = False,
    ) -> None:
        """Others change theirs meanwhile: each must be as it may be, and one's own not missing."""
        ledger, since = self._world.ledger, self._world.ledger.tick
        found = await self._find(name, filter, sort=sort, limit=LIMIT)
        for document in found:
            if not ledger.hold(name, str(document.get("_id")), document, since):
                return
        ranks = [rank(document) for document in found]
        if len(found) > LIMIT or not all(map(fits, found)):
            ledger.complain(f"{name} {filter} gave what does not satisfy it, or too much")
        if sorted(set(ranks), reverse=descending) != ranks:
            ledger.complain(f"{name} {filter} gave documents twice or out of order: {ranks}")
        if not self._certain:
            return
        ids = {document["_id"] for document in found}
        for document in self._own():
            if not fits(document) or document["_id"] in ids:
                continue
            whole = len(found) < LIMIT
            if whole or (rank(document) > ranks[-1]) == descending:
                ledger.complain(f"{name} {filter} left out {document['_id']}")

    async def _find(self, name: str, filter: Json, **options: Any) -> list[Json]:
        call = self._collections.find(self._world.names.documents, filter, **options)
        return list((await self._world.statistics.call(name, call)).items)

    def _wrong(self, filter: Json, found: list[Json], wanted: list[Json]) -> None:
        names = [[document.get("_id") for document in documents] for documents in (found, wanted)]
        what = f"{names[0]}, not {names[1]}" if names[0] != names[1] else "other contents"
        self._world.ledger.complain(f"find {filter} gave {what}")
