"""``kv`` through every face."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from treestore.errors import InvalidArgument


async def test_what_is_put_is_found(db: Any) -> None:
    with trio.fail_after(30):
        assert await db.kv.get(b"a") is None
        await db.kv.put(b"a", b"1")
        await db.kv.batch(puts=[(b"b", b"2"), (b"c", b"3")], deletes=[b"a"])
        assert [item async for item in db.kv.scan()] == [(b"b", b"2"), (b"c", b"3")]
        assert [item async for item in db.kv.scan(reverse=True, limit=1)] == [(b"c", b"3")]
        assert await db.kv.delete(b"b") is True
        assert await db.kv.delete(b"b") is False


async def test_a_bad_key_is_answered(db: Any) -> None:
    with trio.fail_after(30), pytest.raises(InvalidArgument, match="must not be empty"):
        await db.kv.put(b"", b"1")


async def test_a_snapshot_keeps_its_state(db: Any) -> None:
    with trio.fail_after(30):
        await db.kv.put(b"a", b"1")
        async with db.snapshot() as snapshot:
            await db.kv.put(b"a", b"2")
            assert await snapshot.kv.get(b"a") == b"1"
        assert await db.kv.get(b"a") == b"2"
