"""OpenTelemetry spans: one for each request, for those who ask for them with ``--otel``.

The packages are an extra (``treestore[otel]``) and imported only then. What is exported where is
said by OpenTelemetry's own variables: ``OTEL_TRACES_EXPORTER`` (``otlp`` where it is not set, which
needs the package of that exporter; ``console`` needs none), ``OTEL_EXPORTER_OTLP_ENDPOINT``,
``OTEL_TRACES_SAMPLER``, ``OTEL_SERVICE_NAME`` and so on.
"""

from __future__ import annotations

import os
import re
import time
from importlib.metadata import entry_points
from typing import Any

from actors.observability.requests import OK, OTHER, SESSION_METHODS, SeenRequest
from treestore import __version__
from treestore.errors import InvalidArgument
from treestore.stores.operation import OPERATIONS

EXPORTER_VARIABLE = "OTEL_TRACES_EXPORTER"

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


class Spans:
    """Implements `Watch`: makes a span of each request once it was answered.

    A library of spans would have the request's code run inside of each: a context manager, a
    context variable, a clock or two. Here a request costs what it costs, and its span is made of
    its duration afterwards; the exporter works on a thread of its own.

    Resource handling:
        Owns the exporter; `close` sends what is left.
    """

    from_s = -1.0

    def __init__(self, exporter: Any = None) -> None:
        """Begin to export.

        Args:
            exporter: where to; by default what the environment says.

        Raises:
            InvalidArgument: a package is missing; the message says which.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation import tracecontext
        except ImportError as error:
            raise InvalidArgument(
                f"--otel needs OpenTelemetry ({error}): pip install 'treestore[otel]'."
            ) from None
        about = {"service.version": __version__}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            about["service.name"] = "treestore"
        resource = Resource.create(about)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _exporter()))
        self._tracer = self._provider.get_tracer("treestore", __version__)
        self._server = trace.SpanKind.SERVER
        self._error = trace.Status(trace.StatusCode.ERROR)
        self._extract = tracecontext.TraceContextTextMapPropagator().extract

    def look(self, seen: SeenRequest) -> None:
        """See `Watch.look`."""
        ended_ns = time.time_ns()
        context = None
        if seen.traceparent and _TRACEPARENT.match(seen.traceparent):
            context = self._extract({"traceparent": seen.traceparent})
        attributes: dict[str, Any] = {
            "treestore.operation": _bounded(seen.operation),
            "treestore.edge": seen.edge,
            "treestore.outcome": seen.outcome,
            "treestore.request_id": seen.request_id,
        }
        for name, value in seen.facts.items():
            attributes[f"treestore.{name}"] = value
        span = self._tracer.start_span(
            attributes["treestore.operation"],
            context,
            self._server,
            attributes,
            start_time=ended_ns - int(seen.duration_s * 1e9),
        )
        if seen.outcome != OK:
            span.set_status(self._error)
        span.end(ended_ns)

    def close(self) -> None:
        """Send what is left; may take seconds, so not on the event loop."""
        self._provider.shutdown()


def _bounded(operation: str) -> str:
    known = operation in OPERATIONS or operation in SESSION_METHODS or operation.startswith("/")
    return operation if known else OTHER


def _exporter() -> Any:
    name = os.environ.get(EXPORTER_VARIABLE) or "otlp"
    group = "opentelemetry_traces_exporter"
    found = list(entry_points(group=group, name=name))
    if not found:
        installed = sorted(entry.name for entry in entry_points(group=group))
        raise InvalidArgument(
            f"--otel: there is no exporter {name!r} ({EXPORTER_VARIABLE}); installed: "
            f"{', '.join(installed) or 'none'}. For otlp: pip install "
            "opentelemetry-exporter-otlp-proto-http, and OTEL_TRACES_EXPORTER=otlp_proto_http."
        )
    try:
        return found[0].load()()
    except Exception as error:
        raise InvalidArgument(f"--otel: the exporter {name!r} cannot be used: {error}.") from None


class Watches:
    """Several watches as one."""

    def __init__(self, *watches: Any) -> None:
        self._watches = watches
        self.from_s = min(watch.from_s for watch in watches)

    def look(self, seen: SeenRequest) -> None:
        """See `Watch.look`."""
        for watch in self._watches:
            if seen.outcome != OK or seen.duration_s > watch.from_s:
                watch.look(seen)
