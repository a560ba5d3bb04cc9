"""Ask a policy: search it, read around what was found, see what belongs to it.

Usage: ``python -m scripts.query_example [QUERY] [--data DIR]`` (with the example policy).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import Any

import trio

import treestore
from scripts.agent_example import POLICY, store_policy


async def ask(db: Any, query: str) -> None:
    """Print the best hits, the way to the first one, its pages and its relations."""
    hits = await db.documents.search(query, policy_id=POLICY, top_k=3)
    print(f"{query!r}: {len(hits)} hits")
    for hit in hits:
        print(f"  {hit.score:6.2f}  {hit.node.section_path} {hit.node.title}: {hit.snippet}")
    if not hits:
        return
    node = hits[0].node

    path = await db.documents.get_ancestor_path(POLICY, node.node_id, include_text=False)
    print(" > ".join(above.title for above in path))

    same_page = await db.documents.get_nodes_by_page(POLICY, node.page_start, include_text=False)
    print(f"On page {node.page_start}: {', '.join(other.title for other in same_page)}")

    for related in await db.queries.find_related(POLICY, node.node_id, limit=5):
        detail = f" ({related.detail})" if related.detail else ""
        print(f"  {related.reason}{detail}: {related.node.title}")

    # All of it in one call, of one state.
    whole = await db.queries.get_enriched(POLICY, include_text=False)
    print(
        f"The whole policy: {len(whole.nodes)} nodes, {len(whole.references)} references, in "
        f"effect from {whole.version.effective_from}"
    )


async def main(directory: str, query: str) -> None:
    """Store the example policy in ``directory`` and ask it."""
    async with treestore.open(directory) as db:
        await store_policy(db)
        await ask(db, query)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask the example policy.")
    parser.add_argument("query", nargs="?", default="class of air travel")
    parser.add_argument("--data", help="data directory (default: a temporary one)")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            trio.run(main, given.data or f"{scratch}/data", given.query)
    except treestore.errors.TreeStoreError as error:
        sys.exit(f"query_example: {error.message}")
