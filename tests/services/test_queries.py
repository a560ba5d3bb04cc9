"""``queries`` through every face."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.database import open_database
from treestore.errors import InvalidArgument, NotFound

POLICY, OTHER = "travel", "expenses"

TREE = [
    {
        "node_id": "1",
        "title": "Travel",
        "nodes": [
            {"node_id": "1.1", "title": "Flights", "text": "Economy class on all flights."},
            {"node_id": "1.2", "title": "Hotels", "text": "Up to 150 EUR a night. " * 100},
        ],
    },
    {"node_id": "2", "title": "Claims", "text": "Within 30 days.", "see_also": ["1.2", "none"]},
]


@pytest.fixture
async def embedded_db(tmp_path: Path) -> AsyncGenerator[Any]:
    """One face alone, for what does not depend on it."""
    async with open_database(tmp_path / "data") as database:
        yield database


async def stored(db: Any) -> None:
    await db.documents.store(POLICY, "v1", TREE, effective_from="2020-01-01")
    await db.documents.store(POLICY, "v2", TREE[1:], effective_from="2120-01-01")
    await db.documents.store(OTHER, "v1", [{"node_id": "1", "title": "Other"}])


async def test_nodes_of_many_documents_come_as_asked(db: Any) -> None:
    with trio.fail_after(30):
        await stored(db)
        asked = [
            (POLICY, "v2", "2"),
            (OTHER, None, "1"),
            (POLICY, None, "1.2"),
            [POLICY, "v1", "1"],
            (POLICY, "v2", "2"),
        ]
        found = await db.queries.get_many(asked)
        assert [(node.policy_id, node.version_id, node.node_id) for node in found] == [
            (POLICY, "v2", "2"),
            (OTHER, "v1", "1"),
            (POLICY, "v1", "1.2"),
            (POLICY, "v1", "1"),
            (POLICY, "v2", "2"),
        ]
        assert found[2] == await db.documents.get_node(POLICY, "1.2")
        assert len(found[2].text) > 2000
        (bare,) = await db.queries.get_many([(POLICY, None, "1.2")], include_text=False)
        assert (bare.title, bare.text) == ("Hotels", "")
        assert await db.queries.get_many([]) == []


async def test_unknown_nodes_are_all_named(db: Any) -> None:
    with trio.fail_after(30):
        await stored(db)
        unknown = [(POLICY, "v2", "1"), (POLICY, "v3", "2"), ("none", None, "2")]
        with pytest.raises(NotFound, match=r"'1' in version 'v2' of policy 'travel'") as caught:
            await db.queries.get_many([(POLICY, None, "1"), *unknown])
        assert caught.value.details["nodes"] == [list(item) for item in unknown]


@pytest.mark.parametrize(
    "wrong",
    [
        "travel",
        [("travel", "v1")],
        [("travel", "v1", "")],
        [("travel", "", "1")],
        [("", "v1", "1")],
        [(1, "v1", "1")],
        [("travel", 1, "1")],
        [("travel", "v1", None)],
        ["travel"],
        [("travel", "v1", "1")] * 10_001,
        [("travel", "v1", "\ud800")],
    ],
    ids=lambda wrong: repr(wrong)[:40],
)
async def test_what_names_no_node_is_refused(db: Any, wrong: Any) -> None:
    with trio.fail_after(30):
        await stored(db)
        with pytest.raises(InvalidArgument):
            await db.queries.get_many(wrong)


# --- enriched documents ----------------------------------------------------------------------


async def known_of(db: Any) -> None:
    """Store documents with references and contradictions."""
    await stored(db)
    refer = db.metadata.store_cross_reference
    await refer(POLICY, "1.1", POLICY, "2", "cites", context="see claims")
    await refer(POLICY, "2", POLICY, "1.1", "limits")
    await refer(OTHER, "1", POLICY, "1.1", "cites")
    # A node that the version in effect has no more, or not yet.
    await refer(POLICY, "2", POLICY, "3", "cites", require_nodes=False)
    await refer(POLICY, "3", OTHER, "1", "cites", require_nodes=False)
    await refer(OTHER, "1", "elsewhere", "9", "cites", require_nodes=False)
    contradict = db.metadata.store_contradiction
    evidence = {"policy_id": POLICY, "node_id": "1.1", "version_id": "v1", "stance": "supports"}
    await contradict("case", "of-v1", [evidence, {"snippet": "a ticket"}])
    await contradict("case", "of-v2", [{**evidence, "version_id": "v2", "node_id": "2"}])
    await contradict("case", "of-policy", [{"policy_id": POLICY}])
    await contradict("case", "of-other", [{"policy_id": OTHER, "node_id": "1"}])


async def test_a_document_comes_with_all_that_is_known_of_it(db: Any) -> None:
    with trio.fail_after(30):
        await known_of(db)
        whole = await db.queries.get_enriched(POLICY)
        assert whole.document == await db.documents.get(POLICY)
        assert whole.version == await db.versions.get(POLICY, "v1")
        assert whole.nodes == await db.documents.get_subtree(POLICY)
        assert list(whole.cross_references) == ["1.1", "2"]
        found = {
            node_id: [(ref.direction, ref.source_node_id, ref.target_node_id) for ref in refs]
            for node_id, refs in whole.cross_references.items()
        }
        assert found == {
            "1.1": [("out", "1.1", "2"), ("in", "2", "1.1"), ("in", "1", "1.1")],
            "2": [("out", "2", "3"), ("out", "2", "1.1"), ("in", "1.1", "2")],
        }
        ends = [(ref.source_policy_id, ref.source_node_id) for ref in whole.references]
        assert ends == [
            *[(POLICY, "1.1"), (POLICY, "2"), (POLICY, "2"), (POLICY, "3")],
            (OTHER, "1"),
        ]
        assert {ref.direction for ref in whole.references} == {"out"}
        for node_id, refs in whole.cross_references.items():
            listed = await db.metadata.get_cross_references(POLICY, node_id)
            assert set(map(repr, refs)) == set(map(repr, listed))
        assert [item.criterion_id for item in whole.contradictions] == ["of-v1", "of-policy"]
        listed = (await db.metadata.get_contradictions("case")).items
        assert list(whole.contradictions) == [listed[0], listed[2]]


async def test_only_what_is_asked_of_a_document_comes(db: Any) -> None:
    with trio.fail_after(30):
        await known_of(db)
        some = await db.queries.get_enriched(
            POLICY, "v1", node_ids=["2", "1.2", "2"], include_text=False
        )
        assert [(node.node_id, node.text) for node in some.nodes] == [("2", ""), ("1.2", "")]
        assert list(some.cross_references) == ["2"]
        assert len(some.references) == 3
        assert some.contradictions == ()
        of_node = await db.queries.get_enriched(POLICY, node_ids=["1.1"])
        assert [item.criterion_id for item in of_node.contradictions] == ["of-v1"]
        bare = await db.queries.get_enriched(
            POLICY, include_references=False, include_contradictions=False
        )
        assert (bare.references, bare.cross_references, bare.contradictions) == ((), {}, ())
        later = await db.queries.get_enriched(POLICY, "v2")
        assert [node.node_id for node in later.nodes] == ["2"]
        assert list(later.cross_references) == ["2"]
        assert [item.criterion_id for item in later.contradictions] == ["of-v2", "of-policy"]
        await db.documents.store("empty", "v1", [])
        empty = await db.queries.get_enriched("empty")
        assert (empty.nodes, empty.cross_references, empty.contradictions) == ([], {}, ())


async def test_an_enriched_document_is_of_one_snapshot(db: Any) -> None:
    with trio.fail_after(30):
        await known_of(db)
        async with db.snapshot() as snapshot:
            before = await snapshot.queries.get_enriched(POLICY)
            await db.documents.delete_node(POLICY, "1.1", version_id="v1")
            await db.metadata.store_cross_reference(POLICY, "1.2", POLICY, "2", "cites")
            assert await snapshot.queries.get_enriched(POLICY) == before
        after = await db.queries.get_enriched(POLICY)
        assert "1.1" not in after.cross_references
        assert list(after.cross_references) == ["1.2", "2"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"policy_id": "none"}, NotFound),
        ({"policy_id": POLICY, "version_id": "v9"}, NotFound),
        ({"policy_id": POLICY, "node_ids": ["1.1", "9", "8"]}, NotFound),
        ({"policy_id": POLICY, "node_ids": ["\ud800"]}, InvalidArgument),
        ({"policy_id": POLICY, "node_ids": "1.1"}, InvalidArgument),
        ({"policy_id": ""}, InvalidArgument),
    ],
    ids=repr,
)
async def test_an_enriched_document_that_is_not_there(
    db: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with trio.fail_after(30):
        await stored(db)
        with pytest.raises(error):
            await db.queries.get_enriched(**arguments)


# --- related nodes ---------------------------------------------------------------------------


def brief(related: list[Any]) -> list[tuple[str, str]]:
    return [(item.reason, item.node.node_id) for item in related]


async def test_related_nodes_come_in_the_order_of_their_reasons(db: Any) -> None:
    with trio.fail_after(60):
        await store_office(db)
        found = await db.queries.find_related("office", "b", limit=20)
        assert brief(found) == [
            ("cross_reference", "d"),  # to it
            ("cross_reference", "1"),  # in another policy
            ("cross_reference", "root"),  # from it
            ("keyword", "k"),
            ("sibling", "c"),
            ("sibling", "a"),
            ("see_also", "s"),
            ("context", "b1"),
            ("context", "b2"),
            ("context", "a1"),
        ]
        details = [item.detail for item in found]
        assert details == [
            *("to: cites", "to: cites", "from: names", "", "following", "preceding"),
            *("see_also", "child", "child", "previous"),
        ]
        assert [item.score is not None for item in found] == [
            item.reason == "keyword" for item in found
        ]
        assert found[1].node.policy_id == "rules"
        assert found[0].node == await db.documents.get_node("office", "d")
        for limit in (1, 3, 4, 7):
            assert await db.queries.find_related("office", "b", limit=limit) == found[:limit]
        bare = await db.queries.find_related("office", "b", limit=20, include_text=False)
        assert brief(bare) == brief(found)
        assert {item.node.text for item in bare} == {""}


async def store_office(db: Any) -> None:
    node: dict[str, Any] = {"node_id": "root", "title": "Office", "text": "All rooms."}
    node["nodes"] = [
        {"node_id": "a", "title": "Doors", "nodes": [{"node_id": "a1", "title": "Locks"}]},
        {
            "node_id": "b",
            "title": 'Heating: +rooms ("warm") -AND text:*',
            # Itself, one that is found already, one that is not there, and no ids at all.
            "see_also": ["b", "d", "s", "nowhere", 3, None, {"node_id": "s"}, "s"],
            "keywords": ["radiator"],
            "nodes": [{"node_id": "b1", "title": "Oil"}, {"node_id": "b2", "title": "Gas"}],
        },
        {"node_id": "c", "title": "Floors", "text": "Made of wood."},
    ]
    others = [
        {"node_id": "d", "title": "Bills", "text": "What heating costs."},
        {"node_id": "k", "title": "Repairs", "text": "Each radiator once a year."},
        {"node_id": "s", "title": "Summer"},
    ]
    await db.documents.store("office", "v1", [node, *others])
    await db.documents.store("rules", "v1", [{"node_id": "1", "title": "Law"}])
    refer = db.metadata.store_cross_reference
    await refer("office", "b", "office", "d", "cites")
    await refer("office", "d", "office", "b", "cites")
    await refer("office", "b", "rules", "1", "cites")
    await refer("office", "root", "office", "b", "names")
    await refer("office", "b", "gone", "1", "cites")
    await refer("office", "b", "rules", "2", "cites", require_nodes=False)


async def test_related_nodes_for_words_alone_or_other_words(db: Any) -> None:
    with trio.fail_after(60):
        await store_office(db)
        words = await db.queries.find_related("office", tokens=["wood", "radiator"], limit=10)
        assert {("keyword", "c"), ("keyword", "k"), ("context", "root")} == set(brief(words))
        assert brief(words)[2] == ("context", "root")
        other = await db.queries.find_related("office", "b", tokens=["wood"], limit=20)
        assert ("keyword", "c") in brief(other)
        assert ("keyword", "k") not in brief(other)
        assert await db.queries.find_related("office", tokens=["zebra"]) == []
        only = await db.queries.find_related("office", "b", reasons=["context", "sibling"])
        assert brief(only) == [
            *(("sibling", "c"), ("sibling", "a"), ("context", "root")),
            *(("context", "b1"), ("context", "b2")),
        ]
        nothing = await db.queries.find_related("rules", "1", reasons=["sibling", "context"])
        assert nothing == []


async def test_related_nodes_are_of_one_snapshot(db: Any) -> None:
    with trio.fail_after(60):
        await store_office(db)
        async with db.snapshot() as snapshot:
            before = await snapshot.queries.find_related("office", "b", limit=20)
            await db.documents.delete_node("office", "k")
            await db.metadata.delete_cross_references("office")
            assert await snapshot.queries.find_related("office", "b", limit=20) == before
        after = await db.queries.find_related("office", "b", limit=20)
        assert ("keyword", "k") not in brief(after)
        assert "cross_reference" not in {item.reason for item in after}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, InvalidArgument),
        ({"tokens": []}, InvalidArgument),
        ({"tokens": "heating"}, InvalidArgument),
        ({"tokens": ["a"] * 101}, InvalidArgument),
        ({"node_id": "zz"}, NotFound),
        ({"node_id": "b", "version_id": "v9"}, NotFound),
        ({"node_id": ""}, InvalidArgument),
        ({"node_id": "b", "limit": 0}, InvalidArgument),
        ({"node_id": "b", "limit": 101}, InvalidArgument),
        ({"node_id": "b", "limit": True}, InvalidArgument),
        ({"node_id": "b", "reasons": ["magic"]}, InvalidArgument),
        ({"node_id": "b", "reasons": "keyword"}, InvalidArgument),
        ({"policy_id": "none", "tokens": ["a"]}, NotFound),
    ],
    ids=repr,
)
async def test_related_nodes_of_what_is_not_there(
    embedded_db: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with trio.fail_after(30):
        await store_office(embedded_db)
        with pytest.raises(error):
            await embedded_db.queries.find_related(**{"policy_id": "office", **arguments})
