"""A set as the agent sees it, for tests of the planner: one observation and one ledger.

Every view is fresh and every VM in service unless a test says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from controller.core.action_keys import ActionKey, action_key
from controller.core.azure_names import fold
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Deferral, Observation
from controller.core.planning.actions import Acknowledge, ChangeMembership, Phase, Plan
from controller.core.planning.address_pool import AddressPool
from controller.core.planning.evidence import Evidence
from controller.core.planning.mechanisms import MECHANISMS
from controller.core.planning.nic_pool import NicPool
from controller.core.planning.planner import plan
from controller.core.policy import Floor, Policy
from controller.core.presence import UNKNOWN, Existence, Presence, Source
from controller.core.resources import (
    AddressMembership,
    IpConfiguration,
    Nic,
    NicMembership,
    Pool,
    PoolHealth,
    PoolKind,
    PoolMember,
    PowerState,
    Vm,
)
from controller.core.shared_pools import PoolShares, SharedPool
from tests.support.policies import make_policy

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
RG = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers"
LB = f"{RG}/Microsoft.Network/loadBalancers/web"
APP = f"{LB}/backendAddressPools/app"
API = f"{LB}/backendAddressPools/api"
LB2 = f"{RG}/Microsoft.Network/loadBalancers/other"
FAR = f"{LB2}/backendAddressPools/far"
BODY: Mapping[str, object] = {"properties": {}}


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def vm_id(name: str) -> str:
    return f"{RG}/Microsoft.Compute/virtualMachines/{name}"


def nic_id(name: str) -> str:
    return f"{RG}/Microsoft.Network/networkInterfaces/{name}-nic"


def ip_id(name: str) -> str:
    return f"{nic_id(name)}/ipConfigurations/ipconfig1"


def event(
    *resources: str, event_id: str = "E-1", not_before: float | None = 600, **fields: Any
) -> ScheduledEvent:
    return ScheduledEvent(
        event_id=event_id,
        event_type=fields.pop("event_type", "Reboot"),
        status=fields.pop("status", EventStatus.SCHEDULED),
        resources=resources or ("web-1",),
        not_before=None if not_before is None else at(not_before),
        **fields,
    )


def started(*resources: str, **fields: Any) -> ScheduledEvent:
    return event(*resources, not_before=None, status=EventStatus.STARTED, **fields)


def one_absence() -> Presence:
    """Return what one reply proves that did not show a resource."""
    return UNKNOWN.after(Existence.ABSENT, at=T0, source=Source.READ)


def lasting_absence(*resource_ids: str, source: Source = Source.READ) -> dict[str, Presence]:
    """Return what two minutes of replies prove that did not show these resources."""
    lasting = one_absence().after(Existence.ABSENT, at=at(120), source=source)
    return {fold(each): lasting for each in resource_ids}


def membership(name: str, pool_id: str = APP, position: int = 0) -> NicMembership:
    return NicMembership(
        pool_id=pool_id, nic_id=nic_id(name), ip_configuration="ipconfig1", position=position
    )


def address(name: str, ip: str, pool_id: str = APP) -> AddressMembership:
    return AddressMembership(pool_id=pool_id, name=name, ip_address=ip, body="{}")


@dataclass
class PlannerScenario:
    """A set as the agent sees it, every view fresh unless a test says otherwise."""

    now: float = 0
    events: list[ScheduledEvent] = field(default_factory=list)
    inside: dict[str, list[str]] = field(
        default_factory=lambda: {f"web-{n}": [APP] for n in (1, 2, 3)}
    )
    """Pools of every VM's NIC."""
    addresses: dict[str, list[AddressMembership]] = field(default_factory=dict)
    ips: dict[str, str] = field(default_factory=dict)
    policy: Policy = field(default_factory=lambda: make_policy(pools={APP: Floor(number=1)}))
    ledger: Ledger = field(default_factory=Ledger)
    nics: dict[str, dict[str, Any]] = field(default_factory=dict)
    vms: dict[str, dict[str, Any]] = field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    clean: bool = True
    slots: int = 9
    strangers: list[str] = field(default_factory=list)
    """ipConfiguration ids of foreign members of APP."""
    shared: SharedPool | None = None
    """What was read from the blob of APP; by default other sets state nothing about any pool."""

    def observe(self, **over: Any) -> Observation:
        document = EventDocument(incarnation=1, events=tuple(self.events))
        fields: dict[str, Any] = {
            "document": document,
            "document_at": at(self.now),
            "clean_documents": (document, document) if self.clean else (document,),
            "vms": tuple(self._vm(name) for name in self.inside),
            "nics": tuple(self._nic(name) for name in self.inside),
            "pools": tuple(self._pool(pool_id) for pool_id in self.policy.pools),
            "inventory_at": at(self.now),
            "health": {fold(each): self._health(each) for each in self.policy.pools},
            "shared_pools": self._shared_pools(),
            "write_slots": self.slots,
        }
        absent = over.pop("absent", frozenset[str]())
        if missing := over.pop("missing", frozenset[str]()):
            over["presence"] = lasting_absence(*missing)
        elif absent:
            over["presence"] = {each: one_absence() for each in absent}
        return Observation(**{**fields, **over})

    def _shared_pools(self) -> dict[str, SharedPool]:
        if self.shared is not None:
            return {fold(APP): self.shared}
        return {
            fold(pool_id): SharedPool(
                shares=PoolShares(pool_id=pool_id),
                availability_set_id=f"{RG}/Microsoft.Compute/availabilitySets/web",
                etag="",
                observed_at=at(self.now),
            )
            for pool_id in self.policy.pools
        }

    def _vm(self, name: str) -> Vm:
        fields: dict[str, Any] = {
            "name": name,
            "vm_id": vm_id(name),
            "nic_ids": (nic_id(name),),
            "power": PowerState.RUNNING,
            "power_observed_at": at(self.now),
        }
        return Vm(**{**fields, **self.vms.get(name, {})})

    def _nic(self, name: str) -> Nic:
        fields: dict[str, Any] = {
            "nic_id": nic_id(name),
            "vm_id": vm_id(name),
            "etag": "1",
            "ip_configurations": (
                IpConfiguration(
                    name="ipconfig1",
                    pool_ids=tuple(self.inside[name]),
                    private_ip=self.ips.get(name, ""),
                ),
            ),
            "observed_at": at(self.now),
            "body": BODY,
        }
        return Nic(**{**fields, **self.nics.get(name, {})})

    def _health(self, pool_id: str) -> PoolHealth:
        """Return that no member of a pool is reported as down."""
        return PoolHealth(pool_id=pool_id, down=frozenset(), observed_at=at(self.now))

    def _pool(self, pool_id: str) -> Pool:
        members = [
            PoolMember(ip_configuration_id=ip_id(name))
            for name, pools in self.inside.items()
            if pool_id in pools
        ]
        members += [PoolMember(ip_configuration_id=each) for each in self.strangers]
        members += [PoolMember(address=each) for each in self.addresses.get(pool_id, [])]
        fields: dict[str, Any] = {
            "pool_id": pool_id,
            "kind": PoolKind.NIC,
            "members": tuple(members),
            "observed_at": at(self.now),
        }
        return Pool(**{**fields, **self.pools.get(pool_id, {})})

    def plan(self, **over: Any) -> Plan:
        return plan(self.observe(**over), self.ledger, self.policy, at(self.now))

    def evidence(self, **over: Any) -> Evidence:
        """Return what the planner can prove in this situation."""
        observed, now = self.observe(**over), at(self.now)
        return Evidence(observed, self.ledger, self.policy, now, MECHANISMS)

    def adopt(self, **over: Any) -> Plan:
        """Plan, and make the planned ledger durable."""
        planned = self.plan(**over)
        self.ledger = planned.ledger or self.ledger
        return planned

    def through(self, **over: Any) -> Plan:
        """Plan and make durable until the ledger says it all, as one pass of the agent does."""
        for _ in range(4):
            planned = self.adopt(**over)
            if planned.ledger is None:
                return planned
        raise AssertionError("the ledger never says it all")

    def take_out(self, name: str = "web-1") -> None:
        """Record, remove and note out one VM that is due."""
        self.adopt()
        self.inside[name] = []
        self.now += 5
        self.adopt()
        assert self.entry(name).out_at == at(self.now)

    def take_out_addresses(self, pool_id: str) -> None:
        """Record, remove and note out every address of one pool."""
        self.adopt()
        self.addresses[pool_id] = []
        self.now += 5
        self.adopt()

    def entry(self, name: str = "web-1") -> Entry:
        found = self.ledger.entry(name)
        assert found is not None
        return found


