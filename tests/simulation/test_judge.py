"""The judge by itself: histories that are right, and ones that are wrong in one way each."""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import Any

import pytest

from scripts.simulation.history import Call, History, Value
from scripts.simulation.judge import judge
from scripts.simulation.linearize import Undecided, components, linearize


def call(history: History, began: int, ended: float, outcome: Any = "ok", **what: Any) -> Call:
    """A call with its place in real time."""
    made = history.begin(what.pop("process", began), what.pop("name", "call"), 0.0)
    history.end(made, outcome, 0.0)
    made.began, made.ended = began, ended if outcome == "ok" else float("inf")
    for name, value in what.items():
        setattr(made, name, value)
    return made


def test_a_read_sees_the_last_write_or_one_that_is_under_way() -> None:
    for seen, right in ((1, False), (2, True), (3, True), (None, False)):
        history = History()
        call(history, 1, 2, writes={"x": 1})
        call(history, 3, 4, writes={"x": 2})
        call(history, 5, 9, writes={"x": 3})
        call(history, 6, 7, reads={"x": seen})
        assert (judge(history) == []) is right, seen


def test_what_was_read_stays_read() -> None:
    history = History()
    call(history, 1, 9, writes={"x": 1})
    call(history, 2, 3, reads={"x": 1})
    assert judge(history) == []
    call(history, 4, 5, reads={"x": None})
    assert len(judge(history)) == 1


def test_an_unknown_write_may_take_effect_late_or_never() -> None:
    history = History()
    call(history, 1, 2, "unknown", writes={"x": 1})
    call(history, 3, 4, reads={"x": None})
    assert judge(history) == []
    call(history, 5, 6, reads={"x": 1})
    assert judge(history) == []
    call(history, 7, 8, reads={"x": None})
    assert len(judge(history)) == 1


def test_a_failed_write_has_no_effect() -> None:
    history = History()
    call(history, 1, 2, "failed", writes={"x": 1})
    call(history, 3, 4, reads={"x": 1})
    [sentence] = judge(history)
    assert "had failed" in sentence


def test_a_value_from_nowhere_and_from_the_future() -> None:
    history = History()
    call(history, 1, 2, reads={"x": 7})
    call(history, 3, 4, reads={"x": 8})
    call(history, 5, 6, writes={"x": 8})
    nowhere, future = judge(history)
    assert "never written" in nowhere
    assert "before it was written" in future


def test_a_delete_says_whether_it_was_there() -> None:
    for first, second, right in ((True, False, True), (True, True, False), (False, True, False)):
        history = History()
        call(history, 1, 2, writes={"x": 1})
        call(history, 3, 4, present={"x": first}, writes={"x": None} if first else {})
        call(history, 5, 6, present={"x": second}, writes={"x": None} if second else {})
        assert (judge(history) == []) is right


def test_half_of_a_batch_is_never_seen() -> None:
    history = History()
    call(history, 1, 2, writes={"x": 1, "y": 2})
    call(history, 3, 10, writes={"x": 3, "y": 4})
    call(history, 4, 5, reads={"x": 3, "y": 2})
    [sentence] = judge(history)
    assert "x, y fit no order together" in sentence


def test_two_scans_agree_on_the_order_of_two_batches() -> None:
    history = History()
    call(history, 1, 20, writes={"x": 1})
    call(history, 2, 20, writes={"y": 2})
    call(history, 3, 10, reads={"x": 1, "y": None})
    call(history, 4, 10, reads={"x": None, "y": 2})
    [sentence] = judge(history)
    assert "together" in sentence


@pytest.mark.parametrize(
    ("listed", "word"),
    [
        ((1, 2, 2), "more than once"),
        ((1,), "without an append"),
        ((2, 1), "before it"),
        ((1, 2, 9), "not appended"),
        ((1, 2), None),
    ],
)
def test_appends_are_there_once_and_in_order(listed: tuple[int, ...], word: str | None) -> None:
    history = History()
    call(history, 1, 2, append=("list", 1), position=0)
    call(history, 3, 4, append=("list", 2))
    call(history, 5, 6, "unknown", append=("list", 3))
    call(history, 7, 8, listed={"list": listed})
    found = judge(history)
    assert (found == []) is (word is None)
    assert word is None or any(word in sentence for sentence in found)


