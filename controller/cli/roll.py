"""`lb-drain roll`: run a command for every VM of the set, one drained VM at a time."""

import argparse
from typing import TYPE_CHECKING

from controller.cli.command import CommandGroup
from controller.cli.options import add_health_options, add_set_options
from controller.core.printable import printable

if TYPE_CHECKING:
    from controller.operator.drain_client import DrainClient


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "roll",
        _roll,
        summary="run a command for each VM of the set, one drained VM at a time",
        details="The command drains a VM, runs the given command, waits until --check succeeds "
        "(without it, nothing is checked), restores the VM, and continues with the next one. It "
        "stops at the first failure.",
        examples=("""--command 'ssh "$ROLL_ADDRESS" sudo apt-get -y upgrade'""",),
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--command",
        dest="shell_command",
        metavar="CMD",
        help="shell command that runs on this machine once per VM, with $ROLL_VM and "
        "$ROLL_ADDRESS; it must end when the work on the VM is complete, and must be idempotent",
    )
    what.add_argument(
        "--abandon",
        action="store_true",
        help="give up an unfinished rolling run; the VM that it drained is restored",
    )
    parser.add_argument("vms", nargs="*", metavar="VM", help="only these VMs (default: all VMs)")
    add_health_options(parser, settle_after="the command")
    parser.add_argument("--resume", action="store_true", help="continue an unfinished rolling run")
    add_set_options(parser)


def _roll(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.errors import NotDone
    from controller.operator.drain_client import DrainClient
    from controller.operator.rolling import RollingRunner, order
    from controller.operator.shell_task import addresses_of, command_task

    if options.abandon and (options.vms or options.resume):
        raise NotDone("--abandon gives up the whole run: leave out VMs and --resume")

    async def roll(client: DrainClient) -> None:
        if options.abandon:
            await abandon_run(client)
            return
        task = command_task(
            options.shell_command,
            addresses=await addresses_of(client.azure, client.availability_set_id),
            check=options.check,
            settle_s=options.settle,
            check_for_s=options.check_for,
        )
        runner = RollingRunner(client, task, for_s=options.for_s)
        chosen = client.canonical_names(options.vms)
        if options.resume:
            await runner.resume(chosen)
        else:
            await runner.begin(chosen or order(client.vms, last=client.this_machine))
        print("All VMs are done.", flush=True)

    return run_with_client(options, roll, read_vm_names=True, requests_drains=not options.abandon)


async def abandon_run(client: "DrainClient") -> None:
    """Give up the unfinished rolling run and print what is left of it."""
    from controller.operator.rolling import abandon

    abandoned = await abandon(client)
    remaining = ", ".join(abandoned.remaining) or "none"
    print(printable(f"Rolling run abandoned: {abandoned.what}. VMs not done: {remaining}"))
