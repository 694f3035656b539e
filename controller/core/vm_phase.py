"""Where the VMs are, in words: from the ledger and, as far as an agent plans, from its plan.

Pure: no I/O, no clock.
"""

from dataclasses import dataclass

from controller.core.azure_names import fold
from controller.core.ledger import Entry, Ledger
from controller.core.planning.actions import HoldReason, Phase, Plan, VmPhase

_LEAVING = frozenset({Phase.DRAIN_DUE, Phase.DRAINING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The VMs that are not simply in service, by what was observed."""

    out: tuple[str, ...] = ()
    """Observed out of every managed pool."""
    draining: tuple[str, ...] = ()
    """In rotation still, and being removed."""
    stuck: tuple[str, ...] = ()
    """In rotation still, because Azure refuses to remove them or does not do it."""
    held: tuple[str, ...] = ()
    """In rotation still, because a drain is held."""
    restoring: tuple[str, ...] = ()
    """Being restored."""
    lost: tuple[str, ...] = ()
    """Not restored, because the place of every membership is absent."""

    def __str__(self) -> str:
        parts = (
            ("out of rotation", self.out),
            ("draining", self.draining),
            ("in rotation, cannot be removed", self.stuck),
            ("in rotation, held", self.held),
            ("restoring", self.restoring),
            ("cannot be restored", self.lost),
        )
        return "; ".join(f"{what}: {', '.join(vms)}" for what, vms in parts if vms) or (
            "all in service"
        )


def rotation_of(ledger: Ledger, plan: Plan | None) -> Rotation:
    """Return where the VMs of the ledger and of a plan are."""
    phases = {fold(each.vm): each for each in (plan.phases if plan else ())}
    for entry in ledger.entries:
        known = phase_by(ledger, entry.vm)
        if known is not None:
            phases.setdefault(fold(entry.vm), known)
    failing = {
        fold(vm)
        for hold in (plan.holds if plan else ledger.holds)
        if hold.reason == HoldReason.WRITE_FAILED.value
        for vm in hold.vms
    }
    found: dict[str, list[str]] = {}
    for key in sorted(phases):
        kind = _kind(ledger, phases[key], failing=key in failing)
        if kind:
            entry_of = ledger.entry(key)
            found.setdefault(kind, []).append(entry_of.vm if entry_of else phases[key].vm)
    return Rotation(**{kind: tuple(vms) for kind, vms in found.items()})


def _kind(ledger: Ledger, phase: VmPhase, *, failing: bool) -> str:
    """Return the field of `Rotation` that a VM belongs to; empty for none."""
    entry = ledger.entry(phase.vm)
    kind = "stuck" if failing else "draining"
    if entry is None:
        kind = "held" if phase.phase is Phase.HELD else kind
        return kind if phase.phase in {*_LEAVING, Phase.HELD} else ""
    if entry.parked:
        kind = "lost"
    elif phase.phase in _LEAVING and entry.restored_at is None:
        pass  # observed in a pool, whatever the ledger recorded earlier
    elif entry.gone or (entry.out_at is not None and entry.restored_at is None):
        kind = "out"
    elif entry.restored_at or entry.restoring_at or phase.phase is Phase.RESTORING:
        kind = "restoring"
    elif phase.phase is Phase.HELD:
        kind = "held"
    return kind


def phase_by(ledger: Ledger, vm: str) -> VmPhase | None:
    """Return the phase of a VM; None if only the leader knows it."""
    entry = ledger.entry(vm)
    for hold in ledger.holds:
        # A lost membership does not hold the others of its VM.
        others = hold.reason == HoldReason.LOST.value and entry is not None and not entry.parked
        if fold(hold.subject) == fold(vm) and not others:
            return VmPhase(vm=vm, phase=Phase.HELD, why=hold.message)
    if entry is None:
        return None
    if entry.restored_at is not None or entry.restoring_at is not None:
        phase = Phase.RESTORING
    elif entry.out_at is None:
        phase = Phase.DRAINING
    elif _has_started(ledger, entry):
        phase = Phase.IN_MAINTENANCE
    elif any(event.acknowledged_at is not None for event in entry.events):
        phase = Phase.ACKNOWLEDGED
    else:
        phase = Phase.OUT
    return VmPhase(vm=vm, phase=phase)


def _has_started(ledger: Ledger, entry: Entry) -> bool:
    """Return whether an event that keeps a VM out has started and is not gone."""
    reasons = {fold(each.event_id) for each in entry.events}
    return any(
        fold(each.event_id) in reasons and each.started_at is not None and each.gone_at is None
        for each in ledger.events
    )
