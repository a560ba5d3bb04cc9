"""Showing how far the recovery of a store has come, where it takes long enough to be asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from treestore.cli.console import errors
from treestore.engine.options import OpenProgress
from treestore.loggers import get_logger

QUIET_S = 0.5
"""A recovery that is quicker shows nothing."""

LINE_S = 2.0
"""Between two log lines."""

log = get_logger("treestore.recovery")


class _Bar:
    """A bar on a terminal, from when it is first needed."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def show(self, progress: OpenProgress) -> None:
        """Draw it as far as that."""
        if self._bar is None:
            columns = (
                TextColumn("recovering: {task.description}"),
                BarColumn(),
                TaskProgressColumn(),
            )
            self._bar = Progress(*columns, console=errors(), transient=True)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()
        self._bar.update(
            self._task, description=f"{progress.phase} the log", completed=progress.share
        )

    def stop(self) -> None:
        """Take it away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def recovering(
    clock_s: Callable[[], float] = time.monotonic,
) -> Generator[Callable[[OpenProgress], None], None, None]:
    """What `Environment.progress` may be while a command opens a directory.

    On a terminal a bar is drawn; elsewhere log lines ``recovering`` are written, every two seconds.
    """
    bar = _Bar() if errors().is_terminal else None
    quiet_until = clock_s() + QUIET_S

    def show(progress: OpenProgress) -> None:
        nonlocal quiet_until
        if progress.phase == "done":
            if bar is not None:
                bar.stop()
            return
        if clock_s() < quiet_until:
            return
        if bar is not None:
            bar.show(progress)
            return
        quiet_until = clock_s() + LINE_S
        log.info(
            "recovering",
            phase=progress.phase,
            percent=int(100 * progress.share),
            bytes=progress.done_bytes,
            total_bytes=progress.total_bytes,
        )

    try:
        yield show
    finally:
        if bar is not None:
            bar.stop()
