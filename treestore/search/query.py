"""A user's query, read leniently.

::

    word            the word, in any of its forms
    word* wor*      words that begin so
    word~ word~2    words at most one (two) letters away
    "several words" the words next to each other, in this order
    title:word      in that field only; likewise title:"several words", title:wor*
    +word  -word    must be there, must not be there (also before a field or a quote)

What does not fit is taken as words: no query is an error of syntax. Only its size is limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple, get_args

import attrs

from treestore.errors import InvalidArgument
from treestore.model.search import Mode
from treestore.search.languages import Analyzer, normalized

MODES: Final = get_args(Mode)
Occur = Literal["should", "must", "not"]

QUERY_CHARACTERS_MAX: Final = 10_000
CLAUSES_MAX: Final = 500
"""Words and phrases of one query."""
FUZZY_MAX: Final = 2

_ITEM: Final = r'\s*(?P<sign>[-+]*)(?:(?P<field>%s):)?(?:"(?P<phrase>[^"]*)"?|(?P<word>\S+))'
_TAIL = re.compile(r"(?P<word>.*?)(?:(?P<prefix>\*+)|~(?P<fuzzy>[0-9]?))?", re.DOTALL)


@lru_cache(maxsize=64)
def _item(fields: tuple[str, ...]) -> re.Pattern[str]:
    """What finds the next word or phrase, where these names may stand before a colon."""
    plain = all(re.fullmatch(r"\w+", name) for name in fields)
    return re.compile(_ITEM % (r"\w+" if plain else r'[^\s:"]+'))


@attrs.frozen
class Clause:
    """One word or phrase of a query, as written.

    Attributes:
        text: the word or words.
        occur: whether it should, must or must not be there.
        field: the only field to look into; None for those of the search.
        phrase: whether its words must be next to each other.
        prefix: whether the (last) word only begins so.
        fuzzy: how many letters a word may differ in.
    """

    text: str
    occur: Occur = "should"
    field: str | None = None
    phrase: bool = False
    prefix: bool = False
    fuzzy: int = 0


def check_text(query: object) -> str:
    """The text of a query, normalised.

    Raises:
        InvalidArgument: it is no string, no Unicode or too long.
    """
    if not isinstance(query, str):
        raise InvalidArgument(f"query is a string, not {type(query).__name__}.")
    if len(query) > QUERY_CHARACTERS_MAX:
        raise InvalidArgument(
            f"The query has {len(query)} characters; it has at most {QUERY_CHARACTERS_MAX}."
        )
    try:
        query.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            "The query holds half of a surrogate pair, which is no character."
        ) from None
    return normalized(query.replace("\0", " "))


def check_fuzzy(fuzzy: object) -> int:
    """How many letters may differ: 0, 1 or 2."""
    if isinstance(fuzzy, bool) or not isinstance(fuzzy, int) or not 0 <= fuzzy <= FUZZY_MAX:
        raise InvalidArgument(f"fuzzy is 0 to {FUZZY_MAX} letters, not {fuzzy!r:.60}.")
    return fuzzy


def parse(query: str, mode: Mode, fields: Sequence[str], fuzzy: int = 0) -> list[Clause]:
    """The clauses of a query.

    Args:
        query: what `check_text` gave.
        mode: whether any or all of the words are wanted, or all of them as one phrase: then
            nothing in the query has a meaning of its own.
        fields: names that may stand before a colon.
        fuzzy: for every word that says nothing of its own.

    Raises:
        InvalidArgument: there is nothing to look for, or too much.
    """
    if mode not in MODES:
        raise InvalidArgument(f"mode is one of {', '.join(MODES)}, not {mode!r:.60}.")
    if mode == "phrase":
        clauses = [Clause(query, "must", phrase=True)]
    else:
        clauses = list(_clauses(query, "should" if mode == "any" else "must", fields, fuzzy))
    clauses = [clause for clause in clauses if any(map(str.isalnum, clause.text))]
    if len(clauses) > CLAUSES_MAX:
        raise InvalidArgument(
            f"The query has {len(clauses)} words and phrases; it has at most {CLAUSES_MAX}."
        )
    if not clauses:
        raise InvalidArgument("The query has no word to look for.")
    if all(clause.occur == "not" for clause in clauses):
        raise InvalidArgument("The query only says what must not be there; add a word to look for.")
    return clauses


def _clauses(query: str, occur: Occur, fields: Sequence[str], fuzzy: int) -> Iterator[Clause]:
    for match in _item(tuple(fields)).finditer(query):
        sign, field, phrase, word = match.group("sign", "field", "phrase", "word")
        its: Occur = "not" if sign[-1:] == "-" else "must" if sign else occur
        name = None if field is None else _known(field, fields)
        if field is not None and name is None:
            # No field, but a word with a colon.
            word = f"{field}:{phrase if phrase is not None else word}"
            phrase = None
        if phrase is not None:
            yield Clause(phrase, its, name, phrase=True)
            continue
        tail = _TAIL.fullmatch(word)
        assert tail is not None
        own = tail["fuzzy"]
        letters = fuzzy if own is None else min(int(own or 1), FUZZY_MAX)
        yield Clause(tail["word"], its, name, prefix=tail["prefix"] is not None, fuzzy=letters)


def _known(written: str, fields: Sequence[str]) -> str | None:
    """The field that is meant: the one of that name, else the first that differs in case only."""
    if written in fields:
        return written
    lower = written.lower()
    return next((name for name in fields if name.lower() == lower), None)


@attrs.frozen
class Wanted:
    """A clause in one language: words to compare.

    Attributes:
        clause: what it was.
        words: ``(position, stem)``; without stop words. Empty where `clause` has a prefix or is
            fuzzy and nothing but surfaces count.
        strict: whether the words must be next to each other; else any of them will do.
        surfaces: words as written, all of which must be there: but for the last one's end, or a
            few letters.
    """

    clause: Clause
    words: tuple[tuple[int, str], ...]
    strict: bool
    surfaces: tuple[str, ...]


def analysed(clauses: Sequence[Clause], analyzer: Analyzer) -> list[Wanted]:
    """The clauses in a language; those of stop words alone are gone."""
    found: list[Wanted] = []
    for clause in clauses:
        words = analyzer.known_query_words(clause.text)
        first = words[0].position if words else 0
        stems = tuple((word.position - first, word.text) for word in words)
        loose = clause.prefix or clause.fuzzy > 0
        surfaces = tuple(analyzer.surfaces(clause.text)) if loose else ()
        if surfaces or (stems and not loose):
            strict = len(stems) > 1 and (clause.phrase or loose or clause.occur != "should")
            found.append(Wanted(clause, stems, strict, surfaces))
    return found


class StemLook(NamedTuple):
    """A field in which a clause's stems are looked for.

    Attributes:
        field: of the index.
        weight: what BM25 is multiplied with there.
        words, strict: see `Wanted`.
    """

    field: str
    weight: float
    words: tuple[tuple[int, str], ...]
    strict: bool


class SurfaceLook(NamedTuple):
    """A text in which a clause's words as written are looked for.

    Attributes:
        name: of the text.
        field: of the index, with its words as written.
        weight: what each word counts there.
        words: all of which must be there.
        prefix: whether the last one only begins so.
        fuzzy: how many letters a word may differ in.
    """

    name: str
    field: str
    weight: float
    words: tuple[str, ...]
    prefix: bool
    fuzzy: int


class Asked(NamedTuple):
    """A clause, ready to be compared: it fits where any of its looks does, and counts what those
    that do count together."""

    occur: Occur
    stems: tuple[StemLook, ...]
    surfaces: tuple[SurfaceLook, ...] = ()
