"""`lb-drain check-config`: print the effective configuration, or every problem in it."""

import argparse
import asyncio
import logging
import os
from pathlib import Path

from controller.cli.command import EXIT_OK, CommandGroup
from controller.cli.options import add_config_option
from controller.cli.terminal import stdout_console
from controller.config.loader import LoadedSettings, describe, load_either
from controller.observability import logs


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "check-config",
        _check_config,
        summary="print every setting and its origin, or every problem in the configuration",
        examples=("config.toml",),
    )
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="configuration file, the same as --config FILE",
    )
    add_config_option(parser)
    parser.add_argument(
        "--in-force",
        action="store_true",
        help="also read the settings of the whole set (lb-drain config), and show the values that "
        "the agent of this VM works by, with author and end",
    )
    parser.add_argument("--quiet", action="store_true", help="print problems only")


def _check_config(options: argparse.Namespace) -> int:
    from rich.table import Column, Table

    # The value comes last: a long id that is folded keeps the other columns in their places.
    key, origin = (Column(name, no_wrap=True) for name in ("key", "from"))
    table = Table(key, origin, Column("value", overflow="fold"), box=None)
    loaded = load_either(options.file or options.config, os.environ)
    if options.quiet:
        return EXIT_OK
    if options.in_force and isinstance(loaded, LoadedSettings):
        loaded = _in_force(loaded)
    for name, value, source in describe(loaded):
        if name.startswith("notifications[") and source == "default" and not value:
            continue  # a key of another kind of channel
        table.add_row(name, source, value)
    stdout_console().print(table)
    return EXIT_OK


def _in_force(loaded: LoadedSettings) -> LoadedSettings:
    """Return the settings with those of the whole set."""
    from controller.agent.inspection import read_controls
    from controller.config.overrides import with_overrides

    logs.setup(logging.WARNING, as_text=True)
    found = asyncio.run(read_controls(loaded.settings, os.environ))
    return with_overrides(loaded, found.overrides)
