"""The laws of the planner over a tiny model world, with crashes after every prefix of a plan.

The world is a handful of dicts that change only through the actions of a plan, through events on
their way, and through operators. The agent's memory is apart from it and can be lost at any time;
only the ledger survives.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold, load_balancer_of
from controller.core.drain_requests import DRAIN_REQUEST, DrainRequest, DrainRequests
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.ledger import Ledger
from controller.core.observation import Deferral, Observation
from controller.core.planning.actions import (
    Acknowledge,
    Action,
    ChangeMembership,
    Read,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
    ReadSharedPool,
)
from controller.core.planning.nic_pool import NicPool
from controller.core.planning.planner import plan
from controller.core.planning.write_log import WriteLog
from controller.core.policy import Floor
from controller.core.resources import (
    AddressMembership,
    IpConfiguration,
    Membership,
    MembershipKey,
    Nic,
    NicMembership,
    Pool,
    PoolKind,
    PoolMember,
    PowerState,
    Vm,
)
from controller.core.shared_pools import PoolShares, SharedPool
from controller.storage.ledger_json import decode_ledger, encode_ledger
from tests.support.policies import make_policy

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
NAMES = ("web-1", "web-2", "web-3")
APP = "/s/Microsoft.Network/loadBalancers/one/backendAddressPools/app"
API = "/s/Microsoft.Network/loadBalancers/one/backendAddressPools/api"
ADDRESSES = "/s/Microsoft.Network/loadBalancers/two/backendAddressPools/addresses"
POLICY = make_policy(
    pools={APP: Floor(number=1), API: Floor(number=34, percent=True), ADDRESSES: Floor(number=1)}
)
NOTICE_S = 600.0
ASKED_S = 900.0
READ_PASSES = 4
"""A read wakes the next pass; so many may follow each other at once."""
LATE_S = 50.0
"""How long a write may take to show after nobody waits for it any more."""
VIEWS_S = 60.0
"""How long an agent may act on what was true before somebody else changed it."""


def nic_id(name: str) -> str:
    return f"/s/Microsoft.Network/networkInterfaces/{name}"


def vm_of(membership: Membership) -> str:
    assert isinstance(membership, NicMembership | AddressMembership)
    return membership.name if isinstance(membership, AddressMembership) else membership.nic_id[-5:]


@dataclass
class World:
    """What is true."""

    now: float = 0.0
    pools_of: dict[str, list[str]] = field(
        default_factory=lambda: {name: [APP, API] for name in NAMES}
    )
    addresses: dict[str, AddressMembership] = field(
        default_factory=lambda: {
            name: AddressMembership(
                pool_id=ADDRESSES, name=name, ip_address=f"10.0.0.{number}", body="{}"
            )
            for number, name in enumerate(NAMES)
        }
    )
    events: dict[str, ScheduledEvent] = field(default_factory=dict)
    requests: DrainRequests = field(default_factory=DrainRequests)
    acknowledged: set[str] = field(default_factory=set)
    ours: set[MembershipKey] = field(default_factory=set)
    """Removed by an agent and not put back by anybody."""
    stopped: set[str] = field(default_factory=set)
    """VMs that are down; they boot some time after their event has left the document."""
    pending: list[tuple[float, ChangeMembership]] = field(default_factory=list)
    """Writes whose end nobody waits for any more, and when they take effect."""
    operator_at: float = -1e9
    """When an operator last changed a pool."""

    def at(self) -> datetime:
        return T0 + timedelta(seconds=self.now)

    def nic(self, name: str) -> Nic:
        number = NAMES.index(name)
        return Nic(
            nic_id=nic_id(name),
            vm_id=f"/vms/{name}",
            etag="",
            observed_at=self.at(),
            body={},
            ip_configurations=(
                IpConfiguration(
                    name="c", pool_ids=tuple(self.pools_of[name]), private_ip=f"10.0.0.{number}"
                ),
            ),
        )

    def vm(self, name: str) -> Vm:
        return Vm(
            name=name.upper(),
            vm_id=f"/vms/{name}",
            nic_ids=(nic_id(name),),
            power=PowerState.NOT_RUNNING if name in self.stopped else PowerState.RUNNING,
            power_observed_at=self.at(),
        )

    def pool(self, pool_id: str) -> Pool:
        if pool_id == ADDRESSES:
            # A pool of addresses shows a write before it has taken effect.
            shown = dict(self.addresses)
            for _, action in self.pending:
                for membership in action.memberships:
                    if not isinstance(membership, AddressMembership):
                        continue
                    shown.pop(membership.name, None)
                    if action.restore:
                        shown[membership.name] = membership
            members = [PoolMember(address=each) for each in shown.values()]
        else:
            members = [
                PoolMember(ip_configuration_id=f"{nic_id(name)}/ipConfigurations/C")
                for name in NAMES
                if pool_id in self.pools_of[name]
            ]
        return Pool(
            pool_id=pool_id, kind=PoolKind.NIC, members=tuple(members), observed_at=self.at()
        )

    def members(self, pool_id: str) -> set[str]:
        if pool_id == ADDRESSES:
            return set(self.addresses)
        return {name for name in NAMES if pool_id in self.pools_of[name]}

    def state(self) -> tuple[object, object]:
        return {n: sorted(p) for n, p in self.pools_of.items()}, dict(self.addresses)


@dataclass
class Memory:
    """What an agent loses with its process."""

    requests: tuple[DrainRequest, ...] | None = None
    clean: tuple[EventDocument, ...] = ()
    document: EventDocument | None = None
    document_at: datetime | None = None
    clean_polls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    vms: dict[str, Vm] = field(default_factory=dict)
    nics: dict[str, Nic] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    shared: dict[str, SharedPool] = field(default_factory=dict)
    inventory_at: datetime | None = None
    sent: WriteLog = field(default_factory=WriteLog)
    acknowledged: dict[str, datetime] = field(default_factory=dict)
    deferred: dict[ActionKey, Deferral] = field(default_factory=dict)
    attempts: dict[ActionKey, int] = field(default_factory=dict)


class Run:
    """One history: a world, a durable ledger, and an agent that may be replaced at any time."""

    def __init__(self) -> None:
        self.world = World()
        self.blob = b""
        self.memory = Memory()
        self.writes = 0
        self.read = False
        """Whether the last pass read anything."""

    def land(self, resource: str = "") -> None:
        """Let late writes take effect; a resource finishes one write before it takes the next."""
        world = self.world
        for landing in list(world.pending):
            at, action = landing
            mine = action.resource_id
            if at > world.now and mine != resource:
                continue
            world.pending.remove(landing)
            standing = self._standing()
            changed = [m for m in action.memberships if (m.key in standing) is not action.restore]
            for name in {vm_of(m) for m in changed} if action.restore else ():
                for event_id in world.acknowledged & set(world.events):
                    event = world.events[event_id]
                    quiet = event.status is EventStatus.STARTED or not event.affects(name)
                    assert quiet, f"S1: {name} comes back after {event_id} was acknowledged"
            self._change(action, changed)

    @property
    def ledger(self) -> Ledger:
        return decode_ledger(self.blob)

    # --- the agent ---

    def poll(self, *, good: bool = True) -> None:
        memory = self.memory
        self.land()
        if not good:
            memory.clean = ()
            memory.clean_polls = dict.fromkeys(NAMES, 0)
            return
        memory.requests = self.world.requests.requests
        document = EventDocument(incarnation=None, events=tuple(self.world.events.values()))
        memory.document, memory.document_at = document, self.world.at()
        memory.clean = (*memory.clean, document)[-2:]
        for name in NAMES:
            named = any(event.affects(name) for event in document.events)
            memory.clean_polls[name] = 0 if named else memory.clean_polls[name] + 1

    def steps(self) -> list[Action | Ledger]:
        """Return what a pass would do, in order: its actions, then the ledger it wants."""
        memory = self.memory
        observed = Observation(
            document=memory.document,
            document_at=memory.document_at,
            clean_documents=memory.clean,
            vms=tuple(memory.vms.values()),
            nics=tuple(memory.nics.values()),
            pools=tuple(memory.pools.values()),
            shared_pools=MappingProxyType(memory.shared),
            inventory_at=memory.inventory_at,
            unsent=memory.sent.unsent,
            acknowledged=MappingProxyType(memory.acknowledged),
            deferred=MappingProxyType(memory.deferred),
            attempts=MappingProxyType(memory.attempts),
            sent_at=MappingProxyType(memory.sent.sent_at),
            ended_at=MappingProxyType(memory.sent.ended_at),
            requests=memory.requests,
            write_slots=4,
        )
        planned = plan(observed, self.ledger, POLICY, self.world.at())
        targets = [action.target for action in planned.actions]
        assert len(targets) == len(set(targets))
        assert planned.wake_at is None or planned.wake_at > self.world.at()
        wanted = [] if planned.ledger is None else [planned.ledger]
        return [*planned.actions, *wanted]

    def run_pass(self, *, fault: str = "", crash_after: int | None = None) -> bool:
        """Carry out a pass, and those that its reads wake at once; tell whether it did anything."""
        did = self._run_one(fault, crash_after)
        for _ in range(READ_PASSES):
            if crash_after is not None or not self.read:
                break
            self._run_one(fault, None)
        return did

    def _run_one(self, fault: str, crash_after: int | None) -> bool:
        self.read = False
        steps = self.steps()
        for step in steps[:crash_after]:
            if isinstance(step, Ledger):
                self._write_ledger(step)
            else:
                self.read |= isinstance(step, Read)
                self._apply(step, fault)
        if crash_after is not None:
            self.memory = Memory()
            self.blob = encode_ledger(replace(self.ledger, leader_since=self.world.at()))
        return bool(steps)

    def _write_ledger(self, wanted: Ledger) -> None:
        memory, before = self.memory, self.ledger
        memory.sent.recorded(before, wanted)
        for entry in before.entries:
            if wanted.entry(entry.vm) is None:
                inside = all(m.key in self._standing() for m in entry.memberships)
                lost = {m.key for m in entry.memberships} & memory.sent.unsent
                recent = self.world.now - self.world.operator_at < VIEWS_S
                assert inside or lost or recent, f"S5: {entry} was forgotten"
        self.blob = encode_ledger(wanted)

    def _standing(self) -> set[MembershipKey]:
        world = self.world
        found = {
            NicMembership(pool_id=pool, nic_id=nic_id(name), ip_configuration="c").key
            for name in NAMES
            for pool in world.pools_of[name]
        }
        return found | {each.key for each in world.addresses.values()}

    def _apply(self, action: Action, fault: str) -> None:
        memory, world = self.memory, self.world
        if fault == "not sent":
            self._defer(action, "no")
            return
        match action:
            case ReadInventory():
                memory.inventory_at = world.at()
                memory.vms = {name: world.vm(name) for name in NAMES}
                memory.nics = {name: replace(world.nic(name), body=None) for name in NAMES}
                self._see_pools(POLICY.pools)
            case ReadLoadBalancer():
                wanted = action.load_balancer_id
                self._see_pools(
                    {p: f for p, f in POLICY.pools.items() if load_balancer_of(p) == wanted}
                )
            case ReadNic():
                name = action.nic_id[-5:]
                memory.nics[name] = world.nic(name)
            case ReadPower():
                name = action.vm_id[-5:]
                memory.vms[name] = world.vm(name)
            case ReadSharedPool():
                memory.shared[fold(action.pool_id)] = SharedPool(
                    shares=PoolShares(pool_id=action.pool_id),
                    availability_set_id="/s/set",
                    etag="",
                    observed_at=world.at(),
                )
            case Acknowledge():
                self._acknowledge(action)
            case ChangeMembership():
                if self._write(action, late=fault == "late") and fault in {"lost reply", "late"}:
                    self._defer(action)
                    return
                self._verify(action)
                resource = action.resource_id
                memory.sent.ended(action.target, resource, world.at())
        memory.deferred.pop(action.key, None)
        memory.attempts.pop(action.key, None)

    def _defer(self, action: Action, message: str = "") -> None:
        memory, until = self.memory, self.world.at() + timedelta(seconds=2)
        attempts = memory.attempts[action.key] = memory.attempts.get(action.key, 0) + 1
        memory.deferred[action.key] = Deferral(
            until=until, reason="x", message=message, attempts=attempts
        )

    def _see_pools(self, pools: Mapping[str, Floor]) -> None:
        for pool_id in pools:
            self.memory.pools[pool_id] = self.world.pool(pool_id)

    def _verify(self, action: ChangeMembership) -> None:
        if action.method == NicPool():
            name = action.resource_id[-5:]
            self.memory.nics[name] = self.world.nic(name)
        else:
            self.memory.pools[ADDRESSES] = self.world.pool(ADDRESSES)

    def _write(self, action: ChangeMembership, *, late: bool) -> bool:
        """Apply a write as the adapter does: what is so already is not written."""
        world, memory = self.world, self.memory
        resource = action.resource_id
        self.land(resource)
        changed = [
            m for m in action.memberships if (m.key in self._standing()) is not action.restore
        ]
        if action.restore:
            self._check_restore(changed)
        else:
            self._check_removal(changed)
        memory.sent.starting(action.target)
        if changed:
            memory.sent.sending(action.target, resource, changed, world.at())
            self.writes += 1
        if changed and late:
            world.pending.append((world.now + LATE_S, action))
        else:
            self._change(action, changed)
        return bool(changed)

    def _change(
        self,
        action: ChangeMembership,
        changed: list[Membership],
    ) -> None:
        world = self.world
        for membership in changed:
            name = vm_of(membership)
            match membership:
                case NicMembership() if action.restore:
                    world.pools_of[name].insert(membership.position, membership.pool_id)
                case NicMembership():
                    world.pools_of[name].remove(membership.pool_id)
                case AddressMembership() if action.restore:
                    world.addresses[name] = membership
                case AddressMembership():
                    del world.addresses[name]
            (world.ours.discard if action.restore else world.ours.add)(membership.key)

    # --- the laws ---

    def _check_removal(self, changed: list[Membership]) -> None:
        for membership in changed:
            entry = self.ledger.entry(vm_of(membership))
            assert entry is not None, "S5: removed without a durable entry"
            assert entry.holds(membership.key), "S5: removed what is not recorded"
            assert entry.restored_at is None
            assert not entry.removed, "S5: removed again without a new record"
        if self.world.now - self.world.operator_at < VIEWS_S:
            return
        leaving = {vm_of(membership) for membership in changed}
        stopped = {
            name
            for event in self.world.events.values()
            for name in event.resources
            if event.status is EventStatus.STARTED
        }
        for pool_id in {membership.pool_id for membership in changed}:
            staying = self.world.members(pool_id) - leaving - stopped
            full = 2 if pool_id == API and len(NAMES) == 3 else 1
            assert len(staying) >= full, f"S2: {leaving} leave {staying} in {pool_id}"

    def _check_restore(self, changed: list[Membership]) -> None:
        for membership in changed:
            name = vm_of(membership)
            entry = self.ledger.entry(name)
            assert entry is not None
            assert entry.restoring_at is not None, "S1: restored without writing it ahead"
            assert entry.out_at is None
            assert membership.key in self.world.ours, "S3: restored what we did not remove"
            assert self.memory.clean_polls[name] >= 2, "S6: restored without two clean polls"
            assert not any(e.affects(name) for e in self.memory.clean[-1].events)
            assert name not in self.world.stopped, "S6: restored a VM that does not run"
            by_hand = any(reference.event_type == DRAIN_REQUEST for reference in entry.events)
            assert self.memory.requests is not None or not by_hand, "S6: requests are not known"
            for request in self.memory.requests or ():
                asked = fold(request.vm) == name and request.is_active(self.world.at())
                assert not asked, "S6: restored while somebody wants it out"

    def _acknowledge(self, action: Acknowledge) -> None:
        event = self.world.events.get(action.event_id)
        self.memory.acknowledged[fold(action.event_id)] = self.world.at()
        if event is None:
            return
        assert event.status is EventStatus.SCHEDULED, "S1: acknowledged after the start"
        self.world.acknowledged.add(action.event_id)
        if self.world.now - self.world.operator_at < VIEWS_S:
            return
        for name in event.resources:
            for pool_id in POLICY.pools:
                assert name not in self.world.members(pool_id), f"S1: {name} is in {pool_id}"

    # --- the world goes on ---

    def announce(self, names: tuple[str, ...]) -> None:
        event_id = f"E-{len(self.world.events)}-{self.world.now:g}"
        self.world.events[event_id] = ScheduledEvent(
            event_id=event_id,
            event_type="Reboot",
            status=EventStatus.SCHEDULED,
            resources=names,
            not_before=self.world.at() + timedelta(seconds=NOTICE_S),
        )

    def ask(self, name: str) -> None:
        """Somebody wants a VM out for a quarter of an hour."""
        asked = self.world.at()
        request = DrainRequest(
            request_id=f"R-{len(self.world.requests.requests)}-{self.world.now:g}",
            vm=name,
            reason="",
            by="ann",
            at=asked,
            until=asked + timedelta(seconds=ASKED_S),
        )
        self.world.requests = self.world.requests.adding(request)

    def start(self) -> None:
        for event_id, event in self.world.events.items():
            self.world.stopped.update(event.resources)
            self.world.events[event_id] = replace(
                event, status=EventStatus.STARTED, not_before=None
            )

    def operate(self, name: str, *, put_back: bool) -> None:
        """An operator's edit: a removal only of a VM that no agent is concerned with."""
        world = self.world
        self.land(nic_id(name))
        entry = self.ledger.entry(name)
        concerned = any(event.affects(name) for event in world.events.values())
        if put_back:
            for membership in entry.memberships if entry else ():
                if membership.key in world.ours and isinstance(membership, NicMembership):
                    world.pools_of[name].append(membership.pool_id)
                    world.ours.discard(membership.key)
                    world.operator_at = world.now
        elif entry is None and not concerned and API in world.pools_of[name]:
            world.pools_of[name].remove(API)
            world.operator_at = world.now

    def settle(self) -> None:
        """Faults stop, maintenance ends: law L1 promises an end."""
        self.world.events.clear()
        self.world.stopped.clear()
        self.world.now += ASKED_S
        for _ in range(60):
            self.world.now += 7
            self.poll()
            if not self.run_pass() and not self.ledger.entries and not self.world.pending:
                return
        raise AssertionError(f"L1: {self.ledger} after 60 passes, {self.steps()}")


