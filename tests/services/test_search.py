"""``documents.search`` through every face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from actors import reader
from actors.database import open_database
from treestore.errors import DeadlineExceeded, InvalidArgument, NotFound, TransactionConflict
from treestore.search.names import LANGUAGES

HOUSES = [
    {
        "title": "Taxes on houses",
        "node_id": "tax",
        "text": "The owner of a house pays the tax every year.",
        "nodes": [
            {"title": "Exceptions", "node_id": "exc", "text": "No tax is due from schools."},
            {"title": "Self-employed owners", "node_id": "self", "summary": "A tax in instalments"},
        ],
    }
]


def ids(hits: Any) -> list[str]:
    return [hit.node.node_id for hit in hits]


async def found(db: Any, query: str, **options: Any) -> set[str]:
    return set(ids(await db.documents.search(query, **options)))


async def indexed(db: Any) -> None:
    """Wait until the index itself has everything, and nothing is looked at one by one."""
    while (await db.admin.stats()).search_lag_records:  # noqa: ASYNC110 (nothing tells of it)
        await trio.sleep(0.05)


@pytest.fixture(params=["at once", "indexed"])
async def houses(db: Any, request: pytest.FixtureRequest) -> Any:
    """A small document, right after it was stored and once the index has it."""
    with trio.fail_after(60):
        await db.documents.store("houses", "v1", HOUSES)
        if request.param == "indexed":
            await indexed(db)
    return db


async def test_a_hit_is_the_node_with_a_snippet(houses: Any) -> None:
    with trio.fail_after(60):
        best, *_ = await houses.documents.search("owner of houses")
        assert best.node == await houses.documents.get_node("houses", "tax")
        assert best.score > 0
        words = [best.snippet[start:end] for start, end in best.highlights]
        assert words == ["owner", "house"]
        assert best.marked("<b>", "</b>").startswith("The <b>owner</b> of a <b>house</b> pays")
        (short,) = await houses.documents.search("every", include_text=False)
        assert short.node.text == ""
        assert "every year" in short.snippet


QUERIES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("taxes", {}, {"tax", "exc", "self"}),
    ("house schools", {}, {"tax", "exc"}),
    ("house schools", {"mode": "all"}, set()),
    ("tax due", {"mode": "all"}, {"exc"}),
    ("tax every", {"mode": "phrase"}, {"tax"}),
    ("every tax", {"mode": "phrase"}, set()),
    ('"tax every" school', {}, {"tax", "exc"}),
    ('"owner of a house"', {}, {"tax"}),
    ('"owner house"', {}, set()),
    ("hou*", {}, {"tax"}),
    ("scools~", {}, {"exc"}),
    ("shcols~2", {}, {"exc"}),
    ("scools", {"fuzzy": 1}, {"exc"}),
    ("scools", {}, set()),
    ("title:tax", {}, {"tax"}),
    ("tax", {"fields": ["summary"]}, {"self"}),
    ("tax -school", {}, {"tax", "self"}),
    ("tax +school", {}, {"exc"}),
    ('tax -"every year"', {}, {"exc", "self"}),
    ("self-employed", {"mode": "all"}, {"self"}),
    ("employed self", {"mode": "phrase"}, set()),
    ("the of a", {}, set()),
    ("TAX", {"top_k": 1}, {"tax"}),
    ('unclosed "tax every', {}, {"tax"}),
    ("nofield:school", {}, {"exc"}),
    ("tax AND (", {"mode": "all"}, {"tax", "exc", "self"}),
]


async def test_the_query_language(houses: Any) -> None:
    with trio.fail_after(60):
        for query, options, expected in QUERIES:
            assert await found(houses, query, **options) == expected, (query, options)


async def test_a_phrase_does_not_go_from_one_text_into_the_next(db: Any) -> None:
    """Also where it has stop words inside, for which any word will do."""
    nodes = [
        {"node_id": "apart", "title": "Taxes of the owner", "text": "houses are taxed"},
        {"node_id": "far", "title": "An owner of", "text": "the houses are taxed"},
        {"node_id": "whole", "title": "Other", "text": "An owner of houses is taxed"},
        {"node_id": "title", "title": "The owner with houses", "text": "is taxed"},
    ]
    with trio.fail_after(60):
        await db.documents.store("p", "v1", nodes)
        for _ in range(2):
            assert await found(db, '"owner of houses"') == {"whole", "title"}
            assert await found(db, '"owner houses"') == set()
            assert await found(db, '"owner of the houses"') == set()
            assert await found(db, '+"owner of houses" other') == {"whole", "title"}
            assert await found(db, 'taxed -"owner of houses"') == {"apart", "far"}
            assert ids(await db.documents.search('"owner of houses"')) == ["title", "whole"]
            await indexed(db)


async def test_a_word_in_the_title_counts_for_more(db: Any) -> None:
    with trio.fail_after(60):
        await db.documents.store(
            "p",
            "v1",
            [
                {"node_id": "b", "title": "Other things", "text": "Some say appeal matters here."},
                {"node_id": "a", "title": "Appeal things", "text": "Some say other matters here."},
            ],
        )
        assert ids(await db.documents.search("appeal")) == ["a", "b"]
        await indexed(db)
        assert ids(await db.documents.search("appeal")) == ["a", "b"]


async def test_repeated_words_count(db: Any) -> None:
    with trio.fail_after(60):
        nodes = [
            {"node_id": "once", "text": "fee one two three four"},
            {"node_id": "thrice", "text": "fee fee fee two four"},
        ]
        await db.documents.store("p", "v1", nodes)
        assert ids(await db.documents.search("fee")) == ["thrice", "once"]


async def test_scores_are_the_same_before_and_after_indexing(db: Any) -> None:
    """But for the lengths of texts, which the index rounds, and rows that it counts for itself."""
    texts = [f"word{n % 7} tax {'house ' * (n % 5)} end" for n in range(60)]
    with trio.fail_after(60):
        for number in range(2):
            nodes = [{"node_id": f"{number}-{n}", "text": text} for n, text in enumerate(texts)]
            await db.documents.store(f"p{number}", "v1", nodes)
            await indexed(db)
        before = {hit.node.node_id: hit.score for hit in await db.documents.search("house word3")}
        await db.documents.update_node("p0", "0-3", text=texts[3] + " ")
        after = {hit.node.node_id: hit.score for hit in await db.documents.search("house word3")}
        assert before.keys() & after.keys()
        for node_id in before.keys() & after.keys():
            assert after[node_id] == pytest.approx(before[node_id], rel=0.1)


async def test_a_search_sees_what_its_snapshot_sees(db: Any) -> None:
    with trio.fail_after(60):
        await db.documents.store("houses", "v1", HOUSES)
        async with db.snapshot() as old:
            await db.documents.update_node("houses", "exc", text="No fee is due.")
            await db.documents.delete_node("houses", "self")
            for _ in range(2):
                assert set(ids(await old.documents.search("tax"))) == {"tax", "exc", "self"}
                assert await found(db, "tax") == {"tax"}
                assert await found(db, "fee") == {"exc"}
                assert ids(await old.documents.search("fee")) == []
                await indexed(db)
            await db.documents.delete("houses", "v1")
            assert await found(db, "fee") == set()
            await indexed(db)
            assert set(ids(await old.documents.search("school"))) == {"exc"}


async def test_everywhere_means_each_version_in_effect(db: Any) -> None:
    with trio.fail_after(60):
        one = [{"node_id": "n", "text": "tax one"}]
        two = [{"node_id": "n", "text": "tax two"}]
        await db.documents.store("p", "v1", one, effective_from="2020-01-01")
        await db.documents.store("q", "v1", one)
        await indexed(db)

        async def versions(query: str, **options: Any) -> set[tuple[str, str]]:
            hits = await db.documents.search(query, **options)
            return {(hit.node.policy_id, hit.node.version_id) for hit in hits}

        assert await versions("tax") == {("p", "v1"), ("q", "v1")}
        await db.documents.store("p", "v2", two, effective_from="2021-01-01")
        await db.documents.store("p", "v3", two, effective_from="2900-01-01")
        for _ in range(3):
            assert await versions("tax") == {("p", "v2"), ("q", "v1")}
            assert await versions("tax", policy_id="p") == {("p", "v2")}
            assert await versions("tax", policy_id="p", version_id="v3") == {("p", "v3")}
            await indexed(db)
        await db.documents.delete("p", "v2")
        for _ in range(2):
            assert await versions("tax") == {("p", "v1"), ("q", "v1")}
            await indexed(db)


async def test_bad_requests_say_what_would_do(houses: Any) -> None:
    search = houses.documents.search
    with trio.fail_after(60):
        for query in ("", "   ", "-", '""', "*", "-tax", "\0", "\ud800x", "x" * 10_001):
            with pytest.raises(InvalidArgument):
                await search(query)
        with pytest.raises(InvalidArgument, match="at most 500"):
            await search("a " * 4000)
        refused: list[dict[str, Any]] = [
            {"top_k": 0},
            {"top_k": 1001},
            {"fields": []},
            {"fields": ["body"]},
            {"fuzzy": 3},
            {"version_id": "v1"},
            {"mode": "some"},
            {"consistency": "weak"},
            {"policy_id": ""},
            {"policy_id": 7},
            {"top_k": "ten"},
            {"fields": "title"},
        ]
        for options in refused:
            with pytest.raises(InvalidArgument):
                await search("tax", **options)
        with pytest.raises(InvalidArgument, match="english"):
            await search("tax", language="klingon")
        with pytest.raises(NotFound):
            await search("tax", policy_id="nothing")
        with pytest.raises(NotFound):
            await search("tax", policy_id="houses", version_id="v9")


async def test_a_document_of_an_unknown_language_is_refused(db: Any) -> None:
    with trio.fail_after(60), pytest.raises(InvalidArgument) as caught:
        await db.documents.store("p", "v1", HOUSES, language="klingon")
    assert all(language in caught.value.message for language in LANGUAGES)


PROBES = {
    # In the text, in the query: other forms of one word.
    "arabic": ("المعلمون في المدرسة", "معلم"),
    "danish": ("husene ved vejen", "huset"),
    "dutch": ("de huizen en de lichamen", "lichaam lichamen"),
    "english": ("the owners pay taxes", "owner"),
    "finnish": ("talot ovat suuria", "talo"),
    "french": ("les maisons continuellement", "maison"),
    "german": ("Die Häuser der Städte", "haus"),
    "greek": ("οι δρόμοι της πόλης", "δρόμος"),
    "hungarian": ("a házakban laknak", "házak"),
    "italian": ("le case abbandonate", "abbandonato"),
    "norwegian": ("husene ved veien", "huset"),
    "portuguese": ("as casas antigas", "casa"),
    "romanian": ("casele mari", "case"),
    "russian": ("новые законы страны", "закон"),
    "spanish": ("las casas antiguas", "casa"),
    "swedish": ("husen vid vägen", "huset"),
    "tamil": ("வீடுகள் மற்றும் நகரத்தில்", "நகரம்"),
    "turkish": ("İlk ev ISIRGAN", "ilk ısırgan"),
    "chinese": ("南京市长江大桥欢迎您", "长江"),
    "none": ("seadused jõustuvad हिन्दी", "हिन्दी"),
}


async def test_every_language_finds_other_forms_of_a_word(db: Any) -> None:
    assert set(PROBES) == set(LANGUAGES)
    with trio.fail_after(120):
        for language, (text, _) in PROBES.items():
            nodes = [{"node_id": "n", "title": "", "text": text}]
            await db.documents.store(language, "v1", nodes, language=language)
        for _ in range(2):
            for language, (_, query) in PROBES.items():
                hits = await db.documents.search(query, policy_id=language)
                assert ids(hits) == ["n"], language
                hits = await db.documents.search(query, language=language, top_k=30)
                assert [hit.node.policy_id for hit in hits] == [language]
            await indexed(db)


async def test_words_with_marks_are_not_cut(db: Any) -> None:
    with trio.fail_after(60):
        for language, text in (("tamil", "பள்ளிகளில் மற்றும்"), ("none", "हिन्दी भाषा")):
            nodes = [{"node_id": language, "title": "", "text": text}]
            await db.documents.store(language, "v1", nodes, language=language)
        for _ in range(2):
            assert await found(db, "பள்ளி") == {"tamil"}
            assert await found(db, "பள்*") == {"tamil"}
            # A stop word, and parts of words, which marks do not end.
            assert await found(db, "மற்றும்") == set()
            assert await found(db, "மற") == set()
            assert await found(db, "हिन") == set()
            assert await found(db, '"हिन्दी भाषा"') == {"none"}
            await indexed(db)


async def test_chinese_is_cut_into_words(db: Any) -> None:
    with trio.fail_after(60):
        nodes = [
            {"node_id": "bridge", "text": "南京市长江大桥"},
            {"node_id": "claim", "text": "保险公司应当在三十天内支付赔偿金。"},
        ]
        await db.documents.store("p", "v1", nodes, language="chinese")
        for _ in range(2):
            assert await found(db, "长江大桥") == {"bridge"}
            assert await found(db, "大桥") == {"bridge"}
            assert await found(db, "南京市长江大桥", mode="phrase") == {"bridge"}
            # "Mayor" is in it only for who cuts it wrongly.
            assert await found(db, "市长") == set()
            assert await found(db, "赔偿") == {"claim"}
            await indexed(db)


async def test_eventual_does_not_wait_but_never_lies(db: Any) -> None:
    with trio.fail_after(60):
        await db.documents.store("houses", "v1", HOUSES)
        await indexed(db)
        await db.documents.update_node("houses", "exc", text="Nothing.", title="Nothing")
        assert await found(db, "school", consistency="eventual") == set()
        # Nothing tells a client when the index has caught up.
        while "exc" not in await found(db, "nothing", consistency="eventual"):  # noqa: ASYNC110
            await trio.sleep(0.05)


async def test_names_with_nulls_and_long_texts(db: Any) -> None:
    with trio.fail_after(60):
        text = "start " + "filler " * 20_000 + "needle <&> end"
        policy, node = "p\0\1q", "n\0"
        await db.documents.store(policy, "v\0", [{"node_id": node, "text": text}])
        for _ in range(2):
            (hit,) = await db.documents.search("needle")
            assert (hit.node.policy_id, hit.node.node_id) == (policy, node)
            assert "<mark>needle</mark> &lt;&amp;&gt; end" in hit.marked()
            await indexed(db)


# --- inside a transaction ----------------------------------------------------------------------


async def test_a_transaction_finds_what_it_wrote_itself(houses: Any) -> None:
    db = houses
    with trio.fail_after(60):
        await db.documents.store("other", "v1", [{"node_id": "o", "text": "A tax as well."}])
        async with db.transaction() as txn:
            search = txn.documents.search
            assert set(ids(await search("tax"))) == {"tax", "exc", "self", "o"}
            await txn.documents.update_node("houses", "exc", text="No fee is due from schools.")
            await txn.documents.delete_node("houses", "self")
            await txn.documents.insert_nodes(
                "houses", [{"node_id": "new", "parent_id": "tax", "text": "A new tax."}]
            )
            await txn.documents.delete("other", "v1")
            await txn.documents.store("more", "v1", [{"node_id": "m", "text": "More taxes."}])
            assert set(ids(await search("tax"))) == {"tax", "new", "m"}
            (hit,) = await search("fee")
            assert hit.node == await txn.documents.get_node("houses", "exc")
            assert set(ids(await search("tax", policy_id="houses"))) == {"tax", "new"}
            with pytest.raises(NotFound):
                await search("tax", policy_id="other")
            with pytest.raises(InvalidArgument, match="strong"):
                await search("tax", consistency="eventual")
            assert await found(db, "tax") == {"tax", "exc", "self", "o"}
        assert await found(db, "tax") == {"tax", "new", "m"}


async def test_a_transaction_goes_on_searching_its_own_state(db: Any) -> None:
    with trio.fail_after(60):
        await db.documents.store("houses", "v1", HOUSES)
        async with db.transaction() as txn:
            assert set(ids(await txn.documents.search("tax"))) == {"tax", "exc", "self"}
            for _ in range(2):
                await db.documents.update_node("houses", "exc", text="Nothing.")
                await db.documents.store("more", "v1", [{"node_id": "m", "text": "More taxes."}])
                assert set(ids(await txn.documents.search("tax"))) == {"tax", "exc", "self"}
                await indexed(db)
                assert set(ids(await txn.documents.search("tax"))) == {"tax", "exc", "self"}
        # It wrote nothing, so it comes before all that.
        assert await found(db, "tax") == {"tax", "self", "m"}


async def test_a_transaction_finds_more_than_is_looked_at_at_once(db: Any) -> None:
    nodes = [{"node_id": f"n{n}", "text": f"tax {n}"} for n in range(1500)]
    with trio.fail_after(60):
        await db.documents.store("houses", "v1", HOUSES)
        async with db.transaction() as txn:
            await txn.documents.store("large", "v1", nodes)
            (hit,) = await txn.documents.search("+tax 1234", top_k=1)
            assert hit.node.node_id == "n1234"
            assert len(await txn.documents.search("tax", top_k=1000)) == 1000


WRITES_THAT_COUNT: list[tuple[str, dict[str, Any]]] = [
    ("update_node", {"policy_id": "houses", "node_id": "exc", "text": "Nothing more."}),
    ("delete_node", {"policy_id": "houses", "node_id": "exc"}),
    (
        "insert_nodes",
        {"policy_id": "houses", "nodes": [{"node_id": "x", "parent_id": "tax", "text": "fee"}]},
    ),
    ("store", {"policy_id": "houses", "version_id": "v1", "structure": HOUSES[:1]}),
    ("delete", {"policy_id": "houses", "version_id": "v1"}),
]


@pytest.mark.parametrize(
    ("method", "arguments"), WRITES_THAT_COUNT, ids=[name for name, _ in WRITES_THAT_COUNT]
)
@pytest.mark.parametrize("policy_id", [None, "houses"])
async def test_what_would_change_a_search_is_a_conflict(
    db: Any, policy_id: str | None, method: str, arguments: dict[str, Any]
) -> None:
    """Also where it found nothing: what appears meanwhile is a phantom."""
    with trio.fail_after(60):
        await db.documents.store("houses", "v1", HOUSES)
        with pytest.raises(TransactionConflict):
            async with db.transaction() as txn:
                assert await txn.documents.search("fee", policy_id=policy_id) == []
                await getattr(db.documents, method)(**arguments)
                await txn.kv.put(b"fees", b"0")
        assert await db.kv.get(b"fees") is None


async def _count_fees(db: Any, policy_id: str | None, other: str) -> None:
    """Count the fees in a transaction, beside which somebody stores another one."""
    async with db.transaction() as txn:
        fees = await txn.documents.search("fee", policy_id=policy_id)
        await db.documents.store(other, "v1", [{"node_id": "o", "text": "Another fee."}])
        await txn.kv.put(b"fees", b"%d" % len(fees))


async def test_another_document_is_a_conflict_for_who_searches_all(db: Any) -> None:
    with trio.fail_after(60):
        await db.documents.store("houses", "v1", HOUSES)
        await _count_fees(db, "houses", "first")
        assert await db.kv.get(b"fees") == b"0"
        with pytest.raises(TransactionConflict):
            await _count_fees(db, None, "second")
        assert await db.kv.get(b"fees") == b"0"
        # What is no part of what is searched is no conflict.
        async with db.transaction() as txn:
            hits = await txn.documents.search("fee")
            await db.kv.put(b"elsewhere", b"1")
            await txn.kv.put(b"fees", b"%d" % len(hits))
        assert await db.kv.get(b"fees") == b"2"


async def test_another_version_in_effect_is_a_conflict(db: Any) -> None:
    with trio.fail_after(60):
        await db.documents.store("houses", "v1", HOUSES, effective_from="2020-01-01")
        with pytest.raises(TransactionConflict):
            async with db.transaction() as txn:
                assert await txn.documents.search("fee", policy_id="houses") == []
                fee = [{"node_id": "n", "text": "A fee."}]
                await db.documents.store("houses", "v2", fee, effective_from="2021-01-01")
                await txn.kv.put(b"fees", b"0")


async def test_related_nodes_inside_a_transaction(db: Any) -> None:
    with trio.fail_after(60):
        await db.documents.store("houses", "v1", HOUSES)
        with pytest.raises(TransactionConflict):
            async with db.transaction() as txn:
                await txn.documents.insert_nodes(
                    "houses", [{"node_id": "new", "parent_id": "exc", "text": "Schools and tax."}]
                )
                related = txn.queries.find_related
                one, *_ = await related("houses", tokens=["school"], reasons=["keyword"])
                assert one.node.node_id in {"new", "exc"}
                answer = await related("houses", "self", tokens=["school"], reasons=["keyword"])
                assert {item.node.node_id for item in answer} == {"new", "exc"}
                await db.documents.update_node("houses", "tax", text="No school here.")
        assert "new" not in {node.node_id for node in await db.documents.get_subtree("houses")}


async def test_a_search_in_a_transaction_waits_no_longer_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any) -> None:
        await trio.sleep_forever()

    with trio.fail_after(60):
        async with open_database(tmp_path / "data") as db:
            assert db.indexer is not None
            await db.documents.store("houses", "v1", HOUSES)
            await indexed(db)
            monkeypatch.setattr(db.indexer, "wait", never)
            monkeypatch.setattr(reader, "CHANGES_MAX", 0)
            monkeypatch.setattr(reader, "BRIEF_CHANGES_MAX", 0)
            with pytest.raises(DeadlineExceeded):
                async with db.transaction(timeout=0.5) as txn:
                    await txn.documents.update_node("houses", "exc", text="Nothing.")
                    await txn.documents.search("tax")
            assert db.transactions.open == 0
            assert (await db.documents.get_node("houses", "exc")).text != "Nothing."
