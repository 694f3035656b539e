"""What shells complete after `lb-drain`, made from the parser: no TAB has to start Python."""

import argparse
from pathlib import Path
from typing import Any, cast

import shtab

from controller.first_run.arguments import actions, walk


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for a shell that `commands.SHELLS` names."""
    for _, command in walk(parser):
        for action in actions(command):
            if action.type is Path:
                # Where shtab looks for what a value is.
                taken = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
                cast("Any", action).complete = taken
    return shtab.complete(parser, cast("Any", shell))
