"""A document of moderate size with what is known of it: seeded, the same in every process."""

from __future__ import annotations

import random
from typing import Any

import attrs

from scripts.bench.data import make_document

POLICY = "coverage"
VERSION = "2024"
EFFECTIVE_FROM = "2024-01-01"
NODES = 600
REFERENCES = 600
CONTRADICTIONS = 30
CASE = "case-1"


@attrs.frozen
class Knowledge:
    """The document's nodes, the references between them, and contradictions with evidence in it."""

    nodes: list[dict[str, Any]]
    references: list[dict[str, Any]]
    contradictions: list[dict[str, Any]]


def make_knowledge() -> Knowledge:
    """The document with its references and contradictions."""
    rng = random.Random(11)
    document = make_document(NODES, NODES, seed=9)
    ids = document.node_ids
    pairs: dict[tuple[str, str], None] = {}
    while len(pairs) < REFERENCES:
        source, target = rng.sample(ids, 2)
        pairs[source, target] = None
    references = [
        {
            "source_policy_id": POLICY,
            "source_node_id": source,
            "target_policy_id": POLICY,
            "target_node_id": target,
            "relation": rng.choice(("cites", "supports", "limits")),
            "context": f"as said in section {target}",
        }
        for source, target in pairs
    ]
    contradictions = [
        {
            "criterion_id": f"criterion-{number}",
            "description": "Evidence points both ways.",
            "evidence": [
                {
                    "policy_id": POLICY,
                    "node_id": rng.choice(ids),
                    "version_id": VERSION,
                    "snippet": "the applicant shall provide evidence of coverage",
                    "stance": stance,
                }
                for stance in ("supports", "contradicts")
            ],
        }
        for number in range(CONTRADICTIONS)
    ]
    return Knowledge(document.nodes, references, contradictions)
