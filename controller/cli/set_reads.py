"""One reading of the set, for `status` and `history`: from Azure, or else from the local agent."""

import argparse
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from controller.cli.endpoint_errors import explain_unreachable
from controller.config.loader import LoadedSettings
from controller.errors import ControllerError, NotDone, SetupError

if TYPE_CHECKING:
    from controller.agent.inspection import Inspection
    from controller.status.history import History
    from controller.status.overview_schema import Overview

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read."""

    overview: "Overview"
    problem: str = ""
    """Why it is only what the agent on this VM knows; empty for a complete reading."""
    inspection: "Inspection | None" = None
    """The reads and the plan behind it; None for what an agent knows."""
    dry_run: bool = False
    """Whether the agent on this VM is in a dry run."""


class SetReads:
    """Reads the set that the options select.

    Args:
        loaded: the configuration.
        options: `config` and `availability_set`.
        require_pools: refuse a configuration whose pools do not exist.
    """

    def __init__(
        self, loaded: LoadedSettings, options: argparse.Namespace, *, require_pools: bool = False
    ) -> None:
        self._loaded, self._options, self._require_pools = loaded, options, require_pools

    async def read(self) -> Reading:
        """Read what a leader reads.

        Raises:
            ControllerError: neither Azure nor an agent on this VM answers.
        """
        from controller.agent.inspection import inspect_set
        from controller.status.overview import overview

        settings, named = self._loaded.settings, self._options.availability_set

        async def inspect() -> Reading:
            found = await inspect_set(
                settings,
                os.environ,
                availability_set_id=named,
                require_pools=self._require_pools,
            )
            dry_run = settings.policy.dry_run and not named
            return Reading(overview=overview(found.snapshot), inspection=found, dry_run=dry_run)

        async def ask_agent(error: ControllerError) -> Reading:
            known, problem = await self._of_agent(error)
            return Reading(overview=known, problem=problem, dry_run=settings.policy.dry_run)

        return await self._first(inspect, ask_agent)

    async def read_history(self) -> tuple["History", str]:
        """Read the ledger; return its history, and why it is only what an agent knows.

        Raises:
            ControllerError: neither storage nor an agent on this VM answers.
        """
        from controller.agent.inspection import read_history
        from controller.status.history import history_in

        named = self._options.availability_set

        async def read() -> "tuple[History, str]":
            return await read_history(
                self._loaded.settings, os.environ, availability_set_id=named
            ), ""

        async def ask_agent(error: ControllerError) -> "tuple[History, str]":
            known, problem = await self._of_agent(error)
            if known["ledger"]["as_of"] is None:  # an empty history would look like a quiet set
                raise error
            return history_in(known), problem

        return await self._first(read, ask_agent)

    async def _first(
        self,
        read: Callable[[], Awaitable[T]],
        ask_agent: Callable[[ControllerError], Awaitable[T]],
    ) -> T:
        """Read from Azure; if that fails for the set of this VM, ask its agent."""
        try:
            with explain_unreachable(self._loaded, str(self._options.config)):
                return await read()
        except SetupError:
            raise
        except ControllerError as error:
            if self._options.availability_set or not self._loaded.settings.server.listen:
                raise
            return await ask_agent(error)

    async def _of_agent(self, error: ControllerError) -> tuple["Overview", str]:
        """Return what the agent on this VM knows, and why it is asked.

        Raises:
            ControllerError: the first error; no agent answers.
        """
        from controller.cli.local_agent import agent_overview

        try:
            known = await agent_overview(self._loaded.settings.server.listen)
        except NotDone:
            raise error from None  # no agent runs here
        except ControllerError as second:
            error.args = (f"{error}. {second}",)
            raise error from None
        vm, role = known["agent"]["vm"] or "this VM", known["agent"]["role"]
        return known, (
            f"the set cannot be read: {error}. This is what the agent on {vm} ({role}) knows from "
            "its own reads"
        )
