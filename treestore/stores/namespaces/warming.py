"""``namespaces.warm``: a hint that a namespace is about to be asked for."""

from __future__ import annotations

from typing import Protocol

from treestore.stores.namespaces.layout import check_name


class NamespaceWarmer(Protocol):
    """What an ``Awaited`` of this service reads with."""

    async def warm_namespace(self, name: str) -> bool:
        """Load a namespace's view; whether it was not there."""
        ...


async def warm(reader: NamespaceWarmer, name: str) -> bool:
    """Load what searching a namespace needs: the first query then finds it there.

    Its segments are read and verified, and its tail is put into memory. Without this, the first
    query does that. What stays loaded is limited (``serve --namespace-cache-mb``): namespaces that
    were asked for longest ago go first.

    Returns:
        Whether there was anything to load.

    Raises:
        NotFound: there is no such namespace.
    """
    check_name(name)
    return await reader.warm_namespace(name)
