"""Operations, each defined once.

An operation is a plain function over a transaction. Put into a `Service` class body through one of
the descriptors here, the one definition serves every face of TreeStore:

* ``db.documents.get_node(...)`` embedded, over TCP and blocking, with the function's own types and
  docstring (the descriptor's ``__get__`` is overloaded on the service's mode);
* the wire: ``Operation.parameters`` is a struct made from the signature, sent as a msgpack map by
  name, so that a parameter added later with a default breaks nobody;
* dispatch tables, metrics labels and the API reference: `OPERATIONS`.

What is rejected statically: wrong types, wrong keywords, a `Command` on a read-only service, and a
result that is awaited on a blocking service or is not on another (``tests/typing`` pins it).
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import cached_property
from typing import (
    Annotated,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    overload,
)

import attrs
import msgspec

from treestore.stores.access import Read, Write

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Item = TypeVar("Item", covariant=True)


class Async:
    """Mode of a service whose calls are awaited."""


class Blocking:
    """Mode of a service whose calls return when they are done."""


class ReadOnly:
    """Access of a service bound to a snapshot: commands are rejected."""


class ReadWrite:
    """Access of a service that may write."""


M = TypeVar("M")
A = TypeVar("A")

Kind = Literal["query", "awaited", "command", "prepared", "stream", "feed", "action"]

READS: tuple[Kind, ...] = ("query", "awaited")
"""Kinds that read one state and give one answer: asking again is harmless."""

Right = Literal["read", "write", "admin"]
"""What an API key may be allowed to do; each includes those before it."""


@attrs.frozen
class Wire:
    """How a parameter travels when its Python type is richer than the wire's.

    Put into the annotation: ``Annotated[date | str, Wire(str, to_iso)]``. The caller's value goes
    through ``encode`` before it is sent (by default it is sent as it is); the function gets
    ``decode`` of what arrived (by default the wire's value itself, which it must then accept too).
    """

    type: Any
    encode: Callable[[Any], Any] | None = None
    decode: Callable[[Any], Any] | None = None
    check: Callable[[Any, str], None] | None = None
    """Raises where what would be sent is not what its caller gave (the encoder turns sets into
    lists); gets what `encode` made, and the parameter's name."""
    fill: Callable[[], Any] | None = None
    """What a client sends where its caller gave None, once per call: all attempts to send that
    call carry the same value."""


@attrs.define(eq=False)
class Operation:
    """The one definition of an operation, as every edge needs it."""

    name: str
    """``service.method``: the name on the wire, in metrics and in the reference."""
    kind: Kind
    function: Callable[..., Any]
    parameters: type[msgspec.Struct]
    """Keyword parameters of ``function`` without its transaction, in their wire types."""
    result: Any
    """Type of the result (of an item, for a stream or a feed)."""
    wires: dict[str, Wire]
    """Parameters that are converted on their way."""
    idempotent: bool = False
    """A command that gives the same end state when it is applied twice."""
    long: bool = False
    """A command or query whose work grows with what is stored: run on a thread, not on the event
    loop. An action that takes as long as it takes: a client does not give up on it, nor send it
    again."""
    positional_max: int = 0
    """How many parameters may be given by position; the others by name only."""
    cursor: Callable[..., bytes] | None = None
    """A stream's: of an item and the keyword parameters, where to go on after that item."""
    right: Right | None = None
    """The right that an API key needs for it; None: the one that goes with its kind."""
    audited: bool = False
    """Each call is entered into the audit trail."""

    @cached_property
    def unwired(self) -> tuple[str, ...]:
        """Parameters that travel as they are given."""
        return tuple(name for name in self.parameters.__struct_fields__ if name not in self.wires)

    def cursor_after(self, arguments: dict[str, Any], items: list[Any]) -> bytes | None:
        """Where a stream with these arguments goes on after the last of these items; None where
        there is none, or the stream cannot go on."""
        return self.cursor(items[-1], **arguments) if self.cursor and items else None

    def encode_parameters(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> msgspec.Struct:
        """The struct to send for a call (client side); `TypeError` as a plain call would raise."""
        if len(args) > self.positional_max:
            raise TypeError(
                f"{self.name} takes {self.positional_max} positional arguments, not {len(args)}; "
                "give the others by name"
            )
        if not self.wires:
            return self.parameters(*args, **kwargs)
        struct = self.parameters(*args, **kwargs)
        for name, wire in self.wires.items():
            value = getattr(struct, name)
            if value is None and wire.fill is not None:
                setattr(struct, name, wire.fill())
            elif value is not None and value is not msgspec.UNSET:
                if wire.encode is not None:
                    value = wire.encode(value)
                    setattr(struct, name, value)
                if wire.check is not None:
                    wire.check(value, name)
        return struct

    def arguments(self, parameters: msgspec.Struct) -> dict[str, Any]:
        """Keyword arguments for ``function`` from a received struct (server side)."""
        # Not msgspec.structs.asdict on purpose for nested structs: it is shallow, as wanted here.
        arguments = msgspec.structs.asdict(parameters)
        for name, wire in self.wires.items():
            if wire.decode is not None:
                value = arguments[name]
                if value is not None and value is not msgspec.UNSET:
                    arguments[name] = wire.decode(value)
        return arguments


OPERATIONS: dict[str, Operation] = {}
"""Every operation by name, filled as service classes are defined."""


class Caller(Protocol):
    """What stands behind a service: an embedded store, a snapshot, a connection."""

    def bind(self, operation: Operation) -> Callable[..., Any]:
        """A callable that takes the operation's arguments; called once per service and name."""
        ...


class Service(Generic[M, A]):
    """A named group of operations bound to a `Caller`."""

    service_name: ClassVar[str]

    def __init__(self, caller: Caller) -> None:
        self._caller = caller


def _parameters_of(
    name: str, function: Callable[..., Any], skip: int
) -> tuple[type[msgspec.Struct], dict[str, Wire]]:
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function, include_extras=True)
    fields: list[Any] = []
    wires: dict[str, Wire] = {}
    for parameter in list(signature.parameters.values())[skip:]:
        hint = hints[parameter.name]
        wire = _wire_of(hint)
        if wire is not None:
            wires[parameter.name] = wire
            optional = type(None) in typing.get_args(hint)
            hint = wire.type | None if optional or parameter.default is None else wire.type
            if msgspec.UnsetType in typing.get_args(hints[parameter.name]):
                hint = hint | msgspec.UnsetType
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, parameter.default))
    struct = msgspec.defstruct(
        name.replace(".", "_"), fields, omit_defaults=True, forbid_unknown_fields=True
    )
    return struct, wires


