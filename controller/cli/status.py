"""`lb-drain status`: show the VMs of the set, their agents, what is announced and what is held."""

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.options import add_set_options
from controller.cli.set_reads import SetReads
from controller.cli.terminal import stdout_console
from controller.config.loader import load
from controller.errors import ControllerError
from controller.observability import logs

if TYPE_CHECKING:
    from rich.console import Console

    from controller.cli.set_reads import Reading
    from controller.status.monitoring_check import Check

WATCH_INTERVAL_S = 5.0
"""Each repetition reads what a leader reads, Resource Manager included."""


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "status",
        _status,
        summary="show VMs, agents, pools, events, holds and recent history of the set",
        details="If Azure or storage does not answer, the view of the agent on this VM is shown.",
        examples=("--config config.toml --watch", "--check"),
    )
    add_set_options(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object, as /api/v1/overview (docs/api.md), not tables",
    )
    repeated = parser.add_mutually_exclusive_group()
    repeated.add_argument("--watch", action="store_true", help="repeat every 5 seconds until ^C")
    repeated.add_argument(
        "--check",
        action="store_true",
        help="print one line for a monitoring plugin; the exit code is the state: 0 OK, 1 WARNING, "
        "2 CRITICAL, 3 UNKNOWN, which is also every failure of the check",
    )


def is_check(arguments: Sequence[str]) -> bool:
    """Return whether these arguments, right or wrong, are those of a check of a monitor."""
    given = (len(each) > len("--c") and "--check".startswith(each) for each in arguments)
    return list(arguments[:1]) == ["status"] and any(given)


def wrong_arguments() -> int:
    """Report that a check of a monitor has wrong arguments; return its exit code."""
    from controller.status.monitoring_check import Check, State

    return _report(Check(state=State.UNKNOWN, text="wrong arguments: see lb-drain status --help"))


def _status(options: argparse.Namespace) -> int:
    logs.setup(logging.ERROR, as_text=True)
    if options.check:
        return _check(options)
    reads = SetReads(load(options.config, os.environ), options)
    if options.watch:
        _watch(reads, as_json=options.json)
    reading = asyncio.run(reads.read())
    if options.json:
        print(json.dumps(reading.overview))
        if reading.problem:
            print(f"lb-drain: {reading.problem}", file=sys.stderr)
    else:
        print_reading(stdout_console(), reading)
    return EXIT_FAILED if reading.problem else EXIT_OK


def _check(options: argparse.Namespace) -> int:
    """Print the state of the set as a monitoring plugin does; whatever fails is unknown."""
    from controller.core.printable import excerpt
    from controller.status.monitoring_check import Check, State, check

    try:
        reading = asyncio.run(SetReads(load(options.config, os.environ), options).read())
        found = check(reading.overview, incomplete=reading.problem)
    except ControllerError as error:
        found = Check(state=State.UNKNOWN, text=str(error))
    except Exception as error:  # a traceback exits with 1, which a monitor reads as a warning
        text = f"the check failed: {type(error).__name__}: {excerpt(str(error))}"
        found = Check(state=State.UNKNOWN, text=text)
    return _report(found)


def _report(found: "Check") -> int:
    """Print a check; return its state, which is unknown if the monitor does not get the line."""
    try:
        print(found.line, flush=True)
    except OSError:
        return type(found.state).UNKNOWN
    return found.state


def print_reading(console: "Console", reading: "Reading") -> None:
    """Print a reading: where it comes from, then tables."""
    from controller.cli import overview_tables as tables

    shown = reading.overview
    tables.print_origin(console, reading)
    tables.print_head(console, shown)
    if shown["ledger"]["problem"]:
        tables.show_line(console, f"ledger: {shown['ledger']['problem']}", style=tables.ALARM)
    tables.show_line(console, shown["agent"]["headline"])
    tables.print_vms(console, shown)
    tables.print_events(console, shown)
    tables.print_requests(console, shown)
    tables.print_holds(console, shown)
    limit, none = tables.SHOWN_LINES, tables.none_text(shown)
    tables.print_history(console, shown["verdicts"], shown["history"], limit=limit, none=none)


def _watch(reads: SetReads, *, as_json: bool) -> NoReturn:
    """Read and print the status until the command is ended."""
    from controller.cli.overview_tables import show_line

    console = stdout_console()
    latest: Reading | None = None
    while True:
        problem = ""
        try:
            latest = asyncio.run(reads.read())
        except ControllerError as error:
            # During maintenance a VM or a service can be unreachable for a while: keep watching.
            problem = str(error)
        if as_json:
            if problem or (latest and latest.problem):
                at = time.strftime("%H:%M:%S")
                print(f"{at}  {problem or (latest and latest.problem)}", file=sys.stderr)
            if latest and not problem:
                print(json.dumps(latest.overview), flush=True)
        else:
            console.clear()
            if problem:
                after = "; the following is the last one that succeeded" if latest else ""
                show_line(console, f"read failed: {problem}{after}", style="bold red")
            if latest:
                print_reading(console, latest)
        time.sleep(WATCH_INTERVAL_S)
