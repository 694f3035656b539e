"""Read the VMs of the set, by the list of their resource group or one by one.

No request is indispensable: if the list fails, the VMs are read by their ids, the ones that matter
most first; if the set itself cannot be read, its VMs are those that are known.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from controller.agent.list_costs import ListCosts, enough_for
from controller.agent.read_ways import Way, first_that_works, request_key
from controller.agent.single_reads import SingleReads, read_each
from controller.agent.working_state import WorkingState
from controller.azure.availability_set import SetVms
from controller.azure.compute import Compute, VmListing
from controller.core.azure_names import fold, short
from controller.core.presence import UNKNOWN, Existence, Source
from controller.core.resources import PowerState, Vm
from controller.errors import ContractViolation, ControllerError, NotFound

READ_ANEW = 10
"""Of VMs that are known and read one by one, an inventory renews no more than this many."""
NOT_FOUND = "the set lists it, but Azure answers that it does not exist"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmsRead:
    """The VMs of the set, as far as they could be read."""

    vms: tuple[Vm, ...]
    requests: int
    """How many requests it took."""
    complete: bool
    """Whether the set was read and every VM is known."""
    error: ControllerError | None = None
    """The first failure; None without one."""


class VmReader:
    """Reads VMs.

    Args:
        compute: the client.
        availability_set_id: the set.
        names: the VMs of the set when the agent started.
        urgent: returns whether something is due for the VM with this name.
        state: what is known, and where back-off is kept.
        now: wall clock, corrected.
    """

    def __init__(
        self,
        *,
        compute: Compute,
        availability_set_id: str,
        names: Iterable[str],
        urgent: Callable[[str], bool],
        state: WorkingState,
        now: Callable[[], datetime],
    ) -> None:
        self._compute, self._set_id = compute, availability_set_id
        group = availability_set_id[: availability_set_id.casefold().rfind("/providers/")]
        self._path = f"{group}/providers/Microsoft.Compute/virtualMachines"
        self._at_start = tuple(f"{self._path}/{name}" for name in names)
        self._urgent, self._state, self._now = urgent, state, now
        self._costs = ListCosts()
        self._list_key = request_key(self._path, "list")

    async def read(self) -> VmsRead:
        """Return the VMs of the set, with what is known of those that cannot be read now."""
        vm_ids, error = await self._ids()
        complete = error is None
        self._state.set_read.after(error)
        known = {fold(vm.vm_id): vm for vm in self._state.cache.vms}
        found: dict[str, Vm] = {}
        requests = 1
        if self._costs.prefers_list(self._list_key, len(vm_ids)):
            listing = await self._list(vm_ids)
            if listing is not None:
                found, requests = dict(listing.vms), requests + listing.pages
                error = error or listing.problem
        missing = [vm_id for vm_id in vm_ids if fold(vm_id) not in found]
        if not found:
            missing = self._due(missing, known)
        singly = await read_each(
            self._compute.vm, missing, self._state.retries, urgent=self._is_urgent, hold=False
        )
        found |= singly.found
        vms = tuple(self._vm(vm_id, found, known, singly) for vm_id in vm_ids)
        self._compute.report_problems(vms)
        return VmsRead(
            vms=vms,
            requests=requests + singly.requests,
            complete=complete and not any(vm.problem for vm in vms) and not singly.failed,
            error=error or singly.error,
        )

    async def power(self, vm_id: str) -> PowerState:
        """Return the power state of one VM, in whichever way Azure allows; note its identity.

        Raises:
            NotFound: the VM was not found; one such reply is no proof.
            ControllerError: no way works at present.
        """
        what = f"read the power state of {short(vm_id)}"

        async def listed() -> PowerState:
            listing = await self._compute.list_vms(
                self._set_id, [vm_id], enough=enough_for([vm_id])
            )
            vm = listing.vms.get(fold(vm_id))
            if vm is None or vm.power is PowerState.UNKNOWN:
                raise listing.problem or ContractViolation(f"{what}: the list does not show it")
            return vm.power

        ways = (
            Way(request_key(vm_id, "get"), what, lambda: self._compute.power(vm_id)),
            Way(request_key(vm_id, "view"), what, lambda: self._compute.power_in_view(vm_id)),
            Way(self._list_key, what, listed),
        )
        power = await first_that_works(ways, self._state.retries, self._now)
        self._state.cache.put_guid(vm_id, self._compute.guids.get(fold(vm_id), ""))
        return power

    async def _ids(self) -> tuple[tuple[str, ...], ControllerError | None]:
        """Return the ids of the set's VMs, and why the set itself does not show them all."""
        before = tuple(vm.vm_id for vm in self._state.cache.vms) or self._at_start
        way = Way(request_key(self._set_id, "get"), "read the availability set", self._read_set)
        try:
            listed = await first_that_works([way], self._state.retries, self._now)
        except ControllerError as error:
            if isinstance(error, NotFound):
                self._note_set(Existence.ABSENT)
            if not before:
                raise
            return before, error
        self._note_set(Existence.PRESENT)
        if listed.complete:
            return listed.vm_ids, None
        ids = {fold(vm_id): vm_id for vm_id in (*before, *listed.vm_ids)}
        return tuple(ids.values()), ContractViolation(
            "an entry of the availability set cannot be read"
        )

    def _note_set(self, existence: Existence) -> None:
        presence, key = self._state.cache.presence, fold(self._set_id)
        known = presence.get(key, UNKNOWN)
        presence[key] = known.after(existence, at=self._now(), source=Source.READ)

    async def _read_set(self) -> SetVms:
        return await self._compute.set_vms(self._set_id)

    async def _list(self, vm_ids: tuple[str, ...]) -> VmListing | None:
        """Return what the list shows of these VMs; None while it is deferred."""
        retries = self._state.retries
        if self._list_key in retries.active:
            return None
        listing = await self._compute.list_vms(self._set_id, vm_ids, enough=enough_for(vm_ids))
        if listing.problem is not None:
            what = "read the list of VMs, which are read one by one instead"
            retries.failed(self._list_key, listing.problem, what=what, hold=False)
        else:
            retries.clear(self._list_key)
            missing = len(vm_ids) - len(listing.vms)
            self._costs.learn(self._list_key, pages=listing.pages, missing=missing)
        return listing

    def _due(self, vm_ids: list[str], known: dict[str, Vm]) -> list[str]:
        """Return which VMs to read one by one: the unknown and urgent ones, and the oldest."""
        fixed: list[str] = []
        others: list[tuple[datetime, str]] = []
        for vm_id in vm_ids:
            vm = known.get(fold(vm_id))
            if vm is None or vm.problem or vm.power_observed_at is None or self._is_urgent(vm_id):
                fixed.append(vm_id)
            else:
                others.append((vm.power_observed_at, vm_id))
        return [*fixed, *(vm_id for _, vm_id in sorted(others)[:READ_ANEW])]

    def _is_urgent(self, vm_id: str) -> bool:
        return self._urgent(short(vm_id))

    def _vm(
        self, vm_id: str, found: dict[str, Vm], known: dict[str, Vm], singly: SingleReads[Vm]
    ) -> Vm:
        """Return what is known of a VM.

        A VM that is known and cannot be read for a while stays as it is: its NICs change only
        while it is stopped. Otherwise it is set aside with the reason.
        """
        key = fold(vm_id)
        if key in found:
            return found[key]
        before = known.get(key)
        problem = NOT_FOUND if key in singly.absent else singly.failed.get(key, "")
        if before is None:
            # It is still a peer by its name, as long as the set lists it.
            return Vm(name=short(vm_id), vm_id=vm_id, nic_ids=(), problem=problem)
        lasting = key in singly.lasting or key in singly.absent
        return replace(before, problem=problem if lasting or before.problem else "")
