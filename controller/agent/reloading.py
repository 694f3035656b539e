"""Reloads the configuration without a restart, so that the lease and the work under way stay.

What a reload applies is in `config.in_force`. A file that cannot be used changes nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from controller.config.in_force import ConfigurationInForce, Reloaded
from controller.config.schema import Settings
from controller.errors import ConfigError
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.agent")


class ConfigurationReload:
    """Reads the configuration of one agent again on request; `run` is a task of the agent.

    Args:
        configuration: the configuration in force.
        read: reads and validates the file.
        open_channels: opens the notification channels of other settings in place of the old ones.
    """

    def __init__(
        self,
        configuration: ConfigurationInForce,
        *,
        read: Callable[[], Settings],
        open_channels: Callable[[Settings], Awaitable[None]],
    ) -> None:
        self._configuration = configuration
        self._read, self._open_channels = read, open_channels
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Reload soon. Safe to call from a signal handler."""
        self._requested.set()

    async def run(self) -> None:
        """Reload on each request, until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            await self._reload()

    async def _reload(self) -> None:
        try:
            settings = self._read()
            await self._open_channels(settings)
        except ConfigError as error:
            problems = "; ".join(str(error).splitlines())
            message = f"not reloaded, the configuration in force stays: {problems}"
            log(logger, logging.ERROR, message, event="config_not_reloaded")
            return
        found = self._configuration.reload(settings)
        level = logging.WARNING if found.restart else logging.INFO
        log(logger, level, reload_text(found), event="config_reloaded")


def reload_text(found: Reloaded) -> str:
    """Return what a reload has applied, and what it has not."""
    applied = f"applied: {', '.join(found.applied)}" if found.applied else "no setting changes"
    text = f"configuration reloaded; {applied}"
    if found.restart:
        text += f"; restart the agent to apply: {', '.join(found.restart)}"
    return text
