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


@attrs.frozen(kw_only=True)
class PartExplanation:
    """What a vector query did with one part of a namespace: a segment, or rows in memory.

    Attributes:
        segment: its number; None of rows in memory.
        rows: vectors in it.
        allowed: how many of them are visible and satisfy the filter.
        way: ``index``: candidates of the index were compared; ``exact``: all that are allowed;
            ``none``: nothing is.
        costs: what each way that there was should take, in microseconds.
        probes: lists of the index that were read, of
        lists: so many.
        estimated: vectors whose distance the index estimated.
        compared: vectors whose distance was calculated.
        recall: the share of the nearest that the index found with such effort when it was measured.
    """

    segment: int | None
    rows: int
    allowed: int
    way: str
    costs: Mapping[str, float] = attrs.field(factory=dict)
    probes: int = 0
    lists: int = 0
    estimated: int = 0
    compared: int = 0
    recall: float = 1.0


@attrs.frozen(kw_only=True)
class WordsExplanation:
    """What the words of a query took.

    Attributes:
        estimated: about how many documents have them.
        fetched: documents that the index was asked for.
        unindexed: documents that are not in the index yet, and were looked at one by one.
    """

    estimated: int
    fetched: int
    unindexed: int


@attrs.frozen(kw_only=True)
class NamespaceExplanation:
    """How a query of a namespace was answered.

    Attributes:
        plan: a sentence.
        source: ``view``: from memory and segments; ``tree``: by looking at every document.
        documents: that are visible in the state.
        estimated: about how many satisfy the filter, from statistics.
        allowed: how many do.
        hits: that the query gives.
        parts: of a query with a vector, what was done with each part.
        words: of a query with text.
        times: what each step took, in milliseconds.
    """

    plan: str
    source: Literal["view", "tree"]
    documents: int = 0
    estimated: int = 0
    allowed: int = 0
    hits: int = 0
    parts: tuple[PartExplanation, ...] = ()
    words: WordsExplanation | None = None
    times: Mapping[str, float] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Recall:
    """How well an approximate search finds what an exact one does.

    Attributes:
        recall: the share of the exact hits that were found, 0 to 1, over all queries.
        worst: of the worst query.
        queries: that were asked.
        top_k: hits that were wanted.
        approximate_ms: the median of the approximate searches.
        exact_ms: the median of the exact ones.
    """

    recall: float
    worst: float
    queries: int
    top_k: int
    approximate_ms: float
    exact_ms: float
