"""The fields of a namespace's index: which attribute is where, and how its texts get there.

Attributes are numbered in the order of the schema, as names that users choose may be anything:

::

    row        the row's number, signed: deleting by an unsigned one deletes nothing
    f0, f1 …   what the analyzers make of the attributes' texts, with positions
    f0_words … words as written, for prefixes and fuzzy words; only where these are not `f0` itself
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
from tantivy import Document, Schema, SchemaBuilder, TextAnalyzer

from treestore.model.namespaces import FullTextSchema
from treestore.search.compiling import surface_field
from treestore.search.folder import add_marker_fields
from treestore.search.fulltext.analysis import (
    AttributeAnalyzer,
    attribute_analyzer,
    clean,
    fingerprint,
)
from treestore.search.languages import pre_tokenized
from treestore.search.matching import Counted, Row, indexed_length

ROW: Final = "row"

Texts = Mapping[str, str | Sequence[str | None] | None]
"""What the full-text attributes of a row hold, by name; others are not looked at."""


def texts_of(value: str | Sequence[str | None] | None) -> list[str]:
    """The strings of an attribute, as they are analysed; empty ones are left out."""
    if isinstance(value, str):
        return [clean(value)] if value else []
    return [clean(text) for text in value or () if isinstance(text, str) and text]


@attrs.frozen
class TextField:
    """An attribute in the index.

    Attributes:
        name: of the attribute.
        field: with what its analyzer makes of it.
        surfaces: with its words as written; the same one where there is no difference.
    """

    name: str
    field: str
    surfaces: str
    analyzer: AttributeAnalyzer


class TextFields:
    """The fields of one schema. Never changes; free of threads."""

    def __init__(self, attributes: Mapping[str, FullTextSchema]) -> None:
        self.attributes = dict(attributes)
        self.fingerprint = fingerprint(attributes)
        self.fields: dict[str, TextField] = {}
        builder = SchemaBuilder()
        add_marker_fields(builder)
        builder.add_integer_field(ROW, indexed=True, fast=True)
        self.tokenizers: dict[str, TextAnalyzer] = {}
        for number, (name, schema) in enumerate(attributes.items()):
            field = f"f{number}"
            chain = attribute_analyzer(schema)
            surfaces = surface_field(field) if chain.has_surfaces else field
            self.fields[name] = TextField(name, field, surfaces, chain)
            self.tokenizers[field] = chain.chain
            builder.add_text_field(field, tokenizer_name=field)
            if surfaces != field:
                self.tokenizers[surfaces] = chain.surface_chain
                builder.add_text_field(surfaces, tokenizer_name=surfaces, index_option="freq")
        self.schema: Schema = builder.build()

    def document(self, row: int, texts: Texts) -> Document:
        """What the index takes of a row."""
        document = Document()
        document.add_integer(ROW, row)
        for its, values in self._texts(texts):
            chain = its.analyzer
            plain = len(values) == 1 and not chain.has_long(values[0])
            if plain and chain.is_native:
                document.add_text(its.field, values[0])
            else:
                words = pre_tokenized("", chain.words_of(values))
                document.add_pre_tokenized_text(its.field, words)
            if its.surfaces != its.field:
                document.add_text(its.surfaces, "\n".join(map(chain.surface_text, values)))
        return document

    def cut(self, texts: Texts) -> Row:
        """A row as the index has it, to be compared without it."""
        stems: dict[str, Counted] = {}
        surfaces: dict[str, frozenset[str]] = {}
        for its, values in self._texts(texts):
            words = its.analyzer.words_of(values)
            positions: dict[str, list[int]] = {}
            for word in words:
                positions.setdefault(word.text, []).append(word.position)
            stems[its.field] = Counted(indexed_length(len(words)), positions)
            written = (word for value in values for word in its.analyzer.written(value))
            surfaces[its.name] = frozenset(written)
        return Row(stems, surfaces)

    def _texts(self, texts: Texts) -> Iterator[tuple[TextField, list[str]]]:
        for name, its in self.fields.items():
            values = texts_of(texts.get(name))
            if values:
                yield its, values
