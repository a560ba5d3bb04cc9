"""Which nodes and policies the log says have changed.

Names only, never content: what is indexed or searched is read from a tree. So a set of changes may
say too much (a node more is looked at than need be), but never too little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
import msgspec

from treestore.stores.access import Read
from treestore.stores.documents.layout import (
    HEAD,
    TEXT,
    bare,
    is_well_formed,
    packed_node_id,
)
from treestore.stores.keys import Keyspace, unpack_one

NODES_MAX: Final = 20_000
"""Changed nodes of one document that are named; with more, the whole document counts as changed."""

_NODES: Final = Keyspace.NODES[0]
_NODE_IDS: Final = Keyspace.NODE_IDS[0]
_DOCUMENTS: Final = Keyspace.DOCUMENTS[0]
_FIRST_OF_VERSIONS: Final = Keyspace.POLICIES[0]
_LAST_OF_VERSIONS: Final = Keyspace.VERSION_HISTORY[0]
"""All of these say which version of a policy is in effect; their keys begin with the policy."""


class _Id(msgspec.Struct):
    """The one field of a record that matters here."""

    node_id: str


_decode_id = msgspec.msgpack.Decoder(_Id).decode


@attrs.define
class PlaceChanges:
    """What changed in one document.

    Attributes:
        whole: everything may have.
        ids: packed node ids.
        paths: paths of nodes of which only a long text was written.
    """

    whole: bool = False
    ids: set[bytes] = attrs.field(factory=set)
    paths: set[bytes] = attrs.field(factory=set)

    def all(self) -> None:
        """Everything may have changed."""
        self.whole = True
        self.ids, self.paths = set(), set()

    def add(self, other: PlaceChanges) -> None:
        """Put in what another one holds."""
        if other.whole or self.whole:
            self.all()
            return
        self.ids |= other.ids
        self.paths |= other.paths
        self.limit()

    def limit(self) -> None:
        """Name no more than so many nodes."""
        if len(self.ids) + len(self.paths) > NODES_MAX:
            self.all()

    def copy(self) -> PlaceChanges:
        """One of its own."""
        return PlaceChanges(self.whole, set(self.ids), set(self.paths))

    def ids_in(self, txn: Read, place: bytes) -> set[bytes]:
        """The packed ids of all the nodes meant, where not the whole document is."""
        found = set(self.ids)
        for path in self.paths:
            record = txn.get(Keyspace.NODES + place + path + HEAD)
            # A node that is there no more is among the ids.
            if record is not None:
                found.add(packed_node_id(_decode_id(bare(record)).node_id))
        return found


@attrs.define
class Changes:
    """What changed between two states: documents by their packed place, and policies."""

    places: dict[bytes, PlaceChanges] = attrs.field(factory=dict)
    policies: set[bytes] = attrs.field(factory=set)
    everything: bool = False
    """More than documents can be named for: a range over several of them was removed."""

    def __bool__(self) -> bool:
        return bool(self.places or self.policies or self.everything)

    @property
    def of_policies(self) -> frozenset[bytes]:
        """The policies of which anything changed."""
        return frozenset((*self.policies, *map(policy_of, self.places)))

    def place(self, place: bytes) -> PlaceChanges:
        """Those of one document; made where there are none."""
        found = self.places.get(place)
        if found is None:
            found = self.places[place] = PlaceChanges()
        return found

    def note(self, key: bytes, value: bytes | None) -> None:
        """A key was written, or removed where ``value`` is None."""
        space = key[0]
        if not _NODES <= space <= _LAST_OF_VERSIONS:
            return
        if space == _NODE_IDS:
            end = _place_end(key)
            its = self.place(key[1:end])
            if not its.whole:
                its.ids.add(key[end:])
                its.limit()
        elif space == _NODES:
            self._note_node(key, value)
        elif space == _DOCUMENTS:
            self.place(key[1:])
            self.policies.add(_policy_in(key))
        elif space >= _FIRST_OF_VERSIONS:
            self.policies.add(_policy_in(key))

    def _note_node(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            return  # Its id went, or moved, too.
        end = _place_end(key)
        its = self.place(key[1:end])
        if its.whole:
            return
        if key[-1:] == TEXT:
            its.paths.add(key[end:-1])
        elif is_well_formed(value):
            its.ids.add(packed_node_id(_decode_id(bare(value)).node_id))
        its.limit()

    def note_range(self, start: bytes, end: bytes | None) -> None:
        """All keys with ``start <= key < end`` were removed."""
        if end is None or end[:1] != start[:1]:
            last = b"\xff" if end is None else end[:1]
            self.everything |= start[0] <= _LAST_OF_VERSIONS and last[0] >= _NODES
            return
        space = start[0]
        if _FIRST_OF_VERSIONS <= space <= _LAST_OF_VERSIONS:
            try:
                policy = _policy_in(start)
            except ValueError:
                policy = b""
            if policy and end.startswith(start[:1] + policy):
                self.policies.add(policy)
            else:
                self.everything = True
            return
        if space != _NODE_IDS:
            # Of nodes that are removed, the ids are removed too.
            self.everything |= space == _DOCUMENTS
            return
        try:
            place_end = _place_end(start)
        except ValueError:
            self.everything = True
            return
        if end.startswith(start[:place_end]):
            self.place(start[1:place_end]).all()
        else:
            self.everything = True

    def note_all(self, notes: Iterable[tuple[Any, bytes | None]]) -> None:
        """What a transaction noted for the log: keys with their values, and removed ranges."""
        for what, value in notes:
            if what.__class__ is bytes:
                self.note(what, value)
            else:
                self.note_range(*what)

    def add(self, other: Changes) -> None:
        """Put in what another one holds."""
        for place, its in other.places.items():
            mine = self.places.get(place)
            if mine is None:
                self.places[place] = its.copy()
            else:
                mine.add(its)
        self.policies |= other.policies
        self.everything = self.everything or other.everything

    def count(self) -> int:
        """How many nodes and policies are named; a whole document counts as `NODES_MAX`."""
        nodes = sum(
            NODES_MAX if its.whole else len(its.ids) + len(its.paths)
            for its in self.places.values()
        )
        return nodes + len(self.policies)


def _policy_in(key: bytes) -> bytes:
    """The packed policy_id at the beginning of a key."""
    return key[1 : key.index(b"\0", 1) + 1]


def _place_end(key: bytes) -> int:
    """Where the packed policy_id and version_id of a key end."""
    return key.index(b"\0", key.index(b"\0", 1) + 1) + 1


def names_of(place: bytes) -> tuple[str, str]:
    """policy_id and version_id of a packed place."""
    policy_id, at = unpack_one(place, 0)
    version_id, _ = unpack_one(place, at)
    assert isinstance(policy_id, str)
    assert isinstance(version_id, str)
    return policy_id, version_id


def policy_of(place: bytes) -> bytes:
    """The packed policy_id of a packed place."""
    return place[: place.index(b"\0") + 1]


def all_places(txn: Read) -> Iterator[bytes]:
    """The packed places of all stored documents."""
    first = Keyspace.DOCUMENTS
    for keys, _ in txn.batches(first, bytes((first[0] + 1,))):
        yield from (key[1:] for key in keys)