def writes(planned: Plan) -> list[ChangeMembership]:
    return [a for a in planned.actions if isinstance(a, ChangeMembership)]


def acknowledged(planned: Plan) -> list[str]:
    return [a.event_id for a in planned.actions if isinstance(a, Acknowledge)]


def phase(planned: Plan, name: str = "web-1") -> Phase:
    return next(each.phase for each in planned.phases if fold(each.vm) == fold(name))


def reasons(planned: Plan) -> dict[str, str]:
    return {hold.subject: hold.reason for hold in planned.holds}


def change_nic(*memberships: NicMembership, restore: bool) -> ChangeMembership:
    """Return the write of one NIC."""
    return ChangeMembership(method=NicPool(), memberships=memberships, restore=restore)


def change_pool(*memberships: AddressMembership, restore: bool) -> ChangeMembership:
    """Return the write of one IP-based pool."""
    return ChangeMembership(method=AddressPool(), memberships=memberships, restore=restore)


def nic_key(name: str) -> ActionKey:
    """Return what back-off of writes of a VM's NIC is kept by."""
    return action_key("write", nic_id(name))


def pool_key(pool_id: str, *, restore: bool) -> ActionKey:
    """Return what back-off of writes of an IP-based pool is kept by."""
    return action_key("restore" if restore else "remove", pool_id)


def removal(name: str = "web-1", *pools: str) -> ChangeMembership:
    items = tuple(membership(name, p, n) for n, p in enumerate(pools or (APP,)))
    return change_nic(*items, restore=False)


def restoral(name: str = "web-1", *pools: str) -> ChangeMembership:
    return replace(removal(name, *pools), restore=True)


def deferred(target: ActionKey, *, until: float, message: str = "") -> dict[str, Any]:
    deferral = Deferral(until=at(until), reason="Conflict", message=message)
    return {"deferred": MappingProxyType({target: deferral})}


def floor(scene: PlannerScenario, number: int, *, percent: bool = False) -> None:
    scene.policy = replace(scene.policy, pools={APP: Floor(number=number, percent=percent)})
