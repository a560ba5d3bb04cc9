"""The ``documents`` service."""

from __future__ import annotations

from treestore.stores.documents import editing, reading, search, storing, structure
from treestore.stores.operation import A, Awaited, Command, M, Prepared, Query, Service


class Documents(Service[M, A]):
    """Documents: trees of nodes, each the text of one version of one policy."""

    service_name = "documents"

    store = Prepared(storing.store, idempotent=True)
    get = Query(reading.get)
    list = Query(reading.list_documents)
    delete = Command(storing.delete, long=True)
    delete_policy = Command(storing.delete_policy, long=True, audited=True)
    get_node = Query(reading.get_node)
    get_nodes = Query(reading.get_nodes)
    get_children = Query(reading.get_children)
    get_subtree = Query(reading.get_subtree)
    get_ancestor_path = Query(reading.get_ancestor_path)
    get_nodes_by_page = Query(reading.get_nodes_by_page)
    get_structure = Query(structure.get_structure)
    search = Awaited(search.search)
    insert_nodes = Command(editing.insert_nodes, long=True)
    update_node = Command(editing.update_node, idempotent=True)
    delete_node = Command(editing.delete_node, long=True)
    move_node = Command(editing.move_node, long=True)
