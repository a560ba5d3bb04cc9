"""Schemas of namespaces: what users write, the one form in which it is kept, and growth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, get_args

import attrs
import msgspec

from treestore.errors import InvalidArgument
from treestore.model.namespaces import (
    AttributeSchema,
    AttributeType,
    FullTextSchema,
    Metric,
    NamespaceSchema,
    Tokenizer,
    VectorSchema,
)
from treestore.search.names import check_language
from treestore.stores.json_values import shown
from treestore.stores.operation import Wire

DIM_MAX: Final = 16_384
ATTRIBUTES_MAX: Final = 1000
"""Attributes of a schema."""

ATTRIBUTE_NAME_SIZE_BYTES_MAX: Final = 128
NGRAM_MAX: Final = 20
TOKEN_LENGTH_MAX: Final = 400

RESERVED: Final = frozenset({"id", "vector"})
"""Names that no attribute has: filters and lists of fields mean the document's own by them."""

TYPES: Final[tuple[AttributeType, ...]] = get_args(AttributeType)
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
TOKENIZERS: Final[tuple[Tokenizer, ...]] = get_args(Tokenizer)

_TEXTS: Final = ("string", "array<string>")


def to_wire(schema: Any) -> Any:
    """A schema as it travels: dicts."""
    return msgspec.to_builtins(schema) if attrs.has(type(schema)) else schema


SchemaParameter = Annotated[
    dict[str, Any] | NamespaceSchema, Wire(type=dict[str, Any], encode=to_wire)
]
"""A schema: `NamespaceSchema`, or dicts of its form; on the wire dicts."""


def parse_schema(schema: Any) -> NamespaceSchema:
    """The schema that a user wrote.

    Args:
        schema: `NamespaceSchema`, or ``{"vector": {"dim": 768, "metric": "cosine"}, "attributes":
            {"year": {"type": "int"}, "title": {"type": "string", "full_text": True}}}``. An
            attribute may also be just its type.

    Raises:
        InvalidArgument: it is none; the sentence says where it is wrong.
    """
    given = _fields(to_wire(schema), "The schema", NamespaceSchema)
    attributes = given.get("attributes")
    if attributes is None:
        attributes = {}
    if not isinstance(attributes, Mapping):
        raise InvalidArgument(
            f"The schema's attributes are an object of names and types, not {shown(attributes)}."
        )
    if len(attributes) > ATTRIBUTES_MAX:
        raise InvalidArgument(
            f"The schema has {len(attributes)} attributes; it has at most {ATTRIBUTES_MAX}."
        )
    vector = given.get("vector")
    return NamespaceSchema(
        vector=None if vector is None else _vector(vector),
        attributes={_name(name): _attribute(name, one) for name, one in attributes.items()},
    )


def _fields(given: Any, what: str, model: type) -> Mapping[str, Any]:
    """A dict that has no other names than the fields of ``model``."""
    if not isinstance(given, Mapping):
        raise InvalidArgument(f"{what} is an object (a dict), not {shown(given)}.")
    known = [field.name for field in attrs.fields(model)]
    for name in given:
        if name not in known:
            raise InvalidArgument(f"{what} has no {shown(name)}; it has {', '.join(known)}.")
    return given


def _name(name: Any) -> str:
    try:
        size = len(name.encode())
    except (AttributeError, UnicodeEncodeError):
        size = 0
    if not 0 < size <= ATTRIBUTE_NAME_SIZE_BYTES_MAX:
        raise InvalidArgument(
            f"The name of an attribute is a string of 1 to {ATTRIBUTE_NAME_SIZE_BYTES_MAX} bytes, "
            f"not {shown(name)}."
        )
    if name in RESERVED:
        raise InvalidArgument(
            f"No attribute has the name {name}: a document has its {name} beside its attributes."
        )
    if name.startswith("$") or "." in name or "\0" in name:
        raise InvalidArgument(
            f"The name of an attribute does not begin with $ and has no dot in it, for filters "
            f"could not reach it; {shown(name)} does."
        )
    return str(name)


