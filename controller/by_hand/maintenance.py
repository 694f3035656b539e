"""Planned maintenance by hand: whose may be started, in which order, and how it is done to a VM.

A VM is told to Azure once. When it is not sure what became of that, what Compute says of the VM
decides, and if that does not tell either, the roll stops and a person looks: nothing is sent again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from controller.azure.maintenance import LastResult, MaintenanceState, MaintenanceStatus
from controller.by_hand.hand import Hand
from controller.by_hand.roll import Task, Untouched, order
from controller.core.model import PowerState, fold
from controller.errors import (
    Conflict,
    ControllerError,
    Denied,
    NotDone,
    NotSent,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
    told_s,
)

LOOK_S = 5.0
"""How often Compute is asked how it goes on."""
AGAIN_S = 5.0
TRIES = 5
"""So often is sent again what has certainly not begun anything."""
READ_WITHIN_S = 60.0
UNCHANGED_S = 300.0
"""Power states and instance views are some minutes old at times; after so long nothing began."""
OVER_WITHIN_S = 3600.0
WHAT = "performMaintenance"

_OVER = frozenset({MaintenanceState.DONE, MaintenanceState.NOT_SCHEDULED})
_FAILED = frozenset({LastResult.ABORTED, LastResult.RETRY_LATER})
_TRANSIENT = (NotSent, OutcomeUnknown, ServiceFault, Throttled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The VMs that are to be maintained, in order, and why the others are not."""

    vms: tuple[str, ...]
    others: Mapping[str, str]


async def look(hand: Hand) -> tuple[MaintenanceStatus, ...]:
    """Return what Compute says of every VM of the set, in the order they are maintained.

    Raises:
        ControllerError: it could not be read.
    """
    vms = await hand.azure.compute.members(hand.availability_set_id)
    statuses = await hand.azure.maintenance.statuses(tuple(vm.vm_id for vm in vms))
    return _ordered(statuses, hand.here)


def choose(statuses: tuple[MaintenanceStatus, ...], named: tuple[str, ...], here: str) -> Choice:
    """Return which VMs to maintain: those that may be, of the named ones or of all.

    Raises:
        NotDone: one that was named may not be maintained now; says why.
    """
    wanted = {fold(vm) for vm in named}
    of_them = [each for each in statuses if not named or fold(each.name) in wanted]
    others = {each.name: why for each in of_them if (why := why_not(each))}
    if named and others:
        raise NotDone("; ".join(f"{vm}: {why}" for vm, why in others.items()))
    chosen = tuple(each for each in of_them if each.name not in others)
    return Choice(vms=tuple(each.name for each in _ordered(chosen, here)), others=others)


def why_not(status: MaintenanceStatus) -> str:
    """Return why the maintenance of a VM is not to be started now; empty if it is."""
    if status.state is MaintenanceState.NOT_SCHEDULED:
        return "no maintenance is planned for it"
    if status.state is not MaintenanceState.SELF_SERVICE:
        said = f" ({status.last_message})" if status.last_message else ""
        return f"its maintenance is {status.state.value}{said}"
    if status.power is not PowerState.RUNNING:
        return "it does not run"
    return ""


def _ordered(statuses: tuple[MaintenanceStatus, ...], here: str) -> tuple[MaintenanceStatus, ...]:
    found = {each.name: each for each in statuses}
    domains = {fold(each.name): each.update_domain or 0 for each in statuses}
    return tuple(found[vm] for vm in order(tuple(found), here, domains))


