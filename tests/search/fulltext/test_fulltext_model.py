"""Searches of a namespace's texts against a computation that looks at every row.

The computation counts rows and words itself; it takes nothing from the index. (What analyzers make
of a text is said in ``test_analysis.py``.)
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from treestore.errors import InvalidArgument
from treestore.model.namespaces import FullTextSchema
from treestore.search.fulltext.fields import TextFields
from treestore.search.fulltext.generations import NamespaceTexts
from treestore.search.fulltext.index import Identity, View
from treestore.search.fulltext.request import TextRequest, asked_of, make_request
from treestore.search.fulltext.searching import Search
from treestore.search.fulltext.writers import Writers
from treestore.search.matching import score_asked
from treestore.search.names import LANGUAGES

QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None
IDENTITY = Identity(b"database", 1, 7)

WORDS = [
    *("tax", "taxes", "Taxes", "TAX", "house", "Houses", "of", "the", "The", "self-employed"),
    *(
        "école",
        "ecole",
        "été",
        "Straße",
        "strasse",
        "Häuser",
        "дома",
        "дом",
        "и",
        "市长",
        "长江大桥",
    ),
    *("x" * 45, "x" * 41, "x" * 40, "1-301.47", "ﬁne", "C++", "a", "naïve", "naive"),
]
TEXT = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join)
# An index remembers lengths above forty words roughly only.
LONG = st.integers(20, 90).map(lambda count: "tax house " * count + "school")
VALUES = st.one_of(
    TEXT, TEXT, TEXT, LONG, st.lists(st.one_of(TEXT, st.none()), max_size=3), st.none()
)
NAMES = ("title", "Body", "two words")
SCHEMAS = st.builds(
    FullTextSchema,
    language=st.one_of(
        st.sampled_from(["english", "french", "german", "chinese", "none"]),
        st.sampled_from(LANGUAGES),
    ),
    stemming=st.booleans(),
    remove_stopwords=st.booleans(),
    case_sensitive=st.booleans(),
    ascii_folding=st.booleans(),
    tokenizer=st.sampled_from(["word", "word", "ngram"]),
    ngram_min=st.integers(1, 3),
    ngram_max=st.integers(3, 4),
    token_length_max=st.sampled_from([4, 40, 40]),
)
SIGN = st.sampled_from(["", "", "", "+", "-"])
FIELD = st.sampled_from(["", "", "", "title:", "body:", "Body:", "nothing:"])
FORM = st.sampled_from(["{}", "{}", "{}", "{}*", "{}~", '"{} {}"', '"the {} of {}"'])


@st.composite
def queries(draw: st.DrawFn) -> str:
    def item() -> str:
        form = draw(FORM)
        some = [draw(st.sampled_from(WORDS)) for _ in range(2)]
        return draw(SIGN) + draw(FIELD) + form.format(*some)

    return " ".join(item() for _ in range(draw(st.integers(1, 4))))


@st.composite
def scenes(draw: st.DrawFn) -> dict[str, Any]:
    names = NAMES[: draw(st.integers(1, 3))]
    row = st.fixed_dictionaries(dict.fromkeys(names, VALUES))
    inside = draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) or None
    weights = draw(
        st.dictionaries(st.sampled_from(inside or names), st.sampled_from([0.25, 0.5, 2.0, 7.0]))
    )
    return {
        "schema": {name: draw(SCHEMAS) for name in names},
        "rows": draw(st.lists(row, max_size=12)),
        "late": draw(st.lists(row, max_size=4)),
        "text": {
            "query": draw(queries()),
            "mode": draw(st.sampled_from(["any", "all", "phrase"])),
            "fields": inside,
            "weights": weights,
        },
        "top_k": draw(st.integers(1, 6)),
        "allowed": draw(st.one_of(st.none(), st.sets(st.integers(0, 15)))),
        "only": draw(st.one_of(st.none(), st.none(), st.sets(st.integers(0, 15), max_size=5))),
        "removed": draw(st.sets(st.integers(0, 11), max_size=2)),
    }


class Counts:
    """BM25's numbers of rows that are counted one by one."""

    def __init__(self, fields: TextFields, rows: list[Any], others: list[Any], extra: int) -> None:
        """``extra``: rows that count though they hold no word."""
        cut, self._others = [fields.cut(row) for row in rows], [fields.cut(row) for row in others]
        self._rows = len(rows) + extra
        self._live = len(rows) + 1
        self._lengths: Counter[str] = Counter()
        self._holding: Counter[tuple[str, str]] = Counter()
        for row in cut:
            for field, its in row.stems.items():
                self._lengths[field] += sum(map(len, its.positions.values()))
                for word in its.positions:
                    self._holding[field, word] += 1

    def rarity(self, field: str, word: str) -> float:
        rows, holding = self._rows, self._holding[field, word]
        if not holding:
            rows = self._rows + len(self._others)
            holding = sum(
                field in row.stems and word in row.stems[field].positions for row in self._others
            )
        return float(np.log(1 + (rows - holding + 0.5) / (holding + 0.5)))

    def mean_length(self, field: str) -> float:
        if self._lengths[field]:
            return self._lengths[field] / self._rows
        own = [row.stems[field].length for row in self._others if field in row.stems]
        return sum(own) / max(1, len(self._others))


