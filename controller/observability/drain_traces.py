"""Sends a trace for each drain episode to OpenTelemetry; an optional extra.

Does nothing unless OpenTelemetry's own variables name an endpoint, and imports OpenTelemetry only
then. A failure here is logged once and never leaves this module: the guards (`except Exception`)
are here so that a bug in tracing cannot end a drain.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from controller.core.drain_spans import Span, spans
from controller.core.ledger import Ledger
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.traces")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
FLUSH_WITHIN_S = 1.0
"""How long a stop waits for the current spans."""


class Exporter(Protocol):
    """Accepts spans and sends them in its own thread."""

    def export(self, spans: Iterable[Span], /) -> None:
        """Queue spans and return at once."""
        ...

    def close(self) -> None:
        """Send the queued spans; may take long."""
        ...


class Traces:
    """Sends the spans of every pass, if tracing is configured."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._exporter: Exporter | None = None
        self._broken = False

    async def __aenter__(self) -> Self:
        """Start to send, if the environment names an endpoint."""
        if _wanted(self._environ):
            try:
                from controller.observability.otlp_exporter import (  # noqa: PLC0415 -- an extra
                    OtlpExporter,
                )

                self._exporter = OtlpExporter()
            except ImportError:
                _warn("OpenTelemetry is not installed: install lb-drain-controller[traces]")
            except Exception as error:  # its settings are wrong; drains continue without traces
                _warn(f"OpenTelemetry cannot be set up: {error}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the queued spans a moment, in a daemon thread that cannot delay the exit."""
        exporter, self._exporter = self._exporter, None
        if exporter is None:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            exporter.close()
            with suppress(RuntimeError):  # the loop has ended, and nothing waits
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=close, name="traces", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_WITHIN_S):
                await ended.wait()

    def passed(
        self, before: Ledger, after: Ledger, started: Callable[[], Mapping[str, datetime]]
    ) -> None:
        """Send the spans that ended in a pass.

        `started` returns when events were first seen as started, by folded id.
        """
        if self._exporter is None or before is after:
            return
        try:
            self._exporter.export(spans(before, after, started()))
        except Exception as error:  # a trace must not end a drain
            if not self._broken:
                self._broken = True
                _warn(f"no spans can be made, which is a bug: {type(error).__name__}")


def _wanted(environ: Mapping[str, str]) -> bool:
    if not any(environ.get(name) for name in ENDPOINTS):
        return False
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        _warn(f"only the protocol {PROTOCOL} is supported, not {protocol}")
        return False
    return True


def _warn(why: str) -> None:
    log(logger, logging.WARNING, f"no traces are sent: {why}", event="traces_failed")