NAME = st.sampled_from(NAMES)
SUBSETS = st.sampled_from([("web-1",), ("web-2",), ("web-3", "web-1"), ("web-2", "web-3"), NAMES])
STEPS = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from(["", "", "", "not sent", "lost reply", "late"])),
    st.tuples(st.just("passes"), st.sampled_from([1, 3, 6])),
    st.tuples(st.just("crash"), st.integers(0, 4)),
    st.tuples(st.just("time"), st.sampled_from([0.5, 3.0, 12.0, 35.0, 400.0])),
    st.tuples(st.just("announce"), SUBSETS),
    st.tuples(st.just("ask"), NAME),
    st.tuples(st.just("withdraw"), NAME),
    st.tuples(st.just("requests lost"), st.just(0)),
    st.tuples(st.just("start"), st.just(0)),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("boot"), st.just(0)),
    st.tuples(st.just("bad poll"), st.just(0)),
    st.tuples(st.just("operator removes"), NAME),
    st.tuples(st.just("operator puts back"), NAME),
)

HISTORIES = st.builds(
    lambda names, during, after: [("announce", names), ("passes", 6), *during, ("end", 0), *after],
    SUBSETS,
    st.lists(STEPS, max_size=20),
    st.lists(STEPS, max_size=10),
)


def play(run: Run, kind: str, value: object) -> None:
    if kind in {"pass", "passes", "crash"}:
        run.poll()
    match kind, value:
        case "pass", str(fault):
            run.run_pass(fault=fault)
        case "passes", int(count):
            for _ in range(count):
                run.world.now += 4
                run.poll()
                run.run_pass()
        case "crash", int(after):
            run.run_pass(crash_after=after)
        case "time", float(seconds):
            run.world.now += seconds
        case "announce", tuple(names):
            run.announce(names)
        case "ask", str(name):
            run.ask(name)
        case "withdraw", str(name):
            at = run.world.at()
            run.world.requests = run.world.requests.withdrawing(name, at=at, by="ben")
        case "requests lost", _:
            run.world.requests = DrainRequests()
        case "start", _:
            run.start()
        case "end", _:
            run.world.events.clear()
        case "boot", _:
            run.world.stopped.clear()
        case "bad poll", _:
            run.poll(good=False)
            run.run_pass()
        case "operator removes", str(name):
            run.operate(name, put_back=False)
        case "operator puts back", str(name):
            run.operate(name, put_back=True)
        case _:
            raise AssertionError(kind)


