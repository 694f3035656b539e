"""`lb-drain drain`: ask the leader to drain VMs."""

import argparse
import asyncio

from controller.cli.command import CommandGroup
from controller.cli.options import (
    add_set_options,
    add_time_option,
    add_timeout_option,
    refuse_timeout_alone,
)
from controller.cli.terminal import confirmed


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "drain",
        _drain,
        summary="ask the leader to drain VMs",
        details="The leader makes the same safety checks as before maintenance: each VM leaves as "
        "soon as min_in_service of every pool allows it. Several VMs are requested together.",
        examples=(
            "web-2 --for 30m --reason 'kernel update' --wait --timeout 5m",
            "web-3 --force --reason 'the Redeploy at 19:52 must not hit it in service'",
        ),
    )
    parser.add_argument("vms", metavar="VM", nargs="+", help="names of the VMs")
    add_time_option(
        parser, default="30m", meaning="the VMs are restored automatically after this time"
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
        help="wait until the VMs are out of rotation and their connections had time to close",
    )
    add_timeout_option(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="drain these VMs even if fewer healthy members than min_in_service stay in a pool. "
        "Needs --reason, and asks for confirmation. History records the operator and the reason",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    add_set_options(parser)


def _drain(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client, time_limit
    from controller.core.drain_requests import DrainRequest
    from controller.errors import NotDone
    from controller.operator.drain_client import DrainClient

    _check_force(options)

    async def drain(client: DrainClient) -> None:
        requests = await client.drain_all(
            options.vms, for_s=options.for_s, reason=options.reason, forced=options.force
        )
        below = ", below min_in_service if necessary" if options.force else ""
        for each in requests:
            ends = f"{each.until:%Y-%m-%d %H:%M:%S} UTC"
            text = f"Drain of {each.vm} requested{below}; it ends automatically at {ends}."
            print(text, flush=True)
        command = client.command("restore", *(each.vm for each in requests))
        to_end = f"To end {'it' if len(requests) == 1 else 'them'} now: {command}"
        waiting = {each.vm for each in requests}
        problems: list[str] = []

        def drained(request: DrainRequest, pools: str) -> None:
            waiting.discard(request.vm)
            waited = f"waited {client.connection_drain_s:.0f} s for connections to close"
            print(f"{request.vm} removed from {pools}; {waited}.", flush=True)

        def refused(request: DrainRequest, problem: str) -> None:
            waiting.discard(request.vm)
            problems.append(problem)

        def unfinished() -> str:
            left = sorted(waiting)
            forced = client.command("drain", *left, "--force", "--reason", "TEXT")
            return "\n".join(
                (
                    *problems,
                    f"not drained when --timeout ended the wait: {', '.join(left)}. The "
                    f"requests stay in effect. {to_end}",
                    f"To drain below min_in_service: {forced}",
                )
            )

        if options.wait:
            try:
                async with time_limit(options.timeout_s, unfinished):
                    await client.wait_until_all_drained(requests, drained, refused)
            except asyncio.CancelledError:
                print(f"The requests stay in effect. {to_end}", flush=True)
                raise
            except NotDone as error:
                raise NotDone(f"{error}\n{to_end}") from None
        print(to_end)

    return run_with_client(options, drain, requests_drains=True)


def _check_force(options: argparse.Namespace) -> None:
    """Check what `--force` and `--timeout` need, and ask for confirmation.

    Raises:
        NotDone: something is missing, or the user does not confirm.
    """
    from controller.errors import NotDone

    refuse_timeout_alone(options, nothing="requested")
    if not options.force:
        return
    if not options.reason.strip():
        raise NotDone("--force needs --reason TEXT, which history records; nothing is requested")
    question = (
        f"Drain {', '.join(options.vms)} even if fewer members than min_in_service stay? "
        "The members that stay may be overloaded."
    )
    if not options.yes and not confirmed(question):
        raise NotDone("nothing is requested")
