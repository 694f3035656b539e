"""Judgements about this host and its set: configuration, IMDS, clock, identity, peers. Pure."""

import json
from shlex import quote

from controller.azure.compute import AvailabilitySet
from controller.azure.imds import EVENTS_VERSION, INSTANCE_VERSION, Instance, Poll
from controller.core.model import Nic, PowerState, Vm, fold, short
from controller.doctor.advice import AGAIN, assign_identity, az, group_and_name, unanswered
from controller.doctor.facts import Facts, Failed, Unasked
from controller.doctor.findings import Finding, failed, passed, skipped, warned
from controller.errors import ConfigError, Denied, NotFound, Throttled
from controller.settings import TIMING_MARGIN_S

CLOCK_WARN_S = 2.0
"""The `Date` header counts whole seconds; a smaller difference says nothing."""
CLOCK_FAIL_S = 60.0
SET_VERSION = "2024-07-01"
NEEDS_VMS = Unasked("vms")


def judge_host(facts: Facts) -> list[Finding]:
    """Return the findings about this host and its set, in order."""
    return [
        _configuration(facts),
        _imds(facts),
        _events(facts),
        _clock(facts),
        _identity(facts),
        _set(facts),
        _vms(facts),
        _nics(facts),
        _approval(facts),
    ]


def _configuration(facts: Facts) -> Finding:
    """What `check-config` refuses never gets here, the timing law included."""
    election, policy = facts.settings.election, facts.settings.policy
    needed = election.renew_period_s + 2 * election.request_timeout_s + TIMING_MARGIN_S
    what = (
        f"the lease of {election.lease_duration_s} s outlives a failed renewal and its repeat "
        f"({needed:g} s); pools: {len(facts.settings.backend_pools)}"
    )
    if policy.dry_run:
        return warned(
            "configuration",
            f"{what}; dry_run is on: the agent says what it would do and does nothing",
            ("dry_run = false in [policy]",),
        )
    return passed("configuration", what)


def _imds(facts: Facts) -> Finding:
    check, endpoint = "imds", facts.settings.azure.imds_endpoint
    proxies = ", ".join(facts.proxies)
    note = f"; {proxies} is for Resource Manager and storage only" if proxies else ""
    if isinstance(facts.instance, Instance):
        name = facts.instance.name
        return passed(check, f"answers directly, without a proxy: this VM is {name}{note}")
    if isinstance(facts.instance, Failed):
        url = f"{endpoint}/metadata/instance?api-version={INSTANCE_VERSION}"
        host = endpoint.removeprefix("http://").split(":")[0]
        return failed(
            check,
            f"{facts.instance.error}{note}",
            (
                f"{_curl(url)}  # run this on a VM of the set: it must answer with JSON",
                f"ip route get {quote(host)}  # must leave by the VM's own interface: no tunnel, "
                "no proxy that adds X-Forwarded-For, no firewall rule for the agent's user",
            ),
        )
    return unanswered(facts, check, facts.instance)


def _curl(url: str) -> str:
    return f"curl --noproxy '*' --silent --show-error --header Metadata:true {quote(url)}"


def _events(facts: Facts) -> Finding:
    check = "scheduled-events"
    if isinstance(facts.poll, Poll):
        events = facts.poll.document.events
        told = ", ".join(f"{each.event_type} of {' '.join(each.resources)}" for each in events)
        return passed(check, f"switched on and readable: {told or 'no events'}")
    if not isinstance(facts.instance, Instance):
        return skipped(check, "imds")
    if isinstance(facts.poll, Failed) and isinstance(facts.poll.error, Throttled):
        return warned(check, str(facts.poll.error), (AGAIN,))
    url = f"{facts.settings.azure.imds_endpoint}/metadata/scheduledevents"
    error = facts.poll.error if isinstance(facts.poll, Failed) else ""
    return failed(
        check,
        f"nobody would know of maintenance: {error}",
        (
            f"{_curl(f'{url}?api-version={EVENTS_VERSION}')}  # repeat until it answers "
            f"with a document: the first request of VM {facts.instance.name} switches the "
            "service on, which may take two minutes",
        ),
    )


def _clock(facts: Facts) -> Finding:
    check = "clock"
    if not isinstance(facts.poll, Poll):
        return skipped(check, "scheduled-events")
    if facts.poll.date is None:
        return warned(check, "IMDS did not say what time it is", (AGAIN,))
    # The header counts whole seconds, rounded down, and was written at any moment between the
    # question and the answer: the middle of both is the best guess, and a slow answer is no proof.
    took = facts.answered_at - facts.asked_at
    ahead_s = (facts.asked_at + took / 2 - facts.poll.date).total_seconds() - 0.5
    proven_s = abs(ahead_s) - took.total_seconds() / 2
    what = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the clock of Azure"
    mend = ("timedatectl set-ntp true", "chronyc makestep")
    if proven_s > CLOCK_FAIL_S:
        return failed(check, f"{what}: certificates and tokens may be refused", mend)
    if proven_s > CLOCK_WARN_S:
        return warned(check, f"{what}: the agent corrects its deadlines by that", mend)
    return passed(check, f"agrees with Azure's to {CLOCK_WARN_S + took.total_seconds() / 2:.0f} s")


