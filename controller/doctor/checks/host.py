"""Checks of this host and its set: configuration, IMDS, clock, identity, peers. Pure."""

import json
from collections.abc import Iterator
from shlex import quote

from controller.azure.imds import EVENTS_VERSION, INSTANCE_VERSION, Poll
from controller.azure.imds_document import Instance
from controller.azure.vm_set import VmSet
from controller.core.azure_names import SetKind, fold, short
from controller.core.lease import required_duration_s
from controller.core.resources import Nic, PowerState, Vm
from controller.doctor.facts import DoctorFacts, Failed, Skipped
from controller.doctor.failed_reads import not_known
from controller.doctor.obstacles import remove_obstacle
from controller.doctor.remedies import AGAIN, az, group_and_name
from controller.doctor.report import Finding, failed, passed, skipped, warned
from controller.doctor.unit_environment import advice
from controller.errors import Denied, NotFound, Obstacle, SetupError, Throttled

CLOCK_WARN_S = 2.0
"""The `Date` header has whole seconds, so a smaller difference proves nothing."""
CLOCK_FAIL_S = 60.0
SET_VERSION = "2024-07-01"
MIGRATION_VERSION = "2024-11-01"
NEEDS_VMS = Skipped("vms")
MOST_NAMES = 20
"""How many VMs of a set are named."""


def check_host(facts: DoctorFacts) -> list[Finding]:
    """Return the findings about this host and its set, in order."""
    return [
        _configuration(facts),
        *_environment(facts),
        _imds(facts),
        _events(facts),
        _clock(facts),
        _identity(facts),
        _set(facts),
        _vms(facts),
        _nics(facts),
        _approval(facts),
    ]


def _configuration(facts: DoctorFacts) -> Finding:
    """The configuration was validated before, lease timing included."""
    election, policy = facts.settings.election, facts.settings.policy
    needed = required_duration_s(
        renew_period_s=election.renew_period_s, request_timeout_s=election.request_timeout_s
    )
    what = (
        f"the lease of {election.lease_duration_s} s allows one failed renewal and one retry "
        f"({needed:g} s); pools: {len(facts.settings.backend_pools)}"
    )
    if policy.dry_run:
        return warned(
            "configuration",
            f"{what}; dry_run is on: the agent logs its actions and does not take them",
            ("dry_run = false in [policy]",),
        )
    return passed("configuration", what)


def _environment(facts: DoctorFacts) -> Iterator[Finding]:
    if names := facts.vm_side.unit_differs:
        message = (
            f"the unit of the agent and this shell do not set {', '.join(names)} alike: the agent "
            "may work by other settings than this check and every command in the shell"
        )
        yield warned("environment", message, advice(names))


def _imds(facts: DoctorFacts) -> Finding:
    check, endpoint = "imds", facts.settings.azure.imds_endpoint
    proxies = ", ".join(facts.proxies)
    note = f"; {proxies} is for Resource Manager and storage only" if proxies else ""
    if isinstance(facts.instance, Instance):
        name = facts.instance.name
        return passed(check, f"IMDS answers without a proxy; this VM is {name}{note}")
    if isinstance(facts.instance, Failed):
        url = f"{endpoint}/metadata/instance?api-version={INSTANCE_VERSION}"
        host = endpoint.removeprefix("http://").split(":")[0]
        return failed(
            check,
            f"{facts.instance.error}{note}",
            (
                f"{_curl(url)}  # run this on a VM of the set: it must print JSON",
                f"ip route get {quote(host)}  # must use the VM's own interface: no tunnel, no "
                "proxy that adds X-Forwarded-For, no firewall rule for the user of the agent",
            ),
        )
    return not_known(facts, check, facts.instance)


def _curl(url: str) -> str:
    return f"curl --noproxy '*' --silent --show-error --header Metadata:true {quote(url)}"


