"""Namespaces, their schemas and what a query answers, as every face of TreeStore returns them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import attrs

Metric = Literal["cosine", "l2", "dot"]

AttributeType = Literal[
    "string",
    "int",
    "float",
    "bool",
    "datetime",
    "uuid",
    "array<string>",
    "array<int>",
    "array<float>",
    "array<bool>",
    "array<datetime>",
    "array<uuid>",
]

Tokenizer = Literal["word", "ngram"]

DocumentId = int | str


@attrs.frozen(kw_only=True)
class VectorSchema:
    """What vectors a namespace holds.

    Attributes:
        dim: numbers in each vector, 1 to 16,384.
        metric: ``cosine`` (distance ``1 - cos``), ``l2`` (the squared Euclidean distance) or
            ``dot`` (the distance is the negated product). A smaller distance is nearer.
    """

    dim: int
    metric: Metric = "cosine"


@attrs.frozen(kw_only=True)
class FullTextSchema:
    """How the text of an attribute becomes words.

    Attributes:
        language: one of `treestore.search.names.LANGUAGES`; it decides about stems, stop words and,
            for ``chinese``, where words end.
        stemming: whether words are found in all their forms.
        remove_stopwords: whether words such as "the" count for nothing.
        case_sensitive: whether "Tax" and "tax" differ.
        ascii_folding: whether "café" and "cafe" are one.
        tokenizer: ``word``, or ``ngram``: every run of some letters of each word.
        ngram_min, ngram_max: letters of these runs.
        token_length_max: longer words are not indexed, in characters.
    """

    language: str = "english"
    stemming: bool = True
    remove_stopwords: bool = True
    case_sensitive: bool = False
    ascii_folding: bool = False
    tokenizer: Tokenizer = "word"
    ngram_min: int = 2
    ngram_max: int = 3
    token_length_max: int = 40


@attrs.frozen(kw_only=True)
class AttributeSchema:
    """One attribute.

    Attributes:
        type: of its values; null is allowed for all.
        filterable: whether filters may name it, and results be ordered and grouped by it.
        full_text: how its text is searched; None: not at all. For strings and arrays of strings.
    """

    type: AttributeType
    filterable: bool = True
    full_text: FullTextSchema | None = None


@attrs.frozen(kw_only=True)
class NamespaceSchema:
    """What the documents of a namespace look like.

    Attributes:
        vector: None where documents have no vectors.
        attributes: by name, in the order in which they were added.
    """

    vector: VectorSchema | None = None
    attributes: Mapping[str, AttributeSchema] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class NamespaceHit:
    """One document that a query found.

    Attributes:
        id: of the document.
        score: how well it fits; larger is better. Comparable within one answer only.
        distance: of its vector from the query's, exact; None where the query has no vector, or the
            document has none.
        attributes: those asked for.
        vector: where it was asked for (``include_vector``), as it was given.
        legs: where it was asked for, what each part of a hybrid query made of it: of ``vector``
            and ``text``, the ``rank`` (from 1) and the ``score``.
        cursor: of the last hit of a full page, what to hand back as ``cursor`` for those that
            follow; None of the others.
    """

    id: DocumentId
    score: float
    distance: float | None = None
    attributes: Mapping[str, Any] = attrs.field(factory=dict)
    vector: tuple[float, ...] | None = None
    legs: Mapping[str, Mapping[str, float]] | None = None
    cursor: str | None = None


@attrs.frozen(kw_only=True)
class NamespaceStatistics:
    """What a namespace holds.

    Attributes:
        documents: in it.
        tail: of these, those that no segment holds yet.
        segments: files of sealed rows.
        segment_rows: rows in all segments together.
        dead: of these, those that no document has any more.
        segment_size_bytes: of the segments' files together.
    """

    documents: int
    tail: int = 0
    segments: int = 0
    segment_rows: int = 0
    dead: int = 0
    segment_size_bytes: int = 0


@attrs.frozen(kw_only=True)
class Namespace:
    """One namespace.

    Attributes:
        name: unique.
        schema: as it is now.
        created_at: when it was created (UTC).
        updated_at: when its schema was changed last.
        statistics: what it holds; only `describe` counts it.
    """

    name: str
    schema: NamespaceSchema
    created_at: datetime
    updated_at: datetime
    statistics: NamespaceStatistics | None = None


@attrs.frozen(kw_only=True)
class NamespaceDocument:
    """One document of a namespace.

    Attributes:
        id: an int or a string, unique in its namespace.
        attributes: as they are stored: moments as ISO 8601 in UTC, UUIDs in lower case.
        vector: where it was asked for and there is one: the float32 numbers that are stored.
    """

    id: DocumentId
    attributes: Mapping[str, Any] = attrs.field(factory=dict)
    vector: tuple[float, ...] | None = None


@attrs.frozen(kw_only=True)
class UpsertResult:
    """What an upsert did.

    Attributes:
        stored: documents that were stored.
        created: of these, those whose id was new.
        skipped: ids of those that were left as they were, for the stored document did not satisfy
            the condition.
    """

    stored: int
    created: int
    skipped: tuple[DocumentId, ...] = ()


@attrs.frozen(kw_only=True)
class PatchResult:
    """What a patch did.

    Attributes:
        patched: documents that were changed.
        missing: ids without a document: nothing was made of them.
        skipped: ids of documents that did not satisfy the condition.
    """

    patched: int
    missing: tuple[DocumentId, ...] = ()
    skipped: tuple[DocumentId, ...] = ()
