"""Where in its attributes a row has the words that were looked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from treestore.search.fulltext.fields import TextField, TextFields, Texts, texts_of
from treestore.search.fulltext.request import TextRequest
from treestore.search.languages import Word
from treestore.search.query import analysed
from treestore.search.snippets import Highlighter, Ranges


class Highlight(NamedTuple):
    """The part of an attribute that shows best why its row was found.

    Attributes:
        snippet: about 200 characters, in normal form NFKC; of an array, from one of its strings.
        ranges: where in the snippet the words are, in characters.
    """

    snippet: str
    ranges: Ranges


class Highlights:
    """Finds one query's words in rows. Not from two threads at a time."""

    def __init__(self, request: TextRequest, fields: TextFields) -> None:
        self._request = request
        self._fields = fields
        self._made: dict[str, Highlighter | None] = {}

    def of(self, texts: Texts, names: Iterable[str] | None = None) -> dict[str, Highlight]:
        """Of each of these attributes (None: of all that were looked into) that has a word."""
        found: dict[str, Highlight] = {}
        for name in self._fields.fields if names is None else names:
            highlighter = self._highlighter(name)
            values = texts_of(texts.get(name))
            if highlighter is not None and values:
                snippet, ranges = highlighter.snippet(values)
                if ranges:
                    found[name] = Highlight(snippet, ranges)
        return found

    def _highlighter(self, name: str) -> Highlighter | None:
        if name not in self._made:
            field = self._fields.fields.get(name)
            self._made[name] = None if field is None else self._make(field)
        return self._made[name]

    def _make(self, field: TextField) -> Highlighter | None:
        clauses = [
            clause
            for clause in self._request.clauses
            if clause.field == field.name
            or (clause.field is None and field.name in self._request.weights)
        ]
        wanted = analysed(clauses, field.analyzer)
        if not wanted:
            return None
        kind = RunHighlighter if field.analyzer.is_ngram else Highlighter
        return kind(wanted, field.analyzer)


class RunHighlighter(Highlighter):
    """Of runs of letters that overlap, one."""

    def _hits(self, text: str) -> list[Word]:
        joined: list[Word] = []
        for word in sorted(super()._hits(text), key=lambda word: (word.start, -word.end)):
            if joined and word.start < joined[-1].end:
                last = joined[-1]
                end = max(last.end, word.end)
                joined[-1] = last._replace(text=text[last.start : end], end=end)
            else:
                joined.append(word)
        return joined
