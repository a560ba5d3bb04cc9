"""Questions about a namespace beside ``query``: how one is answered, how well, how many there are.

Who answers is the host's, as for `treestore.stores.namespaces.search`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Protocol

import attrs

from treestore.errors import InvalidArgument
from treestore.model.namespaces import NamespaceExplanation, Recall
from treestore.model.plans import Group
from treestore.stores.namespaces import vectors
from treestore.stores.namespaces.search import (
    FusionParameter,
    OrderBy,
    Request,
    Text,
    VectorParameter,
    make_request,
    query_float32,
)
from treestore.stores.operation import Wire
from treestore.stores.records.fields import to_count

SAMPLE_MAX: Final = 1000
"""Searches that measure recall."""


def _vectors_to_wire(given: Any) -> Any:
    return list(map(vectors.to_wire, given)) if isinstance(given, list | tuple) else given


VectorsParameter = Annotated[
    list[vectors.Vector], Wire(type=list[bytes | list[float]], encode=_vectors_to_wire)
]
"""Vectors, each given in one of these ways."""


class NamespaceAsker(Protocol):
    """What an ``Awaited`` of these reads with."""

    async def explain_namespace(self, request: Request) -> NamespaceExplanation:
        """How the best hits are found."""
        ...

    async def count_namespace(self, name: str, filter: dict[str, Any] | None) -> int:
        """How many documents satisfy a filter."""
        ...

    async def aggregate_namespace(
        self,
        name: str,
        aggregates: dict[str, Any],
        *,
        by: str | list[str] | None,
        filter: dict[str, Any] | None,
    ) -> list[Group]:
        """What is calculated of documents, in groups."""
        ...

    async def measure_namespace(self, request: RecallRequest) -> Recall:
        """How well approximate searches find what exact ones do."""
        ...


async def explain(
    reader: NamespaceAsker,
    name: str,
    *,
    vector: VectorParameter | None = None,
    text: Text | None = None,
    filter: dict[str, Any] | None = None,
    top_k: int = 10,
    fusion: FusionParameter | None = None,
    exact: bool = False,
    order_by: OrderBy | None = None,
    offset: int = 0,
    cursor: str | None = None,
) -> NamespaceExplanation:
    """Run a query, and say how it was answered instead of with what. The parameters are those of
    `query`.

    Raises:
        NotFound, InvalidArgument, Unavailable: as `query`.
    """
    request = make_request(
        name,
        vector=vector,
        text=text,
        filter=filter,
        top_k=top_k,
        fusion=fusion,
        exact=exact,
        order_by=order_by,
        offset=offset,
        cursor=cursor,
    )
    return await reader.explain_namespace(request)


async def count(reader: NamespaceAsker, name: str, filter: dict[str, Any] | None = None) -> int:
    """How many documents there are, or satisfy a filter.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: the filter does not fit the schema.
    """
    return await reader.count_namespace(name, filter)


async def aggregate(
    reader: NamespaceAsker,
    name: str,
    aggregates: dict[str, Any],
    *,
    by: str | list[str] | None = None,
    filter: dict[str, Any] | None = None,
) -> list[Group]:
    """What is calculated of all documents, or of those that satisfy a filter, in groups.

    Args:
        aggregates: names, and what to calculate: ``{"$count": {}}``, ``{"$sum": "price"}``,
            ``$avg``, ``$min``, ``$max``; ``{"$count": "price"}`` counts documents that have it.
        by: a filterable attribute, or a list of them; documents with equal values are a group.
            None: all are one group.
        filter: docs/filters.md.

    Returns:
        The groups in the order of their values; null is the value of those that have none.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: an attribute is unknown or not filterable, or the filter is wrong.
        ResourceExhausted: there are more than 100,000 groups.
    """
    return await reader.aggregate_namespace(name, aggregates, by=by, filter=filter)


async def recall(
    reader: NamespaceAsker,
    name: str,
    *,
    top_k: int = 10,
    sample: int = 100,
    queries: VectorsParameter | None = None,
    filter: dict[str, Any] | None = None,
) -> Recall:
    """Measure how well approximate searches find what exact ones do.

    Args:
        top_k: hits that are wanted, 1 to 10,000.
        sample: so many of the namespace's own vectors are searched for, 1 to 1,000; each without
            counting itself.
        queries: vectors to search for instead, at most 1,000.
        filter: docs/filters.md; only documents that satisfy it are found.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: it has no vectors, or the parameters make no sense.
    """
    if queries is not None and (
        not isinstance(queries, list | tuple) or not 0 < len(queries) <= SAMPLE_MAX
    ):
        raise InvalidArgument(f"queries is a list of 1 to {SAMPLE_MAX} vectors.")
    request = make_request(name, filter=filter, top_k=top_k, include_attributes=False)
    return await reader.measure_namespace(
        RecallRequest(
            request=request,
            sample=to_count(sample, "sample", 1, SAMPLE_MAX),
            queries=None if queries is None else tuple(map(query_float32, queries)),
        )
    )


@attrs.frozen(kw_only=True, eq=False)
class RecallRequest:
    """What to measure. Made by `recall`.

    Attributes:
        request: what is common to all searches.
        sample: how many of the namespace's own vectors to search for, where
        queries: is None: float32, as vectors are stored.
    """

    request: Request
    sample: int
    queries: tuple[bytes, ...] | None
