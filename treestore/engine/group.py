"""A group: the transactions that become durable together, with one write and one sync."""

from __future__ import annotations

import attrs

from treestore.engine.log import Transaction
from treestore.engine.node import Large, Ref

Superseded = tuple[Ref | Large, int]
"""A reference that a transaction no longer needs, and its commit number of birth."""


@attrs.define(eq=False)
class Group:
    """What was committed since the last group was sealed; owned by whoever sealed it."""

    transactions: list[Transaction]
    superseded: list[Superseded]
    root: Ref
    number: int
    count: int
    size_bytes: int
    """Payload bytes for the log."""
