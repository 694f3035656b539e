"""`lb-drain completion`: print a completion script, made from the parser.

The shell completes from the script alone and does not start Python.
"""

import argparse
from pathlib import Path
from typing import Any, cast

from controller.cli.command import EXIT_OK, CommandGroup
from controller.cli.parser_tree import actions, walk

SHELLS = ("bash", "zsh", "fish")


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""

    def completion(options: argparse.Namespace) -> int:
        print(_script(commands.parser, options.shell), end="")
        return EXIT_OK

    parser = commands.add(
        "completion",
        completion,
        summary="print the completion script for a shell",
        details="install.sh installs these scripts.",
        examples=("bash > ~/.local/share/bash-completion/completions/lb-drain",),
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def _script(parser: argparse.ArgumentParser, shell: str) -> str:
    import shtab

    for _, command in walk(parser):
        for action in actions(command):
            if action.type is Path:
                # The attribute in which shtab finds how to complete a value.
                kind = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
                cast("Any", action).complete = kind
    return shtab.complete(parser, cast("Any", shell))
