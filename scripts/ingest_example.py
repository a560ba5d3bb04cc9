"""Store PageIndex's output: any of its JSON shapes, or Markdown.

Usage: ``python -m scripts.ingest_example FILE [--policy-id ID] [--version-id V]
[--effective-from DAY] [--data DIR | --connect HOST:PORT]``. (``treestore ingest`` does the same,
with progress.)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import trio

import treestore
from treestore.stores.documents.markdown import parse_markdown


def opened(directory: str, address: str | None) -> AbstractAsyncContextManager[Any]:
    """The database in a directory, or on a server: their services are the same."""
    return treestore.open(directory) if address is None else treestore.connect(address)


async def ingest(
    db: Any, file: Path, policy_id: str, version_id: str, effective_from: str | None
) -> None:
    """Store one file as a version of a policy, and print what was made of it."""
    text = file.read_text("utf-8")
    structure: Any = parse_markdown(text) if file.suffix == ".md" else json.loads(text)
    document = await db.documents.store(
        policy_id, version_id, structure, effective_from=effective_from
    )
    print(f"{document.policy_id} {document.version_id}: {document.node_count} nodes")
    for node in await db.documents.get_children(policy_id, version_id=version_id):
        pages = f"  (pages {node.page_start}-{node.page_end})" if node.page_start else ""
        print(f"  {node.section_path} {node.title}{pages}")


async def main(directory: str, arguments: argparse.Namespace) -> None:
    """Open, ingest, close."""
    file = Path(arguments.file)
    policy_id = arguments.policy_id or file.stem
    async with opened(directory, arguments.connect) as db:
        await ingest(db, file, policy_id, arguments.version_id, arguments.effective_from)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Store PageIndex's output.")
    parser.add_argument("file", help="PageIndex JSON, or Markdown (.md)")
    parser.add_argument("--policy-id", help="default: the file's name")
    parser.add_argument("--version-id", default="1")
    parser.add_argument("--effective-from", help="first day in effect, such as 2025-07-01")
    parser.add_argument("--data", help="data directory (default: a temporary one)")
    parser.add_argument("--connect", metavar="HOST:PORT", help="a server instead")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            trio.run(main, given.data or f"{scratch}/data", given)
    except (treestore.errors.TreeStoreError, OSError, ValueError) as error:
        sys.exit(f"ingest_example: {error}")
