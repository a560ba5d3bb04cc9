"""Work on many items that lets other threads run in between."""

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from treestore.stores.documents import build

ITEMS = st.lists(st.tuples(st.binary(max_size=2), st.binary(max_size=2)), max_size=40)


@given(ITEMS, st.booleans())
def test_sorting_in_steps_is_sorting(items: list[build.Item], in_order: bool) -> None:
    if in_order:
        items.sort()
    wanted = sorted(items)
    with mock.patch.object(build, "STEP_ITEMS", 5):
        build.sort_in_steps(items)
    assert items == wanted


@given(ITEMS)
def test_letting_go_empties_the_list(items: list[build.Item]) -> None:
    with mock.patch.object(build, "STEP_ITEMS", 5):
        build.let_go(items)
    assert items == []
