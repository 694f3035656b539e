"""The members that the load balancers really send new flows to, whatever the bodies contain."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from controller.simulator.world.bodies import Json, key, references

AdminState = Literal["None", "Up", "Down"]
"""`None` follows the probe, `Up` ignores it, `Down` gets no new flows (Microsoft docs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One ipConfiguration, or one address, in one pool. What does not apply is ""."""

    vm: str = ""
    nic: str = ""
    ip_configuration: str = ""
    address: str = ""
    admin_state: str = "None"

    @property
    def label(self) -> str:
        """The VM it leads to, or the bare address when no VM owns that."""
        return self.vm or self.address

    @property
    def identity(self) -> str:
        """What makes two entries the same member: the ipConfiguration, else the address."""
        return key(self.ip_configuration) if self.ip_configuration else self.address


class DataPlane:
    """Members by pool, in the order in which they joined."""

    def __init__(self) -> None:
        self.pools: dict[str, dict[str, Member]] = {}

    def members(self, pool: str) -> tuple[Member, ...]:
        """Return the members that are programmed for the pool."""
        return tuple(self.pools.get(key(pool), {}).values())

    def replace(
        self, pool: str, wanted: Iterable[Member], *, owner: str = ""
    ) -> tuple[list[Member], list[Member]]:
        """Make `wanted` the members owned by NIC `owner` (or all addresses); return (in, out)."""
        held = self.pools.setdefault(key(pool), {})
        target = {member.identity: member for member in wanted}
        leaving = [
            member
            for identity, member in held.items()
            if key(member.nic) == key(owner) and identity not in target
        ]
        joining = [member for identity, member in target.items() if identity not in held]
        for member in leaving:
            del held[member.identity]
        held.update(target)
        return joining, leaving


def nic_members(nic: Json, vm: str) -> dict[str, list[Member]]:
    """Return by pool (casefolded id) what a NIC body asks for."""
    wanted: dict[str, list[Member]] = {}
    for entry in nic["properties"]["ipConfigurations"]:
        for pool in references(entry["properties"], "loadBalancerBackendAddressPools"):
            member = Member(
                vm=vm,
                nic=nic["id"],
                ip_configuration=entry["id"],
                address=entry["properties"]["privateIPAddress"],
            )
            wanted.setdefault(key(pool), []).append(member)
    return wanted


def address_members(pool: Json, owners: dict[str, str]) -> list[Member]:
    """Return what the body of an IP-based pool asks for; `owners` maps addresses to VM names."""
    return [
        Member(
            vm=owners.get(entry["properties"]["ipAddress"], ""),
            address=entry["properties"]["ipAddress"],
            admin_state=str(entry["properties"].get("adminState") or "None").capitalize(),
        )
        for entry in pool["properties"]["loadBalancerBackendAddresses"]
    ]
