"""What an operator of many availability sets needs to know of one set, and which set comes first.

A set is summarised from its ledger, the state of its lease and the times at which its blobs were
written. So the summary needs no agent and no permission on the VMs, and holds also for a set whose
agents have stopped.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, IntEnum

from controller.core.agent_presence import PERIOD_S, PERIODS_MISSED
from controller.core.azure_names import SetName, fold
from controller.core.controls import NO_CONTROLS, Controls
from controller.core.deadlines import AT_RISK_S, oldest_drain_start
from controller.core.event_record import (
    MISSED,
    EventVerdict,
    Place,
    Verdict,
    WatchedEvent,
    WatchedVm,
    length_text,
    verdict_text,
)
from controller.core.hold_severity import severity
from controller.core.lease import LEASED, current_leader
from controller.core.ledger import Ledger
from controller.core.notices.set_notices import MAX_OUT_S
from controller.core.planning.actions import Phase
from controller.core.vm_phase import phase_by

MISSED_COUNTS = timedelta(hours=24)
"""How long a missed event needs attention."""
SILENT_AFTER = timedelta(seconds=PERIOD_S * PERIODS_MISSED)
"""An agent whose presence was not written for this long does not run."""
FORGOTTEN_AFTER = timedelta(days=7)
"""A presence that was not written for this long belongs to a VM that has left the set."""
NOT_AT_RISK = frozenset({Place.OUT, Place.UNMANAGED, Place.JUDGED})
"""Where a VM is that an event cannot hit in rotation."""


class Attention(IntEnum):
    """How urgently a set needs an operator; the values are those of `Severity`."""

    NONE = 0
    NOTICE = 1
    """Maintenance is announced or under way, and goes as planned."""
    WARNING = 2
    """The controller works with a reduced margin: act today."""
    CRITICAL = 3
    """Requests are lost now, or will be at the next maintenance: act now."""


class Reason(Enum):
    """Why a set needs attention; the values are in `lb-drain fleet --json`."""

    UNREADABLE = "unreadable"
    AT_RISK = "at_risk"
    NO_LEADER = "no_leader"
    HIT_IN_ROTATION = "hit_in_rotation"
    LATE = "late"
    HELD = "held"
    PAUSED = "paused"
    CONTROLS_UNREAD = "controls_unread"
    OUT_TOO_LONG = "out_too_long"
    AGENTS_SILENT = "agents_silent"
    SAME_SET = "same_set"
    UNUSED = "unused"
    OUT = "out"
    ANNOUNCED = "announced"


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a set needs attention."""

    level: Attention
    reason: Reason
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTrace:
    """When an agent has published its presence, as the listing shows it."""

    vm: str
    """The folded name of the VM."""
    written_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainedVm:
    """A VM that the ledger records."""

    vm: str
    phase: Phase
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSummary:
    """One row of the fleet."""

    name: SetName
    container_url: str
    blob: str
    """The name of the ledger's blob."""
    written_at: datetime | None
    """When any blob of the set was written last."""
    lease_state: str = ""
    ledger: Ledger = field(default_factory=Ledger)
    """Empty if it cannot be read."""
    drained: tuple[DrainedVm, ...] = ()
    at_risk: tuple[str, ...] = ()
    """VMs that are in rotation although their maintenance is near or has begun."""
    agents_seen: tuple[str, ...] = ()
    """The folded names of the VMs whose agents run, by their presence."""
    agents_silent: tuple[str, ...] = ()
    """The folded names of the VMs whose agents published their presence before, and not lately."""
    problems: tuple[Problem, ...] = ()
    """The most urgent one first."""

    @property
    def readable(self) -> bool:
        """Return whether the ledger could be read."""
        return all(each.reason is not Reason.UNREADABLE for each in self.problems)

    @property
    def attention(self) -> Attention:
        """How urgently the set needs an operator."""
        return max((each.level for each in self.problems), default=Attention.NONE)

    @property
    def leader(self) -> str:
        """The VM that leads; empty when there is no leader."""
        return current_leader(self.ledger, lease_state=self.lease_state)

    @property
    def next_event(self) -> WatchedEvent | None:
        """The announced event that begins first; None without one. Ignored events do not count."""
        return min(_impacting(self.ledger), key=_urgency, default=None)

    @property
    def last_verdict(self) -> EventVerdict | None:
        """The newest verdict."""
        return self.ledger.verdicts[-1] if self.ledger.verdicts else None

    @property
    def last_missed(self) -> EventVerdict | None:
        """The newest verdict of an event that may have cost requests."""
        missed = (each for each in reversed(self.ledger.verdicts) if each.verdict in MISSED)
        return next(missed, None)


