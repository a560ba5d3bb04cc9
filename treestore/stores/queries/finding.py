"""``queries.find_related``: a search between two reads, all of one state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import attrs

from treestore.errors import InvalidArgument
from treestore.model.documents import Node
from treestore.model.queries import REASONS, Reason, RelatedNode
from treestore.stores.access import Read
from treestore.stores.documents.layout import (
    HEAD,
    Place,
    bare,
    decode_node,
    level_ends,
    packed_node_id,
)
from treestore.stores.documents.policies import place_to_read
from treestore.stores.documents.reading import check_document, path_of
from treestore.stores.json_values import shown
from treestore.stores.queries import related
from treestore.stores.queries.related import Candidate

if TYPE_CHECKING:
    from treestore.model.search import Hit
    from treestore.stores.documents.searching import Request

T = TypeVar("T")

LIMIT_MAX: Final = 100
"""Nodes of one answer."""

TOKENS_MAX: Final = 100

WORDS_MAX: Final = 50
"""Words that are searched for."""

KEYWORDS: Final = "keywords"
"""Key of a node's metadata with words that go with it."""


class PinnedReader(Protocol):
    """One state, read and searched."""

    async def read(self, function: Callable[[Read], T]) -> T:
        """What the function makes of the state, on a thread where it takes long."""
        ...

    async def search(self, request: Request) -> list[Hit]:
        """The best hits of the state."""
        ...


class RelatedReader(Protocol):
    """What an ``Awaited`` of this service reads with."""

    def pinned(self) -> AbstractContextManager[PinnedReader]:
        """The snapshot that this is bound to, or the newest state, kept for the block."""
        ...


@attrs.frozen
class _Question:
    """What is asked, checked."""

    policy_id: str
    node_id: str | None
    tokens: tuple[str, ...]
    version_id: str | None
    limit: int
    reasons: tuple[Reason, ...]
    include_text: bool


@attrs.define
class _Begun:
    """What is known before the search.

    Attributes:
        place: the document.
        path: of the node asked about; None where only words were given.
        node: that node, without its text.
        found: by cross reference.
        seen: keys of nodes that are not to be given (again).
    """

    place: Place
    path: bytes | None
    node: Node | None
    found: list[Candidate]
    seen: set[bytes]


async def find_related(
    reader: RelatedReader,
    policy_id: str,
    node_id: str | None = None,
    *,
    tokens: Sequence[str] | None = None,
    version_id: str | None = None,
    limit: int = 5,
    reasons: Sequence[Reason] | None = None,
    include_text: bool = True,
) -> list[RelatedNode]:
    """The nodes that belong together with a node, or with some words, each with the reason.

    Reasons in the order in which they count; a node is given once, with the first that holds:

    1. ``cross_reference``: the node refers to it, or it to the node. One of another policy is taken
       from that policy's version in effect.
    2. ``keyword``: full-text search finds it for the tokens, or, without tokens, for the node's
       title and the ``keywords`` in its metadata; the best one first.
    3. ``sibling``: under the same parent, the nearest one first.
    4. ``see_also``: named by id in the node's metadata, under ``see_also`` or ``references``.
    5. ``context``: the parent, the children, the nodes before and after it. (Without a node: the
       parents of what was found by keyword.)

    All of it is of one state, and the same state always gives the same answer.

    Args:
        node_id: the node; it is not in the answer itself. None: only the tokens count.
        tokens: words to search for instead of the node's own.
        version_id: None means the version in effect today.
        limit: at most so many, 1 to 100.
        reasons: only these (their order is always the one above); None: all. Without
            ``keyword``, nothing is searched and no index is needed.
        include_text: False leaves every node's ``text`` empty.

    Raises:
        NotFound: there is no such node or document.
        InvalidArgument: neither a node nor a token was given, or a parameter is wrong.
        Unavailable: the search index is not ready.
    """
    question = _checked(policy_id, node_id, tokens, version_id, limit, reasons, include_text)
    with reader.pinned() as pinned:
        begun = await pinned.read(partial(_begin, question))
        hits: list[tuple[str, float]] = []
        words = _words(question, begun)
        if words and "keyword" in question.reasons and len(begun.found) < limit:
            found = await pinned.search(_request(question, begun, words))
            hits = [(hit.node.node_id, hit.score) for hit in found]
        return await pinned.read(lambda txn: _finish(txn, question, begun, hits))