@given(HISTORIES)
@settings(max_examples=500)
def test_laws_hold_in_every_history(script: list[tuple[str, object]]) -> None:
    """S1, S2, S3, S5, S6 at every step, and L1 at the end: everything is as operators left it."""
    run = Run()
    expected = {name: {APP, API} for name in NAMES}
    for kind, value in script:
        before = {name: set(pools) for name, pools in run.world.pools_of.items()}
        play(run, kind, value)
        if kind == "operator removes":
            for name in NAMES:
                expected[name] -= before[name] - set(run.world.pools_of[name])
    run.settle()
    assert {name: set(pools) for name, pools in run.world.pools_of.items()} == expected
    assert run.world.addresses == World().addresses
    assert run.ledger.entries == ()
    assert run.world.ours == set()


def maintenance(run: Run, names: tuple[str, ...], *, crash_at: int | None, after: int) -> int:
    """One whole maintenance without faults, but for one crash; return how many passes it took."""
    passes = 0

    def go(count: int) -> None:
        nonlocal passes
        for _ in range(count):
            run.world.now += 4
            run.poll()
            run.run_pass(crash_after=after if passes == crash_at else None)
            passes += 1

    run.announce(names)
    go(36)  # a successor waits a minute for what its predecessor may have sent
    assert run.world.acknowledged == set(run.world.events), "L2: not acknowledged in time"
    for name in names:
        assert all(name not in run.world.members(pool_id) for pool_id in POLICY.pools)
    run.start()
    go(3)
    run.world.events.clear()
    run.world.stopped.clear()
    go(28)
    return passes


