"""Rows of the documents' full-text index: one for each node, made from what the tree holds.

::

    row        checksum of the node's record, its place, id and language: equal rows are the
               same node as it was written
    node       checksum of place and node id: deleting by it removes the node's row
    place      checksum of the place: likewise for a document, and the filter for one
    live       1 where the version was the one in effect (see ``text_index.py``)
    language   of the document
    key        place and node id, packed, and the node's path: where it is looked up
    title …    stems; ``content`` has those of all texts
    title_words …  words as written

A document whose version counts as the one in effect has one more row, with its place's checksum as
``mark`` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import attrs
import msgspec
import tantivy
from crc32c import crc32c
from tantivy import Schema, SchemaBuilder, TextAnalyzer

from treestore.search.compiling import CONTENT, Fields, surface_field
from treestore.search.folder import add_marker_fields
from treestore.search.languages import (
    SURFACE,
    Analyzer,
    analyzer,
    normalized,
    surface_analyzer,
)
from treestore.search.names import LANGUAGES, language_or_plain
from treestore.stores.access import Read
from treestore.stores.documents.layout import HEAD, TEXT, is_whole, packed_node_id
from treestore.stores.keys import Keyspace

TEXT_FIELDS: Final = ("title", "summary", "text")

DIRECT: Final = "english"
"""The language whose texts the index cuts into words itself, beside the thread that hands them
over; those of others are cut before. A field has one tokenizer, and most texts are English."""

BONUS: Final = {"title": 0.5, "summary": 0.25}
"""What a word in a title or summary counts beside what it counts as a word of the node."""

NODES_PER_STEP: Final = 64
"""Nodes that are read and added at a time, with the interpreter to themselves: a few ms."""


class _Texts(msgspec.Struct):
    """What is searched of a node's record."""

    node_id: str
    title: str = ""
    summary: str = ""
    text: str = ""


class _Facts(msgspec.Struct):
    """What search needs of a document's record."""

    language: str = DIRECT
    node_count: int = 0


_decode_texts = msgspec.msgpack.Decoder(_Texts).decode
_decode_facts = msgspec.msgpack.Decoder(_Facts).decode


def checksum(data: bytes) -> int:
    """A signed number of 64 bits for a name."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big", signed=True)


def row_of(key: bytes, language: str, record: bytes) -> int:
    """The checksum of a node as it is stored: whatever is written of it is noted as a change, so
    what does not differ was not written since."""
    return crc32c(record) << 31 | crc32c(key, crc32c(language.encode())) >> 1


def language_code(language: str) -> int:
    """The number of a language in a row; the same whatever languages are added."""
    return checksum(language.encode())


CODES: Final = {language_code(language): language for language in LANGUAGES}


@attrs.frozen(slots=True)
class NodeTexts:
    """What is searched of one node.

    Attributes:
        place: packed, of its document.
        packed_id: its id, packed.
        language: of its document, one of `LANGUAGES`.
        row: checksum of its record and all that.
        texts: title, summary and text.
    """

    place: bytes
    packed_id: bytes
    language: str
    row: int
    texts: tuple[str, str, str]
    path: bytes = b""
    """Where in the document it is."""

    @property
    def key(self) -> bytes:
        """Its name."""
        return self.place + self.packed_id


# --- reading ---------------------------------------------------------------------------------


def facts_of(txn: Read, place: bytes) -> tuple[str, int] | None:
    """Language and number of nodes of a document; None where none is stored."""
    record = txn.get(Keyspace.DOCUMENTS + place)
    if record is None:
        return None
    facts = _decode_facts(record)
    return language_or_plain(facts.language), facts.node_count


def path_of(txn: Read, place: bytes, packed_id: bytes) -> bytes | None:
    """The path of a node; None where there is none."""
    return txn.get(Keyspace.NODE_IDS + place + packed_id)


def record_at(txn: Read, place: bytes, path: bytes) -> bytes | None:
    """The whole record of the node at a path; None where there is none."""
    key = Keyspace.NODES + place + path
    record = txn.get(key + HEAD)
    if record is None or is_whole(record):
        return record
    return record + (txn.get(key + TEXT) or b"")


def texts_of(record: bytes) -> tuple[str, str, str]:
    """Title, summary and text of a node's whole record."""
    its = _decode_texts(record)
    return its.title, its.summary, its.text


