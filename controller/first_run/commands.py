"""Arguments of the commands of the first run, for the parser of `controller.cli`.

What a command needs is imported when it runs: the SDK is not loaded to show a help text.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ValidationError

from controller.settings import STORAGE_CONNECTION_STRING, BackendPool, Election

if TYPE_CHECKING:
    from rich.console import Console

SHELLS = ("bash", "zsh", "fish")


class Add(Protocol):
    """Adds a command to the parser: its name, its function, its help, an example."""

    def __call__(
        self, name: str, command: Callable[[argparse.Namespace], int], text: str, example: str, /
    ) -> argparse.ArgumentParser: ...


def add_init(add: Add, config: Path, console: "Callable[[], Console]") -> None:
    """Add `init`, which writes to `config` unless told otherwise."""

    def command(options: argparse.Namespace) -> int:
        from controller.first_run.init import init

        if not options.yes and not sys.stdin.isatty():
            options.yes = True
        return init(options, console())

    sub = add(
        "init",
        command,
        "write a commented configuration for the set of this VM: ask Azure for the pools in which "
        "its VMs are, and you for what Azure does not know. Where Azure is, and any other setting, "
        "is taken from the environment (LB_DRAIN_*) into the file",
        "lb-drain init --container-url https://ACCOUNT.blob.core.windows.net/lb-drain",
    )
    sub.add_argument(
        "--config",
        type=Path,
        default=config,
        metavar="FILE",
        help=f"the file to write (default: {config})",
    )
    sub.add_argument(
        "--container-url",
        type=checked(Election, "container_url"),
        metavar="URL",
        help="URL of the blob container for lease and ledger; without it you are asked, or, where "
        "nobody can be asked, this is an error",
    )
    sub.add_argument(
        "--pool",
        type=checked(BackendPool, "id"),
        nargs="+",
        action="extend",
        default=[],
        metavar="ID",
        help="full ids of the pools to manage, instead of all in which VMs of the set are; with "
        "--container-url Azure is not asked at all",
    )
    sub.add_argument(
        "--yes",
        "--non-interactive",
        action="store_true",
        help="ask nothing; so does a command whose input is no terminal",
    )
    sub.add_argument(
        "--force",
        action="store_true",
        help="replace a file that is there; it is kept beside the new one, as FILE.before",
    )
    sub.set_defaults(refuse=sub.error, default_config=config)


def checked(model: type[BaseModel], key: str) -> Callable[[str], str]:
    """Return what takes the value of one key as a table of the configuration takes it."""

    def check(text: str) -> str:
        context = {"loopback_http_storage": bool(os.environ.get(STORAGE_CONNECTION_STRING))}
        try:
            return str(getattr(model.model_validate({key: text}, context=context), key))
        except ValidationError as error:
            # The text is not repeated: it may hold a secret.
            problem = error.errors()[0].get("ctx", {}).get("error")
            raise argparse.ArgumentTypeError(str(problem)) from None

    return check


def add_completion(add: Add, parser: argparse.ArgumentParser) -> None:
    """Add `completion`, which prints what a shell needs to complete all commands of the parser."""

    def command(options: argparse.Namespace) -> int:
        from controller.first_run.completion import script

        print(script(parser, options.shell), end="")
        return 0

    sub = add(
        "completion",
        command,
        "print the script with which a shell completes commands and options; install.sh puts it "
        "where shells look for it",
        "lb-drain completion bash > ~/.local/share/bash-completion/completions/lb-drain",
    )
    sub.add_argument("shell", choices=SHELLS, help="for which shell")


def add_manual(add: Add, parser: argparse.ArgumentParser, config: Path) -> None:
    """Add `manual`, which prints the manual page of all commands of the parser."""

    def command(_options: argparse.Namespace) -> int:
        from controller.first_run.manual import page

        print(page(parser, version("lb-drain-controller"), config), end="")
        return 0

    add(
        "manual",
        command,
        "print the manual page of all commands; install.sh puts it where man looks for it",
        "lb-drain manual | man --local-file -",
    )
