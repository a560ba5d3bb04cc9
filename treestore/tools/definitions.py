"""The tools, as a model is told of them."""

from __future__ import annotations

import copy
from typing import Any, Literal

from treestore.tools.schema import Schema

Style = Literal["anthropic", "openai"]

STATUSES = ("met", "missing", "uncertain")
"""What a criterion can come out as."""

STANCES = ("supports", "contradicts", "neutral")
"""How a piece of evidence stands to its criterion."""


def _text(description: str, size_max: int = 2000) -> Schema:
    return {
        "type": "string",
        "description": description,
        "minLength": 1,
        "maxLength": size_max,
    }


def _count(description: str, default: int, most: int) -> Schema:
    return {
        "type": "integer",
        "description": f"{description} ({default} where it is not given).",
        "minimum": 1,
        "maximum": most,
        "default": default,
    }


def _share(description: str) -> Schema:
    return {"type": "number", "description": description, "minimum": 0, "maximum": 1}


def _choice(description: str, values: tuple[str, ...]) -> Schema:
    return {"type": "string", "description": description, "enum": list(values)}


def _list(description: str, items: Schema, most: int, least: int = 0) -> Schema:
    schema: Schema = {
        "type": "array",
        "description": description,
        "items": items,
        "maxItems": most,
    }
    return {**schema, "minItems": least} if least else schema


def _object(properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _tool(name: str, description: str, parameters: Schema) -> dict[str, Any]:
    return {"name": name, "description": description, "input_schema": parameters}


def _codes(what: str) -> Schema:
    return {
        "type": ["string", "array"],
        "description": f"{what}: one, or a list.",
        "items": {"type": "string", "maxLength": 100},
        "maxLength": 1000,
        "maxItems": 100,
    }


_NODE_ID = _text("Id of a node of the policy, as pi_search and policy_xref give it.", 256)
_DAY = _text('A calendar day such as "2024-07-01".', 40)
_PAGE: Schema = {"type": "integer", "minimum": 0}

_EVIDENCE = _object(
    {
        "node_id": _NODE_ID,
        "snippet": _text("The words that say it.", 4000),
        "stance": _choice("How it stands to the criterion.", STANCES),
    },
    ("stance",),
)

TOOL_DEFINITIONS: tuple[dict[str, Any], ...] = (
    _tool(
        "pi_search",
        "Search the policy's sections by words (titles, summaries and text). Gives the best "
        "sections with their pages and the beginning of the passage that fits.",
        _object(
            {
                "query": _text('Words to look for; "quoted words" must stand together.'),
                "top_k": _count("How many sections to give", 3, 20),
            },
            ("query",),
        ),
    ),
    _tool(
        "facts_get",
        "Look up one fact of the case, such as a date of birth or a diagnosis, with its confidence "
        "and where in the case's documents it stands.",
        _object({"field_name": _text("Name of the fact.", 200)}, ("field_name",)),
    ),
    _tool(
        "spans_tighten",
        "Find the sentences of one section that fit a question best, with their offsets and pages.",
        _object(
            {
                "node_id": _NODE_ID,
                "query": _text("What the sentences should say."),
                "top_k": _count("How many spans to give", 3, 20),
            },
            ("node_id", "query"),
        ),
    ),
    _tool(
        "policy_xref",
        "Find the sections that belong together with one section (the criterion's): by cross "
        "reference, by words, as siblings, by see-also notes and by context.",
        _object(
            {
                "criterion_id": _text("Node id of the section that states the criterion.", 256),
                "limit": _count("How many sections to give", 5, 50),
            },
            ("criterion_id",),
        ),
    ),
    _tool(
        "temporal_lookup",
        "Find which version of a policy was in effect on a day, and which sections changed since "
        "the version before it.",
        _object(
            {
                "policy_id": _text("The policy; the case's own where it is not given.", 200),
                "as_of_date": _DAY,
                "compare_with": {
                    **_choice(
                        "Which version to compare it with: the one before it, or today's.",
                        ("previous", "today"),
                    ),
                    "default": "previous",
                },
            },
            ("as_of_date",),
        ),
    ),
    _tool(
        "confidence_score",
        "Put the outcomes of several criteria together into one score from 0 to 1.",
        _object(
            {
                "criteria_results": _list(
                    "The criteria's outcomes.",
                    _object(
                        {
                            "id": _text("The criterion.", 256),
                            "status": _choice("Its outcome.", STATUSES),
                            "confidence": _share("How sure that is, 0 to 1."),
                        },
                        ("id", "status"),
                    ),
                    200,
                    1,
                )
            },
            ("criteria_results",),
        ),
    ),
    _tool(
        "contradiction_detector",
        "Look through findings for criteria whose evidence points both ways; each contradiction is "
        "kept with the case.",
        _object(
            {
                "findings": _list(
                    "What was found, criterion by criterion.",
                    _object(
                        {
                            "criterion_id": _text("The criterion.", 200),
                            "status": _choice("Its outcome, where there is one.", STATUSES),
                            "evidence": _list("What it rests on.", _EVIDENCE, 100),
                        },
                        ("criterion_id", "evidence"),
                    ),
                    200,
                    1,
                )
            },
            ("findings",),
        ),
    ),
    _tool(
        "pubmed_search",
        "Search the medical literature for studies of a treatment of a condition.",
        _object(
            {
                "condition": _text("The disease or finding.", 500),
                "treatment": _text("The drug, device or procedure.", 500),
                "limit": _count("How many studies to give", 5, 50),
            },
            ("condition", "treatment"),
        ),
    ),
    _tool(
        "code_validator",
        "Check the format of medical codes and bring them into their usual writing. It does not "
        "say whether a code is in this year's list.",
        _object(
            {
                "icd10": _codes("ICD-10-CM diagnosis codes"),
                "cpt": _codes("CPT procedure codes, modifiers after a dash"),
                "hcpcs": _codes("HCPCS Level II codes, modifiers after a dash"),
                "modifiers": _codes("Modifiers on their own"),
            }
        ),
    ),
    _tool(
        "finish",
        "End the work on the case with a decision. Nothing can be called after it.",
        _object(
            {
                "status": _choice("The decision.", STATUSES),
                "rationale": _text("Why, in a few sentences.", 20_000),
                "confidence": _share("How sure the decision is, 0 to 1."),
                "policy_section": _text("The section that decides.", 1000),
                "policy_pages": _list("Its pages.", _PAGE, 100),
                "evidence_doc_id": _text("The case's document that decides.", 500),
                "evidence_page": _PAGE,
            },
            ("status", "rationale", "confidence"),
        ),
    ),
)
"""Every tool: ``name``, ``description`` and ``input_schema`` (JSON Schema of its arguments)."""

SCHEMAS: dict[str, Schema] = {tool["name"]: tool["input_schema"] for tool in TOOL_DEFINITIONS}


def tool_definitions(style: Style = "anthropic") -> list[dict[str, Any]]:
    """The definitions as a model's interface wants them, the caller's to change.

    Args:
        style: ``anthropic``: ``{"name", "description", "input_schema"}``; ``openai``:
            ``{"type": "function", "function": {"name", "description", "parameters"}}``.
    """
    tools = copy.deepcopy(list(TOOL_DEFINITIONS))
    if style == "anthropic":
        return tools
    if style != "openai":
        raise ValueError(f"style is 'anthropic' or 'openai', not {style!r}")
    return [
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool["description"],
                "parameters": tool["input_schema"],
            },
        }
        for tool in tools
    ]
