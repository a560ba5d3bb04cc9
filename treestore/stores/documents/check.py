"""Verifies that everything stored about documents agrees with itself.

Every fact that is stored twice is compared both ways: records with both indexes, children with
parents, depths and section paths with positions, documents with their nodes and their versions.
Memory is proportional to the largest document's number of nodes.
"""

from __future__ import annotations

from typing import Final

import msgspec

from treestore.model.documents import Document, Node
from treestore.stores.access import Read
from treestore.stores.documents.layout import (
    AFTER,
    HEAD,
    TEXT,
    TEXT_INLINE_BYTES_MAX,
    Place,
    bare,
    decode_any,
    decode_node,
    is_well_formed,
    is_whole,
    level_ends,
    packed_node_id,
    source_of,
)
from treestore.stores.documents.pages import page_item
from treestore.stores.documents.policies import decode_document
from treestore.stores.documents.shapes import Shapes, section_given
from treestore.stores.documents.structure import decode_source
from treestore.stores.keys import Keyspace, successor, unpack, unpack_one
from treestore.stores.versions.book import read_record
from treestore.stores.versions.check import check_versions
from treestore.stores.versions.layout import Shelf

PROBLEMS_MAX: Final = 100
"""Problems told of one check; one cause often shows in many places."""


def check_documents(txn: Read) -> list[str]:
    """What is wrong with the stored documents, a sentence each; empty when all is well."""
    problems: list[str] = []
    places: dict[bytes, Place] = {}
    for key, record in txn.scan(Keyspace.DOCUMENTS, successor(Keyspace.DOCUMENTS)):
        policy_id, version_id = unpack(key[1:])
        assert isinstance(policy_id, str)
        assert isinstance(version_id, str)
        place = Place(policy_id, version_id)
        places[place.packed] = place
        try:
            problems += _Check(txn, place, decode_document(record)).run()
        except (msgspec.DecodeError, ValueError, IndexError, AssertionError) as error:
            problems.append(f"{place}: a record cannot be read: {error}.")
        if len(problems) >= PROBLEMS_MAX:
            return problems[:PROBLEMS_MAX]
    problems += _strays(txn, places)
    problems += check_versions(txn, {(p.policy_id, p.version_id) for p in places.values()})
    return problems[:PROBLEMS_MAX]


def _strays(txn: Read, places: dict[bytes, Place]) -> list[str]:
    """Entries of documents that do not exist."""
    problems = []
    for keyspace in (Keyspace.NODES, Keyspace.NODE_IDS, Keyspace.PAGES, Keyspace.SOURCES):
        cursor = txn.cursor(keyspace, successor(keyspace))
        for key, _ in cursor:
            _, at = unpack_one(key, 1)
            _, at = unpack_one(key, at)
            if key[1:at] not in places:
                problems.append(f"Key {key.hex()} belongs to no stored document.")
            cursor.seek(key[:at] + AFTER)
    return problems


class _Check:
    """The check of one document."""

    def __init__(self, txn: Read, place: Place, document: Document) -> None:
        self.txn = txn
        self.place = place
        self.document = document
        self.problems: list[str] = []
        self.ids: dict[bytes, bytes] = {}
        self.pages: dict[bytes, bytes] = {}
        self.families: list[list[str]] = [[]]
        """Children seen so far of each ancestor of the node at hand; the roots first."""
        self.nodes: list[Node] = []
        """The ancestors of the node at hand."""

    def run(self) -> list[str]:
        txn, place = self.txn, self.place
        record = txn.get(place.source)
        if record is None:
            return [f"{place}: its source record is missing."]
        source = decode_source(record)
        self.shapes = Shapes(source.flat, source.shapes)
        self._scan_nodes(positions=source.flat and not source.ordered)
        self._close(0)
        if list(self.document.root_ids) != self.families[0]:
            self._say("root_ids are not the roots")
        if self.document.node_count != len(self.ids):
            self._say(f"node_count is {self.document.node_count}, nodes are {len(self.ids)}")
        self._compare("NODE_IDS", place.ids, self.ids)
        self._compare("PAGES", place.pages, self.pages)
        version = read_record(txn, Shelf(place.policy_id), place.version_id)
        if version is not None and (version.state.effective_from, version.state.effective_to) != (
            self.document.effective_from,
            self.document.effective_to,
        ):
            self._say("its effective days differ from its version's")
        return self.problems

    def _say(self, what: str) -> None:
        self.problems.append(f"{self.place}: {what}.")

    def _compare(self, name: str, prefix: bytes, expected: dict[bytes, bytes]) -> None:
        found = dict(self.txn.scan(prefix, prefix + AFTER))
        for key in found.keys() | expected.keys():
            if found.get(key) != expected.get(key):
                self._say(f"{name} entry {key.hex()} disagrees with the nodes")

    def _close(self, level: int) -> None:
        """Compare the families below ``level``, which are complete now."""
        while len(self.nodes) > level:
            node = self.nodes.pop()
            if list(node.child_ids) != self.families.pop():
                self._say(f"child_ids of node {node.node_id!r} are not its children")

    def _scan_nodes(self, *, positions: bool) -> None:
        place = self.place
        at = len(place.nodes)
        awaited: bytes | None = None
        for key, record in self.txn.scan(place.nodes, place.nodes + AFTER):
            path, kind = key[at:-1], key[-1:]
            if kind == TEXT:
                if awaited != path or not isinstance(decode_any(record), str):
                    self._say(f"the text at path {path.hex()} belongs to no node")
                if len(record) <= TEXT_INLINE_BYTES_MAX:
                    self._say(f"the short text at path {path.hex()} has its own key")
                awaited = None
                continue
            if awaited is not None:
                self._say(f"the text at path {awaited.hex()} is missing")
            awaited = None
            if kind != HEAD or not is_well_formed(record):
                self._say(f"the record at path {path.hex()} is malformed")
                continue
            if is_whole(record):
                decode_node(record)
            else:
                awaited = path
            self._check_node(path, record, positions)
        if awaited is not None:
            self._say(f"the text at path {awaited.hex()} is missing")

    def _check_node(self, path: bytes, record: bytes, positions: bool) -> None:
        node = decode_node(bare(record))
        name = f"node {node.node_id!r}"
        level = len(level_ends(path)) - 1
        if level > len(self.nodes):
            self._say(f"{name} has no parent at path {path.hex()}")
            return
        self._close(level)
        family = self.families[level]
        family.append(node.node_id)
        parent = self.nodes[-1].node_id if self.nodes else None
        if node.parent_id != parent or node.depth != level:
            self._say(
                f"{name} has parent {node.parent_id!r}, depth {node.depth}; its path says "
                f"{parent!r}, {level}"
            )
        if (node.policy_id, node.version_id) != (self.place.policy_id, self.place.version_id):
            self._say(f"{name} names another document")
        source = source_of(record)
        if not 0 <= source[0] < len(self.shapes.plans) or (positions and len(source) != 3):
            self._say(f"{name} has no source")
        elif not section_given(self.shapes.plans[source[0]], source):
            section = ".".join(str(len(f)) for f in self.families[: level + 1])
            if node.section_path != section:
                self._say(f"{name} has section_path {node.section_path!r}, not {section!r}")
        self.nodes.append(node)
        self.families.append([])
        key = self.place.ids + packed_node_id(node.node_id)
        if key in self.ids:
            self._say(f"{name} occurs twice")
        self.ids[key] = path
        entry = page_item(self.place, path, node.page_start, node.page_end)
        if entry is not None:
            self.pages[entry[0]] = entry[1]
