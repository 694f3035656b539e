"""A set as the agent sees it, for tests of the planner: one observation and one ledger.

Every view is fresh and every VM in service unless a test says otherwise.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from controller.core.actions import (
    Acknowledge,
    ChangeNic,
    ChangePool,
    Phase,
    Plan,
)
from controller.core.ledger import Entry, Ledger
from controller.core.model import (
    AddressMembership,
    Deferral,
    EventDocument,
    EventStatus,
    Floor,
    IpConfiguration,
    Nic,
    NicMembership,
    Observation,
    Policy,
    Pool,
    PoolKind,
    PoolMember,
    PowerState,
    ScheduledEvent,
    Vm,
    fold,
)
from controller.core.planner import plan

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
RG = "/subscriptions/s/resourceGroups/rg/providers"
LB = f"{RG}/Microsoft.Network/loadBalancers/web"
APP = f"{LB}/backendAddressPools/app"
API = f"{LB}/backendAddressPools/api"
LB2 = f"{RG}/Microsoft.Network/loadBalancers/other"
FAR = f"{LB2}/backendAddressPools/far"
BODY = {"properties": {}}


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


def membership(name: str, pool_id: str = APP, position: int = 0) -> NicMembership:
    return NicMembership(
        pool_id=pool_id, nic_id=nic_id(name), ip_configuration="ipconfig1", position=position
    )


def address(name: str, ip: str, pool_id: str = APP) -> AddressMembership:
    return AddressMembership(pool_id=pool_id, name=name, ip_address=ip, body="{}")


@dataclass
class Scene:
    """A set as the agent sees it, every view fresh unless a test says otherwise."""

    now: float = 0
    events: list[ScheduledEvent] = field(default_factory=list)
    inside: dict[str, list[str]] = field(
        default_factory=lambda: {f"web-{n}": [APP] for n in (1, 2, 3)}
    )
    """Pools of every VM's NIC."""
    addresses: dict[str, list[AddressMembership]] = field(default_factory=dict)
    ips: dict[str, str] = field(default_factory=dict)
    policy: Policy = field(default_factory=lambda: Policy(pools={APP: Floor(number=1)}))
    ledger: Ledger = field(default_factory=Ledger)
    nics: dict[str, dict[str, Any]] = field(default_factory=dict)
    vms: dict[str, dict[str, Any]] = field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    clean: bool = True
    slots: int = 9
    strangers: list[str] = field(default_factory=list)
    """ipConfiguration ids of foreign members of APP."""

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
            "write_slots": self.slots,
        }
        return Observation(**{**fields, **over})

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


def writes(planned: Plan) -> list[ChangeNic | ChangePool]:
    return [a for a in planned.actions if isinstance(a, ChangeNic | ChangePool)]


def acknowledged(planned: Plan) -> list[str]:
    return [a.event_id for a in planned.actions if isinstance(a, Acknowledge)]


def phase(planned: Plan, name: str = "web-1") -> Phase:
    return next(each.phase for each in planned.phases if fold(each.vm) == fold(name))


def reasons(planned: Plan) -> dict[str, str]:
    return {hold.subject: hold.reason for hold in planned.holds}


def removal(name: str = "web-1", *pools: str) -> ChangeNic:
    items = tuple(membership(name, p, n) for n, p in enumerate(pools or (APP,)))
    return ChangeNic(nic_id=nic_id(name), memberships=items, restore=False)


def restoral(name: str = "web-1", *pools: str) -> ChangeNic:
    return replace(removal(name, *pools), restore=True)


def deferred(target: str, *, until: float, message: str = "") -> dict[str, Any]:
    deferral = Deferral(until=at(until), reason="Conflict", message=message)
    return {"deferred": MappingProxyType({target: deferral})}


def floor(scene: Scene, number: int, *, percent: bool = False) -> None:
    scene.policy = replace(scene.policy, pools={APP: Floor(number=number, percent=percent)})
