"""`lb-drain restore`: end the manual drain of VMs."""

import argparse
from typing import TYPE_CHECKING

from controller.cli.command import CommandGroup
from controller.cli.options import add_set_options, add_timeout_option, refuse_timeout_alone

if TYPE_CHECKING:
    from controller.operator.drain_client import DrainClient
    from controller.operator.withdrawal import Withdrawal


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "restore",
        _restore,
        summary="end the manual drain of VMs, so that the leader restores them",
        details="A VM stays out of rotation while any drain request for it stands, or an event for "
        "it is announced. If several operators have requested a drain of a VM, the command ends "
        "only your own requests.",
        examples=("web-2 web-3 --wait --timeout 5m", "web-2 --all"),
    )
    parser.add_argument("vms", metavar="VM", nargs="+", help="names of the VMs")
    parser.add_argument("--wait", action="store_true", help="wait until the VMs are in service")
    add_timeout_option(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--all", action="store_true", help="end the manual drains of every operator for these VMs"
    )
    which.add_argument("--id", default="", metavar="ID", help="end the drain request with this id")
    add_set_options(parser)


def _restore(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client, time_limit
    from controller.errors import NotDone
    from controller.operator.drain_client import DrainClient

    refuse_timeout_alone(options, nothing="changed")
    if options.id and len(options.vms) > 1:
        raise NotDone("--id ends one request: name the one VM that it is for; nothing is changed")

    async def restore(client: DrainClient) -> None:
        found = await client.restore_all(
            options.vms, request_id=options.id, of_everyone=options.all
        )
        for vm, each in found.items():
            print(_result(vm, each, _why_out(client, vm, each)), flush=True)
        if not options.wait:
            return
        staying = [vm for vm, each in found.items() if each.standing]
        waiting = [vm for vm in found if vm not in staying]

        problems = [f"not restored: {', '.join(staying)}"] if staying else []

        def unfinished() -> str:
            left = f"not in service when --timeout ended the wait: {', '.join(waiting)}"
            return "\n".join((*problems, left))

        async with time_limit(options.timeout_s, unfinished):
            for vm in tuple(waiting):
                try:
                    was_out = await client.wait_until_in_service(vm)
                    text = f"{vm} is in service." if was_out else f"{vm} is not drained."
                    print(text, flush=True)
                except NotDone as error:
                    problems.append(str(error))
                waiting.remove(vm)
        if problems:
            raise NotDone("\n".join(problems))

    return run_with_client(options, restore)


def _result(vm: str, found: "Withdrawal", staying: str) -> str:
    """Return what became of the manual drains of one VM."""
    if not found.withdrawn:
        return staying if found.standing else f"{vm} has no manual drain to end. {staying}".rstrip()
    withdrawn = f"The manual drain of {vm} is withdrawn"
    return (
        f"{withdrawn}. {staying}"
        if staying
        else f"{withdrawn}; if the VM is out, the leader restores it."
    )


def _why_out(client: "DrainClient", vm: str, found: "Withdrawal") -> str:
    """Return why a VM stays out although its manual drain ended, and what follows."""
    from controller.core.printable import printable
    from controller.operator.withdrawal import listed

    if found.standing:
        return (
            f"{vm} stays out of rotation: requests of other operators are in force:"
            f"{listed(found.standing)}\nTo end all: {client.command('restore', vm, '--all')}"
        )
    if found.events:
        events = ", ".join(f"{each.event_type} {each.event_id}" for each in found.events)
        return (
            f"{vm} stays out of rotation because of {printable(events)}; the leader restores it "
            "when the event is over."
        )
    return ""