def set_name(set_id: str, blob: str) -> SetName:
    """Return the name of a set from its id or, without one, from the name of its blob.

    The default name of the blob is `subscription/resource group/set.json`. Another name stands for
    itself.
    """
    if set_id:
        return SetName.of(set_id)
    parts = blob.removesuffix(".json").split("/")
    if len(parts) == 3 and all(parts) and blob.endswith(".json"):
        return SetName(name=parts[2], resource_group=parts[1], subscription=parts[0])
    return SetName(name=blob)


def unreadable(
    why: str,
    *,
    container_url: str,
    blob: str,
    written_at: datetime | None,
    lease_state: str = "",
    used: bool = True,
) -> SetSummary:
    """Return the row of a blob that cannot be read as the ledger of a set.

    Args:
        why: the reason.
        container_url: the container.
        blob: the name of the blob.
        written_at: when any blob of the set was written last.
        lease_state: the state of the blob's lease.
        used: whether other blobs of the set exist. Without these, without a lease and under a name
            that is not the default one, the blob may belong to another program.
    """
    name = set_name("", blob)
    is_ours = used or lease_state == LEASED or bool(name.resource_group)
    level = Attention.CRITICAL if is_ours else Attention.WARNING
    return SetSummary(
        name=name,
        container_url=container_url,
        blob=blob,
        written_at=written_at,
        lease_state=lease_state,
        problems=(Problem(level, Reason.UNREADABLE, why),),
    )


def summarise(
    ledger: Ledger,
    *,
    lease_state: str,
    container_url: str,
    blob: str,
    written_at: datetime | None,
    now: datetime,
    agents: Iterable[AgentTrace] = (),
    controls: Controls = NO_CONTROLS,
) -> SetSummary:
    """Return the row of a set.

    Args:
        ledger: as its blob holds it.
        lease_state: the state of the blob's lease when the container was listed.
        container_url: the container.
        blob: the name of the ledger's blob.
        written_at: when any blob of the set was written last.
        now: the time at which the container was listed.
        agents: what the listing shows of the agents.
        controls: as their blob holds them.
    """
    known = [each for each in agents if now - each.written_at < FORGOTTEN_AFTER]
    silent = [each for each in known if now - each.written_at > SILENT_AFTER]
    at_risk = tuple(sorted(_at_risk(ledger, now)))
    problems = (
        *_leadership(ledger, lease_state),
        *_paused(controls, now),
        *_drains(ledger, at_risk, now),
        *_silent_agents(ledger, silent, now),
    )
    return SetSummary(
        name=set_name(ledger.set_id, blob),
        container_url=container_url,
        blob=blob,
        written_at=written_at,
        lease_state=lease_state,
        ledger=ledger,
        drained=tuple(_drained(ledger)),
        at_risk=at_risk,
        agents_seen=tuple(sorted(each.vm for each in known if each not in silent)),
        agents_silent=tuple(sorted(each.vm for each in silent)),
        problems=tuple(sorted(problems, key=lambda each: -each.level)),
    )


def in_order_of_attention(rows: Iterable[SetSummary]) -> tuple[SetSummary, ...]:
    """Return the rows in the order in which an operator reads them.

    The most urgent set comes first; of equally urgent ones that whose event begins first.
    """

    def key(row: SetSummary) -> tuple[object, ...]:
        event = row.next_event
        urgency = (1,) if event is None else (0, *_urgency(event))
        name = row.name
        place = (fold(name.name), fold(name.resource_group), row.container_url, row.blob)
        return (-row.attention, urgency, place)

    return tuple(sorted(rows, key=key))


# --- what a ledger shows ---


def _impacting(ledger: Ledger) -> Iterator[WatchedEvent]:
    """Yield the events in the document that policy does not ignore."""
    return (each for each in ledger.events if not each.ignored and each.gone_at is None)


def _urgency(event: WatchedEvent) -> tuple[float, str]:
    begins_at = event.begins_at or event.first_seen_at
    return begins_at.timestamp(), event.event_id


