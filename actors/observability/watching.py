"""Everything that watches a server, put together: what the server's start needs to know of it."""

from __future__ import annotations

from typing import Any

import trio

from actors.database import Database
from actors.observability.endpoints import Endpoints
from actors.observability.metrics import Metrics
from actors.observability.request_log import RequestLog
from actors.observability.requests import HttpRequests, Watch, WireRequests
from actors.observability.sources import Sources
from actors.observability.tracing import Spans, Watches
from treestore.settings import ServerSettings


class Observability:
    """A server's metrics, request log and spans.

    Resource handling:
        Owns the exporter of spans; `close` sends what is left of them. `run` is a task of the
        server's.

    Attributes:
        wire, http: where the edges count their requests.
        sources: told of the edges once they run.

    Raises:
        InvalidArgument: ``--otel`` cannot be had.
    """

    def __init__(self, settings: ServerSettings, *, exporter: Any = None) -> None:
        self.log = RequestLog(settings.slow_request_ms / 1000, every=settings.log_level == "debug")
        self._spans = Spans(exporter) if settings.otel else None
        watch: Watch = self.log if self._spans is None else Watches(self.log, self._spans)
        self.wire = WireRequests(watch)
        self.http = HttpRequests(watch)

    def of(self, database: Database, stopping: trio.Event) -> tuple[Sources, Endpoints]:
        """What is answered about ``database``."""
        sources = Sources(database, self.wire, self.http, self.log)
        return sources, Endpoints(database, stopping, Metrics(sources))

    async def close(self) -> None:
        """Send what is left; takes as long as the exporter does."""
        if self._spans is not None:
            await trio.to_thread.run_sync(self._spans.close, abandon_on_cancel=True)