def _positional_max(function: Callable[..., Any], skip: int) -> int:
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    return sum(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)


def _wire_of(hint: Any) -> Wire | None:
    if typing.get_origin(hint) is Annotated:
        for extra in hint.__metadata__:
            if isinstance(extra, Wire):
                return extra
        return None
    for argument in typing.get_args(hint):
        found = _wire_of(argument) if typing.get_origin(argument) is Annotated else None
        if found is not None:
            return found
    return None


class _Descriptor(Generic[P, R]):
    kind: ClassVar[Kind]
    skip: ClassVar[int] = 1

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        idempotent: bool = False,
        long: bool = False,
        cursor: Callable[..., bytes] | None = None,
        right: Right | None = None,
        audited: bool = False,
    ) -> None:
        self._cursor = cursor
        self._right: Right | None = right
        self._audited = audited
        self._function = function
        self._idempotent = idempotent
        self._long = long
        self.__doc__ = function.__doc__
        self._attribute = ""
        self.operation: Operation

    def __set_name__(self, owner: type[Service[Any, Any]], attribute: str) -> None:
        self._attribute = attribute
        name = f"{owner.service_name}.{attribute}"
        parameters, wires = _parameters_of(name, self._function, self.skip)
        result = typing.get_type_hints(self._function, include_extras=True)["return"]
        if self.kind == "prepared":
            # Callable[[Write], R]: what the caller sees is R.
            result = typing.get_args(result)[-1]
        elif self.kind == "stream":
            # Iterator[list[T]]: what the caller sees is T.
            (batch,) = typing.get_args(result)
            (result,) = typing.get_args(batch)
        elif self.kind == "feed":
            # FeedSource[T]: what the caller sees is T.
            (result,) = typing.get_args(result)
        self.operation = Operation(
            name,
            self.kind,
            self._function,
            parameters,
            result,
            wires,
            idempotent=self._idempotent,
            long=self._long,
            positional_max=_positional_max(self._function, self.skip),
            cursor=self._cursor,
            right=self._right,
            audited=self._audited,
        )
        OPERATIONS[name] = self.operation

    def _bound(self, service: Service[Any, Any]) -> Any:
        bound = service._caller.bind(self.operation)
        bound.__name__ = self._attribute
        bound.__doc__ = self.__doc__
        # A non-data descriptor: from now on the attribute is found on the instance.
        service.__dict__[self._attribute] = bound
        return bound


