"""`lb-drain update-watch`: watch the updates of an Azure Stack Hub."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.options import add_config_option
from controller.config.loader import load_watch
from controller.core.hub_watch import Outcome
from controller.observability import logs
from controller.system.signals import on_end

if TYPE_CHECKING:
    from controller.config.watch_settings import WatchSettings

EXIT_IN_PROGRESS, EXIT_UPDATE_FAILED, EXIT_UNKNOWN = 3, 4, 5
CODES = {
    Outcome.NO_RUN: EXIT_OK,
    Outcome.SUCCEEDED: EXIT_OK,
    Outcome.POLL_FAILED: EXIT_FAILED,
    Outcome.IN_PROGRESS: EXIT_IN_PROGRESS,
    Outcome.FAILED: EXIT_UPDATE_FAILED,
    Outcome.UNKNOWN: EXIT_UNKNOWN,
}
"""The exit codes, by what the newest run came to."""


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "update-watch",
        _update_watch,
        summary="watch the updates of an Azure Stack Hub, and report how they end",
        details="Reports each change of an update run once, success as well as failure, and that "
        "the state is unknown after several failed polls in a row. Then it asks the privileged "
        "endpoints through a command of yours. Ends with the run. Exit codes: 0 the newest run "
        "has succeeded, or there is none; 3 it is in progress; 4 it has failed; 5 its state is "
        "unknown; 1 this poll has failed, or the state file cannot be written.",
        examples=("--once", "--config hub.toml"),
    )
    add_config_option(parser)
    parser.add_argument(
        "--once",
        action="store_true",
        help="poll once and end, for cron or a systemd timer; the state file remembers what was "
        "reported and how many polls failed in a row",
    )


def _update_watch(options: argparse.Namespace) -> int:
    loaded = load_watch(options.config, os.environ)
    logs.setup(logging.INFO, as_text=True)
    return asyncio.run(_watch(loaded.settings, once=options.once))


async def _watch(settings: "WatchSettings", *, once: bool) -> int:
    from controller.clock import SystemClock
    from controller.hub.memory_file import only_user_of
    from controller.hub.session import open_hub
    from controller.hub.watch import Watch
    from controller.notifications.delivery import open_delivery
    from controller.notifications.formats import Origin

    task = asyncio.current_task()
    if task is not None:  # so that a command at a privileged endpoint ends with this one
        on_end(task.cancel)
    hub, clock = settings.update_watch, SystemClock()
    origin = Origin(agent=socket.gethostname(), runbook_url=settings.links.runbook_url)
    with only_user_of(Path(hub.state_file)):
        async with (
            open_delivery(
                settings.notifications, os.environ, ca_file=hub.ca_file, origin=origin
            ) as deliver,
            open_hub(hub, clock, os.environ) as reader,
        ):
            watch = Watch(hub, read=reader.read, deliver=deliver, clock=clock)
            await (watch.poll() if once else watch.run())
    if sys.stdout.isatty():
        print(f"Outcome: {watch.outcome.value}.")
    return EXIT_FAILED if watch.unsaved else CODES[watch.outcome]
