"""`lb-drain drain`: ask the leader to drain one VM."""

import argparse

from controller.cli.command import CommandGroup
from controller.cli.options import add_set_options, add_time_option


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "drain",
        _drain,
        summary="ask the leader to drain a VM",
        details="The leader makes the same safety checks as before maintenance.",
        examples=("web-2 --for 30m --reason 'kernel update' --wait",),
    )
    parser.add_argument("vm", metavar="VM", help="name of the VM")
    add_time_option(
        parser, default="30m", meaning="the VM is restored automatically after this time"
    )
    parser.add_argument(
        "--reason",
        default="",
        metavar="TEXT",
        help="shown in status, on the status page and in notifications (at most 200 characters)",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait until the VM is out of rotation and its connections had time to close",
    )
    add_set_options(parser)


def _drain(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.operator.drain_client import DrainClient

    async def drain(client: DrainClient) -> None:
        request = await client.drain(options.vm, for_s=options.for_s, reason=options.reason)
        vm, ends = request.vm, f"{request.until:%Y-%m-%d %H:%M:%S} UTC"
        print(f"Drain of {vm} requested; it ends automatically at {ends}.", flush=True)
        if options.wait:
            pools = await client.wait_until_drained(request)
            waited = f"waited {client.connection_drain_s:.0f} s for connections to close"
            print(f"{vm} removed from {pools}; {waited}.", flush=True)
        print(f"To end it now: {client.command('restore', vm)}")

    return run_with_client(options, drain, requests_drains=True)
