"""What documents hold: all of it follows from seed, id and revision.

So the ledger keeps numbers of revisions only, and any document that is found can be compared with
what it should be, down to the last character.
"""

from __future__ import annotations

from random import Random
from typing import Any

Json = dict[str, Any]

GROUPS = 50
TAGS = ("amber", "blue", "coral", "dune", "ebony", "fern", "gold", "hazel")
CITIES = ("Tartu", "Örebro", "Łódź", "東京", "Quito", "Nuuk")
SCORE_MAX = 1_000
"""Few enough that equal scores are common: their order is part of an answer, too."""

TEXT_SIZE_MAX = 1_500

INDEXES: tuple[str | list[str] | Json, ...] = (
    "group",
    ["user", "score"],
    "tags",
    {"fields": "key", "unique": True},
)
"""Equality, a range after an equality, elements of a list, and one without duplicates."""


def document_id(user: int, slot: int) -> str:
    """The id of one of a user's documents."""
    return f"u{user:05d}-{slot:03d}"


def document(seed: int, id: str, user: int, revision: int) -> Json:
    """A document as it is at one of its revisions."""
    random = Random(f"{seed} {id} {revision}")
    return {
        "_id": id,
        "user": user,
        "revision": revision,
        "key": f"{id}:{revision}",
        "group": random.randrange(GROUPS),
        "score": random.randrange(SCORE_MAX),
        "share": random.random(),
        "tags": random.sample(TAGS, random.randrange(4)),
        "place": {"city": random.choice(CITIES), "floor": random.randrange(-2, 40)},
        "text": f"{random.getrandbits(64):016x} " * random.randrange(1, TEXT_SIZE_MAX // 17),
    }


def patch_to(wanted: Json) -> Json:
    """The update that makes any revision of a document the ``wanted`` one."""
    return {"$set": {name: value for name, value in wanted.items() if name not in ("_id", "user")}}
