"""The documents of the rows on queries, the same for every store, and what is asked of them."""

from __future__ import annotations

import random
from typing import Any

CITIES = ("Tartu", "Tallinn", "Oslo", "Rome", "Lisbon")
TEAM = 10
"""Documents that an equality finds."""
PAGE = 20
"""Documents that a sorted range gives."""
BATCH = 1000
"""Documents that are stored in one call."""
SCAN_FILTER: dict[str, Any] = {"age": {"$gte": 80}, "city": "Oslo"}
SCAN_SQL = "json_extract(doc, '$.age') >= 80 AND json_extract(doc, '$.city') = 'Oslo'"


def people(count: int) -> list[dict[str, Any]]:
    """Documents of about 250 bytes; ``team`` and ``score`` are indexed."""
    pick = random.Random(1)
    teams = [number // TEAM for number in range(count)]
    pick.shuffle(teams)
    return [
        {
            "_id": f"{number:010d}",
            "team": teams[number],
            "score": pick.random() * 1e6,
            "age": pick.randrange(90),
            "city": CITIES[number % len(CITIES)],
            "name": f"Person {number}",
            "email": f"person{number}@example.com",
            "active": number % 3 == 0,
            "tags": ["a", "b"],
            "address": {"street": f"Street {number % 100}", "zip": f"{number % 90000:05d}"},
        }
        for number in range(count)
    ]


def some_teams(count: int, seed: int) -> list[int]:
    """Teams to look for."""
    pick = random.Random(seed)
    return [pick.randrange(max(count // TEAM, 1)) for _ in range(20_000)]


def some_scores(seed: int) -> list[float]:
    """Where ranges begin."""
    pick = random.Random(seed)
    return [pick.random() * 8e5 for _ in range(20_000)]


INSERTS_PER_S_MAX = 80_000
"""More than any of the stores takes."""


def new_people(prefix: str, seconds: float) -> list[dict[str, Any]]:
    """Documents that are not there yet, enough for so long."""
    found = people(int(INSERTS_PER_S_MAX * seconds) // BATCH * BATCH + BATCH)
    for document in found:
        document["_id"] = f"{prefix} {document['_id']}"
    return found


def some_ids(count: int, seed: int) -> list[str]:
    """Ids to look for."""
    pick = random.Random(seed)
    return [f"{pick.randrange(count):010d}" for _ in range(50_000)]