def _events(facts: DoctorFacts) -> Finding:
    check = "scheduled-events"
    if isinstance(facts.poll, Poll):
        events = facts.poll.document.events
        listed = ", ".join(f"{each.event_type} of {' '.join(each.resources)}" for each in events)
        return passed(check, f"enabled and readable: {listed or 'no events'}")
    if not isinstance(facts.instance, Instance):
        return skipped(check, "imds")
    if isinstance(facts.poll, Failed) and isinstance(facts.poll.error, Throttled):
        return warned(check, str(facts.poll.error), (AGAIN,))
    url = f"{facts.settings.azure.imds_endpoint}/metadata/scheduledevents"
    error = facts.poll.error if isinstance(facts.poll, Failed) else ""
    return failed(
        check,
        f"the agent cannot see scheduled events: {error}",
        (
            f"{_curl(f'{url}?api-version={EVENTS_VERSION}')}  # repeat until it prints "
            f"a document: the first request of VM {facts.instance.name} enables the service, "
            "which can take two minutes",
        ),
    )


def _clock(facts: DoctorFacts) -> Finding:
    check = "clock"
    if not isinstance(facts.poll, Poll):
        return skipped(check, "scheduled-events")
    if facts.poll.date is None:
        return warned(check, "the reply of IMDS has no Date header", (AGAIN,))
    # The header has whole seconds, rounded down, and was written between request and reply. Their
    # middle is the best estimate; the slower the reply, the less a difference proves.
    took = facts.poll_answered_at - facts.poll_sent_at
    ahead_s = (facts.poll_sent_at + took / 2 - facts.poll.date).total_seconds() - 0.5
    proven_s = abs(ahead_s) - took.total_seconds() / 2
    side = "ahead of" if ahead_s > 0 else "behind"
    difference = f"{abs(ahead_s):.0f} s {side} the clock of Azure"
    fix = ("timedatectl set-ntp true", "chronyc makestep")
    if proven_s > CLOCK_FAIL_S:
        return failed(check, f"{difference}: Azure may refuse certificates and tokens", fix)
    if proven_s > CLOCK_WARN_S:
        return warned(check, f"{difference}: the agent corrects its deadlines", fix)
    exact_to_s = CLOCK_WARN_S + took.total_seconds() / 2
    return passed(check, f"agrees with the clock of Azure to within {exact_to_s:.0f} s")


def _identity(facts: DoctorFacts) -> Finding:
    check = "identity"
    overrides = ", ".join(facts.identity_overrides)
    note = f"; {overrides} is set and ignored: the agent uses the managed identity of the VM"
    if not overrides:
        note = ""
    if isinstance(facts.principal_id, str):
        named = f" for {facts.principal_id}" if facts.principal_id else ""
        return passed(check, f"IMDS issues a token{named} to use with Resource Manager{note}")
    if isinstance(facts.principal_id, Failed) and isinstance(facts.principal_id.error, Denied):
        error = facts.principal_id.error
        if error.obstacle is Obstacle.ROLE:
            error = Denied(str(error), obstacle=Obstacle.IDENTITY)
        return failed(check, f"{error}{note}", remove_obstacle(facts, error))
    if not isinstance(facts.instance, Instance):
        return skipped(check, "imds")
    return not_known(facts, check, facts.principal_id)


def _set(facts: DoctorFacts) -> Finding:
    check, found = "set", facts.availability_set
    if not isinstance(found, VmSet):
        return _no_set(facts, check, found)
    names = ", ".join(map(short, found.vm_ids[:MOST_NAMES]))
    if len(found.vm_ids) > MOST_NAMES:
        names += f" and {len(found.vm_ids) - MOST_NAMES} more"
    ours = facts.instance.vm_id if isinstance(facts.instance, Instance) else ""
    if fold(ours) not in map(fold, found.vm_ids):
        return warned(check, f"{found.set_id} does not list this VM yet", (AGAIN,))
    if found.migrates_to:
        return _migrates(facts, check, found)
    if len(found.vm_ids) == 1:
        return warned(
            check,
            f"{short(found.set_id)} contains only this VM: during its maintenance no agent leads",
            (_another_vm(found),),
        )
    if found.unread:
        return warned(
            check,
            f"the {found.kind.value} {short(found.set_id)} with {names} is used without its "
            f"scheduledEventsPolicy: {found.unread}",
            ("assign the role in deploy/roles/scale-sets.json on its resource group",),
        )
    return passed(check, f"{short(found.set_id)} ({found.kind.value}) with {names}")


