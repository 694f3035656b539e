"""One trace for each outing of a VM, from what the ledger's transitions tell; an optional extra.

    outing                recorded -------------------------------------------> in service
      drain               recorded -> out
      connections emptying            out -> acknowledged
      acknowledged                           acknowledged -> started
      in maintenance                                         started -> restoring
      restore                                                           restoring -> restored

Spans are made when they end, by whoever leads then. Their ids follow from the VM, from when its
outing began and from their own name and beginning, all of which the ledger keeps: so what a leader
and its successor send joins in one trace, and a span that both send has one id.

Does nothing unless OpenTelemetry's own variables name an endpoint, and imports OpenTelemetry only
then. What fails here is told once and never leaves this module: the guards (`except Exception`)
stand here so that no bug in telling can end a drain.
"""

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from controller.announcer import cause_of, new_transitions
from controller.core.ledger import Entry, Ledger, Transition
from controller.core.model import fold, short
from controller.logs import log

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
FLUSH_WITHIN_S = 1.0
"""How long a stop waits for spans under way."""
ENDS = frozenset({"in service", "forgotten"})
"""What an outing ends with; the next line of that VM begins another."""

Value = str | int | float | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of an outing that is over."""

    name: str
    start: datetime
    end: datetime
    trace_id: int
    span_id: int
    parent_id: int | None
    """None for the outing itself."""
    attributes: Mapping[str, Value]
    problem: str = ""
    """Why it is marked as an error; empty when it is none."""


class Exporter(Protocol):
    """Takes spans and sends them by and by, in a thread of its own."""

    def export(self, spans: Iterable[Span], /) -> None:
        """Take spans, without waiting for anything."""
        ...

    def close(self) -> None:
        """Send what is left; may take long."""
        ...


class Traces:
    """Sends the spans of every pass, if anybody wants them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._exporter: Exporter | None = None
        self._broken = False

    async def __aenter__(self) -> Self:
        """Begin to send, if the environment says where to."""
        if _wanted(self._environ):
            try:
                from controller.otlp import OtlpExporter  # noqa: PLC0415 -- an extra, seldom there

                self._exporter = OtlpExporter()
            except ImportError:
                _warn("OpenTelemetry is not installed: install lb-drain-controller[traces]")
            except Exception as error:  # its settings are wrong; drains go on without
                _warn(f"OpenTelemetry cannot be set up: {error}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let what is under way arrive, for a moment, in a thread that nobody has to wait for."""
        exporter, self._exporter = self._exporter, None
        if exporter is None:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            exporter.close()
            with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=close, name="traces", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_WITHIN_S):
                await ended.wait()

    def passed(
        self, before: Ledger, after: Ledger, started: Callable[[], Mapping[str, datetime]]
    ) -> None:
        """A pass completed; `started` tells since when events were seen started, by folded id."""
        if self._exporter is None or before is after:
            return
        try:
            self._exporter.export(spans(before, after, started()))
        except Exception as error:  # telling must not end a drain
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
        _warn(f"only {PROTOCOL} is spoken, not {protocol}")
        return False
    return True


def _warn(why: str) -> None:
    log(logger, logging.WARNING, f"no traces are sent: {why}", event="traces", outcome="failed")


# --- what the ledger tells ---


def spans(before: Ledger, after: Ledger, started: Mapping[str, datetime]) -> Iterator[Span]:
    """Return the spans that ended between two ledgers, in the order in which they did."""
    for line in new_transitions(before, after):
        entry = after.entry(line.vm) or before.entry(line.vm)
        if entry is not None:
            yield from _Outing(line, entry, after, started).ended()


