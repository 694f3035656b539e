"""The command `lb-drain`: builds the parser, runs one command and maps errors to exit codes.

Exit codes: 0 done; 1 failed, the message gives the reason; 2 wrong arguments; 78 the configuration
must be changed (a service manager should not restart it); 124 `--timeout` ended the wait; 130 and
143 ended by ^C or SIGTERM. Those of `status --check` are the states of a monitoring plugin.
"""

import argparse
import asyncio
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from controller.cli import (
    check_config,
    completion,
    config,
    demo,
    doctor,
    drain,
    event_control,
    fleet,
    forget,
    hand_over,
    help_command,
    history,
    init,
    maintenance,
    manual,
    pause,
    plan,
    probe,
    rehearsal,
    restore,
    roll,
    run,
    simulate,
    status,
    support_bundle,
    update_watch,
)
from controller.cli.command import (
    EXIT_CODES,
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_USAGE,
    EXIT_WAIT_OVER,
    CommandGroup,
    CommandParser,
    Handler,
    HelpFormatter,
)
from controller.core.printable import printable
from controller.errors import ConfigError, ControllerError, WaitOver

if TYPE_CHECKING:
    import io

COMMANDS = (
    init,
    run,
    probe,
    check_config,
    doctor,
    plan,
    status,
    history,
    fleet,
    support_bundle,
    drain,
    restore,
    forget,
    roll,
    maintenance,
    rehearsal,
    pause,
    event_control,
    hand_over,
    config,
    update_watch,
    simulate,
    demo,
    completion,
    manual,
    help_command,
)
"""The modules of the commands, in the order of the help text."""

CODES = {ConfigError: EXIT_CONFIG, WaitOver: EXIT_WAIT_OVER}
"""The exit codes of errors; those of all others are `EXIT_FAILED`."""
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE)
"""What a full disk, a terminal that is gone and a closed pipe make of output."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    if hasattr(sys.stdout, "reconfigure"):
        # A name or reason that the locale does not have must not end a command half way.
        cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    parser = build_parser()
    if not given:
        parser.print_help(sys.stderr)
        sys.exit(EXIT_USAGE)
    try:
        options = parser.parse_args(given)
    except SystemExit as ended:
        if ended.code == EXIT_USAGE and status.is_check(given):
            sys.exit(_flushed(status.wrong_arguments()))
        raise
    sys.exit(_flushed(_exit_code(options.command, options)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = CommandParser(
        prog="lb-drain",
        description="Drains the VMs of an availability set or scale set from load balancer "
        "backend\npools before maintenance, and restores them afterwards.",
        epilog=EXIT_CODES,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("lb-drain-controller"))
    commands = CommandGroup(parser, prefix="lb-drain", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def _exit_code(command: Handler, options: argparse.Namespace) -> int:
    try:
        return command(options)
    except ControllerError as error:
        print(f"lb-drain: {_shown(error)}", file=sys.stderr)
        return next((code for kind, code in CODES.items() if isinstance(error, kind)), EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except asyncio.CancelledError:
        return EXIT_TERMINATED
    except OSError as error:
        if error.errno not in NOT_WRITTEN or error.filename is not None:
            raise
        return _not_written(error)


def _flushed(code: int) -> int:
    """Return the exit code after the rest of the output is written, or cannot be."""
    try:
        print(end="", flush=True)
    except OSError as error:
        # What is left cannot be written at the end of the process either, which Python would try.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return code or _not_written(error)
    return code


def _not_written(error: OSError) -> int:
    """Report that output is missing, unless its reader has left, and return the exit code."""
    if not isinstance(error, BrokenPipeError):
        why = error.strerror or error
        with suppress(OSError):
            print(f"lb-drain: the output cannot be written completely: {why}", file=sys.stderr)
    return EXIT_FAILED


def _shown(error: ControllerError) -> str:
    """Return a message without control characters: part of it may come from a blob."""
    return "\n".join(map(printable, str(error).split("\n")))
