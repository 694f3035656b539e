"""`lb-drain history`: show what happened to the VMs of the set, and the verdict on every event."""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.options import UNITS, add_set_options
from controller.cli.set_reads import SetReads
from controller.cli.terminal import stdout_console
from controller.config.loader import load
from controller.observability import logs

if TYPE_CHECKING:
    from controller.status.history import History

Since = Callable[[datetime], datetime]
"""Returns the first instant to show, from the present one."""


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "history",
        _history,
        summary="show the steps of past drains and the verdict on every event",
        details="The ledger keeps the last 200 verdicts and the last steps.",
        examples=("--vm web-2 --since 1d", "--since 2030-01-31T20:00 --json"),
    )
    add_set_options(parser)
    parser.add_argument("--vm", default="", metavar="VM", help="only what concerns this VM")
    parser.add_argument(
        "--since",
        type=since,
        default=None,
        metavar="WHEN",
        help="only what happened since then: 90s, 30m, 2h or 7d ago, or a date with or without "
        "a time, such as 2030-01-31T20:00 (UTC unless it has a time zone)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (docs/api.md), not lines"
    )


def since(value: str) -> Since:
    """Parse a length of time or an instant."""
    number, unit = value[:-1], value[-1:]
    if number.isascii() and number.isdecimal() and len(number) <= 6 and unit in UNITS:
        length = timedelta(seconds=int(number) * UNITS[unit])
        return lambda now: max(now - length, datetime.min.replace(tzinfo=UTC) + timedelta(days=1))
    try:
        at = datetime.fromisoformat(value)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{value!r} is neither a length such as 30m, 2h or 7d nor a time such as "
            "2030-01-31T20:00"
        ) from None
    return lambda _: at


def _history(options: argparse.Namespace) -> int:
    reads = SetReads(load(options.config, os.environ), options)
    logs.setup(logging.ERROR, as_text=True)
    found, problem = asyncio.run(reads.read_history())
    shown = found.of(options.vm, options.since(found.at) if options.since else None)
    if problem and options.json:
        print(f"lb-drain: {problem}", file=sys.stderr)
    if options.json:
        print(json.dumps(shown.as_json()))
    else:
        _print(shown, problem)
    return EXIT_FAILED if problem else EXIT_OK


def _print(shown: "History", problem: str) -> None:
    from controller.cli.overview_tables import ALARM, print_history, show_line

    console = stdout_console()
    if problem:
        show_line(console, problem, style=ALARM)
    print_history(console, list(shown.verdicts), list(shown.lines))