def _another_vm(found: VmSet) -> str:
    group, name = group_and_name(found.set_id)
    if found.kind is SetKind.SCALE_SET:
        return az("vmss scale", resource_group=group, name=name, new_capacity="2")
    created = az("vm create", resource_group=group, name="NEW", availability_set=name)
    return f"{created} ...  # then add it to the pools"


def _no_set(facts: DoctorFacts, check: str, found: Failed | Skipped) -> Finding:
    error = found.error if isinstance(found, Failed) else None
    if isinstance(error, NotFound):
        return warned(check, f"cannot be checked now: {error}", (AGAIN,))
    if not isinstance(error, SetupError):
        return not_known(facts, check, found)
    vm_id = facts.instance.vm_id if isinstance(facts.instance, Instance) else ""
    group, name = group_and_name(vm_id) if vm_id else ("GROUP", "VM")
    return failed(
        check,
        str(error),
        (
            az("vm create", resource_group=group, name=name, availability_set="SET")
            + " ...  # create it again: a VM joins a set only when it is created",
        ),
    )


def _migrates(facts: DoctorFacts, check: str, found: VmSet) -> Finding:
    """Warn of a migration to a scale set (Microsoft docs, preview)."""
    endpoint, name = facts.settings.azure.resource_manager_endpoint, short(found.migrates_to)
    action = f"{found.set_id}/cancelMigrationToVirtualMachineScaleSet"
    url = f"{endpoint}{action}?api-version={MIGRATION_VERSION}"
    return warned(
        check,
        f"{short(found.set_id)} is being migrated to the scale set {name}. If it is converted as a "
        "whole, the agents continue in the scale set. VMs that are moved one by one are another "
        "set, which needs a blob of its own if it has the same name",
        (az("rest", method="post", url=url) + "  # to cancel the migration",),
    )


def _vms(facts: DoctorFacts) -> Finding:
    check = "vms"
    if not isinstance(facts.vms, tuple):
        return not_known(facts, check, facts.vms)
    down = [vm for vm in facts.vms if vm.power is not PowerState.RUNNING]
    if down:
        return warned(
            check,
            f"not running, so they do not count as in service: {_names(down)}",
            (az("vm start", ids=tuple(vm.vm_id for vm in down)),),
        )
    return passed(check, f"{len(facts.vms)} can be read; all run")


def _nics(facts: DoctorFacts) -> Finding:
    check = "nics"
    if not isinstance(facts.vms, tuple):
        return not_known(facts, check, facts.vms if isinstance(facts.vms, Skipped) else NEEDS_VMS)
    unread = [known for known in facts.nics.values() if not isinstance(known, Nic)]
    if facts.nic_list is not None or unread:
        return not_known(facts, check, facts.nic_list or unread[0])
    broken = [nic.nic_id for nic in facts.known_nics if nic.failed]
    if broken:
        return warned(
            check,
            f"in provisioningState Failed: {', '.join(map(short, broken))}. Until this is fixed, "
            "Azure refuses writes on their load balancers",
            (az("network nic update", ids=tuple(broken)),),
        )
    return passed(check, f"{len(facts.nics)} can be read; none is in provisioningState Failed")


def _names(vms: list[Vm]) -> str:
    return ", ".join(f"{vm.name} ({vm.power.value})" for vm in vms)


def _approval(facts: DoctorFacts) -> Finding:
    check = "automatic-approval"
    if not isinstance(facts.availability_set, VmSet):
        return skipped(check, "set")
    found = facts.availability_set
    if not found.approves:
        return passed(check, "scheduledEventsPolicy approves no event automatically")
    off = {kind: {"automaticallyApprove": False} for kind in found.approves}
    body = json.dumps({"properties": {"scheduledEventsPolicy": off}})
    endpoint = facts.settings.azure.resource_manager_endpoint
    url = f"{endpoint}{found.set_id}?api-version={SET_VERSION}"
    return warned(
        check,
        f"scheduledEventsPolicy approves {', '.join(found.approves)} automatically: these events "
        "start before the drain has ended",
        (az("rest", method="patch", url=url, body=body),),
    )
