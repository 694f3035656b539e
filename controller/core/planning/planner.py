"""The planner: from observation, ledger and policy to what has to be done now.

Level triggered: a pass plans from what is, never from what happened, so that a new leader continues
from observation plus ledger after a crash at any line. A VM's phase is derived on every pass:

        in_service --> unmanaged       in no managed pool
        in_service --> drain_due       in a pool, by an old view
        in_service --> held            in a pool with no member to spare
              held --> drain_due       in a pool, which can spare it now
         drain_due --> draining        in a pool
          draining --> out             in no pool, proven
          draining --> restoring       in every recorded pool
               out --> acknowledged    the event was acknowledged
               out --> draining        in a pool again
      acknowledged --> in_maintenance  the event has started
      acknowledged --> draining        in a pool again
    in_maintenance --> draining        in a pool again
    in_maintenance --> restore_due     one clean poll without the event
       restore_due --> held            two clean polls, but it does not run
       restore_due --> held            another event is announced for later
              held --> out             that event is due
              held --> restoring       two clean polls, and it runs
       restore_due --> restoring       two clean polls, and it runs
         restoring --> drain_due       in a pool
         restoring --> in_service      the probes had time to find it

`vm_states` has the whole table: what is recorded and observed in each phase, and the step that
follows. `removal` takes those steps for a VM that is wanted out (an impacting event is due, or a
drain request is in force), `restoration` for every other VM, and `acknowledgement` for an event
whose VMs are all out. `rotation_watch` reads the pools again while VMs are out. A hold interrupts
the steps, and states why: `operator_controls` has those that operators have decided.

The ordering rule that keeps the laws while everything changes:

    Record before Remove; observed-out before Acknowledge; observed-in before Forget.

An action is planned only from the ledger that is already durable. A pass that needs another ledger
returns it (`Plan.ledger`); what follows from that ledger is planned by the pass after it was
written. Likewise nothing is recorded from an old view: the pass plans the read, the next pass the
rest.

The parts only decide: they yield steps (`steps`) from pure questions (`evidence`, `views`). How a
VM is taken out is a mechanism (`mechanism`). `plan_builder` merges the steps and applies write
slots, targets and back-off.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import replace
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_UNKNOWN_VMS
from controller.core.event_record import Place
from controller.core.events import EventDocument
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.planning import (
    closing_notes,
    health_watch,
    losses,
    operator_controls,
    removal,
    restoration,
    rotation_watch,
    set_reports,
)
from controller.core.planning.acknowledgement import UNKNOWN_VM_S
from controller.core.planning.actions import HoldReason, Plan, ReadInventory
from controller.core.planning.evidence import Evidence
from controller.core.planning.floors import Floors
from controller.core.planning.mechanism import Mechanisms
from controller.core.planning.mechanisms import MECHANISMS
from controller.core.planning.plan_builder import PlanBuilder, inventory_hold
from controller.core.planning.steps import HoldBack, Start, Steps, WakeAt
from controller.core.planning.views import FRESH_S
from controller.core.planning.vm_case import unreadable_vm
from controller.core.policy import Policy

DRAIN_REQUESTS = "drain requests"
EVENT_DOCUMENT = "event document"
"""The subject of a hold that names no VM."""
UNREAD_VM_S = 30.0
"""An inventory is at most this old while a VM that has to leave could not be read."""

__all__ = ["FRESH_S", "plan"]


def plan(
    observed: Observation,
    ledger: Ledger,
    policy: Policy,
    now: datetime,
    *,
    mechanisms: Mechanisms = MECHANISMS,
) -> Plan:
    """Return what the leader has to do at `now`.

    Args:
        observed: the world as this agent knows it.
        ledger: the durable ledger.
        policy: the operator's choices.
        now: wall clock, corrected; aware, UTC.
        mechanisms: the ways to take a VM out of rotation.
    """
    durable = ledger.clamped(now)
    planned = _plan(observed, durable, policy, now, mechanisms)
    return planned if planned.ledger or durable is ledger else replace(planned, ledger=durable)


def _plan(
    observed: Observation, ledger: Ledger, policy: Policy, now: datetime, mechanisms: Mechanisms
) -> Plan:
    document = observed.document
    if observed.inventory_at is None or document is None:
        return _blind(observed, ledger, now)
    evidence = Evidence(observed, ledger, policy, now, mechanisms)
    given_up = losses.given_up(evidence)
    tracked = [vm for vm in evidence.views.tracked_vms if fold(vm.name) not in given_up]
    cases = [evidence.case(vm) for vm in tracked]
    floors = Floors(evidence)
    builder = PlanBuilder(evidence)
    builder.add(WakeAt(at) for case in cases for at in case.wakes)
    builder.add(_refresh_inventory(evidence, document))
    builder.add(_refuse_unknown_vms(evidence))
    builder.add(_report_set_aside(evidence, document))
    builder.add(losses.report(evidence))
    builder.add(losses.check(evidence))
    for request in given_up.values():
        builder.add(losses.forget_on_request(evidence, request))
    builder.add(set_reports.missing_set(evidence))
    builder.add(set_reports.unread_set(evidence))
    builder.add(set_reports.lost_requests(cases))
    builder.add(set_reports.recovered(evidence))
    builder.add(operator_controls.report(evidence))
    builder.add(closing_notes.steps(evidence))
    for case in removal.by_urgency(evidence, [case for case in cases if case.must_leave]):
        builder.add(operator_controls.removal_steps(case, evidence, floors))
    builder.add(floors.read_steps())
    others = [case for case in cases if not case.must_leave]
    for case in restoration.by_failures(evidence, others):
        builder.add(restoration.steps(case, evidence))
    builder.add(rotation_watch.steps(cases, evidence))
    builder.add(_read_places(evidence, ledger))
    builder.add(health_watch.steps(cases, evidence))
    builder.add_shared_writes()
    for event in document.events:
        builder.add(operator_controls.acknowledgement_steps(event, evidence))
    return builder.result()


def _blind(observed: Observation, ledger: Ledger, now: datetime) -> Plan:
    """Plan the inventory, and hold the set while that cannot be read.

    Of a world that was not read yet nothing else is planned: the entries and the other holds of
    the ledger stay as they are. The hold keeps its instant and its text while the read is tried
    again, so that the ledger changes once (law H1).
    """
    read = ReadInventory()
    unread = observed.inventory_at is None
    deferral = observed.deferred.get(read.target)
    waits = deferral if deferral is not None and deferral.until > now else None
    holds = ledger.holds
    known = [hold for hold in holds if hold.reason == HoldReason.INVENTORY_UNREAD.value]
    if not unread:
        holds = tuple(hold for hold in holds if hold not in known)
    elif waits is not None and waits.message and not known:
        added = inventory_hold(waits.message, now)
        holds = tuple(sorted((*holds, added), key=lambda hold: (hold.subject, hold.reason)))
    wanted = ledger if holds == ledger.holds else replace(ledger, holds=holds)
    return Plan(
        ledger=None if wanted is ledger else wanted,
        actions=(read,) if unread and waits is None else (),
        phases=(),
        holds=holds,
        wake_at=waits.until if waits is not None else None,
    )


def _read_places(evidence: Evidence, ledger: Ledger) -> Steps:
    """Read where the VMs of events are, as long as a verdict waits for that.

    Minutes of replies prove that a pool was deleted, and a new leader begins with one.
    """
    for event in ledger.events:
        for each in event.vms:
            vm = evidence.views.vm(each.vm) if each.place == Place.UNKNOWN else None
            if vm is not None:
                yield from evidence.read_unseen(vm)


def _refuse_unknown_vms(evidence: Evidence) -> Steps:
    """Report that a request names a VM which is not in the set."""
    unknown = {fold(request.vm): request for request in evidence.unknown_vms}
    for request in list(unknown.values())[:MAX_UNKNOWN_VMS]:
        message = (
            f"a drain request names {request.vm}, which is not in this {evidence.set_kind}: "
            f"withdraw it with lb-drain restore {request.vm}"
        )
        reason = HoldReason.UNMANAGED_RESOURCE
        yield HoldBack(subject=request.vm, reason=reason, message=message)
    if len(unknown) > MAX_UNKNOWN_VMS:
        others = len(unknown) - MAX_UNKNOWN_VMS
        kind = evidence.set_kind
        message = f"drain requests name {others} more VMs that are not in this {kind}"
        reason = HoldReason.UNMANAGED_RESOURCE
        yield HoldBack(subject=DRAIN_REQUESTS, reason=reason, message=message)


def _report_set_aside(evidence: Evidence, document: EventDocument) -> Steps:
    """Hold what cannot be read, while the rest is used (law L2)."""
    for vm in evidence.observed.vms:
        if vm.problem:
            reason = HoldReason.UNREADABLE_VM
            yield HoldBack(subject=vm.name, reason=reason, message=unreadable_vm(vm))
    if document.set_aside:
        problem = document.set_aside[0].problem
        others = len(document.set_aside) - 1
        message = (
            f"an event cannot be read, and no VM is restored until it can be: {problem}"
            f"{f' (and {others} more)' if others else ''}"
        )
        reason = HoldReason.UNREADABLE_EVENT
        yield HoldBack(subject=EVENT_DOCUMENT, reason=reason, message=message)


def _refresh_inventory(evidence: Evidence, document: EventDocument) -> Steps:
    """Plan an inventory when the last one is old, or does not know what an event or a person names.

    While a VM has to leave and could not be read, every half minute counts (law S7), and while the
    verdict on an event waits for reads. The identity of a VM that was recorded is read soon after:
    a VM that is created again has another one.
    """
    views, reason = evidence.views, HoldReason.UNMANAGED_RESOURCE
    period_s = evidence.observed.inventory_period_s
    unknown = [
        event.event_id
        for event in document.events
        if any(views.membership.peer(name) is None for name in event.resources)
    ]
    requested = (request.vm for request in evidence.unknown_vms[:MAX_UNKNOWN_VMS])
    for subject in (*unknown, *requested):
        period_s = min(period_s, views.again_s(subject, reason, first_s=UNKNOWN_VM_S))
    if evidence.durable.waits_for_reads or _leaving_unread(evidence, document):
        period_s = min(period_s, UNREAD_VM_S)
    if any(_is_unidentified(evidence, entry) for entry in evidence.durable.entries):
        period_s = min(period_s, UNKNOWN_VM_S)
    age_s = views.age_s(evidence.observed.inventory_at)
    if age_s >= period_s:
        yield Start(ReadInventory())
    else:
        yield WakeAt(views.in_s(period_s - age_s))


def _is_unidentified(evidence: Evidence, entry: Entry) -> bool:
    """Return whether the identity of a VM that was recorded a while ago is not known yet."""
    vm, views = evidence.views.membership.peer(entry.vm), evidence.views
    recorded_s = views.age_s(entry.recorded_at)
    if vm is None or not vm.guid or entry.over or recorded_s < UNKNOWN_VM_S:
        return False
    if fold(vm.vm_id) != fold(entry.vm_id):
        return False  # a namesake: its identity does not complete the entry (`_identified`)
    return not all(getattr(membership, "vm_guid", vm.guid) for membership in entry.memberships)


def _leaving_unread(evidence: Evidence, document: EventDocument) -> bool:
    """Return whether a VM that has to leave is in the set and could not be read."""
    now, peer = evidence.now, evidence.views.membership.peer
    leaving = [
        name
        for event in document.events
        if evidence.policy.is_due(event, now)
        for name in event.resources
    ]
    leaving += [each.vm for each in evidence.observed.requests or () if each.is_active(now)]
    return any((vm := peer(name)) is not None and vm.problem for name in leaving)