def test_a_list_does_not_shrink_and_positions_are_true() -> None:
    history = History()
    call(history, 1, 9, append=("list", 1), position=1)
    call(history, 2, 3, listed={"list": (1,)})
    call(history, 4, 5, listed={"list": ()})
    text = "\n".join(judge(history))
    assert "shorter than before" in text
    assert "the answer says 1, but it stands at 0" in text


def test_states_go_forward_and_are_one_each() -> None:
    history = History()
    call(history, 1, 2, snapshot=5, reads={"x": None})
    call(history, 3, 4, snapshot=4, reads={"x": None})
    assert "older than one" in judge(history)[0]
    history = History()
    call(history, 1, 9, writes={"x": 1})
    call(history, 2, 5, snapshot=5, reads={"x": None})
    call(history, 3, 6, snapshot=5, reads={"x": 1})
    assert "two values" in judge(history)[0]


def test_registers_that_a_call_connects_are_judged_together() -> None:
    history = History()
    call(history, 1, 2, writes={"x": 1, "y": 2})
    call(history, 3, 4, reads={"y": 2, "z": None})
    call(history, 5, 6, reads={"w": None})
    assert components(history.calls) == [["w"], ["x", "y", "z"]]


def by_force(calls: list[Call], names: list[str]) -> bool:
    """Try every order, with every choice of the calls whose outcome is unknown."""
    known = [c for c in calls if c.outcome == "ok"]
    unknown = [c for c in calls if c.outcome == "unknown"]
    for chosen in range(1 << len(unknown)):
        subset = known + [c for bit, c in enumerate(unknown) if chosen >> bit & 1]
        if any(_right(order, names) for order in permutations(subset)):
            return True
    return False


def _right(order: tuple[Call, ...], names: list[str]) -> bool:
    state: dict[str, Value] = dict.fromkeys(names, None)
    for position, made in enumerate(order):
        if any(later.ended < made.began for later in order[position:]):
            return False
        if any(state[name] != value for name, value in made.reads.items()):
            return False
        if any((state[name] is not None) != there for name, there in made.present.items()):
            return False
        state.update(made.writes)
    return True


@pytest.mark.parametrize("seed", range(400))
def test_the_search_agrees_with_brute_force(seed: int) -> None:
    random = Random(seed)
    history, names = History(), ["x", "y"]
    times = random.sample(range(100), 14)
    for index in range(random.randint(2, 6)):
        began, ended = sorted(times[2 * index : 2 * index + 2])
        outcome = random.choice(("ok", "ok", "ok", "unknown"))
        kind = random.randrange(4)
        touched = random.sample(names, random.randint(1, 2))
        what: dict[str, Any] = {}
        if kind == 0 or (outcome == "unknown" and kind != 2):
            what["writes"] = {name: history.fresh() for name in touched}
        elif kind == 2:
            there = outcome == "ok" and random.random() < 0.5
            if outcome == "ok":
                what["present"] = {touched[0]: there}
            if there or outcome == "unknown":
                what["writes"] = {touched[0]: None}
        else:
            what["reads"] = {n: random.choice((None, 1, 2, 3, 4)) for n in touched}
        call(history, began, ended, outcome, **what)
    assert (linearize(history.calls, names) is not None) is by_force(history.calls, names)


def test_a_search_that_takes_too_long_says_so() -> None:
    history = History()
    for number in range(12):
        call(history, number, 100 + number, writes={f"{number}": history.fresh()})
    call(history, 300, 301, reads={"0": None})
    with pytest.raises(Undecided):
        linearize(history.calls, [f"{number}" for number in range(12)], states_max=100)
