"""Loggers of everything that runs in a store, be it in a server or in an application.

Where structlog is set up, by the server (`treestore.cli.logs`) or by the application, lines go
there with all their fields. Where it is not, they go to Python's own logging: it shows warnings and
errors on standard error, and applications steer it by the name ``treestore``. structlog's default
would print every line on standard output, which is the application's.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog
from structlog.typing import EventDict


def _as_line(_logger: Any, _method: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """One line for people: the event, then its fields; a traceback is left to the handlers."""
    what, failure = event.pop("event"), event.pop("exc_info", None)
    fields = "".join(f" {name}={value!r}" for name, value in event.items())
    # A percent sign is nothing to be filled in: without arguments logging leaves it alone.
    return (f"{what}{fields}",), {"exc_info": failure}


class Logger:
    """Writes to structlog or to Python's logging, whichever is set up when a line comes."""

    def __init__(self, name: str) -> None:
        self._structured: Any = structlog.get_logger(name)
        self._plain: Any = structlog.wrap_logger(
            logging.getLogger(name),
            processors=[structlog.stdlib.filter_by_level, _as_line],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    @property
    def _its(self) -> Any:
        return self._structured if structlog.is_configured() else self._plain

    def debug(self, event: str, **fields: Any) -> None:
        """A line for those who look for something."""
        self._its.debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """A line about what is as it should be."""
        self._its.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """A line about what somebody should know."""
        self._its.warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """A line about what went wrong."""
        self._its.error(event, **fields)

    def exception(self, event: str, **fields: Any) -> None:
        """A line about what went wrong, with the traceback of the exception being handled."""
        self._its.exception(event, **fields)


def get_logger(name: str) -> Logger:
    """The logger of a part of the program, such as ``treestore.writer``."""
    return Logger(name)
