"""`lb-drain hand-over`: another VM of the set leads."""

import argparse
from typing import TYPE_CHECKING

from controller.cli.command import CommandGroup
from controller.cli.options import add_reason_option, add_set_options

if TYPE_CHECKING:
    from controller.operator.drain_client import DrainClient


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "hand-over",
        _hand_over,
        summary="let another VM of the set lead",
        details="The leader ends what it has begun and releases the lease; the VM that is named "
        "takes it, or any other. If the agent of that VM does not run, another one takes the lease "
        "after 15 seconds. The command reports the new leader. Suspends no law.",
        examples=("web-2", "--reason 'restart of the agent'"),
    )
    parser.add_argument("vm", metavar="VM", nargs="?", default="", help="name of the new leader")
    add_reason_option(parser)
    add_set_options(parser)


def _hand_over(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.core.azure_names import fold
    from controller.core.printable import printable
    from controller.errors import NotDone
    from controller.operator.controls import hand_over

    async def work(client: "DrainClient") -> None:
        leader = await hand_over(client, options.vm, reason=options.reason)
        if options.vm and fold(options.vm) != fold(leader):
            raise NotDone(f"{leader} leads now: the agent on {options.vm} did not take the lease")
        print(printable(f"{leader} leads now."))

    return run_with_client(options, work)
