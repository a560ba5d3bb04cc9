"""A trio loop that does next to nothing: how long steps take on this machine, under its load."""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import perf_counter, thread_time

import trio

import treestore
from scripts.bench.worker import AsyncWorkloads, Config, Sample, serve_trio

STEP_S = 0.0002
"""Processor time of one step: the server's median."""

PAUSE_S = 0.004


async def steps(seconds: float) -> Sample:
    """Steps of `STEP_S` with pauses between them; their durations by the clock."""
    durations = array("d")
    begin = perf_counter()
    while perf_counter() - begin < seconds:
        await trio.sleep(PAUSE_S)
        at = perf_counter()
        until = thread_time() + STEP_S
        while thread_time() < until:
            pass
        durations.append(perf_counter() - at)
    return Sample(len(durations), perf_counter() - begin, durations.tolist())


@asynccontextmanager
async def open_workloads(config: Config) -> AsyncGenerator[AsyncWorkloads, None]:
    """Nothing to open."""
    treestore.tune()
    await trio.lowlevel.checkpoint()
    yield {"steps": steps}


if __name__ == "__main__":
    serve_trio(open_workloads)
