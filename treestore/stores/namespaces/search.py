"""``namespaces.query``: what can be asked. Who answers is the host's.

The seam: a `Request` is what was asked, as far as it can be checked without the namespace; `Asked`
is that, fitted to a namespace in some state. Whoever executes it (`exact`, or anything faster)
answers with `Answer`, which makes hits of what was found. All of them give the same hits, but for
which of the near ones an index finds:

* **Order.** With a vector by distance, with text by score; with both by the fused score; else by
  ``order_by``, else by id. What is equal is in the order of the packed ids: strings by code points,
  then ints. Exactly: by the bytes of `Ranked.position`.
* **Who is found.** Who satisfies the filter; with a vector alone, who has one too; with text alone,
  who has one of the words; with both, who has either.
* **Pages.** A cursor is the position of a hit; `Asked.after` leaves out all up to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Protocol

import attrs

from treestore.errors import InvalidArgument
from treestore.model.namespaces import NamespaceHit
from treestore.model.search import Consistency
from treestore.query.ordering import encode as sortable
from treestore.query.sorting import ID as SORT_ID
from treestore.query.sorting import Order, parse_sort, to_pairs
from treestore.search.fusion import Fusion, parse_fusion
from treestore.stores.access import Read
from treestore.stores.json_values import encode, shown
from treestore.stores.namespaces import catalog, vectors
from treestore.stores.namespaces.catalog import Opened
from treestore.stores.namespaces.filters import (
    ID,
    NamespaceFilter,
    check_filterable,
    compile_filter,
)
from treestore.stores.namespaces.layout import check_name
from treestore.stores.operation import Wire
from treestore.stores.records.fields import to_count, to_flag
from treestore.stores.records.listing import Cursors

TOP_K_MAX: Final = 10_000
OFFSET_MAX: Final = 100_000
TEXT_SIZE_MAX: Final = 10_000
"""Characters of a query's text."""

_TEXT_NAMES: Final = ("query", "fields", "weights", "mode", "fuzzy")

FusionParameter = str | dict[str, Any]
"""``"rrf"`` or ``"weighted"``, or a dict of the ``method`` and its settings."""

Text = str | dict[str, Any]
"""Words over all full-text fields, or a dict of ``query``, ``fields``, ``weights`` and the like."""

OrderBy = str | list[Any] | dict[str, int]
"""``"year"``, ``"-year"`` (descending), a list of these or of pairs, or a dict of name to ±1."""

VectorParameter = Annotated[vectors.Vector, Wire(type=bytes | list[float], encode=vectors.to_wire)]
"""A list of numbers, float32 in little-endian bytes, or an array of numpy."""


class NamespaceSearcher(Protocol):
    """What an ``Awaited`` of this service reads with."""

    async def search_namespace(self, request: Request, *, strong: bool) -> list[NamespaceHit]:
        """The best hits at the state that this is bound to, or the newest."""
        ...


