"""Writing log lines to standard error without ever waiting for who reads it.

A server whose standard error is a pipe would stop, all of it, once that is full and nobody reads
on. So a line that does not fit is dropped, and counted; the next one that fits says how many.
"""

from __future__ import annotations

import os
import select
import sys

PIECE_BYTES = 4096
"""Where a pipe says that it takes anything at all, it takes so much at once (PIPE_BUF)."""

LINE_BYTES_MAX = 16 * PIECE_BYTES
"""What is longer is cut; tracebacks are not."""


class LogLines:
    """Writes finished lines. A reader of standard error that went away stops nothing."""

    def __init__(self) -> None:
        self.dropped = 0
        """In total."""
        self._untold = 0

    def write(self, line: str) -> None:
        """Write one line, or drop it."""
        data = line.encode("utf-8", "backslashreplace")
        if len(data) > LINE_BYTES_MAX:
            data = data[:LINE_BYTES_MAX]
        if self._untold:
            data = b'{"event": "log lines were dropped", "count": %d}\n' % self._untold + data
        if self._written(data + b"\n"):
            self._untold = 0
        else:
            self.dropped += 1
            self._untold += 1

    def _written(self, data: bytes) -> bool:
        stream = sys.stderr
        try:
            try:
                descriptor = stream.fileno()
            except (OSError, ValueError, AttributeError):  # Not a file: a test's.
                stream.write(data.decode("utf-8", "replace"))
                stream.flush()
                return True
            stream.flush()
            poller = select.poll()
            poller.register(descriptor, select.POLLOUT)
            for start in range(0, len(data), PIECE_BYTES):
                if not any(events & select.POLLOUT for _, events in poller.poll(0)):
                    return False
                # Not through the stream, whose buffer would keep what it could not write.
                os.write(descriptor, data[start : start + PIECE_BYTES])
        except (OSError, ValueError):
            return False
        return True


LOG_LINES = LogLines()
"""The process's own."""
