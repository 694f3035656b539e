"""`lb-drain test`: rehearse on the real set what happens before maintenance."""

import argparse
import asyncio
import os

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.options import add_config_option, add_drain_time_option, add_set_options
from controller.config.loader import load
from controller.core.printable import printable


def add_parser(commands: CommandGroup) -> None:
    """Add the command and those below it."""
    parser = commands.add(
        "test",
        _without_command,
        summary="rehearse notifications, a drain or an event on the real set",
        details="Nothing is restarted and no event is acknowledged. What results from a test is "
        "marked TEST in status, history, metrics and notifications.",
        examples=("notifications", "drain web-2", "event web-2"),
    )
    below = CommandGroup(parser, prefix="lb-drain test", metavar="COMMAND", required=True)
    notifications = below.add(
        "notifications",
        _notifications,
        summary="send one message marked TEST through each channel, and print each reply",
        details="Every channel is tried, whatever its `on` selects. Run the command as a user who "
        "can read the secrets of the channels. Secrets are never printed.",
        examples=("--config config.toml",),
    )
    add_config_option(notifications)
    _add_drain(below)


def _add_drain(below: CommandGroup) -> None:
    drain = below.add(
        "drain",
        _drain,
        summary="drain and restore one VM of the set, and print how long each step takes",
        details="The leader closes, removes and restores the VM as before maintenance, under the "
        "same capacity floor. The VM is not restarted. ^C ends the test, and the leader restores "
        "the VM.",
        examples=("web-2",),
    )
    drain.add_argument("vm", metavar="VM", help="name of the VM")
    add_drain_time_option(
        drain, default="15m", meaning="if this command is killed, the test ends after this time"
    )
    add_set_options(drain)


def _without_command(options: argparse.Namespace) -> int:
    raise AssertionError(options)  # the parser has ended: it requires a command


def _notifications(options: argparse.Namespace) -> int:
    from controller.clock import SystemClock
    from controller.errors import NotDone
    from controller.notifications.trial import try_channels

    settings = load(options.config, os.environ).settings
    if not settings.notifications:
        raise NotDone(f"{options.config} has no [[notifications]]: there is no channel to test")
    results = asyncio.run(try_channels(settings, os.environ, now=SystemClock().now()))
    for index, (channel, result) in enumerate(zip(settings.notifications, results, strict=True)):
        ended = "delivered" if result.delivered else "FAILED"
        print(f"notifications[{index}] ({channel.kind}): {ended}, {printable(result.reply)}")
        if result.remedy:
            print(f"  {result.remedy}")
    return EXIT_OK if all(each.delivered for each in results) else EXIT_FAILED


def _drain(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.operator.drain_client import DrainClient
    from controller.operator.drain_rehearsal import DrainRehearsal

    lead_time_s = load(options.config, os.environ).settings.policy.lead_time_s

    async def drain(client: DrainClient) -> None:
        rehearsal = DrainRehearsal(client, for_s=options.for_s, lead_time_s=lead_time_s)
        times = await rehearsal.run(options.vm)
        for line in times.lines(options.vm):
            print(line, flush=True)

    return run_with_client(options, drain, requests_drains=True)
