"""Spans by OTLP over HTTP, with OpenTelemetry's SDK. Imported only where that is wanted.

The SDK reads its own variables (endpoint, headers, certificates, timeouts, batches) and sends from
a thread of its own. Its complaints come with every attempt; here the first of a row is told.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from controller.logs import log
from controller.traces import Span

logger = logging.getLogger(__name__)

NAME = "lb-drain"
SDK_LOGGER = "opentelemetry"


class OtlpExporter:
    """Sends spans whose ids and times are given."""

    def __init__(self) -> None:
        release = version("lb-drain-controller")
        resource = Resource.create({SERVICE_VERSION: release})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            # The environment names no other.
            resource = resource.merge(Resource({SERVICE_NAME: NAME}))
        self._ids = _GivenIds()
        self._words = _LastWords()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # there is one trace for each maintenance of a VM
            resource=resource,
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        exporter = _Watched(OTLPSpanExporter(), self._words)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(NAME, release)
        sdk = logging.getLogger(SDK_LOGGER)
        sdk.addHandler(self._words)
        sdk.propagate = False

    def export(self, spans: Iterable[Span], /) -> None:
        """Put spans into the queue of the SDK's thread; the oldest are dropped when it is full."""
        for span in spans:
            self._ids.trace_id, self._ids.span_id = span.trace_id, span.span_id
            parent = None if span.parent_id is None else _within(span.trace_id, span.parent_id)
            made = self._tracer.start_span(
                span.name,
                context=parent,
                start_time=_nanoseconds(span.start),
                attributes=dict(span.attributes),
            )
            if span.problem:
                made.set_status(StatusCode.ERROR, span.problem)
            made.end(_nanoseconds(span.end))

    def close(self) -> None:
        """Send what is left, with the SDK's own patience."""
        self._provider.shutdown()
        sdk = logging.getLogger(SDK_LOGGER)
        sdk.removeHandler(self._words)
        sdk.propagate = True


class _GivenIds(IdGenerator):
    """Ids are not drawn: they were derived from what the span is about."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _LastWords(logging.Handler):
    """Keeps what the SDK complained of last."""

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()


class _Watched(SpanExporter):
    """Tells once that sending fails, and once that it works again."""

    def __init__(self, exporter: SpanExporter, words: _LastWords) -> None:
        self._exporter, self._words, self._failing = exporter, words, False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed is not self._failing:
            self._failing = failed
            if failed:
                message = f"traces cannot be sent: {self._words.said}"
                log(logger, logging.WARNING, message, event="traces", outcome="failed")
            else:
                log(logger, logging.INFO, "traces can be sent again", event="traces")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _within(trace_id: int, span_id: int) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED)
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context))


def _nanoseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000) * 1000