def _drained(ledger: Ledger) -> Iterator[DrainedVm]:
    for entry in ledger.entries:
        known = phase_by(ledger, entry.vm)
        if known is not None:
            yield DrainedVm(vm=entry.vm, phase=known.phase, since=entry.recorded_at)


def _at_risk(ledger: Ledger, now: datetime) -> set[str]:
    soon = now + timedelta(seconds=AT_RISK_S)
    return {
        vm.vm
        for event in _impacting(ledger)
        if event.begins_at is None or event.begins_at < soon
        for vm in event.vms
        if _in_rotation(ledger, vm)
    }


def _in_rotation(ledger: Ledger, vm: WatchedVm) -> bool:
    """Return whether a VM may be in rotation: no observation shows that it is not."""
    entry = ledger.entry(vm.vm)
    return vm.place not in NOT_AT_RISK and (entry is None or entry.out_at is None)


def _leadership(ledger: Ledger, lease_state: str) -> Iterator[Problem]:
    if lease_state == LEASED:
        return
    if not ledger.epoch:
        text = "no agent has led this set yet"
        yield Problem(Attention.WARNING, Reason.UNUSED, text)
        return
    last = f", {ledger.leader} led last" if ledger.leader else ""
    out = ", ".join(entry.vm for entry in ledger.entries)
    effect = f"; {out} stays as it is" if out else ""
    text = f"no leader{last}; maintenance starts without a drain{effect}"
    yield Problem(Attention.CRITICAL, Reason.NO_LEADER, text)


def _drains(ledger: Ledger, at_risk: tuple[str, ...], now: datetime) -> Iterator[Problem]:
    if at_risk:
        text = f"in rotation although maintenance is near or has begun: {', '.join(at_risk)}"
        yield Problem(Attention.CRITICAL, Reason.AT_RISK, text)
    yield from _missed(ledger, now)
    for hold in ledger.holds:
        if level := Attention(severity(hold.reason)):
            yield Problem(level, Reason.HELD, f"held: {hold.message} ({hold.reason})")
    oldest = oldest_drain_start(ledger)
    if oldest is not None and (now - oldest).total_seconds() > MAX_OUT_S:
        vms = ", ".join(each.vm for each in ledger.entries if each.recorded_at == oldest)
        text = f"{vms} has been drained for {length_text(now - oldest)}"
        yield Problem(Attention.WARNING, Reason.OUT_TOO_LONG, text)
    elif oldest is not None:
        vms = ", ".join(each.vm for each in ledger.entries if not each.gone and not each.over)
        yield Problem(Attention.NOTICE, Reason.OUT, f"out of rotation or on the way: {vms}")
    for event in _impacting(ledger):
        names = ", ".join(each.vm for each in event.vms)
        text = f"{event.event_type} of {names} is announced"
        yield Problem(Attention.NOTICE, Reason.ANNOUNCED, text)


def _paused(controls: Controls, now: datetime) -> Iterator[Problem]:
    pause = controls.in_force(now).pause
    if pause is not None:
        yield Problem(Attention.WARNING, Reason.PAUSED, str(pause))


def _silent_agents(
    ledger: Ledger, silent: Sequence[AgentTrace], now: datetime
) -> Iterator[Problem]:
    """Yield a problem for the agents that do not run, unless maintenance explains it."""
    expected = {fold(vm.vm) for event in _impacting(ledger) for vm in event.vms}
    expected |= {fold(entry.vm) for entry in ledger.entries if not entry.over}
    missing = sorted((each for each in silent if each.vm not in expected), key=lambda each: each.vm)
    if missing:
        oldest = min(each.written_at for each in missing)
        vms = ", ".join(each.vm for each in missing)
        text = f"no sign of the agent on {vms} for {length_text(now - oldest)}"
        yield Problem(Attention.WARNING, Reason.AGENTS_SILENT, text)


def _missed(ledger: Ledger, now: datetime) -> Iterator[Problem]:
    recent = [each for each in ledger.verdicts if now - each.at < MISSED_COUNTS]
    for verdict, reason in (
        (Verdict.HIT_IN_ROTATION, Reason.HIT_IN_ROTATION),
        (Verdict.LATE, Reason.LATE),
    ):
        found = [each for each in recent if each.verdict == verdict]
        if found:
            last = found[-1]
            ago = length_text(max(now - last.at, timedelta()))
            text = f"{last.event_type} of {last.vm}, {ago} ago: {verdict_text(last)}"
            yield Problem(Attention.WARNING, reason, text)
