"""The bare echo's clients: the most that Python, trio and these frames allow."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import msgspec
import outcome
import trio

from protocol.frames import FrameDecoder, encode_frame
from protocol.messages import Request, Response
from scripts.bench.callers import callers_trio
from scripts.bench.worker import AsyncWorkloads, Config, Sample, serve_trio

RECEIVE_SIZE_BYTES = 1 << 16
FRAME_SIZE_BYTES_MAX = 1 << 20


class EchoClient:
    """The workloads, on one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._decoder = FrameDecoder(FRAME_SIZE_BYTES_MAX)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Response).decode
        self._last_id = 0

    def _request(self, key: bytes) -> bytes:
        self._last_id += 1
        params = msgspec.Raw(self._encode({"key": key}))
        return encode_frame(self._encode(Request(self._last_id, "kv.get", params)))

    async def windowed(self, seconds: float, repetition: int, callers: int) -> Sample:
        """No callers at all: one loop keeps ``callers`` requests in flight."""
        key = random.Random(repetition).randbytes(16)
        done, in_flight, begin = 0, 0, perf_counter()
        end = begin + seconds
        while True:
            missing = callers - in_flight if perf_counter() < end else 0
            if missing:
                await self._stream.send_all(b"".join(self._request(key) for _ in range(missing)))
                in_flight += missing
            if not in_flight:
                return Sample(done, perf_counter() - begin)
            frames = self._decoder.feed(bytes(await self._stream.receive_some(RECEIVE_SIZE_BYTES)))
            for frame in frames:
                msgspec.msgpack.decode(self._decode(frame).result)
            done += len(frames)
            in_flight -= len(frames)

    async def called(self, seconds: float, repetition: int, callers: int) -> Sample:
        """As many tasks as TreeStore's row has, each waiting for its own answer."""
        waiting: dict[int, trio.lowlevel.Task] = {}
        queue: list[bytes] = []
        wake = trio.Event()

        def abort(_: Any) -> trio.lowlevel.Abort:
            return trio.lowlevel.Abort.FAILED

        async def call(key: bytes) -> object:
            queue.append(self._request(key))
            waiting[self._last_id] = trio.lowlevel.current_task()
            wake.set()
            raw = await trio.lowlevel.wait_task_rescheduled(abort)
            return msgspec.msgpack.decode(raw)

        async def receive() -> None:
            while True:
                data = bytes(await self._stream.receive_some(RECEIVE_SIZE_BYTES))
                for frame in self._decoder.feed(data):
                    response = self._decode(frame)
                    task = waiting.pop(response.id)
                    trio.lowlevel.reschedule(task, outcome.Value(response.result))

        async def send() -> None:
            nonlocal wake
            while True:
                await wake.wait()
                wake = trio.Event()
                data = b"".join(queue)
                queue.clear()
                await self._stream.send_all(data)

        keys = [random.Random(number).randbytes(16) for number in range(1000)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(send)
            sample = await callers_trio([call] * callers, keys, seconds)
            nursery.cancel_scope.cancel()
        return sample


@asynccontextmanager
async def open_workloads(config: Config) -> AsyncGenerator[AsyncWorkloads, None]:
    """Connect and offer the workloads."""
    host, _, port = config.address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        client = EchoClient(stream)
        yield {"windowed": client.windowed, "called": client.called}


if __name__ == "__main__":
    serve_trio(open_workloads)
