"""Who makes an index stands back while others wait, and only then."""

from __future__ import annotations

import threading

import pytest

from actors import standing_back
from actors.standing_back import PAUSES_MAX, StandBack

PAUSE_S = 0.0002


class Clocks:
    """What `time` tells: of the wall, and of the thread's work."""

    def __init__(self) -> None:
        self.wall = self.worked = 100.0
        self.pauses = 0

    def perf_counter(self) -> float:
        return self.wall

    def thread_time(self) -> float:
        return self.worked

    def pass_by(self, *, worked: float = 0.0, waited: float = 0.0) -> None:
        self.wall += worked + waited
        self.worked += worked

    def pause(self) -> None:
        self.pauses += 1
        self.wall += PAUSE_S


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(standing_back, "time", made)
    return made


@pytest.fixture
def stand_back(clocks: Clocks) -> StandBack:
    made = StandBack(clocks.pause)
    made()
    clocks.pauses = 0
    return made


def test_alone_it_is_one_pause(clocks: Clocks, stand_back: StandBack) -> None:
    for _ in range(10):
        clocks.pass_by(worked=0.001, waited=0.0001)
        stand_back()
    assert clocks.pauses == 10


def test_who_had_to_wait_stands_back_as_long_as_it_all_took(
    clocks: Clocks, stand_back: StandBack
) -> None:
    clocks.pass_by(worked=0.001, waited=0.001)
    before = clocks.wall
    stand_back()
    assert 0.002 <= clocks.wall - before <= 0.002 + 2 * PAUSE_S
    clocks.pass_by(worked=0.001)
    clocks.pauses = 0
    stand_back()
    assert clocks.pauses == 1


def test_having_nothing_to_do_is_no_waiting(clocks: Clocks, stand_back: StandBack) -> None:
    clocks.pass_by(waited=5.0)
    stand_back()
    assert clocks.pauses == 1


def test_pauses_that_take_no_time_come_to_an_end(clocks: Clocks) -> None:
    """As in a simulation."""
    calls: list[int] = []
    stand_back = StandBack(lambda: calls.append(1))
    stand_back()
    clocks.pass_by(worked=0.001, waited=0.01)
    stand_back()
    assert len(calls) == 2 + PAUSES_MAX


def test_another_thread_begins_anew(clocks: Clocks, stand_back: StandBack) -> None:
    clocks.pass_by(worked=0.001, waited=0.01)
    thread = threading.Thread(target=stand_back)
    thread.start()
    thread.join()
    assert clocks.pauses == 1
