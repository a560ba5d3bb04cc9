"""API keys and the audit trail, on every face."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from treestore.errors import AlreadyExists, InvalidArgument, NotFound
from treestore.model.security import ApiKey, ApiKeyInfo, AuditEntry

LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)


async def test_a_key_from_its_making_to_its_end(db: Any) -> None:
    made = await db.admin.create_key(
        ["read", "write:policies/acme-*"], name="acme", expires_at=LATER, rate_limit=50
    )
    assert isinstance(made, ApiKey)
    assert made.secret.startswith(f"ts_{made.key_id}_")
    assert made.secret not in repr(made)
    assert (made.scopes, made.expires_at) == (("read", "write:policies/acme-*"), LATER)
    [info] = await db.admin.list_keys()
    assert isinstance(info, ApiKeyInfo)
    assert (info.key_id, info.name, info.status) == (made.key_id, "acme", "active")
    assert (info.expires_at, info.rate_limit) == (LATER, 50)
    assert (info.last_used_at, info.revoked_at) == (None, None)
    assert await db.admin.revoke_key(made.key_id) is True
    assert await db.admin.revoke_key(made.key_id) is False
    [info] = await db.admin.list_keys()
    assert info.status == "revoked"
    assert info.revoked_at is not None


async def test_keys_are_listed_in_the_order_of_their_making(db: Any) -> None:
    made = [await db.admin.create_key(["read"], name=str(n)) for n in range(5)]
    assert [info.name for info in await db.admin.list_keys()] == list("01234")
    assert len({one.key_id for one in made} | {one.secret for one in made}) == 10


async def test_a_call_that_is_made_again_gives_the_same_key(db: Any) -> None:
    token = "a-token-of-our-own"
    one = await db.admin.create_key(["read"], token=token)
    again = await db.admin.create_key(["read"], token=token)
    assert (again.key_id, again.secret) == (one.key_id, one.secret)
    with pytest.raises(AlreadyExists):
        await db.admin.create_key(["write"], token=token)
    assert len(await db.admin.list_keys()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": ["admin:kv"]},
        {"scopes": ["read"], "expires_at": "yesterday"},
        {"scopes": ["read"], "expires_at": "2001-01-01"},
        {"scopes": ["read"], "rate_limit": 0},
        {"scopes": ["read"], "rate_limit": -5},
        {"scopes": ["read"], "name": "x" * 201},
        {"scopes": ["read"], "token": "short"},
    ],
)
async def test_a_wrong_wish_makes_no_key(db: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await db.admin.create_key(**wrong)
    assert await db.admin.list_keys() == []


async def test_revoking_what_is_no_key(db: Any) -> None:
    with pytest.raises(NotFound):
        await db.admin.revoke_key("a" * 16)
    made = await db.admin.create_key(["admin"])
    with pytest.raises(InvalidArgument) as caught:
        await db.admin.revoke_key(made.secret)
    assert made.secret not in str(caught.value)


async def test_the_trail_of_keys(db: Any) -> None:
    made = await db.admin.create_key(["read"], name="one")
    await db.admin.revoke_key(made.key_id)
    await db.documents.store("p", "v", [{"title": "A", "node_id": "1"}])
    await db.documents.delete_policy("p")
    page = await db.admin.audit()
    entries = list(page)
    assert all(isinstance(entry, AuditEntry) for entry in entries)
    assert [(entry.number, entry.operation, entry.outcome) for entry in entries] == [
        (3, "documents.delete_policy", "ok"),
        (2, "admin.revoke_key", "ok"),
        (1, "admin.create_key", "ok"),
    ]
    assert entries[0].arguments == {"policy_id": "p"}
    assert entries[1].arguments == {"key_id": made.key_id}
    assert entries[2].arguments == {"key_id": made.key_id, "scopes": ["read"], "name": "one"}
    assert made.secret not in repr(entries)
    first = await db.admin.audit(limit=2)
    rest = await db.admin.audit(limit=2, cursor=first.next_cursor)
    assert [entry.number for entry in (*first, *rest)] == [3, 2, 1]


async def test_the_trail_of_a_transaction(db: Any) -> None:
    await db.documents.store("p", "v", [{"title": "A", "node_id": "1"}])
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as txn:
            await txn.documents.delete_policy("p")
            raise ZeroDivisionError
    assert list(await db.admin.audit()) == []
    async with db.transaction() as txn:
        await txn.documents.delete_policy("p")
    [entry] = await db.admin.audit()
    assert entry.operation == "documents.delete_policy"
