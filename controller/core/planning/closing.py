"""What the leader concludes from the reports of VMs that close before they leave their pools.

    record -> close -> quiet -> remove -> observe out -> acknowledge

A removal waits until the VM is closed, the load balancer had time to notice, and no connection is
left: then nothing is cut, whatever Azure does to the flows of a removed member. It waits no longer
than `connection_drain_s`, never past the latest instant from which the writes still end before
NotBefore, and only some seconds for the report of an agent that may be dead or old: nothing becomes
later because a VM takes part.

A VM that is closed and quiet can be acknowledged before it is out (law S1), with evidence that the
load balancer sends it nothing new: its responder has refused enough probes of every rule, or the
rules report it as down. A flag alone, a TCP probe or elapsed time is no evidence.

Pure: standard library only, no I/O, no clock.
"""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from controller.core.azure_names import fold
from controller.core.ledger import Entry
from controller.core.planning.actions import HoldReason, Phase, ReadVmReport
from controller.core.planning.evidence import Evidence
from controller.core.planning.steps import Inquiry, Report, Start, Steps, WakeAt, hold_vm
from controller.core.planning.vm_case import VmCase
from controller.core.rehearsals import is_test
from controller.core.resources import LoadBalancingRule, Membership, member_key
from controller.core.restarts import interrupted, outlasts
from controller.core.vm_report import VmReport, VmState, report_text

REPORT_WITHIN_S = 6.0
"""How long a removal waits for the first report, because of an event: every agent reads the event
document every two seconds, and the record twice a second from then on."""
REQUESTED_REPORT_WITHIN_S = 12.0
"""The same for a drain request, or an event that the document of the agent may not show: it learns
of the record when it reads the lease, every 7.5 s at the latest, in a large set."""
READ_EVERY_S = 1.0
"""How often a report is read while a step waits for it."""
READ_OUT_EVERY_S = 10.0
"""The same for a VM that is out, and in its pools: it may open."""
CURRENT_S = 20.0
"""How old a report may be. An agent whose VM is not open sends it every ten seconds; the clocks of
two agents can differ by some seconds."""
SEEN_WITHIN_S = 10.0
"""How old the views and reports may be by which a VM is out or closed, when the acknowledgement
leaves (law S1)."""
WRITE_MARGIN = 1.5
"""A write can take that many times as long as the slowest one of late."""
LATEST_MARGIN_S = 5.0
"""The writes end this long before NotBefore, as planned."""


def current_report(evidence: Evidence, entry: Entry) -> VmReport | None:
    """Return the report of a VM about this drain; None without one that is recent."""
    report = evidence.observed.report_about(entry)
    if report is None:
        return None
    age_s = (evidence.now - report.at).total_seconds()
    return report if abs(age_s) <= CURRENT_S else None


def read_report(evidence: Evidence, vm: str, *, out: bool = False) -> Steps:
    """Read the report of a VM, if it was not read a moment ago; less often of one that is out."""
    every_s = READ_OUT_EVERY_S if out else READ_EVERY_S
    seen = evidence.observed.reports.get(fold(vm))
    if evidence.views.age_s(seen.observed_at if seen else None) >= every_s:
        yield Start(ReadVmReport(vm))
    yield WakeAt(evidence.views.in_s(every_s))


# --- removal ---


def must_wait(
    case: VmCase, evidence: Evidence, entry: Entry, movable: tuple[Membership, ...]
) -> Inquiry:
    """Return whether a recorded removal has to wait until the VM is closed and quiet."""
    if not evidence.policy.close or (case.due and case.deadline is None):
        return False  # it has started, or may start at any moment
    latest = latest_removal_at(case, evidence)
    if latest is not None and evidence.now >= latest:
        return False
    yield from read_report(evidence, case.vm.name)
    report = current_report(evidence, entry)
    reported_by = _reported_by(case, entry)
    until = reported_by if report is None else _waits_until(evidence, entry, report, movable)
    if until is None or evidence.now >= until:
        return False
    until = until if latest is None else min(until, latest)
    yield WakeAt(until)
    why = _why(report, until)
    yield Report(vm=case.vm.name, phase=Phase.DRAINING, why=why)
    return True


def _reported_by(case: VmCase, entry: Entry) -> datetime:
    """Return until when the first report about a record is waited for.

    A leader alone reads what other agents forward, and rehearsals.
    """
    shown = any(not (event.forwarded or is_test(event.event_id)) for event in case.due)
    within_s = REPORT_WITHIN_S if shown else REQUESTED_REPORT_WITHIN_S
    return entry.recorded_at + timedelta(seconds=within_s)