def node_texts(txn: Read, place: bytes, packed_id: bytes, language: str) -> NodeTexts | None:
    """What is searched of a node; None where there is none."""
    path = path_of(txn, place, packed_id)
    record = None if path is None else record_at(txn, place, path)
    if path is None or record is None:
        return None
    return _texts(place, path, language, record)


def document_texts(txn: Read, place: bytes, language: str) -> Iterator[NodeTexts]:
    """What is searched of all nodes of a document, in document order."""
    head: bytes | None = None
    first = Keyspace.NODES + place
    for keys, values in txn.batches(first, first + b"\xff"):
        for key, value in zip(keys, values, strict=True):
            if key[-1:] == TEXT:
                assert head is not None
                yield _texts(place, key[len(first) : -1], language, head + value)
                head = None
            elif is_whole(value):
                yield _texts(place, key[len(first) : -1], language, value)
            else:
                head = value


def _texts(place: bytes, path: bytes, language: str, record: bytes) -> NodeTexts:
    its = _decode_texts(record)
    packed = packed_node_id(its.node_id)
    row = row_of(place + packed, language, record)
    return NodeTexts(place, packed, language, row, (its.title, its.summary, its.text), path)


# --- the index's side ------------------------------------------------------------------------


def make_schema() -> Schema:
    """The fields of a row."""
    builder = SchemaBuilder()
    add_marker_fields(builder)
    # Signed: deleting by an unsigned number deletes nothing.
    builder.add_integer_field("row", fast=True)
    for name in ("node", "place", "live", "language"):
        builder.add_integer_field(name, indexed=True)
    builder.add_integer_field("mark", indexed=True, fast=True)
    builder.add_bytes_field("key", stored=True)
    for name in (CONTENT, *TEXT_FIELDS):
        builder.add_text_field(name, tokenizer_name=DIRECT)
    for name in TEXT_FIELDS:
        builder.add_text_field(surface_field(name), tokenizer_name=SURFACE, index_option="freq")
    return builder.build()


def tokenizers() -> dict[str, TextAnalyzer]:
    """The tokenizers that the schema names."""
    return {DIRECT: analyzer(DIRECT).chain, SURFACE: surface_analyzer()}


def search_fields(only: tuple[str, ...] | None) -> Fields:
    """Where a search looks."""
    return Fields(TEXT_FIELDS, BONUS, only)


def make_row(node: NodeTexts, *, live: bool) -> tantivy.Document:
    """The row of a node."""
    row = tantivy.Document()
    row.add_integer("row", node.row)
    row.add_integer("node", checksum(node.key))
    row.add_integer("place", checksum(node.place))
    row.add_integer("live", int(live))
    row.add_integer("language", language_code(node.language))
    row.add_bytes("key", node.key + node.path)
    chain = None if node.language == DIRECT else analyzer(node.language)
    for name, text in zip(TEXT_FIELDS, node.texts, strict=True):
        if text:
            _add_text(row, name, normalized(text), chain)
    return row


def _add_text(row: tantivy.Document, name: str, text: str, chain: Analyzer | None) -> None:
    if chain is None:
        row.add_text(name, text)
        row.add_text(CONTENT, text)
        row.add_text(surface_field(name), text)
        return
    words = chain.pre_tokenized(text)
    row.add_pre_tokenized_text(name, words)
    row.add_pre_tokenized_text(CONTENT, words)
    row.add_text(surface_field(name), chain.surface_text(text))


def make_mark(place: bytes) -> tantivy.Document:
    """The row that says that a document's rows are live."""
    row = tantivy.Document()
    row.add_integer("mark", checksum(place))
    return row
