"""Searches as days pass: another version is in effect, though nothing was written."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from actors import database
from actors.database import Database, open_database
from treestore.engine.realdisk import real_environment

NOON = datetime(2024, 2, 28, 12, tzinfo=UTC)
TEXTS = {"v1": "houses were taxed", "v2": "houses are exempt"}


@attrs.define
class Clock:
    """Stands still but for what a test adds."""

    now: datetime = NOON

    def __call__(self) -> int:
        return int(self.now.timestamp()) * 10**9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of databases that are opened."""
    its = Clock()
    environment = attrs.evolve(real_environment(), clock_ns=its)
    monkeypatch.setattr(database, "real_environment", lambda: environment)
    return its


@asynccontextmanager
async def two_versions(folder: Path) -> AsyncGenerator[Database]:
    """One is in effect, the other one will be from the day after tomorrow on."""
    with trio.fail_after(60):
        async with open_database(folder / "data") as db:
            for version, start in (("v1", "2024-01-01"), ("v2", "2024-03-01")):
                await db.documents.store(
                    *("p", version, [{"node_id": "n", "text": TEXTS[version]}]),
                    effective_from=start,
                )
            yield db


async def indexed(db: Database) -> None:
    while (await db.admin.stats()).search_lag_records:  # noqa: ASYNC110 (nothing tells of it)
        await trio.sleep(0.01)


async def found(services: Any) -> list[str]:
    hits = await services.documents.search("houses")
    return [hit.node.version_id for hit in hits]


@pytest.mark.parametrize("busy", ["idle", "writes", "searches"])
async def test_a_search_finds_the_version_of_the_day(
    tmp_path: Path, clock: Clock, busy: str
) -> None:
    async with two_versions(tmp_path) as db:
        await indexed(db)
        assert await found(db) == ["v1"]
        for days, expected in ((1, "v1"), (2, "v2"), (3, "v2")):
            clock.now = NOON + timedelta(days=days)
            if busy == "writes":
                await db.documents.store(f"other{days}", "v1", [{"text": "schools"}])
                await indexed(db)
            elif busy == "idle":
                await trio.sleep(0.6)  # The indexer looks up now and then.
            assert await found(db) == [expected]


async def test_a_snapshot_finds_what_was_deleted_since_and_is_in_effect_now(
    tmp_path: Path, clock: Clock
) -> None:
    async with two_versions(tmp_path) as db:
        await indexed(db)
        async with db.snapshot() as snapshot:
            assert await found(snapshot) == ["v1"]
            await db.documents.delete_policy("p")
            clock.now = NOON + timedelta(days=2)
            assert await found(db) == []
            assert await found(snapshot) == ["v2"]
            await indexed(db)
            assert await found(snapshot) == ["v2"]
