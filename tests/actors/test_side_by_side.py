"""Jobs of one caller on several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

from actors import side_by_side
from actors.side_by_side import SideBySide

WAIT_S = 20


class Gone(Exception):
    """What a pause or a job raises here."""


def test_results_come_in_the_order_of_the_jobs() -> None:
    run = SideBySide(3)
    assert run([]) == []
    assert run([lambda: "one"]) == ["one"]
    for _ in range(200):
        assert run([partial(int, number) for number in range(20)]) == list(range(20))


def test_jobs_run_at_a_time() -> None:
    together = threading.Barrier(2)
    # One alone would wait for ever.
    found = SideBySide(2)([lambda: together.wait(WAIT_S), lambda: together.wait(WAIT_S)])
    assert sorted(found) == [0, 1]


def test_no_more_are_at_work_than_there_are_processors() -> None:
    run = SideBySide(2)
    lock = threading.Lock()
    now = most = 0

    def job() -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.002)
        with lock:
            now -= 1
        return threading.get_ident()

    assert len(set(run([job] * 10))) <= 2
    assert most <= 2
    # With a job that gives jobs, too: who is at work already does them alone.
    most = 0
    run([partial(run, [job] * 3), partial(run, [job] * 3)])
    assert most <= 2


def test_one_processor_does_all_by_itself() -> None:
    assert set(SideBySide(1)([threading.get_ident] * 5)) == {threading.get_ident()}


def test_callers_that_keep_all_processors_busy_get_no_help() -> None:
    run = SideBySide(2)
    inside, begun, go = threading.Barrier(2), threading.Event(), threading.Event()
    idents: list[set[int]] = []

    def caller() -> None:
        def first() -> int:
            inside.wait(WAIT_S)
            return threading.get_ident()

        idents.append(set(run([first, threading.get_ident])))

    def long() -> None:
        begun.set()
        go.wait(WAIT_S)

    with_one_job = threading.Thread(target=lambda: run([long]))
    with_one_job.start()
    assert begun.wait(WAIT_S)
    threads = [threading.Thread(target=caller) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    go.set()
    with_one_job.join(WAIT_S)
    assert [len(each) for each in idents] == [1, 1]


@pytest.mark.parametrize("place", [0, 1, 2, 5])
def test_what_a_job_raises_ends_the_work(place: int) -> None:
    def fails() -> None:
        raise Gone(place)

    jobs: list[Callable[[], None]] = [lambda: None] * 6
    jobs[place] = fails
    run = SideBySide(2)
    for _ in range(50):
        with pytest.raises(Gone, match=str(place)):
            run(jobs)
    assert run([lambda: 1, lambda: 2]) == [1, 2]


def test_nothing_runs_any_more_when_it_was_given_up() -> None:
    """What a job reads may be closed then."""
    run = SideBySide(2)
    started, running = threading.Event(), threading.Event()

    def long() -> None:
        running.set()
        started.set()
        threading.Event().wait(0.05)
        running.clear()

    def pause() -> None:
        if started.is_set():
            raise Gone

    def first() -> None:
        assert started.wait(WAIT_S)

    with pytest.raises(Gone):
        run([first, lambda: None, long], pause)
    assert not running.is_set()


def test_a_pause_is_the_callers_own() -> None:
    me = threading.get_ident()
    paused: list[int] = []
    SideBySide(4)([lambda: None] * 50, lambda: paused.append(threading.get_ident()))
    assert paused
    assert set(paused) == {me}


def test_without_threads_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(side_by_side, "start_thread_soon", fails)
    run = SideBySide(4)
    assert run([lambda: 1, lambda: 2]) == [1, 2]
    monkeypatch.undo()
    together = threading.Barrier(2)
    assert len(run([lambda: together.wait(WAIT_S)] * 2)) == 2