async def query(
    reader: NamespaceSearcher,
    name: str,
    *,
    vector: VectorParameter | None = None,
    text: Text | None = None,
    filter: dict[str, Any] | None = None,
    top_k: int = 10,
    fusion: FusionParameter | None = None,
    include_attributes: list[str] | bool | None = None,
    include_vector: bool = False,
    exact: bool = False,
    consistency: Consistency = "strong",
    order_by: OrderBy | None = None,
    offset: int = 0,
    cursor: str | None = None,
    include_legs: bool = False,
) -> list[NamespaceHit]:
    """Find documents: nearest to a vector, fitting words best, or both; or by attributes.

    Args:
        vector: a list of numbers, little-endian float32 as bytes, or a numpy array; as long as the
            namespace's ``dim``.
        text: words, to be found in all full-text attributes, or ``{"query": "…", "fields":
            ["title"], "weights": {"title": 2.0}, "mode": "all", "fuzzy": 1}``, written as in
            ``documents.search``.
        filter: docs/filters.md; only documents that satisfy it are found.
        top_k: at most so many hits, 1 to 10,000. Fewer come only where no more fit.
        fusion: how the ranks of ``vector`` and ``text`` become one: ``"rrf"`` (the default), or
            ``{"method": "rrf", "k": 60, "weights": {"vector": 1, "text": 1}}``, or ``{"method":
            "weighted", "weights": {…}}``; ``depth``: candidates of each part (100, or 5 a hit).
        include_attributes: names of those that hits have; True or None: all, False: none.
        include_vector: whether hits have it.
        exact: True compares with every vector; otherwise an index may miss some of the near ones.
        consistency: ``strong`` sees all that the state holds; ``eventual`` does not wait for an
            index that is behind.
        order_by: without vector and text: ``"year"``, ``"-year"`` (descending), or a list of these.
        offset: leave out so many of the best, up to 100,000; not with a cursor.
        cursor: that of the last hit of the page before, of the same query.
        include_legs: whether hits of a vector and text say what each part made of them.

    Returns:
        The best first; equal ones in the order of their ids, strings before ints. ``distance`` is
        exact. ``score`` is ``1 - distance`` under cosine,
        ``1 / (1 + distance)`` under l2, the product under dot; 0 where nothing is ranked.

    Raises:
        NotFound: there is no such namespace.
        InvalidArgument: the query does not fit the namespace's schema; the message says where.
        Unavailable: an index is being built, and was not done in time.
    """
    if consistency not in ("strong", "eventual"):
        raise InvalidArgument(f"consistency is strong or eventual, not {shown(consistency)}.")
    request = make_request(
        name,
        vector=vector,
        text=text,
        filter=filter,
        top_k=top_k,
        fusion=fusion,
        include_attributes=include_attributes,
        include_vector=include_vector,
        exact=exact,
        order_by=order_by,
        offset=offset,
        cursor=cursor,
        include_legs=include_legs,
    )
    return await reader.search_namespace(request, strong=consistency == "strong")


@attrs.frozen(kw_only=True)
class TextQuery:
    """The words of a query.

    Attributes:
        query: as written.
        fields: attributes to look into; None: all that have full text.
        weights: of some of the fields; 1 of the others.
        mode: whether ``any`` or ``all`` of the words are wanted, or all as one ``phrase``.
        fuzzy: how many letters each word may differ in, 0 to 2.
    """

    query: str
    fields: tuple[str, ...] | None = None
    weights: Mapping[str, float] = attrs.field(factory=dict)
    mode: str = "any"
    fuzzy: int = 0


@attrs.frozen(kw_only=True, eq=False)
class Request:
    """A query, as far as it can be checked without the namespace. Made by `make_request`.

    Attributes:
        vector: float32 as it would be stored, of whatever length.
        filter: as written.
        fusion: how the legs of a vector and words become one.
        include_attributes: None: all.
        after: the position behind which it goes on; empty: from the start.
        order: of what has no rank; None: by id.
        cursors: makes the cursors of the answer.
    """

    name: str
    vector: bytes | None = None
    text: TextQuery | None = None
    filter: dict[str, Any] | None = None
    top_k: int = 10
    fusion: Fusion = attrs.field(factory=Fusion)
    include_attributes: tuple[str, ...] | None = None
    include_vector: bool = False
    exact: bool = False
    order: Order | None = None
    offset: int = 0
    after: bytes = b""
    include_legs: bool = False
    cursors: Cursors = attrs.field(factory=lambda: Cursors(("namespaces.query",)))


