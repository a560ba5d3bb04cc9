"""The ``queries`` service."""

from __future__ import annotations

from treestore.stores.operation import A, Awaited, M, Query, Service
from treestore.stores.queries import batch, enriched, finding


class Queries(Service[M, A]):
    """Reads across the stores: each is one call, answered from one state."""

    service_name = "queries"

    get_enriched = Query(enriched.get_enriched)
    get_many = Query(batch.get_many)
    find_related = Awaited(finding.find_related)
