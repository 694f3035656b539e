"""`lb-drain run`: run the agent on this VM."""

import argparse
import asyncio
import gc
import logging
import os

from controller.cli.command import EXIT_OK, CommandGroup
from controller.cli.options import add_config_option
from controller.config.loader import load
from controller.observability import logs
from controller.system.signals import RELOAD, STOP, on_signal

logger = logging.getLogger("lbdrain.cli")


def add_parser(commands: CommandGroup) -> None:
    """Add the command."""
    parser = commands.add(
        "run",
        _run,
        summary="run the agent on this VM",
        details="SIGHUP reloads the configuration without losing the lease. The log states what "
        "is applied, and what needs a restart. A file with an error changes nothing.",
        examples=("--config config.toml",),
    )
    add_config_option(parser)
    parser.add_argument("--verbose", action="store_true", help="log at DEBUG level")


def _run(options: argparse.Namespace) -> int:
    from controller.agent.agent import Agent
    from controller.status.server import StatusServer

    loaded = load(options.config, os.environ)
    logs.setup(logging.DEBUG if options.verbose else logging.INFO)

    async def run() -> None:
        agent = Agent(
            loaded.settings,
            environ=os.environ,
            read_settings=lambda: load(options.config, os.environ).settings,
        )
        on_signal(STOP, agent.stop)
        on_signal(RELOAD, agent.reload)
        async with StatusServer(loaded.settings.server.listen, agent.live_status) as server:
            if server.url:
                logs.log(logger, logging.INFO, f"status page: {server.url}", event="status_served")
            # Imported modules live as long as the process: the collector need not visit them.
            gc.freeze()
            await agent.run()

    asyncio.run(run())
    return EXIT_OK
