"""A TreeStore server whose event loop is watched: ``python -m ... RECORD serve --data DIR ...``.

Every step of every task is timed, and every turn of the loop (from the end of one wait for input
to the beginning of the next). When the server ends, the numbers are written to RECORD: arrays of
float64 in seconds, begins by `time.perf_counter`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import trio

STEPS, TURNS = "steps", "turns"
COLUMNS = {STEPS: 4, TURNS: 2}
"""Numbers for each entry: begin, duration, and for a step the processor time of its thread and how
long that thread was ready to run and had no processor (Linux; elsewhere 0)."""

LONG_S = 0.005


class LoopWatch(trio.abc.Instrument):
    """Times steps and turns."""

    def __init__(self) -> None:
        self.steps = array("d")
        self.turns = array("d")
        self.long: list[tuple[float, float, float, str]] = []
        """Begin, duration, processor time and task of the steps that took too long."""
        self._step_at = self._turn_at = perf_counter()
        self._busy_at = thread_time()
        self._scheduler: int | None = None
        self._queued_at = 0.0

    def before_run(self) -> None:
        """The loop's thread is known now."""
        path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        if os.path.exists(path):
            self._scheduler = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _queued_s(self) -> float:
        """How long the loop's thread waited for a processor so far."""
        if self._scheduler is None:
            return 0.0
        return int(os.pread(self._scheduler, 100, 0).split()[1]) / 1e9

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task begins to run."""
        self._queued_at = self._queued_s()
        self._busy_at = thread_time()
        self._step_at = perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It gave control back."""
        begin = self._step_at
        duration = perf_counter() - begin
        busy = thread_time() - self._busy_at
        self.steps.extend((begin, duration, busy, self._queued_s() - self._queued_at))
        if duration > LONG_S:
            self.long.append((begin, duration, busy, task.name))

    def before_io_wait(self, timeout: float) -> None:
        """A turn ends."""
        self.turns.extend((self._turn_at, perf_counter() - self._turn_at))

    def after_io_wait(self, timeout: float) -> None:
        """The next one begins."""
        self._turn_at = perf_counter()

    def save(self, record: Path) -> None:
        """Write everything."""
        for name, numbers in ((STEPS, self.steps), (TURNS, self.turns)):
            with record.with_suffix(f".{name}").open("wb") as file:
                numbers.tofile(file)
        record.with_suffix(".long").write_text(json.dumps(self.long))


def main() -> None:
    """Run the command line behind a `trio.run` that watches."""
    record = Path(sys.argv.pop(1))
    watch = LoopWatch()
    plain_run = trio.run

    def watched_run(main: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        options["instruments"] = [*options.get("instruments", ()), watch]
        return plain_run(main, *args, **options)

    trio.run = watched_run  # type: ignore[assignment]
    from treestore.cli import main as command_line  # Only now: it may import trio's run.

    try:
        command_line()
    finally:
        watch.save(record)


if __name__ == "__main__":
    main()