def indexed(folder: Path, schema: Any, rows: dict[int, Any]) -> NamespaceTexts:
    texts = NamespaceTexts(folder, IDENTITY, Writers())
    texts.open(schema)
    for number, row in rows.items():
        texts.add(number, row)
    texts.commit()
    return texts


def brute_force(
    view: View, request: TextRequest, rows: dict[int, Any], late: dict[int, Any]
) -> dict[int, float]:
    """The scores of all rows that fit."""
    fields = view.fields
    # The marker of the commit is a row, too.
    counts = Counts(fields, list(rows.values()), list(late.values()), extra=1)
    asked = asked_of(request, fields)
    scores = {
        number: score_asked(fields.cut(row), asked, counts)
        for number, row in {**rows, **late}.items()
    }
    return {number: value for number, value in scores.items() if value is not None}


@given(scenes())
@settings(max_examples=150)
def test_a_search_finds_what_a_look_at_every_row_finds(scene: dict[str, Any]) -> None:
    folder = Path(tempfile.mkdtemp(dir=QUICK))
    rows = dict(enumerate(scene["rows"]))
    late = {100 + number: row for number, row in enumerate(scene["late"])}
    texts = indexed(folder, scene["schema"], rows)
    try:
        request = make_request(scene["text"], list(scene["schema"]))
    except InvalidArgument:
        texts.delete()
        return
    view = texts.serving.view
    assert view is not None
    cut = {number: view.fields.cut(row) for number, row in late.items()}
    allowed, only = scene["allowed"], scene["only"]
    found = Search(view, request).best(
        scene["top_k"],
        allowed=None if allowed is None else lambda rows: np.isin(rows, list(allowed)),
        only=None if only is None else np.array(sorted(only), dtype=np.int64),
        unindexed=cut,
        tie_key=lambda rows: [-row for row in rows],
    )
    scores = brute_force(view, request, rows, late)
    wanted = {
        number: value
        for number, value in scores.items()
        if number >= 100
        or ((allowed is None or number in allowed) and (only is None or number in only))
    }
    check(found, wanted, scene["top_k"])
    texts.delete()
    shutil.rmtree(folder, ignore_errors=True)


def check(found: Any, wanted: dict[int, float], top_k: int) -> None:
    """The best ones, in order, with their scores; equal ones by descending number."""
    assert len(found) == min(top_k, len(wanted))
    for hit in found:
        assert np.isclose(hit.score, wanted[hit.row], rtol=1e-4), hit
    order = sorted(wanted, key=lambda number: (-round(wanted[number], 9), -number))
    for hit, number in zip(found, order, strict=False):
        assert hit.row == number or np.isclose(wanted[hit.row], wanted[number], rtol=1e-5)
    for before, after in itertools.pairwise(found):
        assert before.score >= after.score
        if before.score == after.score:
            assert before.row > after.row


@given(scenes())
@settings(max_examples=60)
def test_a_row_counts_the_same_before_and_after_it_is_indexed(scene: dict[str, Any]) -> None:
    """With the statistics of one and the same index."""
    folder = Path(tempfile.mkdtemp(dir=QUICK))
    rows = dict(enumerate(scene["rows"]))
    texts = indexed(folder, scene["schema"], rows)
    # Those that were removed count until they are merged away.
    texts.remove(scene["removed"])
    view = texts.commit()
    rows = {number: row for number, row in rows.items() if number not in scene["removed"]}
    try:
        request = make_request(scene["text"], list(scene["schema"]))
    except InvalidArgument:
        texts.delete()
        return
    cut = {number: view.fields.cut(row) for number, row in rows.items()}
    by_index = Search(view, request).best(20)
    by_looking = Search(view, request).best(20, unindexed=cut)
    assert {hit.row for hit in by_index} == {hit.row for hit in by_looking}
    scores = {hit.row: hit.score for hit in by_looking}
    for hit in by_index:
        assert np.isclose(hit.score, scores[hit.row], rtol=1e-5)
    texts.delete()
    shutil.rmtree(folder, ignore_errors=True)


def test_removed_rows_are_gone_and_views_stay(tmp_path: Path) -> None:
    texts = indexed(tmp_path, {"t": FullTextSchema()}, {n: {"t": "tax"} for n in range(10)})
    before = texts.serving.view
    assert before is not None
    texts.remove([3, 4, 99])
    texts.remove([])
    after = texts.commit()
    request = make_request("tax", ["t"])
    assert [hit.row for hit in Search(before, request).best(20)] == list(range(10))
    assert [hit.row for hit in Search(after, request).best(20)] == [0, 1, 2, 5, 6, 7, 8, 9]
    assert after.rows().tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    texts.close()
    assert [hit.row for hit in Search(before, request).best(3)] == [0, 1, 2]