def _identity(facts: Facts) -> Finding:
    check = "identity"
    note = (
        f"; {', '.join(facts.hijackers)} is set and ignored: the VM's own identity is used"
        if facts.hijackers
        else ""
    )
    if isinstance(facts.principal, str):
        named = f" of {facts.principal}" if facts.principal else ""
        return passed(check, f"IMDS gives a token{named} for Resource Manager{note}")
    if isinstance(facts.principal, Failed) and isinstance(facts.principal.error, Denied):
        return failed(check, f"{facts.principal.error}{note}", (assign_identity(facts),))
    if not isinstance(facts.instance, Instance):
        return skipped(check, "imds")
    return unanswered(facts, check, facts.principal)


def _set(facts: Facts) -> Finding:
    check = "availability-set"
    if isinstance(facts.home, Failed) and isinstance(facts.home.error, ConfigError):
        vm_id = facts.instance.vm_id if isinstance(facts.instance, Instance) else ""
        group, name = group_and_name(vm_id) if vm_id else ("GROUP", "VM")
        return failed(
            check,
            str(facts.home.error),
            (
                az("vm create", resource_group=group, name=name, availability_set="SET")
                + " ...  # anew: a VM joins a set only when it is created",
            ),
        )
    if isinstance(facts.home, Failed) and isinstance(facts.home.error, NotFound):
        return warned(check, f"could not be told now: {facts.home.error}", (AGAIN,))
    if not isinstance(facts.home, AvailabilitySet):
        return unanswered(facts, check, facts.home)
    home, names = facts.home, ", ".join(map(short, facts.home.vm_ids))
    ours = facts.instance.vm_id if isinstance(facts.instance, Instance) else ""
    if fold(ours) not in map(fold, home.vm_ids):
        return warned(check, f"{home.availability_set_id} does not list this VM yet", (AGAIN,))
    if len(home.vm_ids) == 1:
        group, name = group_and_name(home.availability_set_id)
        return warned(
            check,
            f"{name} holds this VM only: while it is in maintenance, nobody leads",
            (
                az("vm create", resource_group=group, name="NEW", availability_set=name)
                + " ...  # and add it to the pools",
            ),
        )
    return passed(check, f"{short(home.availability_set_id)} with {names}")


def _vms(facts: Facts) -> Finding:
    check = "vms"
    if not isinstance(facts.vms, tuple):
        return unanswered(facts, check, facts.vms)
    down = [vm for vm in facts.vms if vm.power is not PowerState.RUNNING]
    if down:
        return warned(
            check,
            f"not running, so they do not count as in service: {_names(down)}",
            (az("vm start", ids=tuple(vm.vm_id for vm in down)),),
        )
    return passed(check, f"{len(facts.vms)} can be read, all running")


def _nics(facts: Facts) -> Finding:
    check = "nics"
    if not isinstance(facts.vms, tuple):
        return unanswered(facts, check, facts.vms if isinstance(facts.vms, Unasked) else NEEDS_VMS)
    unread = [known for known in facts.nics.values() if not isinstance(known, Nic)]
    if facts.nic_list is not None or unread:
        return unanswered(facts, check, facts.nic_list or unread[0])
    broken = [nic.nic_id for nic in facts.seen_nics if nic.failed]
    if broken:
        return warned(
            check,
            f"in provisioningState Failed, with which Azure refuses writes on the load balancer: "
            f"{', '.join(map(short, broken))}",
            (az("network nic update", ids=tuple(broken)),),
        )
    return passed(check, f"{len(facts.nics)} can be read, none has failed")


def _names(vms: list[Vm]) -> str:
    return ", ".join(f"{vm.name} ({vm.power.value})" for vm in vms)


def _approval(facts: Facts) -> Finding:
    check = "approval"
    if not isinstance(facts.home, AvailabilitySet):
        return skipped(check, "availability-set")
    home = facts.home
    if not home.approves:
        return passed(check, "scheduledEventsPolicy leaves the acknowledgement to the agents")
    off = {kind: {"automaticallyApprove": False} for kind in home.approves}
    body = json.dumps({"properties": {"scheduledEventsPolicy": off}})
    endpoint = facts.settings.azure.resource_manager_endpoint
    url = f"{endpoint}{home.availability_set_id}?api-version={SET_VERSION}"
    return warned(
        check,
        f"the set approves {', '.join(home.approves)} by itself: such events start without "
        "waiting for the drain",
        (az("rest", method="patch", url=url, body=body),),
    )
