"""The ``collections`` service."""

from __future__ import annotations

from treestore.stores.collections import building, catalog, queries, reading, writing
from treestore.stores.operation import A, Action, Command, M, Query, Service, Stream


class Collections(Service[M, A]):
    """JSON documents in collections, with secondary indexes (docs/collections.md)."""

    service_name = "collections"

    create = Command(catalog.create)
    drop = Command(catalog.drop, long=True, audited=True)
    list = Query(catalog.list_collections)
    describe = Query(catalog.describe)
    insert = Command(writing.insert)
    insert_many = Command(writing.insert_many)
    get = Query(reading.get)
    find = Query(queries.find)
    scan = Stream(queries.scan)
    count = Query(queries.count)
    distinct = Query(queries.distinct)
    group = Query(queries.group)
    explain = Query(queries.explain)
    replace = Command(writing.replace)
    update = Command(writing.update)
    delete = Command(writing.delete)
    delete_many = Command(writing.delete_many, long=True)
    update_many = Command(writing.update_many, long=True)
    create_index = Action(building.create_index, long=True, right="write", audited=True)
    drop_index = Command(catalog.drop_index, long=True, audited=True)
    rebuild_index = Action(building.rebuild_index, long=True, right="write", audited=True)
