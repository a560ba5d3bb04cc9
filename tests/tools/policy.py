"""A policy of two versions, for tests of the tools."""

from __future__ import annotations

from typing import Any

POLICY = "travel"
OLD, NEW = "2020", "2024"


def _flights(text: str) -> dict[str, Any]:
    return {
        "title": "Class of travel by air",
        "node_id": "0003",
        "start_index": 2,
        "end_index": 2,
        "summary": "Which class is booked.",
        "text": text,
        "see_also": ["0005"],
    }


def tree(flights: str, *, with_trains: bool) -> dict[str, Any]:
    """A document in PageIndex's shape."""
    return {
        "doc_name": "travel.pdf",
        "structure": [
            {
                "title": "Before the trip",
                "node_id": "0001",
                "start_index": 1,
                "end_index": 3,
                "summary": "Approval and booking.",
                "nodes": [
                    {
                        "title": "Approval",
                        "node_id": "0002",
                        "start_index": 1,
                        "end_index": 1,
                        "text": "The line manager approves trips. Trips abroad need a director.",
                    },
                    _flights(flights),
                    {
                        "title": "Hotels",
                        "node_id": "0004",
                        "start_index": 2,
                        "end_index": 3,
                        "text": "Hotels of up to 150 EUR a night are paid. Breakfast is paid. "
                        "Minibars are not paid. " + "A receipt is needed for each night. " * 5,
                    },
                ],
            },
            {
                "title": "After the trip",
                "node_id": "0005",
                "start_index": 4,
                "end_index": 4,
                "summary": "Claims.",
                "text": "Claims are made within 30 days.",
                "nodes": [{"title": "Trains", "node_id": "0006", "text": "First class."}]
                if with_trains
                else [],
            },
        ],
    }


async def store_policy(db: Any) -> None:
    """Store both versions: the new one since 2024."""
    await db.documents.store(
        POLICY,
        OLD,
        tree("Economy class is booked on all flights.", with_trains=False),
        effective_from="2020-01-01",
        effective_to="2023-12-31",
    )
    await db.documents.store(
        POLICY,
        NEW,
        tree(
            "Economy class is booked on flights. Premium economy class may be booked on flights "
            "above six hours. A director may allow business class.",
            with_trains=True,
        ),
        effective_from="2024-01-01",
    )
