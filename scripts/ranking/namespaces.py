"""How well ``namespaces.query`` ranks by words, by vectors, and by both.

Vectors are those of `scripts.lsa`, learnt from the abstracts alone; questions are folded in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import attrs
import httpx  # noqa: ASYNC127 - litestar brings it along

from scripts.lsa import Lsa
from scripts.ranking.cranfield import Abstract, Collection, Question
from scripts.ranking.figures import DEPTH, Figures

NAMESPACE: Final = "cranfield"

TOP_K: Final = 10

Ask = Callable[[dict[str, Any]], Awaitable[list[int]]]
"""The ids that a query finds, by the arguments of ``namespaces.query``."""


@attrs.frozen(kw_only=True)
class Way:
    """A way of asking.

    Attributes:
        words: whether the question's words are looked for,
        weights: of the attributes with text;
        vector: whether it is asked for what is near;
        fusion: of both.
    """

    words: bool = True
    weights: Mapping[str, float] | None = None
    vector: bool = True
    fusion: Mapping[str, Any] | None = None

    def query(self, question: str, vector: list[float] | None) -> dict[str, Any]:
        """The arguments of ``namespaces.query``, without those of the answer's form."""
        query: dict[str, Any] = {}
        if self.words:
            query["text"] = {"query": question, "fields": ["title", "text"]}
            if self.weights is not None:
                query["text"]["weights"] = dict(self.weights)
        if self.vector:
            query["vector"] = vector
        if self.fusion is not None:
            query["fusion"] = dict(self.fusion)
        return query


HALF_OF_TITLES: Final = {"title": 0.5}
HALF_OF_WORDS: Final = {"vector": 1, "text": 0.5}

WAYS: Final[Mapping[str, Way]] = {
    "words": Way(vector=False),
    "words, title × 0.5": Way(vector=False, weights=HALF_OF_TITLES),
    "vectors": Way(words=False),
    "both, rrf": Way(),
    "both, rrf, words × 0.5": Way(fusion={"method": "rrf", "weights": HALF_OF_WORDS}),
    "both, weighted": Way(fusion={"method": "weighted"}),
    "both, weighted, words × 0.5": Way(fusion={"method": "weighted", "weights": HALF_OF_WORDS}),
}
"""Half of a leg's weight is a round number; docs/search.md says what others give."""


def schema(dim: int) -> dict[str, Any]:
    """Of the namespace: as anyone would write it who reads no further than the first example."""
    text = {"type": "string", "full_text": {"language": "english"}}
    return {"vector": {"dim": dim, "metric": "cosine"}, "attributes": {"title": text, "text": text}}


def learn(collection: Collection) -> Lsa:
    """From the abstracts; no question and no judgement has a part in it."""
    return Lsa([_whole(abstract) for abstract in collection.abstracts])


def _whole(abstract: Abstract) -> str:
    return f"{abstract.title} {abstract.text}"


def documents(collection: Collection, lsa: Lsa) -> list[dict[str, Any]]:
    """What to store. Abstracts without a text have no vector."""
    found: list[dict[str, Any]] = []
    for abstract in collection.abstracts:
        document: dict[str, Any] = {
            "id": abstract.number,
            "attributes": {"title": abstract.title, "text": abstract.text},
        }
        vector = lsa.embed(_whole(abstract))
        found.append(document if vector is None else {**document, "vector": vector})
    return found


async def store(db: Any, collection: Collection, lsa: Lsa) -> None:
    """Make the namespace, with one call for all abstracts."""
    await db.namespaces.create(NAMESPACE, schema(lsa.dim))
    await db.namespaces.upsert(NAMESPACE, documents(collection, lsa))


def asks(db: Any) -> Ask:
    """By the services, of whatever database or client."""

    async def ask(query: dict[str, Any]) -> list[int]:
        hits = await db.namespaces.query(NAMESPACE, include_attributes=False, **query)
        return [hit.id for hit in hits]

    return ask


def asks_http(client: httpx.AsyncClient) -> Ask:
    """By ``POST /v1/namespaces/{ns}/query``, in Elacsym's JSON."""

    async def ask(query: dict[str, Any]) -> list[int]:
        body = {"full_text" if name == "text" else name: its for name, its in query.items()}
        answer = await client.post(
            f"/v1/namespaces/{NAMESPACE}/query", json={**body, "include_attributes": False}
        )
        answer.raise_for_status()
        return [hit["id"] for hit in answer.json()["results"]]

    return ask


async def measure(
    ask: Ask, questions: Iterable[Question], lsa: Lsa, way: Way, depth: int = DEPTH
) -> Figures:
    """Ask all questions, for ten hits as users do, and where ``depth`` is more, for these too."""
    figures = Figures()
    for question in questions:
        query = way.query(question.text, lsa.embed(question.text))
        first = await ask({**query, "top_k": TOP_K})
        deep = first if depth <= TOP_K else await ask({**query, "top_k": depth})
        figures.add(first, deep, question.relevant)
    return figures