class Query(_Descriptor[P, R]):
    """An operation that reads one snapshot and answers at once.

    Where it does much with the little that it reads, it is ``long``: run on a thread from the
    start. (What reads much needs no mark; it gets there by its budget.)
    """

    kind = "query"

    def __init__(
        self,
        function: Callable[Concatenate[Read, P], R],
        *,
        long: bool = False,
        right: Right | None = None,
    ) -> None:
        super().__init__(function, long=long, right=right)

    @overload
    def __get__(self, service: None, owner: Any) -> Self: ...
    @overload
    def __get__(
        self, service: Service[Async, Any], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, service: Service[Blocking, Any], owner: Any) -> Callable[P, R]: ...
    def __get__(self, service: Any, owner: Any) -> Any:
        return self if service is None else self._bound(service)


class Awaited(_Descriptor[P, R]):
    """A read that may have to wait for somebody: for an index that is still behind.

    The function is a coroutine function. Its first argument is what it reads with, made by
    whoever runs it: bound to a snapshot, or to the newest state.
    """

    kind = "awaited"

    def __init__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> None:
        super().__init__(function)

    @overload
    def __get__(self, service: None, owner: Any) -> Self: ...
    @overload
    def __get__(
        self, service: Service[Async, Any], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, service: Service[Blocking, Any], owner: Any) -> Callable[P, R]: ...
    def __get__(self, service: Any, owner: Any) -> Any:
        return self if service is None else self._bound(service)


class Command(_Descriptor[P, R]):
    """An operation that writes, in one transaction, run by the writer."""

    kind = "command"

    def __init__(
        self,
        function: Callable[Concatenate[Write, P], R],
        *,
        idempotent: bool = False,
        long: bool = False,
        right: Right | None = None,
        audited: bool = False,
    ) -> None:
        super().__init__(function, idempotent=idempotent, long=long, right=right, audited=audited)

    @overload
    def __get__(self, service: None, owner: Any) -> Self: ...
    @overload
    def __get__(
        self, service: Service[Async, ReadWrite], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, service: Service[Blocking, ReadWrite], owner: Any) -> Callable[P, R]: ...
    def __get__(self, service: Any, owner: Any) -> Any:
        return self if service is None else self._bound(service)


class Prepared(_Descriptor[P, R]):
    """A command in two stages: long work outside the writer, then one transaction.

    The function takes the parameters alone and returns what the writer will run. The first stage
    sees no transaction, may take long and may run in a thread.
    """

    kind = "prepared"
    skip = 0

    def __init__(
        self, function: Callable[P, Callable[[Write], R]], *, idempotent: bool = False
    ) -> None:
        super().__init__(function, idempotent=idempotent)

    @overload
    def __get__(self, service: None, owner: Any) -> Self: ...
    @overload
    def __get__(
        self, service: Service[Async, ReadWrite], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, service: Service[Blocking, ReadWrite], owner: Any) -> Callable[P, R]: ...
    def __get__(self, service: Any, owner: Any) -> Any:
        return self if service is None else self._bound(service)


