"""Hostile queries: whatever is typed is read, or refused with a sentence."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treestore.errors import InvalidArgument
from treestore.search.compiling import Compiler, Fields
from treestore.search.folder import IndexFolder
from treestore.search.languages import analyzer
from treestore.search.matching import cut, is_near, score
from treestore.search.names import LANGUAGES
from treestore.search.query import Clause, analysed, check_text, parse
from treestore.search.snippets import Highlighter
from treestore.search.statistics import IndexStatistics
from treestore.stores.documents.text_rows import (
    BONUS,
    TEXT_FIELDS,
    NodeTexts,
    make_row,
    make_schema,
    tokenizers,
)

PIECES = [
    *('"', "'", "*", "~", "~2", "~9", "+", "-", "--", ":", "title:", "text:", "nofield:", "(", ")"),
    *(
        "AND",
        "OR",
        "NOT",
        "[a TO z]",
        "/re.*/",
        "^2",
        "\\",
        "\0",
        "\n",
        "\t",
        "\ud800",
        "\U0001f600",
    ),
    *(
        "tax",
        "taxes",
        "the",
        "self-employed",
        "1-301.47",
        "ﬁne",
        "Ｆｕｌｌ",
        "𝔤𝔬𝔱𝔥𝔦𝔠",
        "市长",
        "é",
        "e\u0301",
    ),
    *(
        "",
        " ",
        "x" * 500,
        "ſ",
        "İ",
        "ß",
        "\u200b",
        "\u202e",
        "\x7f",
        "%",
        "${x}",
        "<script>",
        "a*b*",
    ),
]
TEXTS = ("The tax on houses", "", "Self-employed people pay 1-301.47 of the tax. 南京市长江大桥")


def make_index(path) -> IndexFolder:
    folder = IndexFolder(path, make_schema(), tokenizers())
    folder.create()
    for number, language in enumerate(LANGUAGES):
        folder.add(make_row(NodeTexts(b"p", b"%d" % number, language, number, TEXTS), live=True))
    folder.commit(b"marker")
    return folder


def test_thousands_of_hostile_queries_are_answered(tmp_path) -> None:
    rng = Random(11)
    folder = make_index(tmp_path / "index")
    searcher = folder.searcher()
    fields = Fields(TEXT_FIELDS, BONUS)
    refused = answered = 0
    for number in range(3000):
        query = rng.choice(["", " "]).join(rng.choices(PIECES, k=rng.randrange(1, 12)))
        try:
            text = check_text(query)
            clauses = parse(text, rng.choice(["any", "all", "phrase"]), TEXT_FIELDS, number % 3)
        except InvalidArgument:
            refused += 1
            continue
        chain = analyzer(LANGUAGES[number % len(LANGUAGES)])
        wanted = analysed(clauses, chain)
        compiled = Compiler(folder.schema, searcher, fields).text_query(wanted)
        if compiled is not None:
            searcher.search(compiled, 10, count=False)
        row = cut(chain.language, TEXT_FIELDS, TEXTS)
        score(row, wanted, fields, IndexStatistics(searcher, folder.schema, [row], {}))
        Highlighter(wanted, chain).snippet([text, *TEXTS])
        answered += 1
    folder.close()
    assert refused > 300
    assert answered > 1000


def test_an_index_and_a_look_at_the_row_agree(tmp_path) -> None:
    """Each language's row fits by the index exactly where it fits by itself."""
    rng = Random(12)
    folder = make_index(tmp_path / "index")
    searcher = folder.searcher()
    words = ["tax", "taxes", "house*", "hous~", '"tax on"', "pay", "title:tax", "-pay", "+self"]
    words += ['"tax the houses"', '"houses the self"']
    words += ["self-employed", "1-301.47", "text:tax", "长江", "nothing", "summary:tax"]
    matched = 0
    for number in range(1500):
        fields = Fields(TEXT_FIELDS, BONUS, rng.choice([None, None, ("title",), ("text",)]))
        query = " ".join(rng.choices(words, k=rng.randrange(1, 4)))
        code = number % len(LANGUAGES)
        chain = analyzer(LANGUAGES[code])
        try:
            clauses = parse(check_text(query), rng.choice(["any", "all"]), TEXT_FIELDS)
        except InvalidArgument:
            continue
        wanted = analysed(clauses, chain)
        compiled = Compiler(folder.schema, searcher, fields).text_query(wanted)
        rows = []
        if compiled is not None:
            hits = searcher.search(compiled, 100, count=False).hits
            rows = searcher.fast_field_values("row", [address for _, address in hits])
        row = cut(chain.language, TEXT_FIELDS, TEXTS)
        value = score(row, wanted, fields, IndexStatistics(searcher, folder.schema, [row], {}))
        assert (code in rows) == (value is not None), (query, chain.language, fields.only)
        matched += value is not None
    folder.close()
    assert matched > 300


@given(st.text(max_size=60))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    try:
        clauses = parse(check_text(text), "any", TEXT_FIELDS)
    except InvalidArgument:
        return
    assert clauses
    assert all(any(map(str.isalnum, clause.text)) for clause in clauses)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a b", [Clause("a"), Clause("b")]),
        ('"a b" c', [Clause("a b", phrase=True), Clause("c")]),
        ('-"a b" +c', [Clause("a b", "not", phrase=True), Clause("c", "must")]),
        ('TITLE:a text:"b c"', [Clause("a", field="title"), Clause("b c", "should", "text", True)]),
        ("a* b~ c~2 d~7", [
            Clause("a", prefix=True),
            *(Clause("b", fuzzy=1), Clause("c", fuzzy=2), Clause("d", fuzzy=2)),
        ]),
        ("x:y:z", [Clause("x:y:z")]),
        ('"open end', [Clause("open end", phrase=True)]),
        ("--a", [Clause("a", "not")]),
    ],
)  # fmt: skip
def test_how_a_query_is_read(query: str, expected: list[Clause]) -> None:
    clauses = parse(f"{query} anchor", "any", TEXT_FIELDS)
    if '"open' not in query:
        assert clauses.pop() == Clause("anchor")
        assert clauses == expected
    else:
        assert clauses == [Clause("open end anchor", phrase=True)]


def test_words_at_a_distance() -> None:
    assert is_near("school", "school", 0)
    assert is_near("scools", "schools", 1)
    assert is_near("shcool", "school", 1)
    assert not is_near("shcools", "school", 1)
    assert is_near("shcools", "school", 2)
    assert not is_near("a", "abcd", 2)


def test_chinese_words_as_written_are_letters_and_digits() -> None:
    """So that none of them is a pattern: "x,+c*" was one, and malformed."""
    chain = analyzer("chinese")
    assert chain.surfaces("x,+c C++ 3.14 长江") == ["x", "c", "c", "3", "14", "长江"]
    assert all(map(str.isalnum, "".join(chain.surfaces("a+ .b #c &d %e -f _g"))))
