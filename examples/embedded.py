"""TreeStore inside a trio program: store a document, look things up. Run it: it cleans up."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import trio

import treestore

POLICY = Path(__file__).parent / "travel-policy" / "2025-07-01.json"


async def main(directory: str) -> None:
    """Store the example policy in ``directory`` and ask about it."""
    async with treestore.open(directory) as db:
        structure = json.loads(POLICY.read_text("utf-8"))
        document = await db.documents.store(
            "travel-policy", "2025-07-01", structure, effective_from="2025-07-01"
        )
        print(f"stored {document.node_count} nodes")

        for node in await db.documents.get_children("travel-policy", "0009"):
            print(f"{node.section_path:5} {node.title}: {node.summary}")

        path = await db.documents.get_ancestor_path("travel-policy", "0011")
        print(" > ".join(node.title for node in path))

        # Changes to one document, or to many keys, are atomic, and durable when a call returns.
        await db.documents.update_node("travel-policy", "0011", title="Class of air travel")
        node = await db.documents.get_node("travel-policy", "0011")
        print(f"renamed to {node.title!r}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        trio.run(main, f"{scratch}/data")
