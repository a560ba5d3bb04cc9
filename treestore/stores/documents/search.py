"""``documents.search``: what can be asked. Who answers is the host's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from treestore.errors import InvalidArgument
from treestore.model.search import Consistency, Hit, Mode

if TYPE_CHECKING:
    from treestore.stores.documents.searching import Request


class DocumentSearcher(Protocol):
    """What an ``Awaited`` of this service reads with."""

    async def search_documents(self, request: Request, *, strong: bool) -> list[Hit]:
        """The best hits at the snapshot that this is bound to, or the newest."""
        ...


async def search(
    reader: DocumentSearcher,
    query: str,
    *,
    policy_id: str | None = None,
    version_id: str | None = None,
    fields: Sequence[str] | None = None,
    top_k: int = 10,
    mode: Mode = "any",
    language: str | None = None,
    fuzzy: int = 0,
    include_text: bool = True,
    consistency: Consistency = "strong",
) -> list[Hit]:
    """Find nodes by their words: the best ones first, by BM25 over title, summary and text.

    A word is found in all its forms ("tax" finds "taxes"), as far as the document's language
    tells; words such as "the" count for nothing. In the query, ``"several words"`` are found next
    to each other only, ``word*`` finds what begins so, ``word~`` what differs in one letter
    (``word~2`` in two), ``title:word`` looks into one field only, ``+word`` must and ``-word`` must
    not be there. What does not fit into this is taken as words.

    Args:
        query: 1 to 10,000 characters, at most 500 words and phrases.
        policy_id: look into one policy only; None: into all, in each into the version in effect
            today (see ``get``).
        version_id: look into this version of the policy; None: the one in effect.
        fields: of ``title``, ``summary`` and ``text``, those to look into; None: all.
        top_k: at most so many hits, 1 to 1,000.
        mode: whether a node needs ``any`` or ``all`` of the words, or has them as one ``phrase``
            (then nothing in the query has a special meaning).
        language: look only into documents of this language.
        fuzzy: how many letters each word may differ in, 0 to 2.
        include_text: False leaves the nodes' ``text`` empty.
        consistency: ``strong`` sees all that the snapshot (or the newest state) holds;
            ``eventual`` does not wait for what was written in the last moments, or for an index
            that is being rebuilt.

    Raises:
        InvalidArgument: there is no word in the query, or too many; no such language or field.
        NotFound: there is no such policy or document.
        Unavailable: the index is being rebuilt and was not done in time; the message says how far
            it is.
    """
    from treestore.stores.documents.searching import make_request

    if consistency not in ("strong", "eventual"):
        raise InvalidArgument(f"consistency is strong or eventual, not {consistency!r:.60}.")
    request = make_request(
        query,
        policy_id=policy_id,
        version_id=version_id,
        fields=fields,
        top_k=top_k,
        mode=mode,
        language=language,
        fuzzy=fuzzy,
        include_text=include_text,
    )
    return await reader.search_documents(request, strong=consistency == "strong")
