"""Jobs of one caller on several threads, as far as processors are idle.

A query that looks into several segments waits for one after the other, while other processors may
have nothing to do. `SideBySide` gives each of these a share of the jobs. It counts who is at work
through it, and hands nothing over where that would only make two queries wait for each other: with
as many callers as processors each does its own jobs, and nothing is lost.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from trio.lowlevel import start_thread_soon

T = TypeVar("T")


def processor_count() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SideBySide:
    """Implements `treestore.search.together.Together`. Any thread may call it.

    Args:
        processors: that may be busy with jobs at a time.
    """

    def __init__(self, processors: int) -> None:
        self._processors = processors
        self._lock = threading.Lock()
        self._busy = 0

    def __call__(
        self, jobs: Sequence[Callable[[], T]], pause: Callable[[], None] | None = None
    ) -> list[T]:
        """See `Together`."""
        work = _Work(jobs)
        helpers = self._enter(len(jobs) - 1)
        try:
            with suppress(RuntimeError):  # The system has no more threads to give.
                for _ in range(helpers):
                    start_thread_soon(work.help_out, self._leave)
                    helpers -= 1
            return work.run(pause)
        finally:
            for _ in range(1 + helpers):  # Itself, and those that never began.
                self._leave()

    def _enter(self, wanted: int) -> int:
        """The caller begins; how many others may help."""
        with self._lock:
            self._busy += 1
            helpers = max(0, min(wanted, self._processors - self._busy))
            self._busy += helpers
            return helpers

    def _leave(self, _: object = None) -> None:
        with self._lock:
            self._busy -= 1


class _Work:
    """Jobs: their caller takes them from the front, others from behind."""

    def __init__(self, jobs: Sequence[Callable[[], Any]]) -> None:
        self._changed = threading.Condition()
        self._waiting = deque(enumerate(jobs))
        self._elsewhere = 0
        self._found: list[Any] = [None] * len(jobs)
        self._failure: BaseException | None = None

    def run(self, pause: Callable[[], None] | None) -> list[Any]:
        """By the caller: until all is done, or something failed."""
        try:
            while True:
                if pause is not None:
                    pause()
                with self._changed:
                    if not self._waiting:
                        break
                    place, job = self._waiting.popleft()
                self._found[place] = job()
        finally:
            with self._changed:
                # Who has not begun yet will find nothing to do, and is not waited for.
                self._waiting.clear()
                while self._elsewhere:
                    self._changed.wait()
        if self._failure is not None:
            raise self._failure
        return self._found

    def help_out(self) -> None:
        """By others."""
        while True:
            with self._changed:
                if not self._waiting:
                    return
                place, job = self._waiting.pop()
                self._elsewhere += 1
            try:
                self._found[place] = job()
            except BaseException as error:
                with self._changed:
                    self._failure = error
                    self._waiting.clear()
            finally:
                with self._changed:
                    self._elsewhere -= 1
                    self._changed.notify_all()
