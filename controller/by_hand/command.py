"""A roll with a command of the operator: run it for each VM, then see that the VM is well."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from controller.azure.session import Azure
from controller.by_hand.roll import Task
from controller.core.model import fold
from controller.errors import NotDone

CHECK_AGAIN_S = 5.0
END_WITHIN_S = 10.0
"""What runs when a roll is interrupted has so long to end by itself."""


def command_task(
    command: str, *, addresses: Mapping[str, str], check: str, settle_s: float, check_for_s: float
) -> Task:
    """Return what a roll does with a command.

    Args:
        addresses: private address of each VM, by its folded name.
        check: a command that succeeds when the VM is healthy; empty for none.
        settle_s: how long to wait between both.
        check_for_s: how long the check may fail.
    """

    async def work(vm: str) -> None:
        code = await _run(command, vm, addresses)
        if code:
            raise NotDone(f"the command ended with exit code {code}")

    healthy = checked(check, addresses=addresses, settle_s=settle_s, check_for_s=check_for_s)
    return Task(what=command, work=work, healthy=healthy)


def checked(
    check: str, *, addresses: Mapping[str, str], settle_s: float, check_for_s: float
) -> Callable[[str], Awaitable[None]]:
    """Return what waits until a check of the operator succeeds; without one it is no wait."""

    async def healthy(vm: str) -> None:
        if not check:
            return
        await asyncio.sleep(settle_s)
        try:
            async with asyncio.timeout(check_for_s):
                while True:
                    if not await _run(check, vm, addresses):
                        return
                    await asyncio.sleep(CHECK_AGAIN_S)
        except TimeoutError:
            raise NotDone(f"the check did not succeed within {check_for_s:.0f} s") from None

    return healthy


async def addresses_of(azure: Azure, availability_set_id: str) -> dict[str, str]:
    """Return the first private address of every VM of the set, by the VM's folded name.

    Raises:
        ControllerError: the VMs or their NICs could not be read.
    """
    vms = await azure.compute.members(availability_set_id)
    groups: dict[str, list[str]] = {}
    for nic_id in sorted(nic_id for vm in vms for nic_id in vm.nic_ids):
        groups.setdefault(nic_id.casefold().split("/providers/")[0], []).append(nic_id)
    nics = [nic for ids in groups.values() for nic in await azure.network.nics_in(ids)]
    owners = {fold(nic_id): fold(vm.name) for vm in vms for nic_id in vm.nic_ids}
    found: dict[str, str] = {}
    for nic in nics:
        for configuration in nic.ip_configurations:
            if configuration.private_ip:
                found.setdefault(owners[fold(nic.nic_id)], configuration.private_ip)
    return found


async def _run(command: str, vm: str, addresses: Mapping[str, str]) -> int:
    """Run a command of the operator in a shell, as they would; name and address are variables."""
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, "ROLL_VM": vm, "ROLL_ADDRESS": addresses.get(fold(vm), "")},
        start_new_session=True,
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(END_WITHIN_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        raise
