"""The tools are tested on real stores: through every face, or embedded where that is enough."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from actors.database import open_database
from tests.services.conftest import db
from tests.tools.policy import store_policy

__all__ = ["db", "embedded"]


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncGenerator[Any]:
    """An embedded store with the policy of these tests."""
    async with open_database(tmp_path / "data") as database:
        await store_policy(database)
        yield database
        assert (await database.admin.check()).ok
