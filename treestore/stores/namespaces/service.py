"""The ``namespaces`` service."""

from __future__ import annotations

from treestore.bulk.importing import bulk
from treestore.stores.composite import Composite
from treestore.stores.namespaces import (
    asking,
    catalog,
    copying,
    importing,
    reading,
    search,
    warming,
    writing,
)
from treestore.stores.operation import (
    A,
    Action,
    Awaited,
    Command,
    M,
    Prepared,
    Query,
    Service,
)


class Namespaces(Service[M, A]):
    """Documents found by vectors, words and filters (docs/namespaces.md)."""

    service_name = "namespaces"

    create = Command(catalog.create)
    drop = Command(catalog.drop, audited=True)
    list = Query(catalog.list_namespaces)
    describe = Query(catalog.describe)
    update_schema = Command(catalog.update_schema)
    copy = Action(copying.copy, long=True, right="write", audited=True)
    upsert = Command(writing.upsert)
    patch = Command(writing.patch)
    patch_by_filter = Command(writing.patch_by_filter, long=True)
    delete = Command(writing.delete, long=True)
    get = Query(reading.get)
    export = Query(reading.export)
    count = Awaited(asking.count)
    aggregate = Awaited(asking.aggregate)
    query = Awaited(search.query)
    explain = Awaited(asking.explain)
    recall = Awaited(asking.recall)
    warm = Awaited(warming.warm)
    bulk = Composite(bulk)
    bulk_begin = Command(importing.bulk_begin)
    bulk_write = Prepared(importing.bulk_write)
    bulk_end = Command(importing.bulk_end, long=True)
    bulk_abort = Command(importing.bulk_abort)
    bulk_imports = Query(importing.bulk_imports)
