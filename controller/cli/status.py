"""`lb-drain status`: show the leader, the drained VMs and the recent transitions of the set."""

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from controller.cli.command import EXIT_OK, CommandGroup
from controller.cli.endpoint_errors import explain_unreachable
from controller.cli.options import add_config_option
from controller.cli.terminal import stdout_console
from controller.config.loader import load
from controller.config.schema import Settings
from controller.errors import ControllerError
from controller.observability import logs

if TYPE_CHECKING:
    from controller.status.ledger_view import LeaseStatus

WATCH_INTERVAL_S = 2.0


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "status",
        _status,
        summary="show the leader, drained VMs, holds and recent history of the set",
        examples=("--config config.toml --watch",),
    )
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, not tables")
    parser.add_argument("--watch", action="store_true", help="repeat every 2 seconds until ^C")


def _status(options: argparse.Namespace) -> int:
    from controller.agent.inspection import read_set_status
    from controller.cli.tables import print_status

    loaded = load(options.config, os.environ)
    logs.setup(logging.WARNING)

    def read() -> "LeaseStatus":
        with explain_unreachable(loaded, str(options.config)):
            return asyncio.run(read_set_status(loaded.settings, os.environ))

    if options.watch:
        _watch(read, loaded.settings, as_json=options.json)
    status = read()
    if options.json:
        print(json.dumps(status.as_json()))
    else:
        names, dry_run = loaded.settings.pool_names(), loaded.settings.policy.dry_run
        print_status(stdout_console(), status, pool_names=names, dry_run=dry_run)
    return EXIT_OK


def _watch(read: Callable[[], "LeaseStatus"], settings: Settings, *, as_json: bool) -> NoReturn:
    """Read and print the status until the command is ended."""
    from controller.cli.tables import print_watch

    console, names = stdout_console(), settings.pool_names()
    latest: LeaseStatus | None = None
    while True:
        problem = ""
        try:
            latest = read()
        except ControllerError as error:
            # During maintenance a VM or a service can be unreachable for a while: keep watching.
            problem = str(error)
        if not as_json:
            console.clear()
            print_watch(
                console,
                latest,
                pool_names=names,
                now=datetime.now(UTC),
                problem=problem,
                dry_run=settings.policy.dry_run,
            )
        elif problem:
            print(f"{time.strftime('%H:%M:%S')}  {problem}", file=sys.stderr)
        elif latest:
            print(json.dumps(latest.as_json()), flush=True)
        time.sleep(WATCH_INTERVAL_S)
