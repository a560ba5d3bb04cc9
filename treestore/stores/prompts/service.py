"""The ``prompts`` service."""

from __future__ import annotations

from treestore.stores.operation import A, Command, M, Query, Service
from treestore.stores.prompts import usage, versions


class Prompts(Service[M, A]):
    """Prompts in their versions, and what comes of using them."""

    service_name = "prompts"

    store = Command(versions.store)
    get = Query(versions.get)
    list = Query(versions.list_prompts)
    list_versions = Query(versions.list_versions)
    record_usage = Command(usage.record_usage)
    get_usage = Query(usage.get_usage)
    effectiveness = Query(usage.effectiveness)
    delete_case = Command(usage.delete_case, long=True)