class AsyncStream(Protocol[Item]):
    """Items as they come: a bare ``async for``, or ``async with`` to let go of it early."""

    def __aiter__(self) -> AsyncIterator[Item]: ...
    async def __aenter__(self) -> AsyncIterator[Item]: ...
    async def __aexit__(self, *exception: object) -> None: ...


class BlockingStream(Protocol[Item]):
    """Items as they come: a bare ``for``, or ``with`` to let go of it early."""

    def __iter__(self) -> Iterator[Item]: ...
    def __next__(self) -> Item: ...
    def __enter__(self) -> Iterator[Item]: ...
    def __exit__(self, *exception: object) -> None: ...
    def close(self) -> None: ...


class Stream(_Descriptor[P, T]):
    """A read that gives its items one after the other, all of one snapshot.

    The function gives them in short lists, about a leaf's worth each: what is done for each item
    of a long scan is what it costs.
    """

    kind = "stream"

    def __init__(
        self,
        function: Callable[Concatenate[Read, P], Iterator[list[T]]],
        *,
        cursor: Callable[..., bytes] | None = None,
    ) -> None:
        super().__init__(function, cursor=cursor)

    @overload
    def __get__(self, service: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, service: Service[Async, Any], owner: Any) -> Callable[P, AsyncStream[T]]: ...
    @overload
    def __get__(
        self, service: Service[Blocking, Any], owner: Any
    ) -> Callable[P, BlockingStream[T]]: ...
    def __get__(self, service: Any, owner: Any) -> Any:
        return self if service is None else self._bound(service)


class FeedSource(Protocol[Item]):
    """What a feed operation returns: reads on in the log, bit by bit, when it is told to."""

    @property
    def lsn(self) -> int:
        """Everything up to this record of the log was read."""
        ...

    @property
    def position(self) -> str:
        """Where another feed would go on behind what was read."""
        ...

    def backlog_bytes(self) -> int:
        """About how much there is to be read, in bytes."""
        ...

    def read(self, until_lsn: int) -> Sequence[Item]:
        """Items of the next records, up to that one at most; perhaps none."""
        ...


class AsyncFeed(AsyncStream[Item], Protocol[Item]):
    """Items as they come to be: it has no end."""

    @property
    def position(self) -> str:
        """Where to go on behind what was delivered: another feed's ``from_lsn``."""
        ...

    async def __anext__(self) -> Item: ...
    async def __aenter__(self) -> AsyncFeed[Item]: ...


class BlockingFeed(BlockingStream[Item], Protocol[Item]):
    """Likewise; each item is waited for."""

    @property
    def position(self) -> str:
        """See `AsyncFeed.position`."""
        ...


class Feed(_Descriptor[P, T]):
    """Items that come to be, from some position on, in the order of commits, without an end.

    The function's first argument is the engine; it checks its arguments and begins.
    """

    kind = "feed"

    def __init__(self, function: Callable[Concatenate[Any, P], FeedSource[T]]) -> None:
        super().__init__(function)

    @overload
    def __get__(self, service: None, owner: Any) -> Self: ...
    @overload
    def __get__(
        self, service: Service[Async, ReadWrite], owner: Any
    ) -> Callable[P, AsyncFeed[T]]: ...
    @overload
    def __get__(
        self, service: Service[Blocking, ReadWrite], owner: Any
    ) -> Callable[P, BlockingFeed[T]]: ...
    def __get__(self, service: Any, owner: Any) -> Any:
        return self if service is None else self._bound(service)


class Action(_Descriptor[P, R]):
    """An operation that waits or runs long, done by the actors (``admin``).

    The function's first argument is the running host; it is a coroutine function.
    """

    kind = "action"

    def __init__(
        self,
        function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
        *,
        long: bool = False,
        right: Right | None = None,
        audited: bool = False,
    ) -> None:
        super().__init__(function, long=long, right=right, audited=audited)

    @overload
    def __get__(self, service: None, owner: Any) -> Self: ...
    @overload
    def __get__(
        self, service: Service[Async, Any], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(self, service: Service[Blocking, Any], owner: Any) -> Callable[P, R]: ...
    def __get__(self, service: Any, owner: Any) -> Any:
        return self if service is None else self._bound(service)