class Maintainer:
    """What a roll does to a VM: have Azure maintain it, and see that this is over.

    Args:
        vm_ids: by folded name.
        over_for_s: how long Compute may take to say that the VM runs and is done.
        well: returns when the VM is healthy also by what the operator says.
    """

    def __init__(
        self,
        hand: Hand,
        vm_ids: Mapping[str, str],
        *,
        over_for_s: float,
        well: Callable[[str], Awaitable[None]],
    ) -> None:
        self._hand, self._vm_ids = hand, vm_ids
        self._over_for_s, self._well = over_for_s, well
        self._before: dict[str, MaintenanceStatus] = {}
        self._said: set[str] = set()

    def task(self) -> Task:
        """Return it as a roll takes it."""
        return Task(what=WHAT, work=self._work, healthy=self._healthy)

    async def _work(self, vm: str) -> None:
        try:
            before = self._before[fold(vm)] = await self._settled(vm)
        except NotDone as error:
            raise Untouched(str(error)) from error
        if before.state in _OVER:
            self._hand.say(f"{vm}: nothing to be started, {why_not(before)}")
            return
        if why := why_not(before):
            # It could be started when the roll began: it may be under way, so the VM stays out.
            raise NotDone(why)
        try:
            await self._send(vm)
        except Denied as error:
            raise Untouched(self._denied(vm, error)) from error
        except NotDone as error:
            raise Untouched(str(error)) from error
        except (Conflict, OutcomeUnknown, ServiceFault) as error:
            self._hand.say(f"{vm}: {error}; looking what became of it")
            await self._until_told(vm, before, error)

    async def _send(self, vm: str) -> None:
        """Start it; what has certainly not begun is sent again some times."""
        tries = 0
        while True:
            try:
                await self._hand.azure.maintenance.perform(self._vm_ids[fold(vm)])
            except (NotSent, Throttled) as error:
                tries += 1
                if tries == TRIES:
                    raise Untouched(f"it could not be started: {error}") from error
                self._say_once(f"{vm}: not begun yet: {error}")
                await asyncio.sleep(max(AGAIN_S, told_s(error) or 0.0))
            else:
                return

    def _denied(self, vm: str, error: Denied) -> str:
        action = error.action or "Microsoft.Compute/virtualMachines/performMaintenance/action"
        scope = error.scope or self._vm_ids[fold(vm)]
        return (
            f"{action} on {scope} is missing. Agents do not have it: start maintenance as somebody "
            "who does, with --availability-set and `az login`"
        )

    async def _settled(self, vm: str) -> MaintenanceStatus:
        """Return the status of a VM, once it runs: one that is away may be in its maintenance."""
        try:
            async with asyncio.timeout(OVER_WITHIN_S):
                while True:
                    status = await self._read(vm)
                    if status.power is PowerState.RUNNING or status.state in _OVER:
                        return status
                    self._say_once(f"{vm}: does not run, waiting for it")
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise NotDone(f"it did not run within {OVER_WITHIN_S:.0f} s") from None

    async def _read(self, vm: str) -> MaintenanceStatus:
        """Read the status, for a while also against resistance."""
        last: ControllerError | None = None
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                while True:
                    try:
                        return await self._hand.azure.maintenance.status(self._vm_ids[fold(vm)])
                    except _TRANSIENT as error:
                        last = error
                    await asyncio.sleep(max(AGAIN_S, told_s(last) or 0.0))
        except TimeoutError:
            raise NotDone(f"Compute does not tell how it stands: {last}") from last

    async def _glance(self, vm: str) -> MaintenanceStatus | None:
        """Read the status; None if it cannot be read now, as while this very VM is away."""
        try:
            return await self._hand.azure.maintenance.status(self._vm_ids[fold(vm)])
        except _TRANSIENT as error:
            self._say_once(f"{vm}: Compute cannot be asked now: {error}")
            return None

    async def _until_told(self, vm: str, before: MaintenanceStatus, error: ControllerError) -> None:
        """Return when Compute says that it is over; nothing is sent a second time."""
        loop = asyncio.get_running_loop()
        unchanged_since: float | None = None
        try:
            async with asyncio.timeout(OVER_WITHIN_S):
                while True:
                    status = await self._glance(vm)
                    if status is not None:
                        if _completed(status, before):
                            return
                        _raise_if_failed(status, before)
                        runs = status.power is PowerState.RUNNING
                        if not (runs and status.state is before.state):
                            unchanged_since = None
                        elif unchanged_since is None:
                            unchanged_since = loop.time()
                        elif loop.time() - unchanged_since >= UNCHANGED_S:
                            break
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            pass
        raise NotDone(
            f"it is not known what became of it ({error}): see `lb-drain maintenance`, then "
            "--resume"
        ) from error

    async def _healthy(self, vm: str) -> None:
        before, said = self._before[fold(vm)], "nothing"
        try:
            async with asyncio.timeout(self._over_for_s):
                while True:
                    status = await self._glance(vm)
                    if status is not None:
                        _raise_if_failed(status, before)
                        said = f"{status.power.value}, {status.state.value}"
                        if status.power is PowerState.RUNNING and _completed(status, before):
                            break
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise NotDone(
                f"Compute did not say within {self._over_for_s:.0f} s that it runs and its "
                f"maintenance is done; it says: {said}"
            ) from None
        await self._well(vm)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._hand.say(text)


def _completed(status: MaintenanceStatus, before: MaintenanceStatus) -> bool:
    """Tell whether there is nothing left to be done; a wave may also have been called off."""
    completed = LastResult.COMPLETED
    return status.state in _OVER or (
        status.last_result is completed and before.last_result is not completed
    )


def _raise_if_failed(status: MaintenanceStatus, before: MaintenanceStatus) -> None:
    """Raise NotDone when an attempt has failed since."""
    now, then = (status.last_result, status.last_message), (before.last_result, before.last_message)
    if status.last_result in _FAILED and now != then:
        raise NotDone(f"Compute says {status.last_result.value}: {status.last_message}")
