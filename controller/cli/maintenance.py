"""`lb-drain maintenance`: show planned maintenance, and start it in its self-service window."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from controller.cli.command import CommandGroup
from controller.cli.options import SetId, add_health_options, add_set_options

if TYPE_CHECKING:
    from controller.azure.maintenance import MaintenanceStatus
    from controller.operator.drain_client import DrainClient
    from controller.operator.rolling import RollingRunner


def add_parser(commands: CommandGroup) -> None:
    """Add the command and `start` below it."""
    parser = commands.add(
        "maintenance",
        _maintenance,
        summary="show the planned maintenance of each VM of the set, or start it",
        examples=("--json", "start --all"),
    )
    add_set_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, not a table")
    _add_start(
        CommandGroup(parser, prefix="lb-drain maintenance", metavar="COMMAND", required=False)
    )


def _add_start(commands: CommandGroup) -> None:
    parser = commands.add(
        "start",
        _start,
        summary="have Azure perform the planned maintenance, one drained VM at a time",
        details="The command drains a VM, starts its maintenance, waits until the VM runs and its "
        "maintenance is complete, restores it, and continues with the next VM, by update domain. "
        "It stops at the first failure.",
        examples=("web-1 web-2",),
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("vms", nargs="*", default=(), metavar="VM", help="names of the VMs")
    which.add_argument(
        "--all", action="store_true", help="every VM whose maintenance can be started now"
    )
    which.add_argument("--resume", action="store_true", help="continue an unfinished run")
    which.add_argument("--abandon", action="store_true", help="give up an unfinished run")
    add_health_options(parser, settle_after="the maintenance")
    # Accepted before and after `start`; a default here would replace a value given before it.
    parser.add_argument(
        "--config",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="configuration file",
    )
    parser.add_argument(
        "--availability-set",
        action=SetId,
        default=argparse.SUPPRESS,
        metavar="ID",
        help="resource id of the set, of either kind, to use the account of `az login`",
    )


def _maintenance(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.cli.maintenance_table import as_json, maintenance_table
    from controller.cli.terminal import stdout_console
    from controller.operator.drain_client import DrainClient
    from controller.operator.maintenance import read_statuses

    async def show(client: DrainClient) -> None:
        statuses = await read_statuses(client)
        if options.json:
            print(json.dumps(as_json(statuses, client.availability_set_id)))
        else:
            stdout_console().print(maintenance_table(statuses))

    return run_with_client(options, show)


def _start(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.cli.roll import abandon_run
    from controller.operator.drain_client import DrainClient
    from controller.operator.maintenance import read_statuses

    async def start(client: DrainClient) -> None:
        if options.abandon:
            await abandon_run(client)
            return
        named = client.canonical_names(options.vms)
        statuses = await read_statuses(client)
        runner = await _runner(client, statuses, options)
        if options.resume:
            await runner.resume()
        elif vms := _choose(client, statuses, named):
            await runner.begin(vms)
        else:
            print("There is no maintenance to start.", flush=True)
            return
        print("All VMs are done.", flush=True)

    return run_with_client(options, start, read_vm_names=True, requests_drains=not options.abandon)


async def _runner(
    client: "DrainClient", statuses: "tuple[MaintenanceStatus, ...]", options: argparse.Namespace
) -> "RollingRunner":
    from controller.core.azure_names import fold
    from controller.operator.maintenance import SelfServiceMaintenance
    from controller.operator.rolling import RollingRunner
    from controller.operator.shell_task import addresses_of, health_check

    addresses = (
        await addresses_of(client.azure, client.availability_set_id) if options.check else {}
    )
    maintenance = SelfServiceMaintenance(
        client,
        {fold(each.name): each.vm_id for each in statuses},
        complete_within_s=options.check_for,
        wait_until_healthy=health_check(
            options.check,
            addresses=addresses,
            settle_s=options.settle,
            check_for_s=options.check_for,
        ),
        checked=bool(options.check),
    )
    return RollingRunner(client, maintenance.task(), for_s=options.for_s)


def _choose(
    client: "DrainClient", statuses: "tuple[MaintenanceStatus, ...]", named: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the VMs to maintain, in order, and print what happens to each VM of the set."""
    from controller.core.azure_names import fold
    from controller.operator.maintenance import choose

    choice = choose(statuses, named, client.this_machine)
    for vm, reason in choice.skipped.items():
        print(f"{vm} is skipped: {reason}", flush=True)
    if choice.vms:
        print(f"Order: {', '.join(choice.vms)}", flush=True)
    if fold(client.this_machine) in {fold(vm) for vm in choice.vms}:
        print(
            f"This command runs on {client.this_machine}: this VM is the last one, and its "
            "maintenance can end the command. If it does, run the command again with --resume.",
            flush=True,
        )
    return choice.vms
