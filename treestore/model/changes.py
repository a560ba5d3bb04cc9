"""Changes, as a feed gives them."""

from __future__ import annotations

from datetime import datetime

import attrs

from treestore.model.attrs_struct import sparse_attrs_struct


@sparse_attrs_struct
@attrs.frozen(kw_only=True)
class Change:
    """One thing that a transaction changed. ``docs/watch.md`` says what each service gives.

    Attributes:
        lsn: the transaction's place in the log; all of its changes share it.
        commit: the transaction's commit number, as ``snapshot.number`` counts.
        time: when the transaction was written to the log (UTC); never falls.
        position: where a feed goes on behind this change: ``watch(from_lsn=change.position)``.
        last: whether it is the transaction's last change that the feed asked for.
        service: whose data changed: ``kv``, ``documents``, …
        entity: what changed: ``key``, ``document``, ``node``, ``version``, ``prompt``, …
        kind: ``put``, ``delete``; of documents ``stored``, ``edited``, ``deleted``; ``clear``
            where a whole range went at once.
        key: the key of ``kv``; of a ``clear`` the first one.
        end_key: of a ``clear``: the key that it ended before; None: it went to the end.
        value: the new value of a key of ``kv``, where the feed was asked for values.
        policy_id: of a document, a node or a version.
        version_id: likewise.
        node_id: of a node.
        collection: the collection or namespace, where it is of one.
        entity_id: the id of what has no field of its own here. Where that has several parts, they
            are a JSON array.
    """

    lsn: int
    commit: int
    time: datetime
    position: str
    last: bool = True
    service: str
    entity: str
    kind: str
    key: bytes | None = None
    end_key: bytes | None = None
    value: bytes | None = None
    policy_id: str | None = None
    version_id: str | None = None
    node_id: str | None = None
    collection: str | None = None
    entity_id: str | None = None
