"""Where the ledger of a set is: under the name of the set, or of the one that it was made of.

Azure converts an availability set to a flexible scale set in one call; the VMs run on, and the
availability set is deleted (Microsoft docs, Convert API of availability sets, preview, 03/17/2026).
The ledger stays in its blob: VMs that are out are recorded there only, and two blobs would be two
leaders. The blobs go on to name the set for which they were begun.

An agent that starts in a scale set therefore looks for the ledger of the set that it was made of. A
scale set has the name of that set unless an operator chose another one, so the blob is usually the
same. Otherwise the container is searched. `election.blob_name` names the ledger in any case.

A ledger of another set is continued only if three things agree: that set is not found or has no VM,
this VM states the scale set, and the ledger records one of its VMs. Each leader records all VMs of
its availability set: the VMs that led or were drained can be deleted before the others start again.
A ledger that is missing, empty or unreadable proves nothing, and an agent that remembers it writes
it again. Then the presence of agents beside it shows whether it is the ledger of these VMs. In a
blob with the name of the scale set, they also show for which set it was begun.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from controller.azure.http.session import Azure
from controller.config.schema import Settings
from controller.core.agent_presence import AgentPresence
from controller.core.azure_names import SetKind, SetName, fold, short
from controller.core.drain_history import Step
from controller.core.ledger import Ledger
from controller.errors import ContractViolation, NotFound, SetupError
from controller.storage.container_view import SetBlobs, sets_in
from controller.storage.ledger_json import decode_ledger
from controller.storage.ledger_store import ledger_blob_name
from controller.storage.presence_json import presence_blob_name, presence_place, seen_agent


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerPlace:
    """The blob with the ledger of a set."""

    name: str
    """Of the blob."""
    owner_id: str
    """The set that the blobs name: the one for which the ledger was begun."""


async def find_ledger(
    azure: Azure, settings: Settings, set_id: str, vms: Iterable[str]
) -> LedgerPlace:
    """Return where the ledger of a set is, or is to be. For an availability set nothing is read.

    Args:
        azure: the clients.
        settings: the configuration.
        set_id: the set.
        vms: names of its VMs.

    Raises:
        SetupError: there is a ledger with VMs of this scale set, and the set that it names has VMs.
        ContractViolation: the blob with the name of this scale set holds no ledger: it may be that
            of the converted set.
        ControllerError: storage, or that set, could not be read.
    """
    configured = settings.election.blob_name
    name = configured or ledger_blob_name(set_id)
    if SetKind.of(set_id) is SetKind.AVAILABILITY_SET:
        return LedgerPlace(name=name, owner_id=set_id)
    search = _Search(azure, set_id, frozenset(map(fold, vms)))
    try:
        ledger = decode_ledger((await azure.state_blob(name).read()).body)
    except NotFound:
        ledger = Ledger()
    if ledger.epoch:
        return LedgerPlace(name=name, owner_id=await search.owner_of(name, ledger, own_name=True))
    if former := await search.owner_beside(name):
        return LedgerPlace(name=name, owner_id=former)
    if not configured:
        listing = await azure.container().list(prefix=name.rpartition("/")[0] + "/")
        for each in sets_in(listing.blobs):
            if each.ledger == name:
                continue
            try:
                other = decode_ledger((await azure.state_blob(each.ledger).read()).body)
            except (NotFound, ContractViolation):
                other = Ledger()
            if other.epoch:
                owner_id = await search.owner_of(each.ledger, other, own_name=False)
            else:
                owner_id = await search.owner_by_agents(each)
            if owner_id:
                return LedgerPlace(name=each.ledger, owner_id=owner_id)
    return LedgerPlace(name=name, owner_id=set_id)


class _Search:
    """Decides which ledger a scale set continues."""

    def __init__(self, azure: Azure, set_id: str, vms: frozenset[str]) -> None:
        self._azure, self._set_id, self._vms = azure, set_id, vms

    async def owner_of(self, name: str, ledger: Ledger, *, own_name: bool) -> str:
        """Return the set that a ledger names, if this scale set continues it; empty if it does not.

        Args:
            name: of the blob.
            ledger: its content.
            own_name: the blob has the name of this scale set: no other one may be begun.
        """
        recorded = ledger.set_id
        if not recorded or fold(recorded) == fold(self._set_id):
            return self._set_id if own_name else ""
        if fold(ledger.converted_to) == fold(self._set_id):
            return recorded  # a leader has proven it
        if SetKind.of(recorded) is not SetKind.AVAILABILITY_SET or not self._records_one(ledger):
            return self._set_id if own_name else ""  # refused when it is read: another set's
        return await self._former(name, recorded, own_name=own_name)

    async def owner_by_agents(self, blobs: SetBlobs) -> str:
        """Return the set of a ledger that is missing or cannot be read, as `owner_of` does.

        The name of the blob is that of the set, which was in the resource group of this scale set.
        """
        if self._vms.isdisjoint(agent.vm for agent in blobs.agents):
            return ""
        own, name = SetName.of(self._set_id), short(blobs.ledger).removesuffix(".json")
        group = f"/subscriptions/{own.subscription}/resourceGroups/{own.resource_group}"
        former = f"{group}/providers/Microsoft.Compute/availabilitySets/{name}"
        return await self._former(blobs.ledger, former, own_name=False)

    async def owner_beside(self, name: str) -> str:
        """Return the set for which a blob of this name was begun that is missing or empty.

        An agent of a VM of this scale set states it, since before the set was converted. The newest
        statement counts: VMs can have the names of those of a deleted set. Empty if it is not that
        of an availability set.
        """
        folder = presence_blob_name(name, "").removesuffix(".json")
        listing = await self._azure.container().list(prefix=folder)
        places = (presence_place(each.name) for each in listing.blobs)
        beside = self._vms & {place[1] for place in places if place}
        found = list[AgentPresence]()
        for vm in sorted(beside):
            try:
                content = await self._azure.state_blob(presence_blob_name(name, vm)).read()
            except (NotFound, ContractViolation):
                continue
            presence = seen_agent(content.body, vm).presence
            if presence is not None and presence.set_id:
                found.append(presence)
        stated = max(found, key=lambda each: each.at).set_id if found else ""
        if not stated or SetKind.of(stated) is not SetKind.AVAILABILITY_SET:
            return ""
        return await self._former(name, stated, own_name=True)

    async def _former(self, name: str, recorded: str, *, own_name: bool) -> str:
        """Return an availability set if this scale set was made of it; empty if it was not."""
        lists = await self._listed(recorded)
        if not lists:
            return recorded
        if not own_name and self._vms.isdisjoint(lists):
            return ""  # its VMs are moved one by one: it is a set of its own
        raise SetupError(
            f"the blob {name} is the ledger of the availability set {short(recorded)}, which still "
            f"has VMs, and records VMs of the scale set {short(self._set_id)}: if Azure is "
            "converting the set, the agents continue by themselves; otherwise give the scale set a "
            "ledger of its own with election.blob_name"
        )

    def _records_one(self, ledger: Ledger) -> bool:
        """Return whether a ledger records a VM of this set: as its own, drained, or a leader."""
        leaders = (line.vm for line in ledger.transitions if line.step == Step.LEADS)
        drained = (entry.vm for entry in ledger.entries)
        recorded = (*ledger.vms, *drained, ledger.leader, *leaders)
        return not self._vms.isdisjoint(map(fold, recorded))

    async def _listed(self, set_id: str) -> frozenset[str]:
        """Return the folded names of the VMs that another set lists; none if it is not found."""
        try:
            found = await self._azure.compute.set_vms(set_id)
        except NotFound:
            return frozenset()
        return frozenset(fold(short(vm_id)) for vm_id in found.vm_ids)
