"""Where log lines go: standard error, readable on a terminal and JSON elsewhere."""

from __future__ import annotations

import sys
from typing import Any

import structlog
from structlog.typing import EventDict

from treestore.log_lines import LOG_LINES


class _Lines:
    """What structlog calls with finished lines."""

    def __init__(self, name: str = "treestore") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        LOG_LINES.write(line)

    debug = info = warning = warn = error = critical = exception = fatal = msg


def _add_name(logger: Any, _method: str, event: EventDict) -> EventDict:
    event["logger"] = getattr(logger, "name", "treestore")
    return event


def configure(level: str) -> None:
    """Send log lines of ``level`` and above to standard error.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors.append(structlog.processors.dict_tracebacks)
        processors.append(structlog.processors.JSONRenderer(default=str))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,
    )
