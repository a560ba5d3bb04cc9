"""Prompts and their versions.

Keys::

    PROMPTS      prompt None                 -> the Prompt
    PROMPTS      prompt version              -> a PromptVersion
    PROMPT_DATES prompt deployed_at version  -> nothing
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from treestore.errors import AlreadyExists, InvalidArgument, NotFound
from treestore.model.page import Page
from treestore.model.prompts import Prompt, PromptVersion
from treestore.stores.access import Read, Write
from treestore.stores.documents.layout import AFTER, packed_name
from treestore.stores.json_values import JsonList, JsonObject, encode
from treestore.stores.keys import Keyspace, pack, pack_str, successor, unpack
from treestore.stores.records.fields import (
    LIMIT_MAX,
    to_count,
    to_flag,
    to_json,
    to_json_object,
    to_name,
    to_text,
)
from treestore.stores.records.listing import Cursors
from treestore.stores.records.moments import Moment, to_moment

VERSION_MAX: Final = 10**9
VARIABLES_MAX: Final = 1000

_NONE: Final = pack(None)
_decode_prompt = msgspec.msgpack.Decoder(Prompt).decode
decode_version = msgspec.msgpack.Decoder(PromptVersion).decode


def packed_prompt(prompt_id: Any) -> bytes:
    """A prompt_id as a key element."""
    return packed_name("prompt_id", prompt_id)


def version_key(prompt_id: Any, version: Any) -> bytes:
    """Where a version is."""
    return (
        Keyspace.PROMPTS
        + packed_prompt(prompt_id)
        + pack(to_count(version, "version", 1, VERSION_MAX))
    )


def _hash(content: str, tool_schemas: bytes, variables: list[str]) -> str:
    """What two versions that do the same have in common."""
    parts = (content.encode(), tool_schemas, encode(variables))
    return hashlib.sha256(
        b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    ).hexdigest()


def _to_variables(variables: Any) -> list[str]:
    if isinstance(variables, str) or not isinstance(variables, list | tuple):
        raise InvalidArgument("variables is a list of names.")
    if len(variables) > VARIABLES_MAX:
        raise InvalidArgument(f"There are {len(variables)} variables; at most {VARIABLES_MAX}.")
    names = [to_name(name, f"variables[{index}]") for index, name in enumerate(variables)]
    if len(set(names)) < len(names):
        raise InvalidArgument("variables names one twice.")
    return names


def _content(content: Any, tool_schemas: Any, variables: Any) -> dict[str, Any]:
    """The fields of a version that say what it does."""
    if not to_text(content, "content"):
        raise InvalidArgument("content must not be empty.")
    schemas = [] if tool_schemas is None else tool_schemas
    if not isinstance(schemas, list | tuple):
        raise InvalidArgument("tool_schemas is a list of tools' schemas.")
    names = _to_variables(variables)
    raw = to_json(schemas, "tool_schemas")
    return {
        "content": content,
        "content_hash": _hash(content, bytes(raw), names),
        "tool_schemas": raw,
        "variables": names,
    }


def store(
    txn: Write,
    prompt_id: str,
    content: str,
    *,
    version: int | None = None,
    tool_schemas: JsonList | None = None,
    variables: Sequence[str] = (),
    author: str = "",
    deployed_at: Moment | None = None,
    metadata: JsonObject | None = None,
) -> PromptVersion:
    """Store a version of a prompt. Versions never change: what is new is a new version.

    Storing again what the latest version is (the same content, tool schemas, variables, author,
    metadata and, where it is given, ``deployed_at``) stores nothing and answers with that version,
    so that a program may store its prompts whenever it starts. An older version's content makes a
    new version, which is how to go back.

    Args:
        prompt_id: 1 to 200 bytes of UTF-8.
        content: the text of the prompt, not empty.
        version: its number, 1 to 1,000,000,000; None: one more than the highest.
        tool_schemas: the tools that go with it: a list of JSON values.
        variables: names that ``content`` leaves open.
        author: who wrote it.
        deployed_at: from when on it is in use; None: from now on. A day counts from its start.
        metadata: whatever else there is to know, JSON-like.

    Raises:
        AlreadyExists: ``version`` is given, and is another one.
        InvalidArgument: a value is no JSON, or a parameter is wrong.
    """
    place = Keyspace.PROMPTS + packed_prompt(prompt_id)
    fields = {
        "prompt_id": prompt_id,
        "version": 0,
        **_content(content, tool_schemas, variables),
        "author": to_text(author, "author"),
        "deployed_at": txn.now if deployed_at is None else to_moment(deployed_at, "deployed_at"),
        "created_at": txn.now,
        "metadata": to_json_object(metadata, "metadata"),
    }
    record = txn.get(place + _NONE)
    prompt = None if record is None else _decode_prompt(record)
    latest = 0 if prompt is None else prompt.latest_version
    if version is None:
        number = latest
    else:
        number = to_count(version, "version", 1, VERSION_MAX)
    if number:
        before = txn.get(place + pack(number))
        if before is not None and _same(before, fields, dated=deployed_at is not None):
            return txn.load(PromptVersion, before)
        if before is not None and version is not None:
            raise AlreadyExists(
                f"Version {version} of prompt {prompt_id!r} is another one, and versions do not "
                f"change; store it as a new version.",
                prompt_id=prompt_id,
                version=version,
            )
    if version is None:
        number = latest + 1
        if number > VERSION_MAX:
            raise InvalidArgument(f"No version follows {latest}; give one with version.")
    fields["version"] = number
    return txn.load(PromptVersion, _put(txn, place, fields, prompt))


def _same(record: bytes, fields: dict[str, Any], *, dated: bool) -> bool:
    """Whether storing ``fields`` would store the version of ``record`` again."""
    before = decode_version(record)
    again = dict(fields, version=before.version, created_at=before.created_at)
    if not dated:
        again["deployed_at"] = before.deployed_at
    return bool(encode(again) == record)


def _put(txn: Write, place: bytes, fields: dict[str, Any], prompt: Prompt | None) -> bytes:
    number = fields["version"]
    record: bytes = encode(fields)
    txn.put(place + pack(number), record)
    txn.put(Keyspace.PROMPT_DATES + place[1:] + pack(fields["deployed_at"], number), b"")
    txn.put(
        place + _NONE,
        encode(
            {
                "prompt_id": fields["prompt_id"],
                "version_count": 1 if prompt is None else prompt.version_count + 1,
                "latest_version": max(number, 0 if prompt is None else prompt.latest_version),
                "created_at": txn.now if prompt is None else prompt.created_at,
                "updated_at": txn.now,
            }
        ),
    )
    return record


def get(
    txn: Read, prompt_id: str, version: int | None = None, *, as_of: Moment | None = None
) -> PromptVersion:
    """One version of a prompt: by default the one in use.

    Args:
        version: this one. None: the one deployed last, at ``as_of`` or now; of several that were
            deployed at the same moment, the highest.
        as_of: as it was then; of a day, at its end (UTC).

    Raises:
        NotFound: there is no such prompt or version, or none was deployed by then.
        InvalidArgument: both ``version`` and ``as_of`` are given.
    """
    if version is not None:
        if as_of is not None:
            raise InvalidArgument("Give version or as_of; a version does not change with time.")
        return txn.load(PromptVersion, find_version(txn, prompt_id, version))
    at: datetime = txn.now if as_of is None else to_moment(as_of, "as_of", last=True)
    dates = Keyspace.PROMPT_DATES + packed_prompt(prompt_id)
    for key, _ in txn.scan(dates, dates + pack(at) + AFTER, reverse=True):
        number = unpack(key[len(dates) :])[1]
        return txn.load(PromptVersion, find_version(txn, prompt_id, number))
    raise _not_found(txn, prompt_id, f"had no version deployed by {at.isoformat()}")


def _not_found(txn: Read, prompt_id: str, otherwise: str) -> NotFound:
    if txn.get(Keyspace.PROMPTS + packed_prompt(prompt_id) + _NONE) is None:
        return NotFound(f"There is no prompt {prompt_id!r}.", prompt_id=prompt_id)
    return NotFound(f"Prompt {prompt_id!r} {otherwise}.", prompt_id=prompt_id)


def find_version(txn: Read, prompt_id: str, version: Any) -> bytes:
    """The record of one version.

    Raises:
        NotFound: there is none.
    """
    record = txn.get(version_key(prompt_id, version))
    if record is None:
        raise _not_found(txn, prompt_id, f"has no version {version}")
    return record


def list_versions(
    txn: Read,
    prompt_id: str,
    *,
    newest_first: bool = False,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[PromptVersion]:
    """The versions of a prompt by number, the lowest first.

    Args:
        newest_first: the other way round.
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before; stays good while others write.

    Raises:
        NotFound: there is no such prompt.
    """
    to_count(limit, "limit", 1, LIMIT_MAX)
    to_flag(newest_first, "newest_first")
    place = Keyspace.PROMPTS + packed_prompt(prompt_id)
    if txn.get(place + _NONE) is None:
        raise _not_found(txn, prompt_id, "")
    cursors = Cursors(("prompt_versions", prompt_id, newest_first))
    start, end = place + pack(1), place + AFTER
    if cursor is not None:
        last = place + cursors.position(cursor)
        start, end = (start, last) if newest_first else (last + b"\0", end)
    items: list[PromptVersion] = []
    position = b""
    for key, record in txn.scan(start, end, reverse=newest_first):
        if len(items) == limit:
            return Page(items, cursors.after(position))
        position = key[len(place) :]
        items.append(txn.load(PromptVersion, record))
    return Page(items, None)


def list_prompts(
    txn: Read, *, prefix: str = "", limit: int = 100, cursor: str | None = None
) -> Page[Prompt]:
    """Prompts by prompt_id (in the order of its UTF-8 bytes).

    Args:
        prefix: only those whose id begins with it.
        limit: at most this many, 1 to 10,000.
        cursor: ``next_cursor`` of the page before; stays good while others write.
    """
    to_count(limit, "limit", 1, LIMIT_MAX)
    space = Keyspace.PROMPTS
    at = space + pack_str(to_text(prefix, "prefix"))[:-1]
    end = successor(at)
    cursors = Cursors(("prompts", prefix))
    if cursor is not None:
        at = max(at, space + cursors.position(cursor) + AFTER)
    items: list[Prompt] = []
    position = b""
    # From one prompt to the next, over its versions.
    while found := next(txn.scan(at, end), None):
        if len(items) == limit:
            return Page(items, cursors.after(position))
        key, record = found
        position = key[1 : -len(_NONE)]
        items.append(txn.load(Prompt, record))
        at = key[: -len(_NONE)] + AFTER
    return Page(items, None)
