"""The tools that read the store."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from treestore.errors import NotFound
from treestore.model.documents import Node
from treestore.tools.context import Case, Outcome, ToolFailure, counted, pages_of, shortened
from treestore.tools.spans import find_spans, query_words, words

PREVIEW_SIZE_MAX = 200
DIFFS_MAX = 100
"""Changes of a version that are listed; ``diffs_total`` says how many there are."""


async def pi_search(case: Case, arguments: dict[str, Any]) -> Outcome:
    """Search the policy by words.

    ``confidence`` says how well the best section fits: the share of the query's telling words that
    it holds, times ``0.5 + 0.5 * lead``, where ``lead`` is how far its score is above the second
    one's, as a share of its own (1 for a single section). It is 0 where nothing was found.
    """
    version_id = await case.version()
    hits = await case.db.documents.search(
        arguments["query"],
        policy_id=case.policy_id,
        version_id=version_id,
        top_k=arguments["top_k"],
    )
    nodes = [
        {
            "node_id": hit.node.node_id,
            "title": hit.node.title,
            "pages": pages_of(hit.node),
            "section_path": hit.node.section_path,
            "score": round(hit.score, 4),
            "text_preview": _preview(hit.node, arguments["query"]),
        }
        for hit in hits
    ]
    visited = tuple(hit.node.node_id for hit in hits)
    return Outcome(
        result={
            "nodes": nodes,
            "trajectory": list(visited),
            "confidence": _confidence(arguments["query"], hits),
            "retrieval_method": "bm25",
            "version_id": version_id,
        },
        observation=f"{counted(len(hits), 'node')}: {', '.join(visited) or 'nothing found'}",
        nodes=visited,
    )


def _preview(node: Node, query: str) -> str:
    """The passage that fits, else the summary, else how the text begins."""
    best = find_spans(node.text, query, 1)
    passage = node.text[best[0].start : best[0].end] if best else node.summary or node.text
    return shortened(passage, PREVIEW_SIZE_MAX)


def _confidence(query: str, hits: list[Any]) -> float:
    wanted = set(query_words(query))
    if not hits or not wanted:
        return 0.0
    best = hits[0].node
    held = wanted & set(words(f"{best.title} {best.summary} {best.text}"))
    first = hits[0].score
    lead = 1.0 if len(hits) == 1 else max(0.0, first - hits[1].score) / first if first > 0 else 0.0
    return round(len(held) / len(wanted) * (0.5 + 0.5 * lead), 4)


async def spans_tighten(case: Case, arguments: dict[str, Any]) -> Outcome:
    """The spans of a node's own text that fit the query.

    ``page`` is the node's page where it has one page; where it has several it is estimated from
    how far into the text the span begins, and ``page_exact`` is false.
    """
    node_id = arguments["node_id"]
    version_id = await case.version()
    node = await case.db.documents.get_node(case.policy_id, node_id, version_id=version_id)
    if not node.text.strip():
        raise ToolFailure(
            f"Node {node_id} has no text of its own.", node_id=node_id, child_ids=[*node.child_ids]
        )
    spans = [
        {
            "text": node.text[span.start : span.end],
            "start": span.start,
            "end": span.end,
            "score": span.score,
            "matched": list(span.matched),
            **_page_of(node, span.start),
        }
        for span in find_spans(node.text, arguments["query"], arguments["top_k"])
    ]
    return Outcome(
        result={"node_id": node_id, "title": node.title, "spans": spans, "version_id": version_id},
        observation=f"{counted(len(spans), 'span')} of node {node_id}",
        nodes=(node_id,),
    )


def _page_of(node: Node, at: int) -> dict[str, Any]:
    pages = pages_of(node)
    if not pages:
        return {"page": None, "page_exact": False}
    if len(pages) == 1:
        return {"page": pages[0], "page_exact": True}
    return {"page": pages[at * len(pages) // len(node.text)], "page_exact": False}


async def policy_xref(case: Case, arguments: dict[str, Any]) -> Outcome:
    """The sections that belong together with one, each with the reason."""
    criterion_id = arguments["criterion_id"]
    version_id = await case.version()
    related = await case.db.queries.find_related(
        case.policy_id, criterion_id, version_id=version_id, limit=arguments["limit"]
    )
    nodes = [
        {
            "policy_id": item.node.policy_id,
            "node_id": item.node.node_id,
            "title": item.node.title,
            "path": item.node.section_path,
            "reason": item.reason,
        }
        for item in related
    ]
    citations = [
        {"page": page, "section": item.node.section_path, "node_id": item.node.node_id}
        for item in related
        for page in pages_of(item.node)[:1]
    ]
    here = [item.node.node_id for item in related if item.node.policy_id == case.policy_id]
    return Outcome(
        result={
            "criterion_id": criterion_id,
            "related_nodes": nodes,
            "citations": citations,
            "version_id": version_id,
        },
        observation=f"{counted(len(nodes), 'node')} related to {criterion_id}",
        nodes=(criterion_id, *here),
    )


async def temporal_lookup(case: Case, arguments: dict[str, Any]) -> Outcome:
    """The version in effect on a day, and what is different from another one."""
    policy_id = arguments.get("policy_id") or case.policy_id
    day = arguments["as_of_date"]
    version = await case.db.versions.as_of(policy_id, day)
    other_id = await _compared_with(case, policy_id, version, arguments["compare_with"])
    diffs: list[dict[str, Any]] = []
    note = ""
    if other_id is None:
        note = "There is no other version to compare it with."
    elif other_id == version.version_id:
        note = "It is the version in effect today."
    else:
        try:
            changes = await case.db.versions.diff(policy_id, other_id, version.version_id)
        except NotFound as error:
            # A version may be known by its days alone.
            note = error.message
        else:
            diffs = [_diff_of(change) for change in changes]
    result = {
        "policy_id": policy_id,
        "as_of_date": day,
        "version_id": version.version_id,
        "effective_start": _iso(version.effective_from),
        "effective_end": _iso(version.effective_to),
        "compared_with": other_id,
        "diffs": diffs[:DIFFS_MAX],
        "diffs_total": len(diffs),
    }
    if note:
        result["note"] = note
    return Outcome(
        result=result,
        observation=f"version {version.version_id}; {counted(len(diffs), 'change')}",
    )


async def _compared_with(case: Case, policy_id: str, version: Any, which: str) -> str | None:
    """The id of the version that another is compared with; None where there is none."""
    if which == "today":
        return await _in_effect(case, policy_id, datetime.now(UTC).date())
    if version.effective_from is not None and version.effective_from > date.min:
        before = version.effective_from - timedelta(days=1)
        previous = await _in_effect(case, policy_id, before)
        if previous is not None:
            return previous
    return await _in_effect(case, policy_id, datetime.now(UTC).date())


async def _in_effect(case: Case, policy_id: str, day: date) -> str | None:
    try:
        version = await case.db.versions.as_of(policy_id, day)
    except NotFound:
        return None
    version_id: str = version.version_id
    return version_id


def _diff_of(change: Any) -> dict[str, Any]:
    """One change, with what became of its text cut to a glimpse."""
    diff: dict[str, Any] = {
        "node_id": change.node_id,
        "change": change.kind,
        "title": change.title,
    }
    if change.fields:
        diff["fields"] = [field.name for field in change.fields]
    for field in change.fields:
        if field.name == "text":
            diff["text_before"] = shortened(str(field.old or ""), PREVIEW_SIZE_MAX)
            diff["text_after"] = shortened(str(field.new or ""), PREVIEW_SIZE_MAX)
    return diff


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
