"""A client of a running server: ``treestore serve --data DIR``, then this program.

Usage: ``python examples/client.py [HOST:PORT]``
"""

from __future__ import annotations

import sys

import trio

import treestore


async def main(address: str) -> None:
    """List the server's documents with their roots, and count visits."""
    async with treestore.connect(address) as db:
        for document in await db.documents.list(limit=10):
            print(f"{document.policy_id} {document.version_id}: {document.node_count} nodes")
            for node in await db.documents.get_children(
                document.policy_id, version_id=document.version_id, include_text=False
            ):
                print(f"  {node.node_id} {node.title}")

        # A write that was sent and lost its connection is retried, and applied once.
        visits = int(await db.kv.get(b"visits") or b"0") + 1
        await db.kv.put(b"visits", str(visits).encode())
        print(f"visit number {visits}")


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7707")
    except treestore.errors.TreeStoreError as error:
        sys.exit(f"client.py: {error.message}")
