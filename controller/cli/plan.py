"""`lb-drain plan`: show what a leader would do now, without writing anything."""

import argparse
import asyncio
import logging
import os

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.options import add_set_options
from controller.cli.set_reads import SetReads
from controller.cli.terminal import stdout_console
from controller.config.loader import load
from controller.observability import logs


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "plan",
        _plan,
        summary="show what the leader would do now, and why; writes nothing",
        details="It also shows why an event changes nothing, and what happens when it begins.",
        examples=("--config config.toml",),
    )
    add_set_options(parser)


def _plan(options: argparse.Namespace) -> int:
    from controller.cli.overview_tables import are_events_unread
    from controller.cli.plan_table import print_plan

    reads = SetReads(load(options.config, os.environ), options, require_pools=True)
    logs.setup(logging.WARNING, as_text=True)
    reading = asyncio.run(reads.read())
    print_plan(stdout_console(), reading)
    found = reading.inspection
    failed = found is None or found.unread or are_events_unread(reading.overview)
    return EXIT_FAILED if failed else EXIT_OK
