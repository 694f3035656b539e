"""`lb-drain forget`: give up what the leader cannot restore of one VM."""

import argparse

from controller.cli.command import CommandGroup
from controller.cli.options import add_set_options, add_timeout_option, refuse_timeout_alone
from controller.cli.terminal import confirmed

LONGEST_LIST = 20
"""How many pools the question names."""


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "forget",
        _forget,
        summary="give up the lost pool memberships of a VM",
        details="The leader keeps memberships that it cannot restore, because the VM, its NIC or "
        "the pool does not exist, and restores them when it exists again. This command lets the "
        "leader drop them for good. Nothing is written to Azure.",
        examples=("web-2", "web-2 --yes --wait --timeout 5m"),
    )
    parser.add_argument("vm", metavar="VM", help="name of the VM")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    parser.add_argument("--wait", action="store_true", help="wait until the leader has done it")
    add_timeout_option(parser)
    add_set_options(parser)


def _forget(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client, time_limit
    from controller.core.azure_names import short
    from controller.core.printable import printable
    from controller.errors import NotDone
    from controller.operator.drain_client import DrainClient
    from controller.operator.forgetting import absent, forget, wait_until_forgotten

    refuse_timeout_alone(options, nothing="changed")

    async def give_up(client: DrainClient) -> None:
        entry = await absent(client, options.vm)
        given_up = (*(() if entry.lost and not entry.gone else entry.memberships), *entry.lost)
        pools = sorted({printable(short(membership.pool_id)) for membership in given_up})
        named = ", ".join(pools[:LONGEST_LIST]) + (", ..." if len(pools) > LONGEST_LIST else "")
        vm = printable(entry.vm)
        question = f"{vm} is not restored to {named} even if that exists again. Give it up?"
        if not options.yes and not confirmed(question):
            raise NotDone("nothing was changed")
        await forget(client, entry)
        print(f"The leader is asked to forget {vm} in {named}.", flush=True)
        if options.wait:
            left = (
                f"{vm} is not forgotten when --timeout ended the wait. The request stays in effect."
            )
            async with time_limit(options.timeout_s, lambda: left):
                await wait_until_forgotten(client, entry)
            print(f"{vm} is forgotten in {named}.", flush=True)

    return run_with_client(options, give_up)