def _vector(given: Any) -> VectorSchema:
    fields = _fields(given, "The schema's vector", VectorSchema)
    dim, metric = fields.get("dim"), fields.get("metric", "cosine")
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= DIM_MAX:
        raise InvalidArgument(
            f"The dim of vectors is a number from 1 to {DIM_MAX}, not {shown(dim)}."
        )
    if metric not in METRICS:
        raise InvalidArgument(
            f"The metric of vectors is one of {', '.join(METRICS)}, not {shown(metric)}."
        )
    return VectorSchema(dim=dim, metric=metric)


def _attribute(name: str, given: Any) -> AttributeSchema:
    what = f"Attribute {shown(name)}"
    if isinstance(given, str):
        given = {"type": given}
    fields = _fields(given, what, AttributeSchema)
    kind = fields.get("type")
    if kind not in TYPES:
        raise InvalidArgument(f"{what} has the type {shown(kind)}; there are {', '.join(TYPES)}.")
    return AttributeSchema(
        type=kind,
        filterable=_flag(fields, "filterable", True, what),
        full_text=_full_text(fields.get("full_text"), kind, what),
    )


def _flag(fields: Mapping[str, Any], name: str, default: bool, what: str) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{what}: {name} is True or False, not {shown(value)}.")
    return value


def _full_text(given: Any, kind: str, what: str) -> FullTextSchema | None:
    if given is None or given is False:
        return None
    if kind not in _TEXTS:
        raise InvalidArgument(f"{what}: only {' and '.join(_TEXTS)} have full_text, not {kind}.")
    what = f"{what}: full_text"
    fields = _fields({} if given is True else given, what, FullTextSchema)
    tokenizer = fields.get("tokenizer", "word")
    if tokenizer not in TOKENIZERS:
        raise InvalidArgument(
            f"{what}: tokenizer is one of {', '.join(TOKENIZERS)}, not {shown(tokenizer)}."
        )
    found = FullTextSchema(
        language=check_language(fields.get("language", "english")),
        stemming=_flag(fields, "stemming", True, what),
        remove_stopwords=_flag(fields, "remove_stopwords", True, what),
        case_sensitive=_flag(fields, "case_sensitive", False, what),
        ascii_folding=_flag(fields, "ascii_folding", False, what),
        tokenizer=tokenizer,
        ngram_min=_count(fields, "ngram_min", 2, NGRAM_MAX, what),
        ngram_max=_count(fields, "ngram_max", 3, NGRAM_MAX, what),
        token_length_max=_count(fields, "token_length_max", 40, TOKEN_LENGTH_MAX, what),
    )
    if found.ngram_min > found.ngram_max:
        raise InvalidArgument(
            f"{what}: ngram_min ({found.ngram_min}) is above ngram_max ({found.ngram_max})."
        )
    return found


def _count(fields: Mapping[str, Any], name: str, default: int, high: int, what: str) -> int:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
        raise InvalidArgument(f"{what}: {name} is a number from 1 to {high}, not {shown(value)}.")
    return value


def grown(old: NamespaceSchema, change: NamespaceSchema) -> NamespaceSchema:
    """The schema with attributes added, or with other flags.

    Raises:
        InvalidArgument: that would change a type, or the vectors.
    """
    vector = old.vector
    if change.vector is not None and change.vector != vector:
        if vector is not None:
            raise InvalidArgument(
                f"The vectors of a namespace stay as they are (dim {vector.dim}, {vector.metric}); "
                "make another namespace for others."
            )
        vector = change.vector
    attributes = dict(old.attributes)
    for name, wanted in change.attributes.items():
        known = attributes.get(name)
        if known is not None and known.type != wanted.type:
            raise InvalidArgument(
                f"Attribute {shown(name)} is of type {known.type}, which does not change; add one "
                "of another name."
            )
        attributes[name] = wanted
    if len(attributes) > ATTRIBUTES_MAX:
        raise InvalidArgument(
            f"The schema would have {len(attributes)} attributes; at most {ATTRIBUTES_MAX}."
        )
    return NamespaceSchema(vector=vector, attributes=attributes)