def _checked(
    policy_id: Any,
    node_id: Any,
    tokens: Any,
    version_id: Any,
    limit: Any,
    reasons: Any,
    include_text: Any,
) -> _Question:
    if tokens is not None and (
        isinstance(tokens, str)
        or not isinstance(tokens, list | tuple)
        or len(tokens) > TOKENS_MAX
        or not all(isinstance(token, str) for token in tokens)
    ):
        raise InvalidArgument(f"tokens is a list of at most {TOKENS_MAX} strings.")
    if node_id is None and not tokens:
        raise InvalidArgument("Give a node_id, or tokens to search for.")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
        raise InvalidArgument(f"limit is a number from 1 to {LIMIT_MAX}, not {shown(limit)}.")
    if reasons is None:
        reasons = REASONS
    if isinstance(reasons, str) or not isinstance(reasons, list | tuple):
        raise InvalidArgument(f"reasons is a list of some of {', '.join(REASONS)}.")
    for reason in reasons:
        if reason not in REASONS:
            raise InvalidArgument(
                f"There is no reason {shown(reason)}; there are {', '.join(REASONS)}."
            )
    if not isinstance(include_text, bool):
        raise InvalidArgument(f"include_text is True or False, not {shown(include_text)}.")
    wanted: tuple[Reason, ...] = tuple(reason for reason in REASONS if reason in reasons)
    return _Question(
        policy_id, node_id, tuple(tokens or ()), version_id, limit, wanted, include_text
    )


def _begin(question: _Question, txn: Read) -> _Begun:
    """Find the node, and what it is cross-referenced with."""
    place = place_to_read(txn, question.policy_id, question.version_id)
    if question.node_id is None:
        check_document(txn, place)
        return _Begun(place, None, None, [], set())
    path = path_of(txn, place, question.node_id)
    record = txn.get(place.nodes + path + HEAD)
    assert record is not None
    begun = _Begun(place, path, decode_node(bare(record)), [], {place.nodes + path})
    if "cross_reference" in question.reasons:
        candidates = related.cross_references(txn, place, packed_node_id(question.node_id))
        begun.found = related.chosen(candidates, begun.seen, question.limit)
    return begun


def _words(question: _Question, begun: _Begun) -> list[str]:
    """The words to search for: letters and digits alone, so that none has a meaning of its own."""
    texts: Sequence[str] = question.tokens
    if not texts and begun.node is not None:
        texts = [begun.node.title, *related.names_in(begun.node.metadata.get(KEYWORDS))]
    found = re.findall(r"\w+", " ".join(texts))
    return list(dict.fromkeys(found))[:WORDS_MAX]


def _request(question: _Question, begun: _Begun, words: list[str]) -> Request:
    from treestore.stores.documents.searching import make_request

    return make_request(
        " ".join(words)[:10_000],
        policy_id=question.policy_id,
        version_id=begun.place.version_id,
        fields=None,
        # Some of the hits are known already.
        top_k=question.limit + len(begun.seen),
        mode="any",
        language=None,
        fuzzy=0,
        include_text=False,
    )


def _finish(
    txn: Read, question: _Question, begun: _Begun, hits: list[tuple[str, float]]
) -> list[RelatedNode]:
    """The answer: what was found before the search, by it, and what is left to give."""
    left = question.limit - len(begun.found)
    more = related.chosen(_candidates(txn, question, begun, hits), set(begun.seen), left)
    return related.load_related(txn, [*begun.found, *more], question.include_text)


def _candidates(
    txn: Read, question: _Question, begun: _Begun, hits: list[tuple[str, float]]
) -> Iterator[Candidate]:
    place, path = begun.place, begun.path
    by_reason: dict[Reason, Iterator[Candidate]] = {
        "keyword": related.keyword_hits(txn, place, hits)
    }
    if path is not None and begun.node is not None:
        by_reason["sibling"] = related.siblings(txn, place, path)
        by_reason["see_also"] = related.see_also(txn, place, begun.node.metadata)
        by_reason["context"] = related.context(txn, place, path)
    else:
        by_reason["context"] = _parents(txn, place, hits)
    return chain.from_iterable(
        by_reason[reason] for reason in question.reasons if reason in by_reason
    )


def _parents(txn: Read, place: Place, hits: list[tuple[str, float]]) -> Iterator[Candidate]:
    for candidate in related.keyword_hits(txn, place, hits):
        ends = level_ends(candidate.path)
        if len(ends) > 1:
            yield Candidate(place, candidate.path[: ends[-2]], "context", "parent")
