"""What the log's records about documents say, as changes.

A store writes thousands of keys, and deletes ranges of them, for what is one change to the world:
the document is another one now. What tells it from an edit is in the order of the notes of a
transaction::

    store                                    edit
      [NODES, NODE_IDS, PAGES: whole ranges]   NODES, NODE_IDS, PAGES: keys and parts of ranges
      SOURCES put                              DOCUMENTS put
      NODES, NODE_IDS, PAGES: keys             SOURCES put
      DOCUMENTS put

    delete
      DOCUMENTS delete
      [NODES, NODE_IDS, PAGES: whole ranges]
      SOURCES delete

So a whole range, or a SOURCES put that follows no DOCUMENTS put, says that nodes are not to be told
one by one. Where a transaction both edits and stores, some may have been told before that is known:
that is more than need be said, and still true.

Nothing is kept of the notes but which documents a transaction touched and, of edits, the ids of
nodes that were deleted and did not come back.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from treestore.stores.changes.decoding import Fields
from treestore.stores.documents.layout import AFTER, HEAD, bare
from treestore.stores.keys import Keyspace, unpack_one

_NODES, _NODE_IDS = Keyspace.NODES[0], Keyspace.NODE_IDS[0]
_DOCUMENTS, _SOURCES = Keyspace.DOCUMENTS[0], Keyspace.SOURCES[0]


class _NodeId(msgspec.Struct):
    """The one field of a record that is looked at."""

    node_id: str


_decode_node_id = msgspec.msgpack.Decoder(_NodeId).decode


class _Touched:
    """A document that the transaction at hand touched."""

    __slots__ = ("gone", "kind", "packed", "policy_id", "version_id", "whole")

    def __init__(self, packed: bytes, policy_id: str, version_id: str) -> None:
        self.packed = packed
        self.policy_id = policy_id
        self.version_id = version_id
        self.kind = ""
        """The last thing that was done to its own record: ``put``, ``delete``, or nothing yet."""
        self.whole = False
        """It is told of as a whole, no longer node by node."""
        self.gone: dict[str, None] = {}
        """Nodes that were deleted and did not come back."""


class DocumentChanges:
    """Implements `treestore.stores.changes.decoding.Decoder`."""

    remembers = True
    keyspaces = Keyspace.NODES + Keyspace.NODE_IDS + Keyspace.DOCUMENTS + Keyspace.SOURCES

    def __init__(self, *, policy_id: str | None = None) -> None:
        """Made for one feed.

        Args:
            policy_id: only changes of that policy.
        """
        self._policy_id = policy_id
        self._touched: dict[bytes, _Touched] = {}
        self._last: _Touched | None = None

    def _at(self, key: bytes) -> _Touched:
        """The document that a key belongs to."""
        last = self._last
        if last is not None and key.startswith(last.packed, 1):
            return last
        policy_id, at = unpack_one(key, 1)
        version_id, at = unpack_one(key, at)
        packed = key[1:at]
        touched = self._touched.get(packed)
        if touched is None:
            touched = _Touched(packed, str(policy_id), str(version_id))
            self._touched[packed] = touched
        self._last = touched
        return touched

    def note(self, key: bytes, value: bytes | None) -> Fields | None:
        """See `Decoder.note`."""
        document = self._at(key)
        keyspace = key[0]
        if keyspace == _DOCUMENTS:
            document.kind = "delete" if value is None else "put"
            document.whole = document.whole or value is None
        elif keyspace == _SOURCES:
            if value is not None and document.kind != "put":
                document.whole = True
        elif document.whole:
            pass
        elif keyspace == _NODE_IDS:
            self._note_id(document, key, value)
        elif value is not None and key[-1:] == HEAD:
            return self._node(document, "put", _decode_node_id(bare(value)).node_id)
        return None

    def _note_id(self, document: _Touched, key: bytes, value: bytes | None) -> None:
        node_id, _ = unpack_one(key, 1 + len(document.packed))
        if value is None:
            document.gone[str(node_id)] = None
        else:
            document.gone.pop(str(node_id), None)

    def cleared(self, start: bytes, end: bytes | None) -> Fields | None:
        """See `Decoder.cleared`."""
        if start[0] not in self.keyspaces:
            return None
        document = self._at(start)
        prefix = start[:1] + document.packed
        if start == prefix and end == prefix + AFTER:
            document.whole = True
        return None

    def _node(self, document: _Touched, kind: str, node_id: str) -> Fields | None:
        if self._policy_id is not None and document.policy_id != self._policy_id:
            return None
        return {
            "entity": "node",
            "kind": kind,
            "policy_id": document.policy_id,
            "version_id": document.version_id,
            "node_id": node_id,
        }

    def finish(self) -> Iterator[Fields]:
        """See `Decoder.finish`."""
        touched, self._touched, self._last = self._touched, {}, None
        for document in touched.values():
            if self._policy_id is not None and document.policy_id != self._policy_id:
                continue
            if not document.whole:
                for node_id in document.gone:
                    change = self._node(document, "delete", node_id)
                    if change is not None:
                        yield change
            kind = "stored" if document.whole else "edited"
            if document.kind == "delete":
                kind = "deleted"
            yield {
                "entity": "document",
                "kind": kind,
                "policy_id": document.policy_id,
                "version_id": document.version_id,
            }
