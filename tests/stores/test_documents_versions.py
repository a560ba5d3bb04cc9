"""Which version a read means, listings, and what storing again and deleting leave."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores.fake import FakeStore
from treestore.errors import InvalidArgument, NotFound
from treestore.stores.documents import reading, storing
from treestore.stores.documents.check import check_documents
from treestore.stores.documents.counting import count_documents
from treestore.stores.versions import changing
from treestore.stores.versions import reading as versions

TODAY = date(2024, 5, 1)


def put(store, version, first=None, last=None, policy="p"):
    return store.prepared(
        storing.store,
        policy,
        version,
        [{"title": version}],
        effective_from=first,
        effective_to=last,
    )


def test_the_last_stored_one_while_none_is_dated():
    store = FakeStore()
    for version in ("b", "a", "c"):
        put(store, version)
    assert reading.get(store.txn, "p").version_id == "c"
    put(store, "b")
    assert reading.get(store.txn, "p").version_id == "b"
    assert reading.get_node(store.txn, "p", "0000").title == "b"
    store.run(storing.delete, "p", "b")
    assert reading.get(store.txn, "p").version_id == "c"


def test_both_end_days_belong_to_a_period():
    store = FakeStore()
    put(store, "a", "2024-05-01", "2024-05-01")
    put(store, "undated")
    assert reading.get(store.txn, "p").version_id == "a"
    for moment in (datetime(2024, 4, 30, 23, 59, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)):
        store.txn.now = moment
        with pytest.raises(NotFound, match="in effect today"):
            reading.get(store.txn, "p")
        with pytest.raises(NotFound):
            reading.get_nodes_by_page(store.txn, "p", 1)


DAYS = st.none() | st.integers(-3, 3).map(lambda n: TODAY + timedelta(days=n))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), DAYS, DAYS), max_size=8))
def test_the_version_in_effect(stored):
    store = FakeStore()
    recorded: dict[str, tuple[date | None, date | None]] = {}
    for version, first, last in stored:
        if first is not None and last is not None and last < first:
            first, last = last, first
        put(store, version, first, last)
        recorded.pop(version, None)
        recorded[version] = (first, last)
    expected = None
    if all(period == (None, None) for period in recorded.values()):
        expected = next(reversed(recorded), None)
    else:
        latest = date.min
        for version, (first, last) in recorded.items():
            start = first or date.min
            dated = first is not None or last is not None
            if dated and start <= TODAY <= (last or date.max) and start >= latest:
                expected, latest = version, start
    if expected is None:
        with pytest.raises(NotFound):
            reading.get(store.txn, "p")
    else:
        assert reading.get(store.txn, "p").version_id == expected
    assert check_documents(store.txn) == []


def test_a_declared_version_without_a_document_hides_no_truth():
    store = FakeStore()
    put(store, "old", "2020-01-01")
    store.run(changing.create, "p", "new", effective_from="2024-01-01")
    with pytest.raises(NotFound, match=r"'new'.*no document"):
        reading.get(store.txn, "p")
    document = put(store, "new")
    assert document.effective_from == date(2024, 1, 1)
    assert reading.get(store.txn, "p").version_id == "new"
    store.run(changing.retire, "p", "new", "2024-04-30")
    assert reading.get(store.txn, "p", "new").effective_to == date(2024, 4, 30)
    assert reading.get(store.txn, "p").version_id == "old"
    assert check_documents(store.txn) == []
    store.run(storing.delete, "p", "new")
    assert not versions.get(store.txn, "p", "new").has_document
    assert check_documents(store.txn) == []


def test_storing_again_replaces_the_whole():
    store = FakeStore()
    long = [
        {"title": str(i), "text": "x" * 2000, "start_index": i, "end_index": i} for i in range(9)
    ]
    first = store.prepared(
        storing.store, "p", "v", long, metadata={"a": 1}, effective_from="2024-01-01"
    )
    put(store, "w")
    keys = [key for key in store.txn.keys if b"\x07w" in key]
    second = store.prepared(storing.store, "p", "v", [{"node_id": "new"}], pageindex_doc_id="pi")
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    assert (second.metadata, second.effective_from, second.pageindex_doc_id) == ({}, None, "pi")
    assert [n.node_id for n in reading.get_subtree(store.txn, "p", version_id="v")] == ["new"]
    assert reading.get_nodes_by_page(store.txn, "p", "0-100", version_id="v") == []
    assert [key for key in store.txn.keys if b"\x07w" in key] == keys
    assert reading.get(store.txn, "p", "v") == second
    assert check_documents(store.txn) == []


def test_a_failed_store_leaves_the_old_one():
    store = FakeStore()
    put(store, "v")
    before = dict(store.txn.data)
    with pytest.raises(InvalidArgument):
        store.prepared(storing.store, "p", "v", [{"node_id": "a"}, {"node_id": "a"}])
    assert store.txn.data == before


def test_listing():
    store = FakeStore()
    names = [("a", "1"), ("a", "2"), ("a\0", "1"), ("ab", "1"), ("b", "1"), ("ü", "1")]
    for policy, version in names[::-1]:
        put(store, version, policy=policy)
    txn = store.txn
    everything = reading.list_documents(txn)
    assert [(d.policy_id, d.version_id) for d in everything] == names
    assert everything.next_cursor is None
    assert len(everything) == 6
    assert [d.policy_id for d in reading.list_documents(txn, prefix="a")] == ["a", "a", "a\0", "ab"]
    assert [d.policy_id for d in reading.list_documents(txn, prefix="a\0")] == ["a\0"]
    assert reading.list_documents(txn, prefix="zz").items == []
    for limit in (1, 2, 3, 6):
        found, cursor = [], None
        while True:
            page = reading.list_documents(txn, limit=limit, cursor=cursor)
            assert 0 < len(page) <= limit
            found += [(d.policy_id, d.version_id) for d in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == names
    # The cursor stays good when its own document is gone.
    page = reading.list_documents(txn, limit=2)
    store.run(storing.delete, "a", "2")
    rest = reading.list_documents(store.txn, cursor=page.next_cursor)
    assert [d.policy_id for d in rest] == ["a\0", "ab", "b", "ü"]
    with pytest.raises(InvalidArgument, match="another prefix"):
        reading.list_documents(store.txn, prefix="b", cursor=page.next_cursor)
    assert count_documents(store.txn) == (5, 5, 5)


def test_check_tells_what_is_wrong():
    nodes = [{"title": "a", "text": "x" * 2000, "start_index": 1, "end_index": 2, "nodes": [{}]}]
    whole = FakeStore()
    whole.prepared(storing.store, "p", "v", nodes)
    assert check_documents(whole.txn) == []
    for key in whole.txn.keys:
        store = FakeStore()
        store.prepared(storing.store, "p", "v", nodes)
        store.txn.delete(key)
        assert check_documents(store.txn), f"nobody misses key {key!r}"
        assert all(problem.endswith(".") for problem in check_documents(store.txn))
