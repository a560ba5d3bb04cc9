"""Searching documents: an index of one state, made exact for the state that is read.

What the index finds is looked up in the snapshot, and counts only where the snapshot has the same
node with the same texts. Nodes that may differ between the two states (`Changes`) are left out
there, and matched one by one as the snapshot has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
from tantivy import Occur, Query, Schema, Searcher

from treestore.errors import InvalidArgument
from treestore.model.documents import Node
from treestore.model.search import Hit, Mode
from treestore.search.compiling import AskedCompiler, Fields, Part, filter_query
from treestore.search.folder import IndexFailed, faults
from treestore.search.languages import analyzer
from treestore.search.matching import Row, cut, score_asked
from treestore.search.names import check_language
from treestore.search.query import (
    Asked,
    Clause,
    Wanted,
    analysed,
    check_fuzzy,
    check_text,
    parse,
)
from treestore.search.snippets import Highlighter
from treestore.search.statistics import IndexStatistics
from treestore.stores.access import Read
from treestore.stores.documents.layout import AFTER, bare
from treestore.stores.documents.policies import no_document, place_to_read
from treestore.stores.documents.text_index import View, in_effect
from treestore.stores.documents.text_rows import (
    TEXT_FIELDS,
    NodeTexts,
    checksum,
    document_texts,
    facts_of,
    language_code,
    node_texts,
    record_at,
    row_of,
    search_fields,
    texts_of,
)
from treestore.stores.documents.touched import Changes, policy_of
from treestore.stores.keys import Keyspace, successor

TOP_K_MAX: Final = 1000
TIES_MAX: Final = 32
"""Hits as good as the last one that are looked at, to give those of equal score in one order."""

FETCH_FACTOR: Final = 4
"""How many more hits are asked for when too many of those before did not count."""


BRIEF_POSTINGS_MAX: Final = 50_000
"""Rows that hold one of the words, for a search that is done at once: about a millisecond."""

BRIEF_TOP_K_MAX: Final = 20
"""Likewise, hits."""


class TooLong(Exception):
    """The search is none that is done at once. Never leaves the package."""


class TooMuchChanged(Exception):
    """More nodes differ than may be looked at one by one. Never leaves the package."""


@attrs.frozen
class Request:
    """A search that can be done: checked, and read once."""

    clauses: tuple[Clause, ...]
    fields: Fields
    policy_id: str | None
    version_id: str | None
    language: str | None
    top_k: int
    include_text: bool


def make_request(
    query: str,
    *,
    policy_id: str | None,
    version_id: str | None,
    fields: Sequence[str] | None,
    top_k: int,
    mode: Mode,
    language: str | None,
    fuzzy: int,
    include_text: bool,
) -> Request:
    """The request, checked; see ``documents.search``.

    Raises:
        InvalidArgument: it cannot be done.
    """
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= TOP_K_MAX:
        raise InvalidArgument(f"top_k is a number from 1 to {TOP_K_MAX}, not {top_k!r:.60}.")
    if version_id is not None and policy_id is None:
        raise InvalidArgument("version_id is of a policy; say of which one with policy_id.")
    if language is not None:
        check_language(language)
    if not isinstance(include_text, bool):
        raise InvalidArgument("include_text is True or False.")
    only = _fields(fields)
    text = check_text(query)
    clauses = parse(text, mode, TEXT_FIELDS, check_fuzzy(fuzzy))
    return Request(
        tuple(clauses), search_fields(only), policy_id, version_id, language, top_k, include_text
    )


def _fields(fields: Sequence[str] | None) -> tuple[str, ...] | None:
    if fields is None:
        return None
    known = ", ".join(TEXT_FIELDS)
    if isinstance(fields, str) or not isinstance(fields, list | tuple) or not fields:
        raise InvalidArgument(f"fields is a list of some of {known}.")
    for name in fields:
        if name not in TEXT_FIELDS:
            raise InvalidArgument(f"There is no field {name!r:.60}; there are {known}.")
    return tuple(dict.fromkeys(fields))


@attrs.frozen
class Basis:
    """What a search looks at beside its snapshot.

    Attributes:
        view: of the index.
        marks: places that the view's rows call live, of each policy that may differ.
        changes: what may differ between the view's state and the snapshot; None where that does
            not matter (``eventual``): what differs is then just left out.
        changes_max: nodes that may be looked at one by one.
        is_brief: others wait meanwhile: raise `TooLong` rather than work for long.
    """

    view: View
    schema: Schema
    marks: Mapping[bytes, frozenset[bytes]]
    changes: Changes | None
    changes_max: int
    is_brief: bool = False


def policies_to_ask(changes: Changes | None, view: View) -> frozenset[bytes]:
    """The policies of which `Basis.marks` must tell."""
    if changes is None:
        return view.stale
    return view.stale | changes.of_policies


def read_by(txn: Read, request: Request) -> list[tuple[bytes, bytes | None]]:
    """The ranges of keys that hold whatever the answer to a request depends on, beside what ``txn``
    is asked for anyway: the nodes of the document, or of everything that is followed.

    Raises:
        NotFound: there is no such policy.
    """
    if request.policy_id is None:
        return [(Keyspace.NODES, successor(Keyspace.VERSION_HISTORY))]
    place = place_to_read(txn, request.policy_id, request.version_id)
    return [(place.nodes, place.nodes + AFTER)]


@attrs.frozen
class _Found:
    """A node that fits."""

    score: float
    key: bytes
    language: str
    record: bytes

    @property
    def order(self) -> tuple[float, bytes]:
        return -self.score, self.key


def search(txn: Read, request: Request, basis: Basis) -> list[Hit]:
    """The best hits, the best one first; of equal ones in the order of their keys.

    Raises:
        NotFound: the document that is named does not exist.
        TooMuchChanged: wait for the index.
        IndexFailed: the index is damaged.
    """
    return _Search(txn, request, basis).run()


class _Search:
    def __init__(self, txn: Read, request: Request, basis: Basis) -> None:
        self._txn = txn
        self._request = request
        self._basis = basis
        self._changes = basis.changes if basis.changes is not None else Changes()
        self._place: bytes | None = None
        self._languages: dict[bytes, str | None] = {}
        self._effective: dict[bytes, bytes | None] = {}
        self._wanted: dict[str, list[Wanted]] = {}
        self._asked: dict[str, list[Asked]] = {}
        self._changed_ids: dict[bytes, set[bytes]] = {}

    def run(self) -> list[Hit]:
        request = self._request
        if request.policy_id is not None:
            place = place_to_read(self._txn, request.policy_id, request.version_id)
            if self._language_of(place.packed) is None:
                raise no_document(place)
            self._place = place.packed
        found = [*self._indexed(), *self._changed()]
        found.sort(key=lambda its: its.order)
        highlighters: dict[str, Highlighter] = {}
        return [self._hit(its, highlighters) for its in found[: request.top_k]]

    # -- what is asked ------------------------------------------------------------------------

    def _language_of(self, place: bytes) -> str | None:
        """The language of a document at the snapshot; None where there is none."""
        if place not in self._languages:
            facts = facts_of(self._txn, place)
            self._languages[place] = None if facts is None else facts[0]
        return self._languages[place]

    def _wanted_in(self, language: str) -> list[Wanted]:
        if language not in self._wanted:
            self._wanted[language] = analysed(self._request.clauses, analyzer(language))
        return self._wanted[language]

    def _asked_in(self, language: str) -> list[Asked]:
        if language not in self._asked:
            asked = self._request.fields.asked
            self._asked[language] = [asked(one) for one in self._wanted_in(language)]
        return self._asked[language]

    def _in_scope(self, place: bytes) -> bool:
        """Whether a document is one that is asked for, at the snapshot."""
        language = self._request.language
        if language is not None and self._language_of(place) != language:
            return False
        if self._place is not None:
            return place == self._place
        policy = policy_of(place)
        if policy not in self._effective:
            self._effective[policy] = in_effect(self._txn, policy)
        return place == self._effective[policy]

    # -- the index ----------------------------------------------------------------------------

    def _query(self, searcher: Searcher) -> Query | None:
        schema, view = self._basis.schema, self._basis.view
        compiler = AskedCompiler(schema, searcher, view.words)
        if self._place is not None:
            languages = [self._language_of(self._place) or ""]
        elif self._request.language is not None:
            languages = [self._request.language]
        else:
            languages = sorted(view.languages)
        alternatives: list[Part] = []
        for language in languages:
            query = compiler.query(self._asked_in(language))
            if query is None:
                continue
            if self._place is None and len(view.languages) > 1:
                code = Query.term_query(schema, "language", language_code(language))
                parts = [(Occur.Must, query), (Occur.Must, filter_query([(Occur.Must, code)]))]
                query = Query.boolean_query(parts)
            alternatives.append((Occur.Should, query))
        if self._basis.is_brief and (compiler.is_costly or compiler.postings > BRIEF_POSTINGS_MAX):
            raise TooLong
        scope = self._scope()
        if len(alternatives) > 1:
            alternatives = [(Occur.Must, Query.boolean_query(alternatives))]
        if not alternatives or scope is None:
            return alternatives[0][1] if alternatives else None
        return Query.boolean_query([(Occur.Must, alternatives[0][1]), (Occur.Must, scope)])

    def _scope(self) -> Query | None:
        """Rows of the document asked for, or of the versions in effect at the snapshot; None
        where those are all."""
        schema = self._basis.schema
        if self._place is not None:
            its = Query.term_query(schema, "place", checksum(self._place))
            return filter_query([(Occur.Must, its)])
        more: list[int] = []
        less: list[int] = []
        for policy, marked in self._basis.marks.items():
            place = in_effect(self._txn, policy)
            self._effective[policy] = place
            less += [checksum(other) for other in marked if other != place]
            if place is not None and place not in marked:
                more.append(checksum(place))
        if not (more or less or self._basis.view.is_mixed):
            return None
        parts: list[Part] = [(Occur.Should, Query.term_query(schema, "live", 1))]
        if more:
            parts.append((Occur.Should, Query.term_set_query(schema, "place", more)))
        if less:
            parts.append((Occur.MustNot, Query.term_set_query(schema, "place", less)))
        return filter_query(parts)

    def _indexed(self) -> list[_Found]:
        searcher = self._basis.view.searcher
        if searcher is None:
            return []
        with faults("searching"):
            query = self._query(searcher)
        if query is None:
            return []
        wanted = self._request.top_k
        found: list[_Found] = []
        limit, offset = wanted + wanted // 2 + 8, 0
        while True:
            with faults("searching"):
                hits = searcher.search(query, limit, count=False, offset=offset).hits
                rows = searcher.fast_field_values("row", [address for _, address in hits])
            for first in range(0, len(hits), wanted):
                some = hits[first : first + wanted]
                if len(found) >= wanted and some[0][0] < found[wanted - 1].score:
                    return found
                with faults("reading the index"):
                    keys = [searcher.doc(address).get_first("key") for _, address in some]
                for (value, _), row, key in zip(some, rows[first:], keys, strict=False):
                    if len(found) >= wanted and (
                        value < found[wanted - 1].score or len(found) > wanted + TIES_MAX
                    ):
                        return found
                    its = self._checked(value, key, row)
                    if its is not None:
                        found.append(its)
            if len(hits) < limit:
                return found
            offset += limit
            limit *= FETCH_FACTOR

    def _checked(self, value: float, where: Any, row: Any) -> _Found | None:
        """The node of a hit, where the snapshot has it as it was found."""
        if not isinstance(where, bytes):
            raise IndexFailed("a row has no key")
        at = where.index(0, where.index(0) + 1) + 1
        end = where.index(0, at) + 1
        place = where[:at]
        its = self._changes.places.get(place)
        if its is not None and (its.whole or where[at:end] in self._ids_of(place)):
            return None
        if not self._is_asked_for(place):
            return None
        language = self._language_of(place)
        record = record_at(self._txn, place, where[end:])
        key = where[:end]
        # A node that is not where it was when it was indexed is told by its checksum, too.
        if record is None or language is None or row_of(key, language, record) != row:
            return None
        return _Found(value, key, language, record)

    def _is_asked_for(self, place: bytes) -> bool:
        """Whether the document of a row that was found is one that is asked for.

        Of a policy that may not differ the rows say rightly which version is in effect, and others
        were not looked for.
        """
        if (
            self._place is None
            and self._request.language is None
            and self._basis.changes is not None
            and policy_of(place) not in self._basis.marks
        ):
            return True
        return self._in_scope(place)

    # -- what is not in the index -----------------------------------------------------------------

    def _ids_of(self, place: bytes) -> set[bytes]:
        ids = self._changed_ids.get(place)
        if ids is None:
            ids = self._changes.places[place].ids_in(self._txn, place)
            self._changed_ids[place] = ids
        return ids

    def _changed(self) -> Iterator[_Found]:
        """Nodes that may differ, as the snapshot has them."""
        rows: list[tuple[NodeTexts, Row]] = []
        left = self._basis.changes_max
        for place, its in self._changes.places.items():
            if not (its.whole or its.ids or its.paths) or not self._in_scope(place):
                continue
            facts = facts_of(self._txn, place)
            if facts is None:
                continue
            language, count = facts
            left -= count if its.whole else len(self._ids_of(place))
            if left < 0:
                raise TooMuchChanged
            rows += [
                (node, cut(language, TEXT_FIELDS, node.texts))
                for node in self._nodes(place, language, whole=its.whole)
            ]
        view = self._basis.view
        statistics = IndexStatistics(
            view.searcher, self._basis.schema, [row for _, row in rows], view.means
        )
        for node, row in rows:
            value = score_asked(row, self._asked_in(node.language), statistics)
            if value is not None:
                record = record_at(self._txn, node.place, node.path)
                assert record is not None
                yield _Found(value, node.key, node.language, record)

    def _nodes(self, place: bytes, language: str, *, whole: bool) -> Iterator[NodeTexts]:
        if whole:
            yield from document_texts(self._txn, place, language)
            return
        for packed in self._ids_of(place):
            node = node_texts(self._txn, place, packed, language)
            if node is not None:
                yield node

    # -- the answer -------------------------------------------------------------------------------

    def _hit(self, its: _Found, highlighters: dict[str, Highlighter]) -> Hit:
        language = its.language
        highlighter = highlighters.get(language)
        if highlighter is None:
            highlighter = Highlighter(self._wanted_in(language), analyzer(language))
            highlighters[language] = highlighter
        record = its.record if self._request.include_text else bare(its.record)
        node = self._txn.load(Node, record)
        if record is its.record and isinstance(node, Node):
            title, summary, text = node.title, node.summary, node.text
        else:
            title, summary, text = texts_of(its.record)
        snippet, ranges = highlighter.snippet((text, summary, title))
        return Hit(node=node, score=its.score, snippet=snippet, highlights=ranges)
