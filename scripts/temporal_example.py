"""Look into the past: which version was in effect on a day, what it said, what changed since.

Usage: ``python -m scripts.temporal_example [DAY ...] [--data DIR]`` (with the example policy).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import Any

import trio

import treestore
from scripts.agent_example import POLICY, VERSIONS, store_policy
from treestore.errors import NotFound

NODE = "0011"
"""The section that is looked up in each version: the class of flights."""


async def look_back(db: Any, days: list[str]) -> None:
    """Print what was in effect on each day, then what the newer version changed."""
    for day in days:
        try:
            version = await db.versions.as_of(POLICY, day)
        except NotFound as error:
            print(f"{day}: {error.message}")
            continue
        node = await db.documents.get_node(POLICY, NODE, version_id=version.version_id)
        until = version.effective_to or "further notice"
        print(f"{day}: version {version.version_id}, {version.effective_from} until {until}")
        print(f"    {node.title}: {node.text}")

    print(f"From {VERSIONS[0]} to {VERSIONS[1]}:")
    for change in await db.versions.diff(POLICY, *VERSIONS, include_text=False):
        fields = f" ({', '.join(field.name for field in change.fields)})" if change.fields else ""
        print(f"  {change.kind:8} {change.node_id} {change.title}{fields}")


async def main(directory: str, days: list[str]) -> None:
    """Store the example policy in ``directory`` and look back."""
    async with treestore.open(directory) as db:
        await store_policy(db)
        await look_back(db, days)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The example policy over time.")
    parser.add_argument("days", nargs="*", default=["2023-12-31", "2025-06-30", "2025-07-01"])
    parser.add_argument("--data", help="data directory (default: a temporary one)")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            trio.run(main, given.data or f"{scratch}/data", given.days)
    except treestore.errors.TreeStoreError as error:
        sys.exit(f"temporal_example: {error.message}")
