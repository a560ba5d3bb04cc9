"""Callers: loops that make one call after the other until the time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import trio

from scripts.bench.worker import Sample

CHUNK = 500
"""Calls between two looks at the clock where a call takes about a microsecond."""


def loop_sync(call: Callable[[Any], object], items: Sequence[Any], seconds: float) -> Sample:
    """Call with one item after the other; for calls too short to be timed one by one."""
    source = cycle(items)
    done = 0
    begin = perf_counter()
    end = begin + seconds
    while (now := perf_counter()) < end:
        for item in islice(source, CHUNK):
            call(item)
        done += CHUNK
    return Sample(done, now - begin)


async def loop_async(
    call: Callable[[Any], Awaitable[object]], items: Sequence[Any], seconds: float
) -> Sample:
    """The same for calls that are awaited."""
    source = cycle(items)
    done = 0
    begin = perf_counter()
    end = begin + seconds
    while (now := perf_counter()) < end:
        for item in islice(source, CHUNK):
            await call(item)
        done += CHUNK
    return Sample(done, now - begin)


def loop_timed(call: Callable[[Any], object], items: Sequence[Any], seconds: float) -> Sample:
    """Call with one item after the other, each call timed."""
    latencies: list[float] = []
    begin = before = perf_counter()
    end = begin + seconds
    for item in cycle(items):
        call(item)
        after = perf_counter()
        latencies.append(after - before)
        before = after
        if after > end:
            break
    return Sample(len(latencies), before - begin, latencies)


Call = Callable[[Any], Awaitable[object]]


async def _caller(call: Call, items: Iterator[Any], end: float, latencies: list[float]) -> None:
    before = perf_counter()
    while before < end:
        await call(next(items))
        after = perf_counter()
        latencies.append(after - before)
        before = after


async def callers_trio(calls: Sequence[Call], items: Sequence[Any], seconds: float) -> Sample:
    """One task for each of ``calls``, all taking from the same items."""
    latencies: list[float] = []
    source = cycle(items)
    begin = perf_counter()
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(_caller, call, source, begin + seconds, latencies)
    return Sample(len(latencies), perf_counter() - begin, latencies)


async def callers_asyncio(calls: Sequence[Call], items: Sequence[Any], seconds: float) -> Sample:
    """The same on asyncio."""
    latencies: list[float] = []
    source = cycle(items)
    begin = perf_counter()
    await asyncio.gather(*(_caller(call, source, begin + seconds, latencies) for call in calls))
    return Sample(len(latencies), perf_counter() - begin, latencies)
