"""The tree of tasks on the event loop, and where each of them waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

import attrs
import trio

TASKS_MAX = 5000
"""More are counted, not shown."""

FRAMES_MAX = 40
SHOWN_FRAMES = 4
"""Of a stack, in the drawing: the innermost."""

SLICE_S = 0.002
"""After so much work the other tasks run; the tree may change meanwhile, which does it no harm."""


@attrs.define
class TaskView:
    """One task as it was when it was looked at.

    Attributes:
        stack: where it waits, the outermost call first: ``file:line function``.
        nurseries: the tasks in each nursery that it has open.
    """

    name: str
    stack: list[str]
    nurseries: list[list[TaskView]] = attrs.field(factory=list)


@attrs.frozen
class TaskTree:
    """All tasks, but for ``left_out`` of them."""

    root: TaskView
    count: int
    left_out: int

    def as_text(self) -> str:
        """A drawing."""
        lines = [f"{self.count} tasks" + (f", {self.left_out} left out" * bool(self.left_out)), ""]
        lines.extend(_drawn(self.root))
        return "\n".join(lines) + "\n"

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"count": self.count, "left_out": self.left_out, "root": attrs.asdict(self.root)}


def _drawn(view: TaskView) -> Iterator[str]:
    """Lines of a task and those below it."""
    pending: list[tuple[TaskView, str, str]] = [(view, "", "")]
    while pending:
        task, head, indent = pending.pop()
        yield head + task.name
        below = [child for nursery in task.nurseries for child in nursery]
        rail = indent + ("│     " if below else "      ")
        yield from (f"{rail}{frame}" for frame in task.stack[-SHOWN_FRAMES:])
        for number, child in reversed(list(enumerate(below, start=1))):
            last = number == len(below)
            corner, rest = ("└─ ", "   ") if last else ("├─ ", "│  ")
            pending.append((child, indent + corner, indent + rest))


async def task_tree() -> TaskTree:
    """Look at all tasks now."""
    root = trio.lowlevel.current_root_task()
    assert root is not None  # There is one while anything runs.
    view = _view(root)
    pending = [(root, view)]
    count, left_out = 1, 0
    until = time.perf_counter() + SLICE_S
    while pending:
        task, into = pending.pop()
        for nursery in task.child_nurseries:
            children: list[TaskView] = []
            for child in sorted(nursery.child_tasks, key=lambda task: task.name):
                if count >= TASKS_MAX:
                    left_out += 1
                    continue
                count += 1
                children.append(_view(child))
                pending.append((child, children[-1]))
            into.nurseries.append(children)
        if time.perf_counter() > until:
            await trio.lowlevel.checkpoint()
            until = time.perf_counter() + SLICE_S
    return TaskTree(view, count, left_out)


def _view(task: trio.lowlevel.Task) -> TaskView:
    stack: list[str] = []
    for frame, line in task.iter_await_frames():
        module = str(frame.f_globals.get("__name__", ""))
        if len(stack) == FRAMES_MAX:
            break
        if not module.startswith("trio._core"):  # How it waits, not for what.
            stack.append(place(frame.f_code, line))
    return TaskView(task.name, stack)


def place(code: CodeType, line: int | None) -> str:
    """``actors/writer.py:212 Writer.run``, with the path cut to its last three parts."""
    path = "/".join(code.co_filename.split("/")[-3:])
    return f"{path}:{line} {code.co_qualname}"


def place_of(frame: FrameType) -> str:
    """The function that a frame runs, without the line."""
    path = "/".join(frame.f_code.co_filename.split("/")[-3:])
    return f"{frame.f_code.co_qualname} ({path}:{frame.f_code.co_firstlineno})"
