"""What every group of rows needs of the run under way."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import attrs
from rich.progress import Progress, TaskID

from scripts.bench.measure import Entry, Result, interleave
from scripts.bench.rows import Row
from scripts.bench.sizes import Sizes
from scripts.bench.worker import Config, Worker, WorkerFailed


@attrs.define
class Session:
    """One run of the benchmark."""

    sizes: Sizes
    directory: Path
    """Scratch space, removed at the end."""
    wanted: list[Row]
    progress: Progress
    task: TaskID
    results: list[Result] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    environment: dict[str, str] = attrs.field(factory=dict)
    """Versions of what was measured."""
    _started: int = 0

    def wants(self, row: Row) -> bool:
        """Whether the row was asked for."""
        return row in self.wanted

    def say(self, what: str) -> None:
        """Show what is being done."""
        self.progress.update(self.task, description=what)

    def done(self, result: Result) -> None:
        """A row is finished."""
        self.results.append(result)
        self.progress.advance(self.task)

    def note(self, text: str) -> None:
        """Something that the reader of the results should know."""
        self.notes.append(text)
        self.progress.console.print(text, style="yellow")

    def folder(self, name: str) -> Path:
        """A new folder in the scratch space."""
        path = self.directory / name
        path.mkdir()
        return path

    def measure(self, row: Row, entries: list[Entry], repetitions: int) -> Result:
        """Measure a row, interleaved."""
        return interleave(row, entries, repetitions, self.sizes.warm_up_seconds, self.say)

    def worker(self, stack: ExitStack, module: str, address: str = "") -> Worker | None:
        """Start a child; None, with a note, where it does not come up."""
        return self.workers(stack, module, address=address)[0]

    def workers(self, stack: ExitStack, *modules: str, address: str = "") -> list[Worker | None]:
        """Start children at the same time, since nothing is measured yet; as `worker`."""
        self.say(f"preparing {', '.join(module.replace('_', ' ') for module in modules)}")
        started = []
        for module in modules:
            self._started += 1
            folder = self.folder(f"{module}{self._started}")
            config = Config(str(folder), self.sizes, address)
            worker = Worker(f"scripts.bench.systems.{module}", config)
            started.append(stack.enter_context(worker))
        ready: list[Worker | None] = []
        for worker in started:
            try:
                worker.wait()
            except WorkerFailed as error:
                self.note(f"{worker.name} does not take part: {error}")
                ready.append(None)
            else:
                ready.append(worker)
        return ready
