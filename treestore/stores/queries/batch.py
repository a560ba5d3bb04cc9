"""Nodes of many documents at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treestore.errors import InvalidArgument, NotFound
from treestore.model.documents import Node
from treestore.stores.access import Read
from treestore.stores.documents.layout import Place, packed_node_id
from treestore.stores.documents.policies import place_to_read
from treestore.stores.documents.reading import loaded_nodes, stored_node
from treestore.stores.json_values import shown

NODES_MAX = 10_000
"""Nodes of one call at most."""


def get_many(
    txn: Read,
    nodes: Sequence[tuple[str, str | None, str]],
    *,
    include_text: bool = True,
) -> list[Node]:
    """Nodes of any documents, in the order asked; one asked twice is answered twice.

    Args:
        nodes: ``(policy_id, version_id, node_id)`` of each; a version_id of None means the
            policy's version in effect today. At most 10,000.
        include_text: False leaves every ``text`` empty.

    Raises:
        NotFound: some do not exist; ``details["nodes"]`` names them all.
    """
    wanted = _checked(nodes)
    places: dict[tuple[str, str | None], Place | None] = {}
    found: list[bytes] = []
    unknown: list[list[str | None]] = []
    for policy_id, version_id, node_id in wanted:
        document = (policy_id, version_id)
        if document not in places:
            places[document] = _place(txn, policy_id, version_id)
        place = places[document]
        path = None if place is None else txn.get(place.ids + packed_node_id(node_id))
        if place is None or path is None:
            unknown.append([policy_id, version_id, node_id])
        else:
            found.append(stored_node(txn, place, path, include_text))
    if unknown:
        raise _not_found(unknown)
    return loaded_nodes(txn, found, len(found))


def _checked(nodes: Any) -> list[tuple[str, str | None, str]]:
    if isinstance(nodes, str | bytes) or not isinstance(nodes, Iterable):
        raise InvalidArgument("nodes is a list of (policy_id, version_id, node_id).")
    wanted = []
    for item in nodes:
        if not isinstance(item, list | tuple) or len(item) != 3:
            raise InvalidArgument(
                f"Each of nodes is (policy_id, version_id or None, node_id), not {shown(item)}."
            )
        policy_id, version_id, node_id = item
        if not isinstance(policy_id, str) or not isinstance(version_id, str | None):
            raise InvalidArgument(
                f"A policy_id is a string, a version_id a string or None, not {shown(item)}."
            )
        wanted.append((policy_id, version_id, node_id))
        if len(wanted) > NODES_MAX:
            raise InvalidArgument(f"nodes has more than {NODES_MAX} items; ask in several calls.")
    return wanted


def _place(txn: Read, policy_id: str, version_id: str | None) -> Place | None:
    """The document that is meant; None where no version is in effect."""
    try:
        return place_to_read(txn, policy_id, version_id)
    except NotFound:
        return None


def _not_found(unknown: list[list[str | None]]) -> NotFound:
    names = ", ".join(
        f"{shown(node_id)} in {_version(version_id)} of policy {shown(policy_id)}"
        for policy_id, version_id, node_id in unknown[:3]
    )
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    what = "There is no node" if len(unknown) == 1 else "There are no nodes"
    return NotFound(f"{what} {names}{more}.", nodes=unknown)


def _version(version_id: str | None) -> str:
    return "today's version" if version_id is None else f"version {shown(version_id)}"
