"""Trace spans of drain episodes, derived from the transitions of the ledger.

    drain episode         recorded -------------------------------------------> in service
      drain               recorded -> out
      connection drain                out -> acknowledged
      acknowledged                           acknowledged -> started
      maintenance                                            started -> restoring
      restore                                                           restoring -> restored

The current leader derives a span when it ends. The ids of a span follow from the VM, from the start
of its drain episode and from the name and start of the span. The ledger keeps all of these, so the
spans of a leader and of the next one form one trace, and a span that both send has the same id.

Pure: standard library only, no I/O, no clock.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

from controller.core.azure_names import fold, short
from controller.core.drain_history import ENDS, OUTSIDE, Episode, Step, Transition, episodes
from controller.core.ledger import Entry, Ledger
from controller.core.ledger_changes import cause_of, new_transitions

ROOT = "drain episode"

Value = str | int | float | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a drain episode that has ended."""

    name: str
    start: datetime
    end: datetime
    trace_id: int
    span_id: int
    parent_id: int | None
    """None for the drain episode itself."""
    attributes: Mapping[str, Value]
    problem: str = ""
    """Why the span is marked as an error; empty if it is not."""


def spans(before: Ledger, after: Ledger, started: Mapping[str, datetime]) -> Iterator[Span]:
    """Return the spans that ended between two ledgers, in the order of their ends.

    Args:
        before: the ledger before the pass.
        after: the ledger after it.
        started: when events were first seen as started, by folded id.
    """
    for line in new_transitions(before, after):
        entry = after.entry(line.vm) or before.entry(line.vm)
        if entry is not None and line.step not in OUTSIDE:
            yield from _EpisodeSpans(line, entry, after, started).ended()


DRAIN_STARTS = (Step.RECORDED, Step.PUT_BACK, Step.OUT_AGAIN)
"""The steps from which on a VM is being taken out."""


class _EpisodeSpans:
    """A drain episode at the time of one of its transitions."""

    def __init__(
        self, line: Transition, entry: Entry, ledger: Ledger, started: Mapping[str, datetime]
    ) -> None:
        self._line, self._entry, self._started = line, entry, started
        until = next(n for n, each in enumerate(ledger.transitions, 1) if each is line)
        self._episode = episodes(ledger.transitions[:until], line.vm)[-1]
        # The history is bounded; the entry stays as long as the VM is drained.
        first = self._episode.lines[0]
        self._began = first.at if first.step == Step.RECORDED else entry.recorded_at
        self._trace_id = _digest(16, fold(entry.vm), self._began)
        self._root_id = _digest(8, self._trace_id, ROOT)
        self._cause, out = cause_of(entry), self._episode.last(Step.OUT)
        self._lead_s: float | None = None
        if out is not None and self._cause is not None and self._cause.not_before is not None:
            self._lead_s = (self._cause.not_before - out).total_seconds()
        self._attributes = self._attributes_in(ledger)

    def ended(self) -> Iterator[Span]:
        """Return the spans that the transition ends."""
        recorded_at = self._entry.recorded_at
        match self._line.step:
            case Step.OUT:
                span = self._span("drain", self._last(*DRAIN_STARTS) or recorded_at)
                late = self._lead_s is not None and self._lead_s < 0
                yield replace(span, problem="out of rotation after NotBefore" if late else "")
            case Step.ACKNOWLEDGED:
                out, known = self._last(Step.OUT), self._last(Step.ACKNOWLEDGED)
                if out is not None and (known is None or known < out):
                    yield self._span("connection drain", out)
            case Step.RESTORING:
                yield from self._maintenance()
            case Step.RESTORED:
                yield self._span("restore", self._last(Step.RESTORING) or recorded_at)
            case step if step in ENDS:
                span = self._span(ROOT, self._began)
                yield replace(span, span_id=self._root_id, parent_id=None)
            case _:
                pass

    def _maintenance(self) -> Iterator[Span]:
        """Return the spans between drain and restore: the wait for Azure, and the maintenance."""
        out = self._last(Step.OUT) or self._entry.recorded_at
        acknowledged = self._episode.first(Step.ACKNOWLEDGED, since=out)
        ids = (fold(event.event_id) for event in self._entry.events)
        begun = min((self._started[each] for each in ids if each in self._started), default=None)
        since = acknowledged or out
        if acknowledged is not None:
            until = min(max(since, begun), self._line.at) if begun else self._line.at
            yield self._span("acknowledged", since, until)
        if begun is not None or acknowledged is None:
            yield self._span("maintenance", min(max(since, begun or since), self._line.at))

    def _span(self, name: str, start: datetime, end: datetime | None = None) -> Span:
        return Span(
            name=name,
            start=start,
            end=max(start, end or self._line.at),
            trace_id=self._trace_id,
            span_id=_digest(8, self._trace_id, name, start),
            parent_id=self._root_id,
            attributes=self._attributes,
        )

    def _last(self, *steps: Step) -> datetime | None:
        """Return when one of the steps was last noted before the transition."""
        return Episode(self._episode.lines[:-1]).last(*steps)

    def _attributes_in(self, ledger: Ledger) -> Mapping[str, Value]:
        entry, cause = self._entry, self._cause
        pools = sorted({short(membership.pool_id) for membership in entry.memberships})
        attributes: dict[str, Value] = {
            "lb_drain.vm": entry.vm,
            "lb_drain.pools": tuple(pools),
            "lb_drain.leader": ledger.leader,
            "lb_drain.epoch": ledger.epoch,
        }
        if cause is not None:
            attributes["lb_drain.event.id"] = cause.event_id
            attributes["lb_drain.event.type"] = cause.event_type
            if cause.not_before is not None:
                not_before = cause.not_before.astimezone(UTC).isoformat()
                attributes["lb_drain.event.not_before"] = not_before
        if self._lead_s is not None:
            attributes["lb_drain.lead_time_s"] = round(self._lead_s, 3)
        return MappingProxyType(attributes)


def _digest(size: int, *parts: str | int | datetime) -> int:
    """Return an id of `size` bytes that is the same for the same parts in every process."""
    texts = [p.astimezone(UTC).isoformat() if isinstance(p, datetime) else str(p) for p in parts]
    return int.from_bytes(hashlib.sha256("\n".join(texts).encode()).digest()[:size])
