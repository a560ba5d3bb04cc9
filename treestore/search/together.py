"""Work that may be done on several threads at a time. Who has threads to give is the host's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Together(Protocol):
    """Runs jobs that do not wait for each other."""

    def __call__(
        self, jobs: Sequence[Callable[[], T]], pause: Callable[[], None] | None = None
    ) -> list[T]:
        """What the jobs return, in their order; or what one of them raises.

        When this returns or raises, none of them is running any more.

        Args:
            jobs: the longest first, if that is known. They may run on other threads.
            pause: called by the caller's own thread before each job that it runs; what it raises
                ends the work.
        """
        ...


def one_by_one(jobs: Sequence[Callable[[], T]], pause: Callable[[], None] | None = None) -> list[T]:
    """Implements `Together` with the caller's own thread."""
    found: list[T] = []
    for job in jobs:
        if pause is not None:
            pause()
        found.append(job())
    return found
