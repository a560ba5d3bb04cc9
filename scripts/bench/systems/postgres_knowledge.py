"""In PostgreSQL: a document with its version, nodes, references and contradictions."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

from scripts.bench.knowledge import CASE, EFFECTIVE_FROM, POLICY, VERSION, Knowledge

SCHEMA = """
CREATE TABLE documents (
    policy_id text NOT NULL, version_id text NOT NULL, pageindex_doc_id text,
    node_count integer NOT NULL, language text NOT NULL, metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    PRIMARY KEY (policy_id, version_id)
);
CREATE TABLE document_versions (
    policy_id text NOT NULL, version_id text NOT NULL, effective_from date, effective_to date,
    description text NOT NULL, tags text[] NOT NULL, created_at timestamptz NOT NULL,
    PRIMARY KEY (policy_id, version_id)
);
CREATE TABLE cross_references (
    source_policy_id text NOT NULL, source_node_id text NOT NULL,
    target_policy_id text NOT NULL, target_node_id text NOT NULL,
    relation text NOT NULL, context text NOT NULL, metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (source_policy_id, source_node_id, relation, target_policy_id, target_node_id)
);
CREATE INDEX cross_references_in ON cross_references (target_policy_id, target_node_id);
CREATE TABLE contradictions (
    id bigserial PRIMARY KEY, case_id text NOT NULL, criterion_id text NOT NULL,
    description text NOT NULL, severity text NOT NULL, resolution text,
    created_at timestamptz NOT NULL
);
CREATE TABLE evidence (
    contradiction_id bigint NOT NULL REFERENCES contradictions, policy_id text, version_id text,
    node_id text, snippet text NOT NULL, stance text NOT NULL
);
CREATE INDEX evidence_node ON evidence (policy_id, version_id, node_id);
CREATE INDEX evidence_contradiction ON evidence (contradiction_id);
"""

DOCUMENT = "SELECT * FROM documents WHERE policy_id = $1 AND version_id = $2"
VERSION_OF = "SELECT * FROM document_versions WHERE policy_id = $1 AND version_id = $2"
NODES = "SELECT * FROM nodes WHERE policy_id = $1 AND version_id = $2 ORDER BY node_id"
REFERENCES = """
SELECT 'out' AS direction, * FROM cross_references WHERE source_policy_id = $1
UNION ALL
SELECT 'in', * FROM cross_references WHERE target_policy_id = $1
"""
CONTRADICTIONS = """
SELECT c.*, json_agg(json_build_object('policy_id', e.policy_id, 'version_id', e.version_id,
    'node_id', e.node_id, 'snippet', e.snippet, 'stance', e.stance)) AS evidence
FROM contradictions c JOIN evidence e ON e.contradiction_id = c.id
WHERE c.id IN (SELECT contradiction_id FROM evidence WHERE policy_id = $1 AND version_id = $2)
GROUP BY c.id ORDER BY c.id
"""


async def load_knowledge(connection: Any, knowledge: Knowledge, records: list[Any]) -> None:
    """Fill the tables; ``records`` are the nodes' rows."""
    now = datetime.now(UTC)
    await connection.execute(SCHEMA)
    await connection.copy_records_to_table("nodes", records=records)
    await connection.execute(
        "INSERT INTO documents VALUES ($1, $2, NULL, $3, 'english', '{}', $4, $4)",
        POLICY,
        VERSION,
        len(knowledge.nodes),
        now,
    )
    await connection.execute(
        "INSERT INTO document_versions VALUES ($1, $2, $3, NULL, '', '{}', $4)",
        POLICY,
        VERSION,
        date.fromisoformat(EFFECTIVE_FROM),
        now,
    )
    await connection.copy_records_to_table(
        "cross_references",
        records=[(*reference.values(), json.dumps({}), now) for reference in knowledge.references],
    )
    for item in knowledge.contradictions:
        number = await connection.fetchval(
            "INSERT INTO contradictions (case_id, criterion_id, description, severity, created_at)"
            " VALUES ($1, $2, $3, 'medium', $4) RETURNING id",
            CASE,
            item["criterion_id"],
            item["description"],
            now,
        )
        await connection.executemany(
            "INSERT INTO evidence VALUES ($1, $2, $3, $4, $5, $6)",
            [
                (number, p["policy_id"], p["version_id"], p["node_id"], p["snippet"], p["stance"])
                for p in item["evidence"]
            ],
        )


async def fetch_enriched(connection: Any) -> tuple[int, int, int]:
    """The queries, one after the other; how many nodes, references and contradictions.

    In a transaction: what they give is to be of one state, as the other system's answer is.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        document = await connection.fetchrow(DOCUMENT, POLICY, VERSION)
        version = await connection.fetchrow(VERSION_OF, POLICY, VERSION)
        nodes = await connection.fetch(NODES, POLICY, VERSION)
        references = await connection.fetch(REFERENCES, POLICY)
        contradictions = await connection.fetch(CONTRADICTIONS, POLICY, VERSION)
    assert document
    assert version
    by_node: dict[str, list[Any]] = {}
    for row in references:
        end = "source_node_id" if row["direction"] == "out" else "target_node_id"
        by_node.setdefault(row[end], []).append(row)
    return len(nodes), len(references), len(contradictions)
