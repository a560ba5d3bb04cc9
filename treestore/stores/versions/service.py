"""The ``versions`` service."""

from __future__ import annotations

from treestore.stores.operation import A, Command, M, Query, Service
from treestore.stores.versions import changing, diff, reading


class Versions(Service[M, A]):
    """Versions of policies: when each is in effect, and what was believed about it when."""

    service_name = "versions"

    create = Command(changing.create, long=True)
    retire = Command(changing.retire, long=True)
    update = Command(changing.update, long=True)
    set_tags = Command(changing.set_tags)
    delete = Command(changing.delete, long=True)
    erase = Command(changing.erase, long=True, audited=True)
    get = Query(reading.get)
    as_of = Query(reading.as_of)
    latest = Query(reading.latest)
    list = Query(reading.list_versions)
    by_tag = Query(reading.by_tag)
    history = Query(reading.history)
    diff = Query(diff.diff, long=True)
