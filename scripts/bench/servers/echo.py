"""The bare echo: TreeStore's frames and codec on trio, and nothing behind them.

It decodes each request and answers with a value of the size that the rows read, so it is the
limit of what a server on this stack could do.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import trio

from protocol.frames import FrameDecoder, encode_frame
from protocol.messages import Request, Response
from scripts.bench.data import value_of
from scripts.bench.worker import ROOT

RECEIVE_SIZE_BYTES = 1 << 16
FRAME_SIZE_BYTES_MAX = 1 << 20


async def _serve(stream: trio.SocketStream) -> None:
    frames = FrameDecoder(FRAME_SIZE_BYTES_MAX)
    decode = msgspec.msgpack.Decoder(Request).decode
    decode_params = msgspec.msgpack.Decoder(dict[str, bytes]).decode
    encode = msgspec.msgpack.Encoder().encode
    value = value_of(1)
    while data := bytes(await stream.receive_some(RECEIVE_SIZE_BYTES)):
        answers = []
        for frame in frames.feed(data):
            request = decode(frame)
            decode_params(request.params)
            result = msgspec.Raw(encode(value))
            answers.append(encode_frame(encode(Response(request.id, result))))
        if answers:
            await stream.send_all(b"".join(answers))


async def _main() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, _serve, listeners)
        print(listeners[0].socket.getsockname()[1], flush=True)


@contextmanager
def run_echo() -> Generator[str, None, None]:
    """Run the echo in a process of its own; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    trio.run(_main)