def make_request(
    name: str,
    *,
    vector: Any = None,
    text: Any = None,
    filter: Any = None,
    top_k: Any = 10,
    fusion: Any = None,
    include_attributes: Any = None,
    include_vector: Any = False,
    exact: Any = False,
    order_by: Any = None,
    offset: Any = 0,
    cursor: Any = None,
    include_legs: Any = False,
) -> Request:
    """Check a query's parameters; see `query`.

    Raises:
        InvalidArgument: one of them makes no sense.
    """
    check_name(name)
    if filter is not None and not isinstance(filter, dict):
        raise InvalidArgument(
            f"filter is an object of conditions (a dict), not {type(filter).__name__}."
        )
    packed = None if vector is None else query_float32(vector)
    words = None if text is None else _text(text)
    if order_by is not None and (packed is not None or words is not None):
        raise InvalidArgument(
            "A query with a vector or text is in the order of its scores; leave order_by out."
        )
    skip = to_count(offset, "offset", 0, OFFSET_MAX)
    if skip and cursor is not None:
        raise InvalidArgument("A query has an offset or a cursor, not both.")
    order = None if order_by is None else _order(order_by)
    cursors = _cursors(name, packed, words, filter, order_by, fusion)
    return Request(
        name=name,
        vector=packed,
        text=words,
        filter=filter,
        top_k=to_count(top_k, "top_k", 1, TOP_K_MAX),
        fusion=parse_fusion(fusion),  # Wrong is wrong, though one leg has no use for it.
        include_attributes=_included(include_attributes),
        include_vector=to_flag(include_vector, "include_vector"),
        exact=to_flag(exact, "exact"),
        order=order,
        offset=skip,
        after=b"" if cursor is None else cursors.position(cursor),
        include_legs=to_flag(include_legs, "include_legs"),
        cursors=cursors,
    )


def query_float32(vector: Any) -> bytes:
    packed = vectors.float32(vector)
    if packed is None:
        raise InvalidArgument(
            "The query's vector is a list of numbers, float32 as little-endian bytes or a numpy "
            f"array, not {shown(vector)}."
        )
    return packed


def _text(text: Any) -> TextQuery:
    if isinstance(text, str):
        text = {"query": text}
    if not isinstance(text, Mapping) or not isinstance(text.get("query"), str):
        raise InvalidArgument(
            'text is a string, or an object such as {"query": "…", "fields": ["title"]}; '
            f"{shown(text)} is not."
        )
    for name in text:
        if name not in _TEXT_NAMES:
            raise InvalidArgument(f"text has no {shown(name)}; it has {', '.join(_TEXT_NAMES)}.")
    words, fields, weights = text["query"], text.get("fields"), text.get("weights")
    if len(words) > TEXT_SIZE_MAX:
        raise InvalidArgument(f"text has {len(words)} characters; at most {TEXT_SIZE_MAX}.")
    try:
        words.encode()
    except UnicodeEncodeError:
        raise InvalidArgument("text holds half of a surrogate pair, no character.") from None
    if not any(map(str.isalnum, words)):
        raise InvalidArgument("text has no word to look for.")
    if isinstance(fields, str):
        fields = [fields]
    if fields is not None and (
        not isinstance(fields, list | tuple)
        or not fields
        or not all(isinstance(field, str) for field in fields)
    ):
        raise InvalidArgument(f"text's fields are a list of attributes, not {shown(fields)}.")
    return TextQuery(
        query=words,
        fields=None if fields is None else tuple(dict.fromkeys(fields)),
        weights=_weights(weights),
        mode=_mode(text.get("mode")),
        fuzzy=to_count(text.get("fuzzy") or 0, "text's fuzzy", 0, 2),
    )


def _mode(mode: Any) -> str:
    if mode is None:
        return "any"
    if not isinstance(mode, str) or mode not in ("any", "all", "phrase"):
        raise InvalidArgument(f"text's mode is any, all or phrase, not {shown(mode)}.")
    return mode


def _weights(weights: Any) -> dict[str, float]:
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        raise InvalidArgument(f"text's weights are an object, not {shown(weights)}.")
    found: dict[str, float] = {}
    for name, weight in weights.items():
        fits = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not fits or not 0 < weight <= 1e6:
            raise InvalidArgument(
                f"text's weights are numbers above 0, up to a million; that of {shown(name)} is "
                f"{shown(weight)}."
            )
        found[name] = float(weight)
    return found


def _order(order_by: Any) -> Order:
    """The order that attributes make; ``id`` is the document's."""
    pairs = [(SORT_ID if name == ID else name, direction) for name, direction in to_pairs(order_by)]
    return parse_sort(pairs)


def _included(include: Any) -> tuple[str, ...] | None:
    if include is None or include is True:
        return None
    if include is False:
        return ()
    if not isinstance(include, list | tuple) or not all(isinstance(one, str) for one in include):
        raise InvalidArgument(
            f"include_attributes is a list of names, True or False, not {shown(include)}."
        )
    return tuple(dict.fromkeys(include))


