"""Reads of Microsoft.Network: NICs, load balancers and backend pools."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from controller.azure import network_bodies
from controller.azure.http.arm_client import Arm
from controller.azure.http.arm_reader import ArmReader, Enough, read_all
from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.json_reader import Json, text, verified_body
from controller.azure.http.resource_id import ResourceId
from controller.clock import Clock
from controller.core.azure_names import fold, resource_group_of
from controller.core.resources import LoadBalancer, Nic, Pool
from controller.errors import ContractViolation, ControllerError


@dataclass(frozen=True, slots=True, kw_only=True)
class NicListing:
    """NICs, as far as the list of their resource group shows them."""

    nics: tuple[Nic, ...]
    """A NIC whose body cannot be used is missing."""
    pages: int
    """How many pages were read."""
    complete: bool
    """Whether the list has no more pages."""
    problem: ControllerError | None = None
    """Why the next page could not be read; None if it was not asked for."""


class NetworkReads:
    """The part of the client that reads. Resources can be in any subscription."""

    def __init__(self, arm: Arm, *, clock: Clock, observer: Observer = ignore_outcome) -> None:
        self._clock = clock
        self.version = arm.network_version
        self._caller = Caller(
            service="network", clock=clock, observer=observer, version=self.version
        )
        self._reader = ArmReader(arm, self._caller)

    async def load_balancer(self, load_balancer_id: str) -> LoadBalancer:
        """Return a load balancer with all its pools, from one GET."""
        ResourceId.parse(load_balancer_id)
        body = await self._reader.get("load_balancer_get", load_balancer_id)
        checked = verified_body(load_balancer_id, body)
        return network_bodies.parse_load_balancer(checked, self._clock.now())

    async def listed_load_balancer(self, load_balancer_id: str) -> LoadBalancer:
        """Return a load balancer as the list of its resource group shows it.

        Raises:
            ContractViolation: the list does not show it. One list is no proof that it is deleted.
        """
        target = ResourceId.parse(load_balancer_id)
        path = (
            f"/subscriptions/{target.subscription}/resourceGroups/{target.group}"
            "/providers/Microsoft.Network/loadBalancers"
        )
        for body in await self._reader.entries("load_balancer_list", path):
            if fold(text(body, "id")) == fold(load_balancer_id):
                return network_bodies.parse_load_balancer(body, self._clock.now())
        raise ContractViolation(f"the list of its resource group does not show {load_balancer_id}")

    async def nic(self, nic_id: str, *, keep_body: bool = True) -> Nic:
        """Return a NIC, with its body unless that is not kept."""
        body = await self.nic_body(nic_id)
        return network_bodies.parse_nic(body, self._clock.now(), keep_body=keep_body)

    async def nics_in(self, nic_ids: Iterable[str]) -> tuple[Nic, ...]:
        """Return the NICs that exist, without bodies, from one list per resource group.

        Raises:
            ControllerError: a list could not be read.
        """
        wanted = {fold(nic_id): nic_id for nic_id in nic_ids}
        groups = {resource_group_of(key): nic_id for key, nic_id in wanted.items()}
        found: list[Nic] = []
        for example in groups.values():
            listing = await self.list_nics(example, wanted)
            if listing.problem is not None:
                raise listing.problem
            found += listing.nics
        return tuple(found)

    async def list_nics(
        self,
        example_id: str,
        nic_ids: Iterable[str],
        *,
        vm_ids: Iterable[str] = (),
        enough: Enough = read_all,
        keep_body: bool = False,
    ) -> NicListing:
        """Return what the list of one resource group shows of these NICs.

        Args:
            example_id: a resource in the group.
            nic_ids: the NICs that matter; others are ignored, whatever their content.
            vm_ids: VMs of which every NIC matters.
            enough: when to stop.
            keep_body: keep the bodies of the NICs, which take memory.
        """
        target = ResourceId.parse(example_id)
        path = (
            f"/subscriptions/{target.subscription}/resourceGroups/{target.group}"
            "/providers/Microsoft.Network/networkInterfaces"
        )
        listing = await self._reader.listing("nic_list", path, enough=enough)
        now, found = self._clock.now(), list[Nic]()
        wanted, owners = set(map(fold, nic_ids)), set(map(fold, vm_ids))
        for body in listing.entries:
            with suppress(ContractViolation):
                if network_bodies.is_about(body, wanted, owners):
                    found.append(network_bodies.parse_nic(body, now, keep_body=keep_body))
        return NicListing(
            nics=tuple(found),
            pages=listing.pages,
            complete=listing.complete,
            problem=listing.problem,
        )

    async def pool(self, pool_id: str) -> Pool:
        """Return one pool."""
        return network_bodies.parse_pool(await self.pool_body(pool_id), self._clock.now())

    async def nic_body(self, nic_id: str) -> Json:
        """Return the body of one NIC."""
        ResourceId.parse(nic_id)
        return verified_body(nic_id, await self._reader.get("nic_get", nic_id))

    async def pool_body(self, pool_id: str) -> Json:
        """Return the body of one pool."""
        ResourceId.parse(pool_id)
        return verified_body(pool_id, await self._reader.get("pool_get", pool_id))