class _Outing:
    """An outing as it stood when a line was written."""

    def __init__(
        self, line: Transition, entry: Entry, ledger: Ledger, started: Mapping[str, datetime]
    ) -> None:
        self._line, self._entry, self._started = line, entry, started
        self._lines = _outing_until(line, ledger.transitions)
        # The history is bounded, the entry is not forgotten while the VM is out.
        whole = self._lines[0].what == "recorded"
        self._began = self._lines[0].at if whole else entry.recorded_at
        self._trace_id = _digest(16, fold(entry.vm), self._began)
        self._outing_id = _digest(8, self._trace_id, "outing")
        self._attributes = self._told(ledger)

    def ended(self) -> Iterator[Span]:
        """Return what the line ends."""
        match self._line.what:
            case "out":
                since = self._last("recorded", "out again") or self._entry.recorded_at
                span = self._span("drain", since)
                late = float(str(span.attributes.get("lb_drain.lead_time_s", 0))) < 0
                yield replace(span, problem="out only after NotBefore" if late else "")
            case "acknowledged":
                out, known = self._last("out"), self._last("acknowledged")
                if out is not None and (known is None or known < out):
                    yield self._span("connections emptying", out)
            case "restoring":
                yield from self._maintenance()
            case "restored":
                yield self._span("restore", self._last("restoring") or self._entry.recorded_at)
            case what if what in ENDS:
                span = self._span("outing", self._began)
                yield replace(span, span_id=self._outing_id, parent_id=None)
            case _:
                pass

    def _maintenance(self) -> Iterator[Span]:
        """Return what lies between the drain and the restore: waiting for Azure, and Azure."""
        out = self._last("out") or self._entry.recorded_at
        acknowledged = self._first_after(out, "acknowledged")
        ids = (fold(event.event_id) for event in self._entry.events)
        begun = min((self._started[each] for each in ids if each in self._started), default=None)
        since = acknowledged or out
        if acknowledged is not None:
            until = min(max(since, begun), self._line.at) if begun else self._line.at
            yield self._span("acknowledged", since, until)
        if begun is not None or acknowledged is None:
            yield self._span("in maintenance", min(max(since, begun or since), self._line.at))

    def _span(self, name: str, start: datetime, end: datetime | None = None) -> Span:
        return Span(
            name=name,
            start=start,
            end=max(start, end or self._line.at),
            trace_id=self._trace_id,
            span_id=_digest(8, self._trace_id, name, start),
            parent_id=self._outing_id,
            attributes=self._attributes,
        )

    def _last(self, *whats: str) -> datetime | None:
        found = [line.at for line in self._lines[:-1] if line.what in whats]
        return found[-1] if found else None

    def _first_after(self, at: datetime, what: str) -> datetime | None:
        return next((line.at for line in self._lines if line.what == what and line.at >= at), None)

    def _told(self, ledger: Ledger) -> Mapping[str, Value]:
        entry, cause = self._entry, cause_of(self._entry)
        pools = sorted({short(membership.pool_id) for membership in entry.memberships})
        told: dict[str, Value] = {
            "lb_drain.vm": entry.vm,
            "lb_drain.pools": tuple(pools),
            "lb_drain.leader": ledger.leader,
            "lb_drain.epoch": ledger.epoch,
        }
        if cause is not None:
            told |= {"lb_drain.event.id": cause.event_id, "lb_drain.event.type": cause.event_type}
            if cause.not_before is not None:
                told["lb_drain.event.not_before"] = cause.not_before.astimezone(UTC).isoformat()
                out = [line.at for line in self._lines if line.what == "out"]
                if out:
                    lead_s = (cause.not_before - out[-1]).total_seconds()
                    told["lb_drain.lead_time_s"] = round(lead_s, 3)
        return MappingProxyType(told)


def _outing_until(line: Transition, transitions: Iterable[Transition]) -> tuple[Transition, ...]:
    """Return the lines of a VM's outing, the last of which is `line`."""
    lines: list[Transition] = []
    for each in transitions:
        if fold(each.vm) != fold(line.vm) or each.what == "leads":
            continue
        if lines and lines[-1].what in ENDS:
            lines = []
        lines.append(each)
        if each is line:
            break
    return tuple(lines)


def _digest(size: int, *parts: str | int | datetime) -> int:
    """Return an id of so many bytes that is the same for the same parts, wherever it is made."""
    said = [p.astimezone(UTC).isoformat() if isinstance(p, datetime) else str(p) for p in parts]
    return int.from_bytes(hashlib.sha256("\n".join(said).encode()).digest()[:size])
