"""The audit log of a server: a file of JSON lines, or lines of its ordinary log.

Lines come from the audit trail's entries once those are durable (`Authority.log_new_entries`), so
the file says nothing that was not done. It is only appended to, and opened anew for each batch of
lines: whoever rotates it moves it away, and the next line begins another one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import structlog

from treestore.errors import InvalidArgument
from treestore.loggers import get_logger

log = get_logger("treestore.audit")

MODE = 0o600
"""Addresses and names are nobody else's business."""


def log_line(line: dict[str, Any]) -> None:
    """Where no file was named: a line of the ordinary log."""
    log.info("audit", **line)


class AuditFile:
    """Appends to a file.

    Raises:
        InvalidArgument: it cannot be written to.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            os.close(self._open())
        except OSError as error:
            raise InvalidArgument(
                f"--audit-log {file} cannot be written to: {error.strerror}."
            ) from None
        self._logger = structlog.wrap_logger(
            _Appender(self._open),
            processors=[
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="logged_at"),
                structlog.processors.JSONRenderer(default=str),
            ],
            wrapper_class=structlog.BoundLogger,
        )

    def __call__(self, line: dict[str, Any]) -> None:
        """Append one line."""
        try:
            self._logger.info("audit", **line)
        except OSError as error:
            # The entry is in the store; that it is not in the file must not go unnoticed.
            log.error("the audit log cannot be written to", file=str(self._file), error=str(error))
            log_line(line)

    def _open(self) -> int:
        return os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)


class _Appender:
    """What structlog gives finished lines to."""

    def __init__(self, open_file: Any) -> None:
        self._open_file = open_file

    def info(self, line: str) -> None:
        """Write a line, whole: other processes may append to the same file."""
        descriptor = self._open_file()
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)