@pytest.mark.slow
@given(
    names=st.sampled_from([("web-1",), ("web-2",)]),
    crash_at=st.integers(0, 66),
    after=st.integers(0, 4),
)
@settings(max_examples=150)
def test_a_crash_after_any_prefix_changes_nothing(
    names: tuple[str, ...], crash_at: int, after: int
) -> None:
    """A successor continues from observation plus ledger: the same end, the event acknowledged."""
    run = Run()
    maintenance(run, names, crash_at=crash_at, after=after)
    run.settle()
    assert run.world.state() == World().state()
    assert run.world.pools_of == World().pools_of, "the order of each list is the old one (S3)"
    assert run.ledger.entries == ()


def test_a_maintenance_takes_four_writes() -> None:
    """H1: without faults a VM costs one write per NIC and pool each way, and idling costs none."""
    run = Run()
    maintenance(run, ("web-1",), crash_at=None, after=0)
    run.settle()
    assert run.writes == 4
    run.settle()
    assert run.writes == 4


WEB_1 = ("announce", ("web-1",))
LATE = [("pass", "late"), ("pass", "late")]
LATE_RESTORE = [
    WEB_1, ("passes", 6), ("end", 0), ("passes", 1), ("time", 3.0), *LATE, WEB_1,
    *[("passes", 6)] * 5, ("end", 0),
]  # fmt: skip
LATE_REMOVAL = [WEB_1, ("passes", 1), ("passes", 1), *LATE, ("end", 0), *[("passes", 6)] * 3]


@pytest.mark.parametrize("script", [LATE_RESTORE, LATE_REMOVAL], ids=["restore", "removal"])
def test_late_writes(script: list[tuple[str, object]]) -> None:
    """S1, S5: a restore that lands late finds nothing acknowledged, a removal is undone."""
    run = Run()
    for kind, value in script:
        play(run, kind, value)
    run.settle()
    assert run.world.state() == World().state()
