import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.frames import FrameDecoder, encode_frame


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """``data`` in chunks of the given sizes, over and over."""
    chunks = []
    position = turn = 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        chunks.append(data[position : position + size])
        position += size
        turn += 1
    return chunks


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=20),
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
)
@settings(max_examples=400, deadline=None)
def test_frames_come_out_however_the_stream_is_cut(frames: list[bytes], sizes: list[int]) -> None:
    decoder = FrameDecoder(40)
    stream = b"".join(map(encode_frame, frames))
    assert [frame for chunk in cut(stream, sizes) for frame in decoder.feed(chunk)] == frames
    assert decoder.fault is None
    assert decoder.buffered_size_bytes == 0


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), min_size=1, max_size=8))
@settings(max_examples=600, deadline=None)
def test_any_bytes_mean_the_same_however_they_are_cut(data: bytes, sizes: list[int]) -> None:
    whole, pieces = FrameDecoder(100), FrameDecoder(100)
    expected = whole.feed(data)
    got = [frame for chunk in cut(data, sizes) for frame in pieces.feed(chunk)]
    assert got == expected
    assert pieces.fault == whole.fault


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_a_length_above_the_limit_is_refused_before_its_bytes_come(chunk: int) -> None:
    decoder = FrameDecoder(1000)
    data = encode_frame(b"ok") + (1001).to_bytes(4, "big")
    frames = [frame for piece in cut(data, [chunk]) for frame in decoder.feed(piece)]
    assert frames == [b"ok"]
    assert decoder.fault is not None
    assert "1,001 bytes" in decoder.fault
    assert decoder.feed(b"more") == []
    assert decoder.buffered_size_bytes == 0


def test_an_empty_frame_is_refused() -> None:
    decoder = FrameDecoder(1000)
    assert decoder.feed(bytes(4)) == []
    assert decoder.fault is not None


def test_work_is_linear_in_the_bytes() -> None:
    """A frame of 1 MiB byte by byte: quadratic copying would take minutes."""
    decoder = FrameDecoder(2**20)
    stream = encode_frame(bytes(2**20))
    began = time.perf_counter()
    frames = [frame for i in range(len(stream)) for frame in decoder.feed(stream[i : i + 1])]
    assert len(frames) == 1
    assert time.perf_counter() - began < 20


def test_what_is_missing_of_a_frame_is_known_once_its_length_is() -> None:
    decoder = FrameDecoder(2**20)
    stream = encode_frame(bytes(1000))
    assert decoder.feed(stream[:3]) == []
    assert decoder.missing_size_bytes == 0
    assert decoder.feed(stream[3:104]) == []
    assert decoder.missing_size_bytes == 900
    assert decoder.feed(stream[104:] + stream[:54]) == [bytes(1000)]
    assert decoder.missing_size_bytes == 950
