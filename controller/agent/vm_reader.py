"""Read the VMs of the set, by the list of their resource group or one by one.

No request is indispensable: if the list fails, the VMs are read by their ids, the ones that matter
most first; if the set itself cannot be read, its VMs are those that are known.

Azure can convert the set while the agent runs: the set is not found then, and its VMs state another
one. A VM is in one set at a time, so both replies together prove it, and the reader continues in
the other set. It is the same ledger, because it is the same VMs.

The VMs of a scale set come and go. One list without a VM proves little (`core.presence`): the VM
stays a peer until it is not found by its id either, or until a second list does not show it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from controller.agent.list_costs import ListCosts, enough_for
from controller.agent.present_set import PresentSet
from controller.agent.read_ways import Way, first_that_works, request_key
from controller.agent.single_reads import SingleReads, read_each
from controller.agent.working_state import WorkingState
from controller.azure.compute import Compute, VmListing
from controller.azure.vm_set import SetVms
from controller.core.azure_names import SetKind, fold, short
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
        present_set: the set.
        vm: the VM of this agent; empty outside the set.
        names: the VMs of the set when the agent started.
        urgent: returns whether something is due for the VM with this name.
        state: what is known, and where back-off is kept.
        now: wall clock, corrected.
    """

    def __init__(
        self,
        *,
        compute: Compute,
        present_set: PresentSet,
        vm: str,
        names: Iterable[str],
        urgent: Callable[[str], bool],
        state: WorkingState,
        now: Callable[[], datetime],
    ) -> None:
        self._compute, self._set, self._vm_name = compute, present_set, vm
        group = self._set_id[: self._set_id.casefold().rfind("/providers/")]
        self._path = f"{group}/providers/Microsoft.Compute/virtualMachines"
        self._at_start = tuple(f"{self._path}/{name}" for name in names)
        self._urgent, self._state, self._now = urgent, state, now
        self._costs = ListCosts()
        self._list_key = request_key(self._path, "list")
        self._unlisted: frozenset[str] = frozenset()
        """The VMs that the newest whole list of the scale set did not show, by folded id."""

    @property
    def _set_id(self) -> str:
        return self._set.set_id

    async def read(self) -> VmsRead:
        """Return the VMs of the set, with what is known of those that cannot be read now."""
        before = self._set_id
        read = await self._read()
        if fold(before) == fold(self._set_id):
            return read
        self._unlisted = frozenset()
        return await self._read()

    async def _read(self) -> VmsRead:
        members, unread = await self._members()
        vm_ids, error = members.vm_ids, unread
        self._state.set_read.after(unread)
        known = {fold(vm.vm_id): vm for vm in self._state.cache.vms}
        found, requests = dict(members.vms), members.requests
        if not found and self._costs.prefers_list(self._list_key, len(vm_ids)):
            listing = await self._list(vm_ids)
            if listing is not None:
                found, requests = dict(listing.vms), requests + listing.pages
                error = error or listing.problem
        missing = [vm_id for vm_id in vm_ids if fold(vm_id) not in found]
        if not found or members.vms:
            missing = self._due(missing, known)
        singly = await read_each(
            self._compute.vm, missing, self._state.retries, urgent=self._is_urgent, hold=False
        )
        found |= singly.found
        self._follow(found, unread)
        left = self._unlisted & singly.absent  # neither the list nor the id shows it
        vm_ids = tuple(vm_id for vm_id in vm_ids if fold(vm_id) not in left)
        vms = tuple(self._vm(vm_id, found, known, singly) for vm_id in vm_ids)
        self._compute.report_problems(vms)
        return VmsRead(
            vms=vms,
            requests=requests + singly.requests,
            complete=unread is None
            and not any(vm.problem for vm in vms)
            and not singly.failed
            and self._unlisted.isdisjoint(map(fold, vm_ids)),
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

    async def _members(self) -> tuple[SetVms, ControllerError | None]:
        """Return the set's VMs, and why the set itself does not show them all."""
        before = tuple(vm.vm_id for vm in self._state.cache.vms) or self._at_start
        kind = self._set.kind.value
        way = Way(request_key(self._set_id, "get"), f"read the {kind}", self._read_set)
        try:
            listed = await first_that_works([way], self._state.retries, self._now)
        except ControllerError as error:
            if isinstance(error, NotFound):
                self._note_set(Existence.ABSENT)
            if not before:
                raise
            return SetVms(vm_ids=before), error
        self._note_set(Existence.PRESENT)
        self._state.cache.set_id = self._set_id
        if listed.complete:
            return self._with_unlisted(listed), None
        ids = {fold(vm_id): vm_id for vm_id in (*before, *listed.vm_ids)}
        return replace(listed, vm_ids=tuple(ids.values())), listed.problem or ContractViolation(
            f"an entry of the {kind} cannot be read"
        )

    def _with_unlisted(self, listed: SetVms) -> SetVms:
        """Return the members, with those that a list of a scale set does not show the first time.

        An availability set lists its members itself: a VM leaves it only when it is deleted.
        """
        if self._set.kind is SetKind.AVAILABILITY_SET:
            return listed
        shown, known = set(map(fold, listed.vm_ids)), self._state.cache.vms
        absent = {fold(vm.vm_id): vm.vm_id for vm in known if fold(vm.vm_id) not in shown}
        kept = tuple(vm_id for key, vm_id in absent.items() if key not in self._unlisted)
        self._unlisted = frozenset(absent)
        return replace(listed, vm_ids=(*listed.vm_ids, *kept))

    def _follow(self, found: Mapping[str, Vm], unread: ControllerError | None) -> None:
        """Continue in the set that Azure has made of this one, if the replies prove that.

        The VM of this agent decides: others can be moved to another set one by one. Without a reply
        about it, all others have to agree.
        """
        missing = isinstance(unread, NotFound)
        if not missing and self._set.kind is SetKind.AVAILABILITY_SET:
            return
        own = [vm for vm in found.values() if fold(vm.name) == fold(self._vm_name)]
        stated = {fold(vm.set_id): vm.set_id for vm in own or found.values() if vm.set_id}
        if len(stated) != 1 or fold(self._set_id) in stated or not (own or missing):
            return
        self._state.cache.presence.pop(fold(self._set_id), None)
        self._set.follow(*stated.values())

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
            if vm is None or vm.problem or vm.power_observed_at is None or self._matters(vm_id):
                fixed.append(vm_id)
            else:
                others.append((vm.power_observed_at, vm_id))
        return [*fixed, *(vm_id for _, vm_id in sorted(others)[:READ_ANEW])]

    def _matters(self, vm_id: str) -> bool:
        """Return whether a VM is read whatever is known of it.

        Of a scale set that does not list this agent's VM, only that VM shows what became of it.
        """
        own = self._set.kind is SetKind.SCALE_SET and fold(short(vm_id)) == fold(self._vm_name)
        return own or self._is_urgent(vm_id)

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
