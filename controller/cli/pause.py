"""`lb-drain pause` and `lb-drain resume`: no removals from the whole set for a while."""

import argparse

from controller.cli.command import CommandGroup
from controller.cli.options import add_reason_option, add_set_options, add_time_option


def add_parser(commands: CommandGroup) -> None:
    """Add both commands."""
    paused = commands.add(
        "pause",
        _pause,
        summary="let no VM of the set be closed or removed for a while",
        details="VMs that are out are restored as ever. An event that is announced meanwhile hits "
        "its VMs in rotation: a pause suspends law S7, in time. A later pause replaces this one.",
        examples=("--for 2h --reason 'migration of the load balancer'",),
    )
    add_time_option(paused, default="1h", meaning="the pause ends automatically after this time")
    add_reason_option(paused)
    add_set_options(paused)
    resumed = commands.add(
        "resume",
        _resume,
        summary="end the pause of the set",
        examples=("--config config.toml",),
    )
    add_set_options(resumed)


def _pause(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.operator.controls import pause
    from controller.operator.drain_client import DrainClient

    async def work(client: DrainClient) -> None:
        made = await pause(client, for_s=options.for_s, reason=options.reason)
        print(f"Removals of the set are paused until {made.until:%Y-%m-%d %H:%M:%S} UTC.")
        print(f"To end the pause now: {client.command('resume')}")

    return run_with_client(options, work)


def _resume(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.operator.controls import resume
    from controller.operator.drain_client import DrainClient

    async def work(client: DrainClient) -> None:
        ended = await resume(client)
        print(f"The pause {ended.author} is ended: the leader removes what is due.")

    return run_with_client(options, work)
