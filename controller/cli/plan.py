"""`lb-drain plan`: show what a leader would do now, without writing anything."""

import argparse
import asyncio
import logging
import os

from controller.cli.command import EXIT_FAILED, EXIT_OK, CommandGroup
from controller.cli.endpoint_errors import explain_unreachable
from controller.cli.options import add_config_option
from controller.cli.terminal import stdout_console
from controller.config.loader import load
from controller.observability import logs


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "plan",
        _plan,
        summary="show what the leader would do now, and why; writes nothing",
        examples=("--config config.toml",),
    )
    add_config_option(parser)


def _plan(options: argparse.Namespace) -> int:
    from controller.agent.inspection import preview_plan
    from controller.cli.tables import print_plan

    loaded = load(options.config, os.environ)
    settings = loaded.settings
    logs.setup(logging.WARNING)
    with explain_unreachable(loaded, str(options.config)):
        found = asyncio.run(preview_plan(settings, os.environ))
    print_plan(stdout_console(), found, dry_run=settings.policy.dry_run)
    return EXIT_FAILED if found.unread else EXIT_OK
