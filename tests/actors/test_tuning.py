"""The garbage collector's pauses."""

import gc
import weakref
from collections.abc import Generator

import pytest

from actors import tuning
from actors.tuning import collector_paused


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Generator[tuning._Collector]:
    fresh = tuning._Collector()
    monkeypatch.setattr(tuning, "_collector", fresh)
    yield fresh
    gc.enable()
    gc.unfreeze()


def test_a_process_that_is_no_server_is_left_alone(collector: tuning._Collector) -> None:
    assert not collector.may_rest
    with collector_paused():
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_collector_rests_while_any_job_runs(collector: tuning._Collector) -> None:
    collector.may_rest = True
    with collector_paused():
        with pytest.raises(ZeroDivisionError), collector_paused():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert not gc.isenabled()
    assert gc.isenabled()


def test_jobs_without_a_gap_do_not_stop_it_for_ever(
    collector: tuning._Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.may_rest = True
    monkeypatch.setattr(tuning, "PAUSE_S_MAX", -1.0)
    with collector_paused():
        with collector_paused():
            assert not gc.isenabled()
        assert gc.isenabled()
        with collector_paused():
            assert not gc.isenabled()


class Loop:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


def test_garbage_that_was_put_out_of_sight_is_collected_in_the_end(
    collector: tuning._Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.may_rest = True
    with collector_paused():
        gone = weakref.ref(Loop())
    gc.collect()
    assert gone() is not None
    monkeypatch.setattr(tuning, "WHOLE_EVERY_S", -1.0)
    with collector_paused():
        pass
    assert gone() is None
