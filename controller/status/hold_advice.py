"""What follows from a hold, and what an operator can do about it.

Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controller.core.azure_names import fold
from controller.core.events import EventStatus, ScheduledEvent
from controller.core.ledger import Hold
from controller.core.planning.actions import HoldReason


@dataclass(frozen=True, slots=True)
class Advice:
    """Both are one sentence without a full stop."""

    consequence: str
    remedy: str


STAYS_IN = frozenset(
    {
        HoldReason.FLOOR,
        HoldReason.INVENTORY_UNREAD,
        HoldReason.NO_ABLE_AGENT,
        HoldReason.PAUSED,
        HoldReason.SHARED_POOL,
        HoldReason.UNKNOWN_EVENT_STATUS,
        HoldReason.UNREADABLE_VM,
        HoldReason.VM_NOT_CLOSED,
    }
)
"""The VM stays in rotation as long as it is held."""

_DOCTOR = "run lb-drain doctor on the leader, which finds the cause"
_REMEDIES = {
    HoldReason.FLOOR: "add members to the pool, bring its other members back, or lower the floor "
    "for a while: lb-drain config set min_in_service=N --pool NAME --for 1h; to drain the VM all "
    "the same: lb-drain drain VM --force --reason TEXT",
    HoldReason.UNMANAGED_RESOURCE: "the message contains it",
    HoldReason.UNKNOWN_EVENT_STATUS: "take the VM out yourself, or wait until the event is gone",
    HoldReason.UNREADABLE_EVENT: "look at the event document on the VM; update the agents if Azure "
    "has changed its format",
    HoldReason.UNREADABLE_VM: _DOCTOR,
    HoldReason.EVENT_PENDING: "none is needed: it is restored after the last event",
    HoldReason.VM_NOT_RUNNING: "start the VM",
    HoldReason.VM_NOT_READY: "look at the application on the VM",
    HoldReason.VM_NOT_CLOSED: "start the agent on the VM, or look at its health endpoint there",
    HoldReason.VM_GONE: "lb-drain forget VM, unless the VM will be created again",
    HoldReason.LOST: "create the pool or NIC again, or lb-drain forget VM",
    HoldReason.NOT_IN_SET: "add the VM to the set again, or lb-drain forget VM",
    HoldReason.REQUESTS_UNREAD: "repair or delete the blob with the drain requests",
    HoldReason.REQUEST_LOST: "lb-drain restore VM ends the drain",
    HoldReason.LEDGER_RECOVERED: "check that the VM returns to all its pools",
    HoldReason.INVENTORY_UNREAD: _DOCTOR,
    HoldReason.SET_MISSING: "wait if Azure is converting the set; else create its VMs in a set",
    HoldReason.WRITE_FAILED: "grant the missing permission or lift the lock that the message names",
    HoldReason.NOT_ACKNOWLEDGED: "none is needed: Azure begins the event at NotBefore",
    HoldReason.NO_ABLE_AGENT: _DOCTOR,
    HoldReason.PAUSED: "lb-drain resume ends the pause",
    HoldReason.ACKNOWLEDGEMENT_HELD: "lb-drain hold EVENT --withdraw",
    HoldReason.NOT_OUT: "none is needed for a VM that the leader drains already; to take out the "
    "others that the message names: lb-drain drain, with their names",
    HoldReason.CONTROLS_UNREAD: "repair or delete the blob with the controls, or correct the "
    "setting that the message names",
    HoldReason.SHARED_POOL: "start an agent of the other availability set, or look at its blob",
    HoldReason.EVENT_UNSEEN: "compare the event document on a VM of the set; to take a VM out: "
    "lb-drain drain, with the name of the VM",
    HoldReason.NIC_UPDATING: "the leader repeats its write every few minutes; if the NIC stays "
    "Updating: az network nic update --ids NIC_ID, or a support request to Azure",
}

_CONSEQUENCES = {
    HoldReason.UNMANAGED_RESOURCE: "the event is not acknowledged: Azure begins it at NotBefore",
    HoldReason.UNREADABLE_EVENT: "no VM is restored, and VMs of that event are not drained",
    HoldReason.VM_GONE: "the ledger keeps its place",
    HoldReason.LOST: "it is missing in that pool",
    HoldReason.NOT_IN_SET: "it is not restored",
    HoldReason.LEDGER_RECOVERED: "a VM may be missing in a pool",
    HoldReason.SET_MISSING: "VMs are managed as they are known, while this agent runs",
    HoldReason.NOT_ACKNOWLEDGED: "the event begins at NotBefore, and not earlier",
    HoldReason.ACKNOWLEDGEMENT_HELD: "the event begins at NotBefore, and not earlier unless it was "
    "acknowledged before",
    HoldReason.NOT_OUT: "the event is not acknowledged yet",
    HoldReason.CONTROLS_UNREAD: "agents work by what they read last for an hour, then by their "
    "files",
    HoldReason.VM_NOT_READY: "it is in its pools and gets no new clients",
    HoldReason.EVENT_UNSEEN: "its VMs are not drained for it",
    HoldReason.NIC_UPDATING: "it is not known whether it gets new connections; its event is not "
    "acknowledged meanwhile",
}


def advice(hold: Hold, events: Sequence[ScheduledEvent], recorded: Iterable[str] = ()) -> Advice:
    """Return what follows from a hold, and the remedy.

    Args:
        hold: the hold.
        events: the events in the document.
        recorded: names of the VMs that are out of rotation, as observed.
    """
    try:
        reason = HoldReason(hold.reason)
    except ValueError:
        return Advice("unknown to this version", "update this command to the version of the agents")
    vms = [fold(each) for each in (hold.vms or (hold.subject,))]
    out = {fold(each) for each in recorded}
    remedy = _REMEDIES[reason].replace("forget VM", f"forget {hold.subject}")
    remedy = remedy.replace("drain VM", f"drain {hold.subject}")
    remedy = remedy.replace("restore VM", f"restore {hold.subject}")
    remedy = remedy.replace("hold EVENT", f"hold {hold.subject}")
    stays_in = reason in STAYS_IN or reason is HoldReason.WRITE_FAILED
    if stays_in and not out.issuperset(vms):
        if reason is HoldReason.INVENTORY_UNREAD:  # it is about every VM of the set
            vms = [fold(name) for event in events for name in event.resources]
        inside = [each for each in vms if each not in out]
        return Advice(_in_rotation(inside, events), remedy)
    if reason in _CONSEQUENCES:
        return Advice(_CONSEQUENCES[reason], remedy)
    return Advice("it stays out of rotation: its pools have fewer members", remedy)


def _in_rotation(vms: list[str], events: Sequence[ScheduledEvent]) -> str:
    """Return what happens to VMs that stay in rotation."""
    coming = [each for each in events if any(each.affects(vm) for vm in vms)]
    if not coming:
        return "the drain waits"
    for event in coming:
        if event.status is EventStatus.STARTED:
            return f"the {event.event_type} has started while the VM is in rotation"
    event = min(coming, key=lambda each: (each.not_before is None, each.not_before))
    when = f"at {event.not_before:%H:%M:%S} UTC" if event.not_before else "at any moment"
    return (
        f"the {event.event_type} can begin {when} while the VM is in rotation; "
        "it is not acknowledged"
    )
