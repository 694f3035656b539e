"""`lb-drain doctor`: check the prerequisites of the agent on this VM."""

import argparse
import asyncio
import json
import logging
import os

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.options import add_config_option
from controller.cli.terminal import stdout_console
from controller.config.loader import load
from controller.observability import logs


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "doctor",
        _doctor,
        summary="check everything that the agent on this VM needs, and print how to fix it",
        details="Nothing is changed. Exit code 1 if a check fails, 0 if there are at most "
        "warnings.",
        examples=("--config config.toml",),
    )
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, not a table")


def _doctor(options: argparse.Namespace) -> int:
    from rich.console import Console

    from controller.cli.doctor_table import show
    from controller.clock import SystemClock
    from controller.doctor.run import examine

    settings = load(options.config, os.environ).settings
    logs.setup(logging.ERROR, as_text=True)  # A warning of an adapter is a finding here.
    progress = "Querying Azure; the first read of scheduled events can take 2 minutes"
    with Console(stderr=True).status(progress):
        report = asyncio.run(examine(settings, environ=os.environ, clock=SystemClock()))
    if options.json:
        print(json.dumps(report.as_json()))
    else:
        show(stdout_console(), report)
    return EXIT_FAILED if report.failed else EXIT_OK
