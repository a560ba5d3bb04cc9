"""How well ``documents.search`` ranks. Nothing is tuned: its weights are the service's own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import treestore
from scripts.ranking.cranfield import Collection
from scripts.ranking.figures import DEPTH, Figures

POLICY: Final = "cranfield"


async def measure(collection: Collection, data: Path, depth: int = DEPTH) -> Figures:
    """Store the collection as one document in a new data directory, and ask all questions."""
    nodes = [
        {"node_id": str(its.number), "title": its.title, "text": its.text}
        for its in collection.abstracts
    ]
    figures = Figures()
    async with treestore.open(data) as db:
        await db.documents.store(POLICY, "1", nodes)
        for question in collection.questions:
            hits = await db.documents.search(question.text, top_k=depth, include_text=False)
            ids = [int(hit.node.node_id) for hit in hits]
            figures.add(ids, ids, question.relevant)
    return figures
