"""Calls that are made of several operations, by the program that makes them.

A `Composite` is no operation of its own: nothing of it is known on the wire. It is a coroutine
function over a service, written once; on a service whose calls are blocking it is run to its end
at once, for nothing that it awaits there has to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from treestore.errors import InvalidArgument
from treestore.stores.operation import Async, Blocking, ReadWrite, Service

P = ParamSpec("P")
R = TypeVar("R")

COMPOSITES: dict[str, Callable[..., Any]] = {}
"""Every one's function by name, for the reference."""


class Steps:
    """What a composite is made of: a service, all of whose calls are awaited.

    Its other attributes are the service's operations.

    Attributes:
        blocks: whether the calls are done when they return; the composite must not wait for
            anything else then.
    """

    def __init__(self, service: Service[Any, Any]) -> None:
        self._service = service
        self.blocks = bool(getattr(service._caller, "blocks", False))

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._service, name)
        return _awaited(call) if self.blocks else call


def _awaited(call: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def now(*args: Any, **kwargs: Any) -> Any:  # noqa: ASYNC124 - it is awaited all the same
        return call(*args, **kwargs)

    return now


def _run(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    coroutine.close()
    raise InvalidArgument("An asynchronous source takes an asynchronous client.")


class Composite(Generic[P, R]):
    """Put into a service's class body; the function's first argument is a `Steps`."""

    def __init__(self, function: Callable[Concatenate[Steps, P], Coroutine[Any, Any, R]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type[Service[Any, Any]], attribute: str) -> None:
        COMPOSITES[f"{owner.service_name}.{attribute}"] = self._function

    @overload
    def __get__(self, service: None, owner: Any) -> Self: ...
    @overload
    def __get__(
        self, service: Service[Async, ReadWrite], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, service: Service[Blocking, ReadWrite], owner: Any) -> Callable[P, R]: ...
    def __get__(self, service: Any, owner: Any) -> Any:
        if service is None:
            return self
        function, steps = self._function, Steps(service)
        if steps.blocks:

            def blocking(*args: Any, **kwargs: Any) -> Any:
                return _run(function(steps, *args, **kwargs))

            return update_wrapper(blocking, function)

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await function(steps, *args, **kwargs)

        return update_wrapper(awaited, function)
