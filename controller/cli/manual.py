"""`lb-drain manual`: print the manual page."""

import argparse
from importlib.metadata import version

from controller.cli.command import EXIT_OK, CommandGroup
from controller.config.loader import DEFAULT_CONFIG


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""

    def manual(_options: argparse.Namespace) -> int:
        from controller.cli.man_page import page

        print(page(commands.parser, version("lb-drain-controller"), DEFAULT_CONFIG), end="")
        return EXIT_OK

    commands.add(
        "manual",
        manual,
        summary="print the manual page",
        details="install.sh installs it for `man lb-drain`.",
        examples=("| man --local-file -",),
    )
