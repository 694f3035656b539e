"""Export of spans by OTLP over HTTP, with OpenTelemetry's SDK. Imported only if it is configured.

The SDK reads its own variables (endpoint, headers, certificates, timeouts, batches) and sends from
its own thread. It logs every failed attempt; here only the first failure in a row is logged.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime

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

from controller.core.drain_spans import Span
from controller.observability.logs import log
from controller.observability.release import release

logger = logging.getLogger("lbdrain.traces")

NAME = "lb-drain"
SDK_LOGGER = "opentelemetry"
UNUSABLE = (
    "traces: OpenTelemetry does not use a part of its settings: check the variables OTEL_..., "
    "first OTEL_EXPORTER_OTLP_HEADERS (key=value, separated by commas)"
)
"""Without the value, which may be a secret."""


class OtlpExporter:
    """Sends spans with given ids and times."""

    def __init__(self) -> None:
        self._last_error = _LastError()
        self._listen()  # before the SDK reads its variables: it logs headers that it cannot parse
        try:
            self._set_up()
        except BaseException:
            self._unlisten()
            raise
        if self._last_error.text:
            self._last_error.text = ""
            log(logger, logging.WARNING, UNUSABLE, event="traces_failed")

    def _set_up(self) -> None:
        resource = Resource.create({SERVICE_VERSION: release()})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            # The environment names no service.
            resource = resource.merge(Resource({SERVICE_NAME: NAME}))
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # one trace for each drain episode
            resource=resource,
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        exporter = _ReportingExporter(OTLPSpanExporter(), self._last_error)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(NAME, release())

    def _listen(self) -> None:
        """Take the log of the SDK: every failed attempt, and values of its variables."""
        sdk = logging.getLogger(SDK_LOGGER)
        sdk.addHandler(self._last_error)
        sdk.propagate = False

    def _unlisten(self) -> None:
        sdk = logging.getLogger(SDK_LOGGER)
        sdk.removeHandler(self._last_error)
        sdk.propagate = True

    def export(self, spans: Iterable[Span], /) -> None:
        """Put spans into the queue of the SDK, which drops the oldest ones when it is full."""
        for span in spans:
            self._ids.trace_id, self._ids.span_id = span.trace_id, span.span_id
            parent = None if span.parent_id is None else _child_of(span.trace_id, span.parent_id)
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
        """Send the queued spans, with the timeouts of the SDK."""
        self._provider.shutdown()
        self._unlisten()


class _GivenIds(IdGenerator):
    """Returns the derived id instead of a random one."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _LastError(logging.Handler):
    """Keeps the last message that the SDK logged."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class _ReportingExporter(SpanExporter):
    """Logs once that sending fails, and once that it works again."""

    def __init__(self, exporter: SpanExporter, last_error: _LastError) -> None:
        self._exporter, self._last_error, self._failing = exporter, last_error, False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed is not self._failing:
            self._failing = failed
            if failed:
                message = f"traces cannot be sent: {self._last_error.text}"
                log(logger, logging.WARNING, message, event="traces_failed")
            else:
                log(logger, logging.INFO, "traces can be sent again", event="traces_restored")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _child_of(trace_id: int, span_id: int) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED)
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context))


def _nanoseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000) * 1000
