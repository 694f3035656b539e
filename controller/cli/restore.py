"""`lb-drain restore`: end the manual drain of one VM."""

import argparse

from controller.cli.command import CommandGroup
from controller.cli.options import add_set_options


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "restore",
        _restore,
        summary="end the manual drain of a VM, so that the leader restores it",
        details="A VM stays out of rotation while any drain request for it stands. If several "
        "operators have requested a drain of the VM, the command ends only your own requests.",
        examples=("web-2 --wait", "web-2 --all"),
    )
    parser.add_argument("vm", metavar="VM", help="name of the VM")
    parser.add_argument("--wait", action="store_true", help="wait until the VM is in service")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--all", action="store_true", help="end the manual drains of every operator for this VM"
    )
    which.add_argument("--id", default="", metavar="ID", help="end the drain request with this id")
    add_set_options(parser)


def _restore(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.errors import NotDone
    from controller.operator.drain_client import DrainClient
    from controller.operator.withdrawal import listed

    async def restore(client: DrainClient) -> None:
        vm = options.vm
        found = await client.restore(vm, request_id=options.id, of_everyone=options.all)
        if found.standing:
            message = (
                f"{vm} stays out of rotation: requests of other operators are in force:"
                f"{listed(found.standing)}\nTo end all: {client.command('restore', vm, '--all')}"
            )
            if options.wait:
                raise NotDone(message)
            print(message, flush=True)
            return
        if found.withdrawn:
            print(
                f"The manual drain of {vm} is withdrawn; if the VM is out, the leader restores it.",
                flush=True,
            )
        else:
            print(f"{vm} has no manual drain to end.", flush=True)
        if options.wait and await client.wait_until_in_service(vm):
            print(f"{vm} is in service.", flush=True)
        elif options.wait:
            print(f"{vm} is not drained.", flush=True)

    return run_with_client(options, restore)
