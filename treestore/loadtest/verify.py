"""All that is stored, against all that was acknowledged; and the store against itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import attrs

from treestore.loadtest.accounts import Transfer
from treestore.loadtest.content import GROUPS, TAGS, Json
from treestore.loadtest.faces import Face, patiently
from treestore.loadtest.world import World

PAGE_ITEMS = 500

KEYS_LOOKED_UP = 500
"""Documents that are looked up one by one, by id and by the unique index."""


@attrs.define
class Verified:
    """How much was looked at.

    Attributes:
        documents: that were found, each compared with its ledger.
        queries: on indexed fields, each compared with all documents.
        indexes: those that the server used for queries of these forms; where going over all of a
            small collection is cheaper it uses none.
        accounts: whose balance was compared.
        postings: that were found.
        check: what `admin.check` said: "ok", "errors", or "not allowed" for this API key.
    """

    documents: int = 0
    queries: int = 0
    indexes: tuple[str, ...] = ()
    accounts: int = 0
    postings: int = 0
    check: str = ""


Tell = Callable[[str], None]


async def verify(
    world: World, face: Face, tell: Tell = lambda what: None, *, check: bool = True
) -> Verified:
    """Look at everything, while nobody writes; what is wrong is noted in the world's ledger.

    Args:
        world: of the run.
        face: a connection.
        tell: told what is looked at now.
        check: let the server check itself (`admin.check`), which reads everything it has.

    Raises:
        TreeStoreError: the server did not answer.
    """
    done = Verified()
    tell("documents")
    documents = [document async for document in _all(face, world.names.documents)]
    done.documents = len(documents)
    _documents(world, documents)
    tell("indexes")
    await _indexes(world, face, documents, done)
    tell("accounts")
    await _accounts(world, face, done)
    await _postings(world, face, done)
    if check:
        tell("check")
        errors = await patiently(face.check)
        done.check = "not allowed" if errors is None else "errors" if errors else "ok"
        for error in errors or ():
            world.ledger.complain(f"check: {error}")
    return done


async def _all(
    face: Face, name: str, filter: Json | None = None, sort: Any = None
) -> AsyncIterator[Json]:
    """Every document that satisfies a filter, page by page."""
    cursor: str | None = None
    while True:
        page = await patiently(
            partial(face.collections.find, name, filter, sort=sort, limit=PAGE_ITEMS, cursor=cursor)
        )
        for document in page.items:
            yield document
        cursor = page.next_cursor
        if cursor is None:
            return


def _documents(world: World, documents: list[Json]) -> None:
    """Each as it was written last, none missing, none that nobody wrote, none twice."""
    ledger, seen = world.ledger, set[str]()
    for document in documents:
        id = str(document.get("_id"))
        if id in seen:
            ledger.complain(f"stored: {id} is there twice")
        seen.add(id)
        ledger.hold("stored", id, document, ledger.tick)
    for id in ledger.entries.keys() - seen:
        ledger.hold("stored", id, None, ledger.tick)


async def _indexes(world: World, face: Face, documents: list[Json], done: Verified) -> None:
    """Queries by each index give what going over all documents gives."""
    groups: dict[Any, list[Json]] = defaultdict(list)
    tags: dict[Any, list[Json]] = defaultdict(list)
    users: dict[Any, list[Json]] = defaultdict(list)
    for document in documents:
        groups[document.get("group")].append(document)
        users[document.get("user")].append(document)
        for tag in document.get("tags", ()):
            tags[tag].append(document)
    name, used = world.names.documents, set[str]()

    async def look_up(filter: Json, sort: str | None = None) -> None:
        used.update(await patiently(partial(face.indexes, name, filter, sort)))

    async def compare(filter: Json, wanted: list[Json], sort: str | None = None) -> None:
        done.queries += 1
        found = [document async for document in _all(face, name, filter, sort)]
        ordered = sorted(wanted, key=lambda each: (each[sort] if sort else 0, each["_id"]))
        if found != ordered:
            ids = {each.get("_id") for each in found} ^ {each["_id"] for each in wanted}
            what = f"other documents: {sorted(map(str, ids))[:5]}" if ids else "other contents"
            world.ledger.complain(f"query {filter} gave {what} than going over all gives")

    for group in range(GROUPS):
        await compare({"group": group}, groups[group])
    for tag in TAGS:
        await compare({"tags": tag}, tags[tag])
    for user in sorted({entry.user for entry in world.ledger.entries.values()}):
        await compare({"user": user}, users[user], "score")
        count = await patiently(partial(face.collections.count, name, {"user": user}))
        if count != len(users[user]):
            world.ledger.complain(f"count of user {user} gave {count}, not {len(users[user])}")
    step = max(1, len(documents) // KEYS_LOOKED_UP)
    for document in documents[::step]:
        await compare({"key": document.get("key")}, [document])
    await look_up({"group": 0})
    await look_up({"tags": TAGS[0]})
    await look_up({"user": 0}, "score")
    await look_up({"key": ""})
    done.indexes = tuple(sorted(used))


async def _accounts(world: World, face: Face, done: Verified) -> None:
    """Each holds what the transfers left in it, and all of them what they began with."""
    books = world.books
    found = {one["_id"]: one async for one in _all(face, world.names.accounts)}
    done.accounts = len(found)
    total = sum(account["balance"] for account in found.values())
    if total != books.total:
        world.ledger.complain(f"stored: all accounts hold {total}, not {books.total}")
    if found.keys() != books.balances.keys():
        ids = sorted(map(str, found.keys() ^ books.balances.keys()))
        world.ledger.complain(f"stored: accounts too many or missing: {ids[:5]}")
    if books.unsure_balances:
        return
    for id, balance in books.balances.items():
        holds = found.get(id, {}).get("balance")
        if holds != balance:
            world.ledger.complain(f"stored: account {id} holds {holds!r:.40}, not {balance}")


async def _postings(world: World, face: Face, done: Verified) -> None:
    """Those of the acknowledged transfers, in pairs, as they were written."""
    books, found = world.books, defaultdict[str, list[Json]](list)
    async for posting in _all(face, world.names.postings):
        found[str(posting.get("transfer"))].append(posting)
        done.postings += 1

    def compare(transfer: Transfer) -> None:
        stored = sorted(found.pop(transfer.id, []), key=lambda each: str(each["_id"]))
        if stored != sorted(transfer.postings(), key=lambda each: str(each["_id"])):
            world.ledger.complain(f"stored: the postings of {transfer.id} are {stored!r:.200}")

    for transfer in books.posted.values():
        compare(transfer)
    for transfer in books.unsure.values():
        if transfer.id in found:
            compare(transfer)
    for id in sorted(found):
        world.ledger.complain(f"stored: postings of {id}, which was not done, or cleared")