def _cursors(*parts: Any) -> Cursors:
    name, packed, words, filter, order_by, fusion = parts
    text = None if words is None else attrs.astuple(words)
    scope = ("namespaces.query", name, packed, text, filter, order_by, fusion)
    try:
        encode(scope)
    except (TypeError, UnicodeEncodeError, OverflowError, RecursionError, ValueError):
        # Something in the filter that cannot be; whoever compiles it says what.
        scope = (*scope[:4], _printed(filter), _printed(order_by), _printed(fusion))
    return Cursors(scope)


def _printed(value: Any) -> str:
    try:
        return ascii(value)
    except (ValueError, RecursionError):  # It has an int of thousands of digits.
        return ""


# --- fitted to a namespace -------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False)
class Asked:
    """A request that fits a namespace in some state. Made by `Asked.of`.

    Attributes:
        request: what was asked.
        there: the namespace.
        vector: of the query, checked; None where it has none.
        filter: with operands in the form of the schema's values.
        text_fields: attributes to look for words in, with their weights; empty without text.
        order: of what has no rank.
    """

    request: Request
    there: Opened
    vector: bytes | None
    filter: NamespaceFilter
    text_fields: Mapping[str, float]
    order: Order

    @classmethod
    def of(cls, txn: Read, request: Request) -> Asked:
        """Fit a request.

        Raises:
            NotFound: there is no such namespace.
            InvalidArgument: the request does not fit its schema.
        """
        there = catalog.require(txn, request.name)
        schema = there.schema
        for attribute in request.include_attributes or ():
            if attribute not in schema.attributes:
                raise InvalidArgument(
                    f"include_attributes: the schema has no attribute {shown(attribute)}."
                )
        order = request.order or Order()
        for path, _ in order.fields:
            check_filterable(".".join(path), schema, "order_by")
        return cls(
            request=request,
            there=there,
            vector=None if request.vector is None else _fitting_vector(request.vector, there),
            filter=compile_filter(request.filter, schema),
            text_fields={} if request.text is None else _text_fields(request.text, there),
            order=order,
        )

    @property
    def wanted(self) -> int:
        """How many of the best ones are needed, those of the offset included."""
        return self.request.offset + self.request.top_k

    @property
    def after(self) -> bytes:
        """Only positions behind this one are wanted."""
        return self.request.after


def _fitting_vector(vector: bytes, there: Opened) -> bytes:
    if there.schema.vector is None:
        raise InvalidArgument(
            "The query has a vector, and the namespace's schema has none; add it with "
            "update_schema."
        )
    try:
        return vectors.checked(vector, there.schema.vector)
    except InvalidArgument as error:
        raise InvalidArgument(f"The query: {error.message}") from None


def _text_fields(text: TextQuery, there: Opened) -> dict[str, float]:
    known = [name for name, one in there.schema.attributes.items() if one.full_text is not None]
    if not known:
        raise InvalidArgument(
            "The query has text, and no attribute of the namespace is full_text; make one so with "
            "update_schema."
        )
    fields = known if text.fields is None else text.fields
    for name in (*fields, *text.weights):
        if name not in known:
            raise InvalidArgument(
                f"text: {shown(name)} is no full_text attribute; there are {', '.join(known):.500}."
            )
    return {name: text.weights.get(name, 1.0) for name in fields}


def read_by(asked: Asked) -> list[tuple[bytes, bytes]]:
    """The ranges of keys that a query's answer depends on: what a transaction has read with it.

    Every document is looked at, so any change of one counts; vectors change with their documents.
    """
    prefix = asked.there.space.documents
    return [(prefix, prefix + b"\xff")]


def position_of_distance(distance: float, packed_id: bytes) -> bytes:
    """The place of a hit that is ranked by distance: bytes that sort as the hits do."""
    return sortable(distance) + packed_id


def position_of_score(score: float, packed_id: bytes) -> bytes:
    """Likewise by score, the highest first."""
    return sortable(-score) + packed_id
