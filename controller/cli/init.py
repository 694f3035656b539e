"""`lb-drain init`: write a configuration file for the set of this VM."""

import argparse
import sys
from pathlib import Path

from controller.cli.command import EXIT_OK, CommandGroup
from controller.cli.endpoint_errors import explain_unreachable
from controller.cli.terminal import stdout_console
from controller.config.backend_pool import BackendPool
from controller.config.loader import DEFAULT_CONFIG, overridden
from controller.config.option_types import checked
from controller.config.schema import Election


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "init",
        _init,
        summary="write a commented configuration file for the set of this VM",
        details="The command reads the backend pools from Azure and prompts for what Azure does "
        "not know. Settings from the environment (LB_DRAIN_*) are written to the file.",
        examples=("--container-url https://ACCOUNT.blob.core.windows.net/lb-drain",),
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help=f"file to write (default: {DEFAULT_CONFIG})",
    )
    parser.add_argument(
        "--container-url",
        type=checked(Election, "container_url"),
        metavar="URL",
        help="URL of the blob container for lease and ledger; without it the command prompts for "
        "the URL, or fails if it cannot prompt",
    )
    parser.add_argument(
        "--pool",
        type=checked(BackendPool, "id"),
        nargs="+",
        action="extend",
        default=[],
        metavar="ID",
        help="resource ids of the pools to manage, instead of all pools that contain VMs of the "
        "set; together with --container-url no request is sent to Azure",
    )
    parser.add_argument(
        "--yes",
        "--non-interactive",
        action="store_true",
        help="do not prompt; this is the default if stdin is not a terminal",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an existing file and keep the old one as FILE.before",
    )
    parser.set_defaults(refuse=parser.error)


def _init(options: argparse.Namespace) -> int:
    from controller.setup.init import CONTAINER_URL, InitOptions, init, prepare

    provisional = prepare(options.config, force=options.force)
    url = options.container_url or overridden(provisional).get(CONTAINER_URL)
    chosen = InitOptions(
        path=options.config,
        container_url=None if url is None else str(url),
        pools=tuple(options.pool),
        prompt=not options.yes and sys.stdin.isatty(),
        force=options.force,
    )
    if chosen.container_url is None and not chosen.prompt:
        options.refuse(
            "--container-url is needed without a prompt: the URL of the blob container for lease "
            "and ledger, which the agents do not create"
        )
    with explain_unreachable(provisional):
        init(chosen, stdout_console(), provisional)
    return EXIT_OK
