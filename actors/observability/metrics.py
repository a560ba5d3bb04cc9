"""Prometheus metrics: the catalogue's values, in its text format.

The values are read when somebody scrapes. Reading them takes a fraction of a millisecond of the
event loop; writing them down takes ten, and is done on a thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from actors.observability.catalogue import CATALOGUE, Labelled, Metric
from actors.observability.sources import Now, Sources
from treestore.histogram import HistogramSnapshot

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class _Values(Collector):
    """The catalogue at a moment."""

    def __init__(self, now: Now) -> None:
        self._now = now

    def collect(self) -> Iterator[Family]:
        """See `prometheus_client`."""
        for metric in CATALOGUE:
            yield _family(metric, self._now)


def _family(metric: Metric, now: Now) -> Family:
    value = metric.read(now)
    values: Labelled = value if metric.labels else [((), value)]
    name = f"treestore_{metric.name}"
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for labels, found in values:
            histogram.add_metric(labels, list(_buckets(found)), found.total)
        return histogram
    make = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
    family = make(name, metric.help, labels=metric.labels)
    for labels, found in values:
        if found is not None:
            family.add_metric(labels, found)
    return family


def _buckets(histogram: HistogramSnapshot) -> Iterator[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    count = 0
    for bound, more in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        count += more
        yield "+Inf" if bound == math.inf else repr(bound), count


class Metrics:
    """Everything that is exported, in a registry of our own."""

    def __init__(self, sources: Sources, extra: Iterable[Collector] = ()) -> None:
        self._sources = sources
        self._process = (ProcessCollector(namespace="treestore", registry=None), *extra)

    async def page(self) -> bytes:
        """The values now, as text."""
        now = await self._sources.gather()
        return await self._sources.database.threads.run(lambda: self._written(now))

    def _written(self, now: Now) -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Values(now))
        for collector in self._process:
            registry.register(collector)
        return generate_latest(registry)
