"""Progress of long commands: drawn on a terminal, on standard error, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from treestore.cli.console import errors

Tell = Callable[[str, int, int], None]
"""What is done, how much of it, of how much (0: unknown)."""


def bar(text: str = "{task.description}") -> Progress:
    """Bars that go away when they are done."""
    console = errors()
    return Progress(
        TextColumn(text),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def steps() -> Generator[Tell]:
    """One bar for work of several steps: it begins anew with each."""
    with bar() as bars:
        task, current = bars.add_task("", total=None), ""

        def tell(what: str, done: int, total: int) -> None:
            nonlocal current
            if what != current:
                current = what
                bars.reset(task, description=what)
            bars.update(task, completed=min(done, total or done), total=total or None)

        yield tell
