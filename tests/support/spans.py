"""The spans and metrics that the SDK of OpenTelemetry records in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

if TYPE_CHECKING:
    import pytest


class Spans:
    """The spans that have ended, and the points of histograms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.use(monkeypatch, ALWAYS_ON)
        meters = MeterProvider(metric_readers=[self.reader])
        monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)
        monkeypatch.setattr(metrics, "get_meter", meters.get_meter)

    def use(self, monkeypatch: pytest.MonkeyPatch, sampler: Any) -> None:
        """Sample in another way from now on."""
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
        monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)

    def named(self, name: str, kind: str) -> list[ReadableSpan]:
        finished = self.exporter.get_finished_spans()
        return [span for span in finished if span.name == name and span.kind is trace.SpanKind[kind]]

    def one(self, name: str, kind: str) -> ReadableSpan:
        (span,) = self.named(name, kind)
        return span

    def points(self, name: str) -> list[HistogramDataPoint]:
        """The points of a histogram, by their operation's name."""
        data = self.reader.get_metrics_data()
        found: list[Any] = []
        for resource in [] if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                found += [point for each in scope.metrics if each.name == name for point in each.data.data_points]
        return found


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def follows(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether a span has another one as its parent."""
    return span.parent is not None and (span.parent.trace_id, span.parent.span_id) == ids(parent)
