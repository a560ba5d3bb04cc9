"""A measured system's client, in a process of its own.

The parent sends an `Order` and gets a `Reply`: frames of msgpack over the child's standard input
and output, one at a time, so that a child that has nothing to do does nothing at all. Each child
keeps what its workloads need (connections, prepared keys) between orders.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import trio

from scripts.bench.sizes import Sizes

ROOT = Path(__file__).parents[2]
CLOSE_TIMEOUT_S = 60.0

T = TypeVar("T")


class Config(msgspec.Struct, frozen=True):
    """What a child is told when it starts."""

    directory: str
    """Where it may keep files; made for this run and removed after it."""
    sizes: Sizes
    address: str = ""
    """Server to connect to, ``host:port``."""


class Order(msgspec.Struct):
    """Do this workload once."""

    workload: str
    arguments: dict[str, Any] = {}


class Sample(msgspec.Struct):
    """One repetition."""

    operations: int
    seconds: float
    latencies_s: list[float] = []
    details: dict[str, Any] = {}


class Reply(msgspec.Struct):
    """How it went."""

    sample: Sample | None = None
    error: str | None = None


class WorkerFailed(Exception):
    """A child could not do what it was asked to."""


# --- the parent's end ------------------------------------------------------------------------


class Worker:
    """A running child."""

    def __init__(self, module: str, config: Config) -> None:
        """Start ``python -m module``; `wait` until it is ready."""
        self.name = module.rpartition(".")[2]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, msgspec.json.encode(config).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout

    def run(self, workload: str, **arguments: Any) -> Sample:
        """Run a workload once."""
        self.start(workload, **arguments)
        return self.wait()

    def start(self, workload: str, **arguments: Any) -> None:
        """Begin a workload; `wait` for it before the next one."""
        try:
            _write(self._to, Order(workload, arguments))
        except BrokenPipeError as error:
            raise WorkerFailed(f"{self.name} is gone") from error

    def wait(self) -> Sample:
        """The result of what was started last; at first, of the start itself."""
        reply = _read(self._from, Reply)
        if reply is None:
            raise WorkerFailed(f"{self.name} ended with code {self._process.wait()}")
        if reply.error is not None:
            raise WorkerFailed(f"{self.name}: {reply.error}")
        return reply.sample or Sample(0, 0.0)

    def close(self) -> None:
        """Have the child end, and wait for it."""
        for pipe in (self._to, self._from):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


# --- the child's end -------------------------------------------------------------------------


def _write(stream: BinaryIO | Any, message: msgspec.Struct) -> None:
    data = msgspec.msgpack.encode(message)
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def _read(stream: BinaryIO | Any, type_: type[T]) -> T | None:
    header = stream.read(4)
    if len(header) < 4:
        return None
    return msgspec.msgpack.decode(stream.read(int.from_bytes(header, "big")), type=type_)


class _Channel:
    """The child's side of the pipes. What is printed goes to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self._in = os.fdopen(os.dup(0), "rb")

    def receive(self) -> Order | None:
        return _read(self._in, Order)

    def send(self, reply: Reply) -> None:
        _write(self._out, reply)


def config_from_arguments() -> Config:
    """The child's `Config`."""
    return msgspec.json.decode(sys.argv[1], type=Config)


def _settle() -> None:
    # What was prepared stays; the collector need not look at a million keys again and again.
    gc.collect()
    gc.freeze()


def _failure(error: Exception) -> Reply:
    if os.environ.get("TREESTORE_BENCH_TRACEBACK"):
        traceback.print_exc()
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return Reply(error=f"{type(error).__name__}: {error}")


def serve(
    open_workloads: Callable[[Config], AbstractContextManager[Mapping[str, Callable[..., Sample]]]],
) -> None:
    """Run a child whose workloads are plain functions."""
    channel = _Channel()
    try:
        with open_workloads(config_from_arguments()) as workloads:
            _settle()
            channel.send(Reply())
            while (order := channel.receive()) is not None:
                try:
                    sample = workloads[order.workload](**order.arguments)
                except Exception as error:
                    channel.send(_failure(error))
                else:
                    channel.send(Reply(sample))
    except Exception as error:
        channel.send(_failure(error))


AsyncWorkloads = Mapping[str, Callable[..., Awaitable[Sample]]]
OpenAsync = Callable[[Config], AbstractAsyncContextManager[AsyncWorkloads]]


async def _serve_async(
    channel: _Channel,
    open_workloads: OpenAsync,
    in_thread: Callable[[Callable[[], Order | None]], Awaitable[Order | None]],
) -> None:
    try:
        async with open_workloads(config_from_arguments()) as workloads:
            _settle()
            channel.send(Reply())
            while (order := await in_thread(channel.receive)) is not None:
                try:
                    sample = await workloads[order.workload](**order.arguments)
                except Exception as error:
                    channel.send(_failure(error))
                else:
                    channel.send(Reply(sample))
    except Exception as error:
        channel.send(_failure(error))


def serve_trio(open_workloads: OpenAsync) -> None:
    """Run a child whose workloads run on trio."""
    trio.run(_serve_async, _Channel(), open_workloads, trio.to_thread.run_sync)


def serve_asyncio(open_workloads: OpenAsync) -> None:
    """Run a child whose workloads run on asyncio."""
    asyncio.run(_serve_async(_Channel(), open_workloads, asyncio.to_thread))
