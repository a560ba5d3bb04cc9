"""The same tools for a blocking client.

The tools are coroutines that await nothing but the store. Over a blocking store what they await is
there already, so a coroutine is run by one step that goes to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from treestore.tools.definitions import Style
from treestore.tools.executor import ToolExecutor
from treestore.tools.recording import Step

T = TypeVar("T")


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, or raises, without waiting.

    Raises:
        RuntimeError: it waits for something, as a provider that is a coroutine function does.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    coroutine.close()
    raise RuntimeError(
        "A tool waited for something; a blocking executor takes providers that are plain functions."
    )


class Awaited:
    """A blocking database (or one of its services) whose methods are coroutine functions."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return _awaited(value) if callable(value) else Awaited(value)


def _awaited(method: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ASYNC124
        return method(*args, **kwargs)

    return call


class BlockingToolExecutor:
    """`ToolExecutor` for ``treestore.connect_sync``: the same, but ``execute`` returns when done.

    ``db`` is the blocking database; all other arguments are those of `ToolExecutor`. A provider
    must be a plain function, no coroutine function.
    """

    def __init__(self, db: Any, **options: Any) -> None:
        self._executor = ToolExecutor(Awaited(db), **options)

    def execute(
        self, name: object, arguments: object = None, *, thought: str = ""
    ) -> dict[str, Any]:
        """See `ToolExecutor.execute`."""
        return finished(self._executor.execute(name, arguments, thought=thought))

    @property
    def decision(self) -> dict[str, Any] | None:
        """See `ToolExecutor.decision`."""
        return self._executor.decision

    @property
    def steps(self) -> list[Step]:
        """See `ToolExecutor.steps`."""
        return self._executor.steps

    @property
    def trajectory_id(self) -> str | None:
        """See `ToolExecutor.trajectory_id`."""
        return self._executor.trajectory_id

    @property
    def version_id(self) -> str | None:
        """See `ToolExecutor.version_id`."""
        return self._executor.version_id

    def definitions(self, style: Style = "anthropic") -> list[dict[str, Any]]:
        """See `ToolExecutor.definitions`."""
        return self._executor.definitions(style)
