"""Verifies that everything stored about prompts agrees with itself: see docs/metadata.md."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from treestore.errors import TreeStoreError
from treestore.model.prompts import Prompt, PromptUsage
from treestore.stores.access import Read
from treestore.stores.keys import Keyspace, pack, successor, unpack
from treestore.stores.prompts import usage
from treestore.stores.prompts.versions import decode_version, packed_prompt, version_key
from treestore.stores.records.check import check_indexes, check_statistics, readable
from treestore.stores.records.ids import key_of

_prompt = msgspec.msgpack.Decoder(Prompt).decode
_usage = msgspec.msgpack.Decoder(PromptUsage).decode


def check_prompts(txn: Read) -> list[str]:
    """What is wrong with the stored prompts, a sentence each; empty when all is well."""
    return readable("prompts", lambda: _check_versions(txn)) + readable(
        "uses of prompts", lambda: _check_usage(txn)
    )


def _check_versions(txn: Read) -> Iterator[str]:
    space, dates = Keyspace.PROMPTS, Keyspace.PROMPT_DATES
    found: dict[bytes, list[int]] = {}
    heads: dict[bytes, Prompt] = {}
    entries = 0
    for key, record in txn.scan(space, successor(space)):
        prompt_id, number = unpack(key[1:])
        own = packed_prompt(prompt_id)
        if number is None:
            heads[own] = _prompt(record)
            if heads[own].prompt_id != prompt_id:
                yield f"The prompt at key {key.hex()} has another one's id."
            continue
        version = decode_version(record)
        found.setdefault(own, []).append(version.version)
        if key != version_key(version.prompt_id, version.version):
            yield f"The prompt's version at key {key.hex()} says that it is another one."
        entries += 1
        if txn.get(dates + own + pack(version.deployed_at, version.version)) is None:
            yield f"The prompt's version at key {key.hex()} cannot be found by its date."
    if entries != sum(len(keys) for keys, _ in txn.batches(dates, successor(dates))):
        yield "There are other dates of prompts than those of their versions."
    for own in heads.keys() | found.keys():
        head, numbers = heads.get(own), found.get(own, [])
        if (
            head is None
            or not numbers
            or (head.version_count, head.latest_version) != (len(numbers), max(numbers))
        ):
            yield f"The prompt at {own.hex()} and its versions disagree."


def _check_usage(txn: Read) -> Iterator[str]:
    space = Keyspace.PROMPT_USAGE
    rows: dict[bytes, usage.Row] = {}
    wrong: list[str] = []

    def records() -> Iterator[tuple[bytes, usage.Brief]]:
        for key, record in txn.scan(space, successor(space)):
            _usage(record)
            use = usage.decode_brief(record)
            if key != space + key_of(use.usage_id, "usage_id"):
                wrong.append(f"The use of a prompt at key {key.hex()} has another one's id.")
            if txn.get(version_key(use.prompt_id, use.version)) is None:
                wrong.append(f"The use at key {key.hex()} is of no prompt's version.")
            rows.setdefault(use.row_key, usage.Row()).add(use, 1)
            yield key, use

    def find(id: str) -> usage.Brief | None:
        try:
            record = txn.get(space + key_of(id, "usage_id"))
        except TreeStoreError:
            return None
        return None if record is None else usage.decode_brief(record)

    indexes = (Keyspace.PROMPT_USAGE_BY_PROMPT, Keyspace.PROMPT_USAGE_BY_CASE)
    yield from check_indexes(txn, "use of a prompt", records(), indexes, find)
    yield from wrong
    yield from check_statistics(
        txn, "prompt's statistics", Keyspace.PROMPT_STATISTICS, usage.decode_row, rows
    )
