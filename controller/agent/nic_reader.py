"""Read the NICs of the set, by the lists of their resource groups or one by one.

A VM that Compute does not describe is found by its NICs: each names its VM, and each member of a
pool names its NIC. So such a VM can be taken out of rotation.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from controller.agent.list_costs import ListCosts, enough_for
from controller.agent.read_ways import Way, first_that_works, request_key
from controller.agent.retry_schedule import BackoffTable
from controller.agent.single_reads import read_each
from controller.agent.working_state import WorkingState
from controller.azure.http.arm_reader import read_all
from controller.azure.network import Network
from controller.azure.network_reads import NicListing
from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold, nic_of, resource_group_of, short
from controller.core.planning.actions import ReadNic
from controller.core.resources import Nic, Vm
from controller.errors import ContractViolation

READ_ANEW = 10
"""Of NICs that are known and read one by one, an inventory renews no more than this many."""
MOST_MEMBERS = 50
"""Of unknown members of pools, no more are read to find the NICs of unknown VMs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicsRead:
    """What an inventory of NICs took and left open."""

    requests: int
    complete: bool
    """Whether every NIC of the VMs is known."""
    unread: Mapping[ActionKey, str]
    """What operators have to know of the reads that failed."""


class NicReader:
    """Reads NICs into the resource cache.

    Args:
        network: the client.
        urgent: returns whether something is due for the VM with this name.
        state: what is known, and where back-off is kept.
        now: wall clock, corrected.
    """

    def __init__(
        self,
        *,
        network: Network,
        urgent: Callable[[str], bool],
        state: WorkingState,
        now: Callable[[], datetime],
    ) -> None:
        self._network, self._urgent = network, urgent
        self._state, self._now = state, now
        self._costs = ListCosts()

    async def read(self, vms: Iterable[Vm]) -> NicsRead:
        """Read the NICs of these VMs, and search those of VMs whose NICs are not known."""
        owners = {fold(nic_id): vm.name for vm in vms for nic_id in vm.nic_ids}
        unknown = [vm.vm_id for vm in vms if not vm.nic_ids and vm.problem]
        groups: dict[str, list[str]] = {}
        for nic_id in sorted(
            {fold(nic_id): nic_id for vm in vms for nic_id in vm.nic_ids}.values()
        ):
            groups.setdefault(resource_group_of(nic_id), []).append(nic_id)
        for vm_id in unknown:
            groups.setdefault(resource_group_of(vm_id), [])
        requests, complete, unread = 0, True, dict[ActionKey, str]()
        for group, listed in groups.items():
            searched = [each for each in unknown if resource_group_of(each) == group]
            read = await self._read_group(listed, searched, owners)
            requests, complete = requests + read.requests, complete and read.complete
            unread |= read.unread
        if unknown:
            requests += await self._read_members(set(map(fold, unknown)))
        return NicsRead(requests=requests, complete=complete, unread=unread)

    async def _read_group(
        self, nic_ids: list[str], vm_ids: list[str], owners: dict[str, str]
    ) -> NicsRead:
        """Read the NICs of one resource group."""
        cache, requests, complete = self._state.cache, 0, True
        example = nic_ids[0] if nic_ids else vm_ids[0]
        missing = nic_ids
        if vm_ids or self._costs.prefers_list(_list_key(example), len(nic_ids)):
            listing = await self._list(example, nic_ids, vm_ids)
            if listing is not None:
                self._found(listing.nics)
                requests += listing.pages
                found = {fold(nic.nic_id) for nic in listing.nics}
                missing = [nic_id for nic_id in nic_ids if fold(nic_id) not in found]
            complete = not vm_ids or (listing is not None and listing.complete)
        if missing == nic_ids:
            missing = self._due(nic_ids)

        def urgent(nic_id: str) -> bool:
            return self._urgent(owners.get(fold(nic_id), ""))

        singly = await read_each(
            self._without_body, missing, self._state.retries, urgent=urgent, hold=True
        )
        self._found(singly.found.values())
        for nic_id in singly.absent:
            cache.mark_absent(nic_id, self._now())
        return NicsRead(
            requests=requests + singly.requests,
            complete=complete and not singly.failed,
            unread=singly.unread,
        )

    def _found(self, nics: Collection[Nic]) -> None:
        """Use NICs that were read: this agent can read NICs."""
        self._state.cache.put_nics(nics)
        for nic in nics:
            self._state.ability.shown(ReadNic(nic.nic_id))

    async def _list(
        self, example_id: str, nic_ids: list[str], vm_ids: list[str]
    ) -> NicListing | None:
        """Return what the list of a resource group shows; None while it is deferred."""
        key, retries = _list_key(example_id), self._state.retries
        if key in retries.active:
            return None
        enough = read_all if vm_ids else enough_for(nic_ids)
        listing = await self._network.list_nics(example_id, nic_ids, vm_ids=vm_ids, enough=enough)
        if listing.problem is not None:
            what = "read the list of NICs, which are read one by one instead"
            retries.failed(key, listing.problem, what=what, hold=False)
            return listing
        retries.clear(key)
        found = {fold(nic.nic_id) for nic in listing.nics}
        missing = sum(1 for nic_id in nic_ids if fold(nic_id) not in found)
        self._costs.learn(key, pages=listing.pages, missing=missing)
        return listing

    def _due(self, nic_ids: list[str]) -> list[str]:
        """Return which NICs to read one by one: the unknown ones, and the oldest."""
        known = [(self._state.cache.nic(nic_id), nic_id) for nic_id in nic_ids]
        unknown = [nic_id for nic, nic_id in known if nic is None]
        seen = sorted((nic.observed_at, nic_id) for nic, nic_id in known if nic is not None)
        return [*unknown, *(nic_id for _, nic_id in seen[:READ_ANEW])]

    async def _read_members(self, vm_ids: set[str]) -> int:
        """Read unknown members of the pools while VMs have no NIC; return the requests."""
        cache = self._state.cache
        if vm_ids <= {fold(nic.vm_id) for nic in cache.nics}:
            return 0
        members = {
            fold(nic_of(member.ip_configuration_id)[0]): nic_of(member.ip_configuration_id)[0]
            for pool in cache.pools
            for member in pool.members
            if member.ip_configuration_id
        }
        other_machines = [
            nic_id for key, nic_id in sorted(members.items()) if cache.nic(key) is None
        ]
        singly = await read_each(
            self._without_body,
            other_machines[:MOST_MEMBERS],
            self._state.retries,
            urgent=lambda _nic_id: False,
            hold=False,
        )
        cache.put_nics(singly.found.values())
        return singly.requests

    async def _without_body(self, nic_id: str) -> Nic:
        return await self._network.nic(nic_id, keep_body=False)


async def read_nic(
    network: Network, nic_id: str, retries: BackoffTable, now: Callable[[], datetime]
) -> Nic:
    """Return one NIC with its body, in whichever way Azure allows.

    Raises:
        NotFound: the NIC was not found; one such reply is no proof.
        ControllerError: no way works at present.
    """
    what = f"read {short(nic_id)}"

    async def listed() -> Nic:
        listing = await network.list_nics(
            nic_id, [nic_id], enough=enough_for([nic_id]), keep_body=True
        )
        if not listing.nics:
            raise listing.problem or ContractViolation(f"{what}: the list does not show it")
        return listing.nics[0]

    ways = (
        Way(request_key(nic_id, "get"), what, lambda: network.nic(nic_id)),
        Way(_list_key(nic_id), what, listed),
    )
    return await first_that_works(ways, retries, now)


def _list_key(example_id: str) -> ActionKey:
    """Return the key of the list of NICs in the resource group of a resource."""
    group = resource_group_of(example_id)
    return request_key(f"{group}/providers/Microsoft.Network/networkInterfaces", "list")
