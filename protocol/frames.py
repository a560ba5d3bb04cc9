"""Frames: a 4-byte big-endian length, then that many bytes.

Rules
    1. The length counts the bytes after itself. It is 1 or more, and at most the receiver's limit.
    2. A length is judged as soon as its four bytes are here, before any of the frame's bytes are
       kept, so a peer cannot make the receiver hold more than one frame's limit.

Plan
    The receiver is handed chunks as the network cut them. Whole frames inside one chunk are sliced
    out of it. A frame that is cut is gathered in one buffer that grows as bytes arrive, so the
    work is linear in the bytes received, however small the chunks (tests/protocol/test_frames.py).
"""

from __future__ import annotations

import struct

from protocol.limits import HEADER_SIZE_BYTES, KIB

VIEWED_SIZE_BYTES = 64 * KIB
"""A frame from this size on is handed on as a view of the chunk that it came in, not as a copy."""

_UNKNOWN = 0
_length_at = struct.Struct(">I").unpack_from


class FrameDecoder:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_gathered", "_size_bytes", "fault", "frame_size_bytes_max")

    def __init__(self, frame_size_bytes_max: int) -> None:
        self.frame_size_bytes_max = frame_size_bytes_max
        """The limit; may be changed between two calls of `feed`."""
        self.fault: str | None = None
        """Why the stream cannot be read any further; None as long as it can."""
        self._gathered = bytearray()
        # Header and body of the frame being gathered; _UNKNOWN until its header is whole.
        self._size_bytes = _UNKNOWN

    @property
    def buffered_size_bytes(self) -> int:
        """Bytes held of a frame that is not whole yet."""
        return len(self._gathered)

    @property
    def missing_size_bytes(self) -> int:
        """Bytes that are still to come of a frame that is not whole yet; 0 where unknown."""
        return self._size_bytes - len(self._gathered) if self._size_bytes else 0

    def feed(self, data: bytes) -> list[bytes | memoryview]:
        """Take a chunk; returns the frames that it completed, without their lengths.

        A frame that came in pieces is a view of the buffer in which it was gathered, which is
        not used again, and a long one is a view of the chunk; a copy of 300 KB takes longer than
        the reads that brought it.

        After a frame of illegal length ``fault`` says what was wrong, the frames before it are
        still returned, and everything after it is ignored.
        """
        frames: list[bytes | memoryview] = []
        if self.fault is not None:
            return frames
        position = self._gather(data, frames) if self._gathered else 0
        size = len(data)
        while size - position >= HEADER_SIZE_BYTES:
            start = position + HEADER_SIZE_BYTES
            (length,) = _length_at(data, position)
            if not 0 < length <= self.frame_size_bytes_max:
                self._refuse(length)
                return frames
            end = start + length
            if end > size:
                self._size_bytes = HEADER_SIZE_BYTES + length
                break
            whole = data if length < VIEWED_SIZE_BYTES else memoryview(data)
            frames.append(whole[start:end])
            position = end
        if position < size and self.fault is None:
            self._gathered += memoryview(data)[position:]
        return frames

    def _gather(self, data: bytes, frames: list[bytes | memoryview]) -> int:
        """Add to the cut frame what ``data`` begins with; returns how many bytes that took."""
        gathered = self._gathered
        position = 0
        if self._size_bytes == _UNKNOWN:
            position = HEADER_SIZE_BYTES - len(gathered)
            gathered += data[:position]
            if len(gathered) < HEADER_SIZE_BYTES:
                return len(data)
            length = int.from_bytes(gathered, "big")
            if not 0 < length <= self.frame_size_bytes_max:
                self._refuse(length)
                return len(data)
            self._size_bytes = HEADER_SIZE_BYTES + length
        end = position + self._size_bytes - len(gathered)
        gathered += memoryview(data)[position:end]
        if len(gathered) < self._size_bytes:
            return len(data)
        frames.append(memoryview(gathered)[HEADER_SIZE_BYTES:])
        self._gathered = bytearray()
        self._size_bytes = _UNKNOWN
        return end

    def _refuse(self, length: int) -> None:
        self._gathered = bytearray()
        if length == 0:
            self.fault = "a frame of length 0 was sent; a frame has 1 byte or more"
        else:
            self.fault = (
                f"a frame of {length:,} bytes was announced; "
                f"at most {self.frame_size_bytes_max:,} bytes are accepted here"
            )


def encode_frame(payload: bytes) -> bytes:
    """``payload`` with its length in front."""
    return len(payload).to_bytes(HEADER_SIZE_BYTES, "big") + payload
