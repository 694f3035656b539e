"""A simulated container with the ledgers of many availability sets, in every state there is."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from controller.core.drain_history import Step
from controller.core.event_record import EventVerdict, Place, Verdict, WatchedEvent, WatchedVm
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.planning.actions import HoldReason
from controller.core.resources import NicMembership
from controller.simulator.app.server import ACCOUNT
from controller.simulator.world.blob_store import Blob, BlobStore
from controller.simulator.world.leases import INFINITE
from controller.storage.ledger_json import encode_ledger
from controller.storage.presence_json import presence_blob_name

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{{group}}/providers"
POOL = "/Microsoft.Network/loadBalancers/lb/backendAddressPools/app"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSet:
    """One set as its blobs show it."""

    name: str
    group: str
    ledger: Ledger
    led: bool = True

    @property
    def blob(self) -> str:
        """The default name of the ledger's blob."""
        return f"{SUBSCRIPTION}/{self.group}/{self.name}.json"


class Fleet:
    """Fills a container of a simulated storage account."""

    def __init__(self, store: BlobStore, container: str, now: datetime) -> None:
        self.store, self.container, self.now = store, container, now
        if (ACCOUNT, container) not in store.containers:
            store.create_container(ACCOUNT, container, now.timestamp())

    def put(
        self, name: str, body: bytes, *, led: bool = False, written_at: datetime | None = None
    ) -> Blob:
        """Put a blob there; `led` means that its lease is held."""
        at = (written_at or self.now).timestamp()
        blob = Blob(
            body=body,
            etag=self.store.next_etag(),
            created_at=at,
            modified_at=at,
            content_type="application/json",
            metadata={},
        )
        if led:
            blob.lease.acquire(str(uuid.UUID(int=1)), INFINITE, at, wait_after_expiry_s=0)
        self.store.containers[ACCOUNT, self.container].blobs[name] = blob
        return blob

    def add(self, found: SimulatedSet, *, written_at: datetime | None = None) -> Blob:
        """Put the ledger of a set there."""
        body = encode_ledger(found.ledger)
        return self.put(found.blob, body, led=found.led, written_at=written_at)

    def add_agents(self, found: SimulatedSet, *silent_s: float) -> None:
        """Put the presence of agents there that were silent for these times; all are alike."""
        for number, age_s in enumerate(silent_s, start=1):
            name = presence_blob_name(found.blob, f"{found.name}-vm{number}")
            self.put(name, b"{}", written_at=self.now - timedelta(seconds=age_s))

    def fill(self, number: int) -> None:
        """Put `number` sets there: some in each state, most of which need no attention."""
        for index in range(number):
            make = STATES[index] if index < len(STATES) else idle
            minutes = 3 + 7 * index % 600
            found = make(f"web-{index:02}", f"rg-{index % 9}", self.now)
            self.add(found, written_at=self.now - timedelta(minutes=minutes))
            self.add_agents(found, *(index % 120 for _ in range(3)))


def base(name: str, group: str, now: datetime) -> Ledger:
    """Return the ledger of a set that is led and has nothing to do."""
    set_id = f"{GROUP}/Microsoft.Compute/availabilitySets/{name}".format(group=group)
    since = now - timedelta(hours=5)
    ledger = Ledger(epoch=4, leader=f"{name}-vm1", leader_since=since, set_id=set_id)
    return ledger.noting(at=since, vm=f"{name}-vm1", step=Step.LEADS)


def entry(vm: str, group: str, now: datetime, *, out: bool = True, minutes: float = 5) -> Entry:
    """Return the record of a VM that is out of rotation, or on its way."""
    scope = GROUP.format(group=group)
    recorded_at = now - timedelta(minutes=minutes)
    return Entry(
        vm=vm,
        vm_id=f"{scope}/Microsoft.Compute/virtualMachines/{vm}",
        events=(EventReference(event_id="E-1", event_type="Reboot"),),
        memberships=(
            NicMembership(
                nic_id=f"{scope}/Microsoft.Network/networkInterfaces/{vm}",
                ip_configuration="ipconfig1",
                pool_id=scope + POOL,
            ),
        ),
        recorded_at=recorded_at,
        out_at=recorded_at + timedelta(seconds=12) if out else None,
    )


def event(vm: str, now: datetime, *, minutes: float, place: Place = Place.UNKNOWN) -> WatchedEvent:
    """Return an announced reboot whose NotBefore is `minutes` away."""
    return WatchedEvent(
        event_id="E-1",
        event_type="Reboot",
        first_seen_at=now - timedelta(minutes=3),
        not_before=now + timedelta(minutes=minutes),
        vms=(WatchedVm(vm=vm, place=place),),
    )


