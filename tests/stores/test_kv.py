"""Keys and values: what they may be, and what is refused with a sentence."""

from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores.fake import FakeStore
from treestore.errors import InvalidArgument
from treestore.stores import kv


def put(store: FakeStore, *items: tuple[Any, Any]) -> None:
    store.run(kv.batch, puts=items)


def scan(store: FakeStore, **options: Any) -> list[tuple[bytes, bytes]]:
    return [item for batch in kv.scan(store.txn, **options) for item in batch]


def test_anything_like_bytes_is_taken() -> None:
    """Over the wire it becomes bytes by itself; embedded must not differ."""
    store = FakeStore()
    store.run(kv.put, bytearray(b"a"), memoryview(b"1"))
    assert kv.get(store.txn, memoryview(b"a")) == b"1"  # type: ignore[arg-type]
    assert type(kv.get(store.txn, b"a")) is bytes
    assert scan(store, start=bytearray(b"a")) == [(b"a", b"1")]
    assert store.run(kv.delete, bytearray(b"a")) is True


@pytest.mark.parametrize("key", ["a", None, 5, b"", b"x" * 1001])
def test_what_is_no_key_is_refused(key: Any) -> None:
    store = FakeStore()
    for call in (
        lambda: kv.get(store.txn, key),
        lambda: store.run(kv.put, key, b""),
        lambda: store.run(kv.delete, key),
        lambda: store.run(kv.batch, puts=[(b"a", b"1"), (key, b"2")]),
        lambda: store.run(kv.batch, puts=[(b"a", b"1")], deletes=[key]),
    ):
        with pytest.raises(InvalidArgument):
            call()
    assert scan(store) == []


@pytest.mark.parametrize("puts", [5, [5], [(b"a",)], [(b"a", b"b", b"c")], None, [(b"a", "b")]])
def test_puts_that_are_no_pairs_are_refused(puts: Any) -> None:
    with pytest.raises(InvalidArgument):
        FakeStore().run(kv.batch, puts=puts)


@pytest.mark.parametrize(
    "options",
    [
        {"limit": -1},
        {"limit": True},
        {"limit": "3"},
        {"limit": 1.5},
        {"reverse": 1},
        {"start": "a"},
        {"end": 5},
        {"prefix": "p"},
    ],
)
def test_scan_refuses_options_of_the_wrong_type(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        scan(FakeStore(), **options)


def test_scan_with_every_combination_equals_brute_force() -> None:
    store = FakeStore()
    items = [(b"p%02d" % n, b"%d" % n) for n in range(40)] + [(b"\xff\xff", b""), (b"q", b"")]
    put(store, *items)
    items.sort()
    for start in (None, b"", b"p1", b"z"):
        for end in (None, b"p2", b"\xff\xff"):
            for prefix in (None, b"", b"p1", b"\xff", b"no"):
                for reverse in (False, True):
                    for limit in (None, 0, 3, 100):
                        wanted = [
                            item
                            for item in items
                            if item[0] >= (start or b"")
                            and (end is None or item[0] < end)
                            and item[0].startswith(prefix or b"")
                        ]
                        wanted = wanted[::-1] if reverse else wanted
                        found = scan(
                            store,
                            start=start,
                            end=end,
                            prefix=prefix,
                            reverse=reverse,
                            limit=limit,
                        )
                        assert found == wanted[:limit]


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=2), st.binary(max_size=3)), max_size=60),
    st.lists(st.binary(min_size=1, max_size=2), max_size=5),
    st.booleans(),
)
def test_a_batch_in_any_order_is_puts_and_then_deletes(
    puts: list[tuple[bytes, bytes]], deletes: list[bytes], in_order: bool
) -> None:
    if in_order:
        puts.sort()
    store = FakeStore()
    store.run(kv.put, b"\x00", b"old")
    with mock.patch.object(kv, "BATCH_STEP", 7):
        store.run(kv.batch, puts=puts, deletes=deletes)
    wanted = {b"\x00": b"old", **dict(puts)}
    for key in deletes:
        wanted.pop(key, None)
    assert scan(store) == sorted(wanted.items())


def test_puts_of_a_batch_may_be_any_iterable() -> None:
    store = FakeStore()
    store.run(kv.batch, puts={bytearray(b"b").hex().encode(): b"1", b"a": memoryview(b"2")}.items())
    assert scan(store) == [(b"62", b"1"), (b"a", b"2")]
