"""The garbage collector's pauses."""

import gc
from collections.abc import Generator

import msgspec
import pytest

from actors import tuning
from actors.database_host import _digest
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


class Parameters(msgspec.Struct):
    name: str
    items: list[bytes]


def test_the_digest_tells_parameters_apart() -> None:
    different = [
        Parameters("a", []),
        Parameters("b", []),
        Parameters("a", [b""]),
        Parameters("a", [b"xy"]),
        Parameters("a", [b"x", b"y"]),
        Parameters("a", [b"y", b"x"]),
    ]
    assert len({_digest(parameters) for parameters in different}) == len(different)
    assert _digest(Parameters("a", [b"xy"])) == _digest(different[3])
