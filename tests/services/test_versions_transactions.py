"""``versions`` inside interactive transactions, through every face."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from treestore.errors import TransactionConflict


async def test_versions_in_a_transaction(db: Any) -> None:
    with trio.fail_after(60):
        await db.versions.create("p", "a", effective_from="2024-01-01")
        async with db.transaction() as tx:
            await tx.versions.create("p", "b", effective_from="2024-02-01", supersedes="a")
            await tx.versions.create("p", "c", effective_from="2024-03-01", supersedes="b")
            assert (await tx.versions.as_of("p", "2024-02-10")).version_id == "b"
            assert (await db.versions.as_of("p", "2024-02-10")).version_id == "a"
            x = await tx.versions.get("p", "b")
            assert (
                await tx.versions.as_of("p", "2024-03-10", known_at=x.recorded_at)
            ).version_id in "bc"
        assert (await db.versions.as_of("p", "2024-03-10")).version_id == "c"
        with pytest.raises(TransactionConflict):
            async with db.transaction() as tx:
                assert (await tx.versions.as_of("p", "2024-03-10")).version_id == "c"
                await tx.kv.put(b"x", b"1")
                await db.versions.create("p", "d", effective_from="2024-03-05")
        async with db.transaction() as tx:
            await tx.documents.store("p", "z", [{"title": "a"}], effective_from="2025-01-01")
            await tx.documents.store("p", "y", [{"title": "b"}], effective_from="2025-01-01")
            assert len(await tx.versions.diff("p", "z", "y")) == 1
