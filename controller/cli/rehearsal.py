"""`lb-drain test`: rehearse on the real set what happens before maintenance."""

import argparse
import asyncio
import os

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.options import (
    add_config_option,
    add_set_options,
    add_time_option,
    duration,
)
from controller.config.loader import load
from controller.core.events import EVENT_TYPES
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
    _add_event(below)


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
    add_time_option(
        drain, default="15m", meaning="if this command is killed, the test ends after this time"
    )
    add_set_options(drain)


def _add_event(below: CommandGroup) -> None:
    event = below.add(
        "event",
        _event,
        summary="announce an event that only the agents see, and follow it to its verdict",
        details="The agents do what they do for a real event, from announcement to verdict. "
        "Nothing is acknowledged, and no VM is restarted. ^C cancels the event.",
        examples=("web-2 --type Freeze --notice 3m",),
    )
    event.add_argument("vms", nargs="+", metavar="VM", help="names of the VMs")
    event.add_argument(
        "--type",
        dest="event_type",
        choices=EVENT_TYPES,
        default="Reboot",
        help="type of the event (default: Reboot)",
    )
    event.add_argument(
        "--notice",
        type=duration(30),
        default=duration(30)("2m"),
        metavar="TIME",
        help="time from the announcement to its NotBefore (default: 2m)",
    )
    event.add_argument(
        "--lasts",
        type=duration(10),
        default=duration(10)("40s"),
        metavar="TIME",
        help="time from its NotBefore to its end (default: 40s)",
    )
    add_set_options(event)


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

    async def drain(client: DrainClient) -> None:
        rehearsal = DrainRehearsal(client, for_s=options.for_s)
        times = await rehearsal.run(options.vm)
        for line in times.lines(options.vm):
            print(line, flush=True)

    return run_with_client(options, drain, requests_drains=True)


def _event(options: argparse.Namespace) -> int:
    from controller.cli.drain_session import run_with_client
    from controller.errors import NotDone
    from controller.operator.drain_client import DrainClient
    from controller.operator.event_rehearsal import PASSED, EventRehearsal, report_lines

    async def announce(client: DrainClient) -> None:
        rehearsal = EventRehearsal(
            client,
            event_type=options.event_type,
            notice_s=options.notice,
            lasts_s=options.lasts,
        )
        verdicts = await rehearsal.run(tuple(options.vms))
        print("\n".join(map(printable, report_lines(verdicts))), flush=True)
        if failed := [each.vm for each in verdicts if each.verdict not in PASSED]:
            raise NotDone(f"not drained in time: {', '.join(failed)}")

    return run_with_client(options, announce, requests_drains=True)
