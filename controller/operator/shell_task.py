"""The task of `lb-drain roll`: run a command for each VM, then run the check of the operator."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

from controller.azure.http.session import Azure
from controller.core.azure_names import fold
from controller.errors import NotDone
from controller.operator.rolling_task import Task
from controller.system.processes import GROUPS

CHECK_INTERVAL_S = 5.0
TERMINATE_WITHIN_S = 10.0
"""A command gets this time to end after SIGTERM when a run is interrupted."""


def command_task(
    command: str, *, addresses: Mapping[str, str], check: str, settle_s: float, check_for_s: float
) -> Task:
    """Return the task that runs a shell command for each VM.

    Args:
        addresses: private address of each VM, by its folded name.
        check: a command that succeeds when the VM is healthy; empty for none.
        settle_s: wait this long between the command and the first check.
        check_for_s: fail if the check does not succeed within this time.
    """

    async def work(vm: str) -> None:
        code = await _run(command, vm, addresses)
        if code:
            raise NotDone(f"the command ended with exit code {code}")

    healthy = health_check(check, addresses=addresses, settle_s=settle_s, check_for_s=check_for_s)
    return Task(what=command, work=work, wait_until_healthy=healthy, checked=bool(check))


def health_check(
    check: str, *, addresses: Mapping[str, str], settle_s: float, check_for_s: float
) -> Callable[[str], Awaitable[None]]:
    """Return a function that waits until the check succeeds; without a check it does not wait."""

    async def wait_until_healthy(vm: str) -> None:
        if not check:
            return
        await asyncio.sleep(settle_s)
        try:
            async with asyncio.timeout(check_for_s):
                while True:
                    if not await _run(check, vm, addresses):
                        return
                    await asyncio.sleep(CHECK_INTERVAL_S)
        except TimeoutError:
            raise NotDone(f"the check did not succeed within {check_for_s:.0f} s") from None

    return wait_until_healthy


async def addresses_of(azure: Azure, availability_set_id: str) -> dict[str, str]:
    """Return the first private address of every VM of the set, by the VM's folded name.

    Raises:
        ControllerError: the VMs or their NICs could not be read.
    """
    vms = await azure.compute.members(availability_set_id)
    owners = {fold(nic_id): fold(vm.name) for vm in vms for nic_id in vm.nic_ids}
    nics = await azure.network.nics_in(sorted(nic_id for vm in vms for nic_id in vm.nic_ids))
    found: dict[str, str] = {}
    for nic in nics:
        for configuration in nic.ip_configurations:
            if configuration.private_ip:
                found.setdefault(owners[fold(nic.nic_id)], configuration.private_ip)
    return found


async def _run(command: str, vm: str, addresses: Mapping[str, str]) -> int:
    """Run a command in a shell. Name and address of the VM are environment variables of it."""
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, "ROLL_VM": vm, "ROLL_ADDRESS": addresses.get(fold(vm), "")},
        **GROUPS.options,
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        GROUPS.ask_to_end(process)
        try:
            async with asyncio.timeout(TERMINATE_WITHIN_S):
                await process.wait()
        except TimeoutError:
            await GROUPS.kill(process)
            await process.wait()
        raise