def _waits_until(
    evidence: Evidence,
    entry: Entry,
    report: VmReport,
    movable: tuple[Membership, ...],
) -> datetime | None:
    """Return until when a removal waits at most; None if it need not wait."""
    if report.state is VmState.OPEN:
        return None  # it could not close, and its report states why
    rules = _rules_of(evidence, movable)
    if report.quiet and _is_noticed(evidence, report, rules):
        return None
    # A time ahead of this clock, or a forged one, delays no removal.
    since = report.since if report.since <= evidence.now else entry.recorded_at
    return since + timedelta(seconds=evidence.policy.connection_drain_s)


def _is_noticed(evidence: Evidence, report: VmReport, rules: tuple[LoadBalancingRule, ...]) -> bool:
    """Return whether every probe of these rules had time to notice that the VM is closed."""
    closed_s = (evidence.now - report.since).total_seconds()
    return all(
        rule.probe is None
        or closed_s >= rule.probe.notices_in_s
        or _has_refused(evidence, rule, report, rules)
        for rule in rules
    )


def _has_refused(
    evidence: Evidence,
    rule: LoadBalancingRule,
    report: VmReport,
    rules: tuple[LoadBalancingRule, ...],
) -> bool:
    """Return whether the responder has refused enough probes of a rule.

    Each rule with a probe on this port may be probed by itself, so the probes of all rules count.
    All can belong to a rule that is probed more often: then time has to pass as well.
    """
    probe = rule.probe
    if probe is None or not report.probe_port or probe.port != report.probe_port:
        return False
    if fold(probe.protocol) == "tcp":
        return False  # the port accepts connections, whatever it answers
    known = (other.probe for other in evidence.observed.rules)
    faster = any(p and p.port == probe.port and p.interval_s < probe.interval_s for p in known)
    if faster and (report.at - report.since).total_seconds() < probe.notices_in_s:
        return False
    sharing = sum(1 for other in rules if other.probe and other.probe.port == probe.port)
    return report.refused_probes >= probe.threshold * sharing


def _rules_of(
    evidence: Evidence, memberships: Iterable[Membership]
) -> tuple[LoadBalancingRule, ...]:
    """Return the rules that send connections to the pools of these memberships."""
    pools = {fold(membership.pool_id) for membership in memberships}
    return tuple(rule for rule in evidence.observed.rules if pools & set(map(fold, rule.pool_ids)))


def latest_removal_at(case: VmCase, evidence: Evidence) -> datetime | None:
    """Return the latest instant at which a removal starts that still ends before NotBefore.

    It follows from how long writes take now, and from the writes that wait with this one.

    Returns None without an event that has a NotBefore.
    """
    if case.deadline is None:
        return None
    waiting = sum(1 for e in evidence.durable.entries if not e.over and e.out_at is None)
    rounds = math.ceil(max(1, waiting) / max(1, evidence.observed.write_limit))
    needed_s = rounds * evidence.observed.write_s * WRITE_MARGIN + LATEST_MARGIN_S
    return case.deadline - timedelta(seconds=needed_s)


def _why(report: VmReport | None, until: datetime) -> str:
    at = f"{until:%H:%M:%S} UTC"
    state = "waiting for the report of its agent" if report is None else report_text(report)
    return f"{state}; it is removed at {at} at the latest"


# --- without removal ---


def report_not_closed(case: VmCase, evidence: Evidence, entry: Entry) -> Steps:
    """Report what a VM waits for that only closes, and hold it when that takes too long.

    Nothing else can take it out: it is held until its own side works.
    """
    name, report = case.vm.name, current_report(evidence, entry)
    late_at = _late_at(evidence, entry, report) if report else _reported_by(case, entry)
    if evidence.now < late_at:
        why = "waiting for the report of its agent" if report is None else report_text(report)
        yield WakeAt(late_at)
        yield Report(vm=name, phase=Phase.DRAINING, why=why)
    else:
        message = f"{name} cannot be taken out of rotation: {_obstacle(name, report)}"
        yield from hold_vm(name, HoldReason.VM_NOT_CLOSED, message)