def verdict(vm: str, now: datetime, what: Verdict, *, hours: float) -> EventVerdict:
    """Return what became of a freeze some hours ago."""
    at = now - timedelta(hours=hours)
    late = what is Verdict.LATE
    out_at = None if what is Verdict.HIT_IN_ROTATION else at - timedelta(minutes=1 if late else 14)
    return EventVerdict(
        at=at,
        vm=vm,
        event_id="E-0",
        event_type="Freeze",
        verdict=what.value,
        not_before=at - timedelta(minutes=2),
        out_at=out_at,
        why="the floor held it" if what is Verdict.HIT_IN_ROTATION else "",
    )


def idle(name: str, group: str, now: datetime) -> SimulatedSet:
    """A set that is led, whose last event was drained in time."""
    found = verdict(f"{name}-vm2", now, Verdict.DRAINED, hours=50)
    ledger = replace(base(name, group, now), verdicts=(found,))
    return SimulatedSet(name=name, group=group, ledger=ledger)


def draining(name: str, group: str, now: datetime) -> SimulatedSet:
    """A set in ordinary maintenance."""
    vm = f"{name}-vm2"
    ledger = base(name, group, now).with_entry(entry(vm, group, now))
    ledger = replace(ledger, events=(event(vm, now, minutes=9, place=Place.OUT),))
    return SimulatedSet(name=name, group=group, ledger=ledger)


def announced(name: str, group: str, now: datetime) -> SimulatedSet:
    """A set with an event that is hours away."""
    ledger = base(name, group, now)
    ledger = replace(ledger, events=(event(f"{name}-vm3", now, minutes=300),))
    return SimulatedSet(name=name, group=group, ledger=ledger)


def at_risk(name: str, group: str, now: datetime) -> SimulatedSet:
    """A set whose floor holds a VM in rotation, a minute before NotBefore."""
    vm = f"{name}-vm1"
    message = f"{vm} stays in pool lb/app: 0 healthy members would remain, min_in_service is 1"
    since = now - timedelta(minutes=12)
    hold = Hold(subject=vm, reason=HoldReason.FLOOR.value, message=message, since=since)
    watched = event(vm, now, minutes=1, place=Place.IN_ROTATION)
    ledger = replace(base(name, group, now), holds=(hold,), events=(watched,))
    return SimulatedSet(name=name, group=group, ledger=ledger)


def without_leader(name: str, group: str, now: datetime) -> SimulatedSet:
    """A set whose agents have stopped, with a VM out."""
    ledger = base(name, group, now).with_entry(entry(f"{name}-vm2", group, now, minutes=200))
    return SimulatedSet(name=name, group=group, ledger=ledger, led=False)


def hit(name: str, group: str, now: datetime) -> SimulatedSet:
    """A set with a VM that was hit in rotation two hours ago."""
    found = verdict(f"{name}-vm2", now, Verdict.HIT_IN_ROTATION, hours=2)
    ledger = replace(base(name, group, now), verdicts=(found,))
    return SimulatedSet(name=name, group=group, ledger=ledger)


def late(name: str, group: str, now: datetime) -> SimulatedSet:
    """A set with a late drain three hours ago."""
    found = verdict(f"{name}-vm2", now, Verdict.LATE, hours=3)
    ledger = replace(base(name, group, now), verdicts=(found,))
    return SimulatedSet(name=name, group=group, ledger=ledger)


def out_too_long(name: str, group: str, now: datetime) -> SimulatedSet:
    """A set with a VM that has been out for hours."""
    ledger = base(name, group, now).with_entry(entry(f"{name}-vm2", group, now, minutes=190))
    return SimulatedSet(name=name, group=group, ledger=ledger)


def unused(name: str, group: str, now: datetime) -> SimulatedSet:
    """A set that no agent has led yet."""
    del now
    return SimulatedSet(name=name, group=group, ledger=Ledger(), led=False)


STATES: tuple[Callable[[str, str, datetime], SimulatedSet], ...] = (
    idle,
    draining,
    announced,
    at_risk,
    without_leader,
    hit,
    late,
    out_too_long,
    unused,
)
HOSTILE: Mapping[str, bytes] = {
    "garbage": b"\x00\xff garbage",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "newer": b'{"version": "2.0", "everything": "else"}',
    "foreign": b'{"version": 4, "terraform_version": "1.9.0", "serial": 12}',
    "huge": b" " * (5 * 1024 * 1024),
    "escape": b'{"version": "\\u001b[2J1.0"}',
}
"""Contents of blobs that are no ledgers of this version."""


def utc_now() -> datetime:
    """Return the wall clock without microseconds, as storage sends it."""
    return datetime.now(UTC).replace(microsecond=0)