def _late_at(evidence: Evidence, entry: Entry, report: VmReport) -> datetime:
    """Return from when on something is wrong with a VM that is not out yet."""
    if report.state is VmState.OPEN:
        return evidence.now
    rules = _rules_of(evidence, entry.memberships)
    noticed_s = max((rule.probe.notices_in_s for rule in rules if rule.probe), default=0.0)
    wait_s = max(evidence.policy.connection_drain_s, 2 * noticed_s + REPORT_WITHIN_S)
    return report.since + timedelta(seconds=wait_s)


def _obstacle(name: str, report: VmReport | None) -> str:
    """Return why a VM is not proven closed, and what to do."""
    if report is None:
        return (
            f"its agent does not report that it is closed; start lb-drain on {name}, "
            "and look at its log"
        )
    if report.state is VmState.OPEN:
        problem = report.problem or "its agent reports that it is open"
        return f"{problem}; correct that on {name}"
    if not report.counted:
        return f"{report.problem or 'its connections cannot be counted'}; correct that on {name}"
    if not report.quiet:
        return (
            f"{report_text(report)}; let the application end its connections when it closes, "
            "for example with a hook"
        )
    return (
        "it is closed and quiet, and nothing proves that the load balancer sends it no new "
        "connections; let the HTTP probe of every rule ask [probe] listen, or assign the role "
        "lb-drain rule health"
    )


# --- acknowledgement ---


def is_quiet(evidence: Evidence, entry: Entry) -> bool:
    """Return whether a VM is known to have no connection left."""
    return _quiet_report(evidence, entry) is not None


def _quiet_report(evidence: Evidence, entry: Entry) -> VmReport | None:
    """Return the report by which a VM is closed and quiet, read seconds ago; None without one."""
    report, seen = current_report(evidence, entry), evidence.observed.reports.get(fold(entry.vm))
    if report is None or report.state is not VmState.CLOSED or not report.quiet:
        return None
    if not outlasts(evidence.views.restarts.get(fold(entry.vm), ()), report.at):
        return None  # the VM may have opened when it started again
    age_s = evidence.views.age_s(seen.observed_at if seen else None)
    return report if age_s <= SEEN_WITHIN_S else None


def is_proven_closed(evidence: Evidence, entry: Entry) -> bool:
    """Return whether a VM that may still be in its pools gets nothing new, and has nothing left.

    That holds only with evidence for every rule of every pool that the entry names: the responder
    has refused its probes, or all rules of the pool report the member as down. A report of the
    rules from before the VM closed is none: the member can have been down for another reason.
    """
    report = _quiet_report(evidence, entry) if evidence.policy.acknowledge_closed else None
    if report is None:
        return False
    every = _rules_of(evidence, entry.memberships)
    return bool(entry.memberships) and all(
        _is_down(evidence, membership, report)
        or (rules and all(_has_refused(evidence, rule, report, every) for rule in rules))
        for membership in entry.memberships
        for rules in (_rules_of(evidence, (membership,)),)
    )


def _is_down(evidence: Evidence, membership: Membership, report: VmReport) -> bool:
    """Return whether all rules report a member as down, by a read from after its VM closed."""
    seen_at = evidence.views.down_by_every_rule.get(member_key(membership))
    return seen_at is not None and seen_at >= report.since


def closed_at(evidence: Evidence, entry: Entry) -> datetime | None:
    """Return since when a VM is proven closed, as the ledger has to record it.

    What was proven stays so while the VM reboots, until its agent reports that it is open.
    """
    if is_proven_closed(evidence, entry):
        since, restarts = entry.closed_at, evidence.views.restarts.get(fold(entry.vm), ())
        again = since is None or interrupted(restarts, since)
        return evidence.now if again else since
    report = current_report(evidence, entry)
    return None if report is not None and report.state is VmState.OPEN else entry.closed_at


# --- restore ---


def reports_by(evidence: Evidence, entry: Entry, restored_at: datetime) -> datetime:
    """Return until when the report of a VM that is back in its pools is waited for.

    A report that was read before may be too old to show that the VM is still closed.
    """
    seen = evidence.observed.reports.get(fold(entry.vm))
    if not evidence.policy.close or (seen is not None and seen.observed_at >= restored_at):
        return evidence.now
    since = max(restored_at, evidence.observed.tenure_at or restored_at)
    return since + timedelta(seconds=REPORT_WITHIN_S)


def not_open_yet(evidence: Evidence, entry: Entry) -> VmReport | None:
    """Return the report of a VM that is back in its pools and does not take new work yet."""
    report = current_report(evidence, entry)
    return None if report is None or report.state is VmState.OPEN else report
