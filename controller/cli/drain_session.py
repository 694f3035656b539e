"""Runs a command that uses a `DrainClient`: drain, restore, roll and maintenance."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from controller.cli.command import EXIT_OK
from controller.cli.endpoint_errors import explain_unreachable
from controller.cli.options import LONGEST_WAIT, duration
from controller.clock import SystemClock
from controller.config.loader import DEFAULT_CONFIG, load
from controller.core.printable import printable
from controller.doctor.unit_environment import differing
from controller.doctor.unit_sandbox import read_unit_sandbox
from controller.errors import NotDone, WaitOver
from controller.observability import logs
from controller.operator.drain_client import DrainClient, connect
from controller.system.signals import on_end

UNIT_WITHIN_S = 1.0
"""How long a command waits at most for what the unit of the agent sets, in seconds."""
LONGEST_WAIT_S = duration(1)(LONGEST_WAIT)


def run_with_client(
    options: argparse.Namespace,
    work: Callable[[DrainClient], Awaitable[None]],
    *,
    read_vm_names: bool = False,
    requests_drains: bool = False,
) -> int:
    """Connect to the set that the options select, do the work, and return the exit code.

    Args:
        read_vm_names: the work needs the names of the VMs of the set, not only to check names.
        requests_drains: the work requests drains, which no agent executes in a dry run.

    Raises:
        NotDone: the configuration sets a dry run, and the work requests drains.
    """
    loaded = load(options.config, os.environ)
    if requests_drains and loaded.settings.policy.dry_run:
        raise NotDone(
            f"dry run: {options.config} has dry_run = true in [policy], so no agent drains a VM; "
            "nothing is requested. To see what a leader would do now: lb-drain plan. To drain VMs, "
            "set dry_run = false on every VM and restart the agents"
        )
    logs.setup(logging.ERROR, as_text=True)

    async def run() -> None:
        # SIGTERM and SIGHUP end the work as ^C does: the client reports what stays in effect.
        task = asyncio.current_task()
        if task is not None:
            on_end(task.cancel)
        if not options.availability_set:  # of this VM, so the unit here is that of its agent
            await _warn_of_unit()
        async with connect(
            loaded.settings,
            environ=os.environ,
            clock=SystemClock(),
            report=_report,
            availability_set_id=options.availability_set,
            options=_set_options(options),
            read_vm_names=read_vm_names,
        ) as client:
            await work(client)

    with explain_unreachable(loaded, str(options.config)):
        asyncio.run(run())
    return EXIT_OK


async def _warn_of_unit() -> None:
    """Warn of settings that only the unit of the agent, or only this shell, has."""
    unit = await read_unit_sandbox(within_s=UNIT_WITHIN_S)
    names = differing(unit.environment, os.environ) if unit else ()
    if names:
        text = (
            f"Warning: the unit of the agent and this shell do not set {', '.join(names)} alike, "
            "so the agents may work by other settings than this command: see lb-drain doctor"
        )
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def _report(text: str) -> None:
    """Print a line about the work. If it cannot be shown, the work and its end go on."""
    with suppress(OSError):
        print(printable(text), flush=True)


@asynccontextmanager
async def time_limit(
    timeout_s: float | None, unfinished: Callable[[], str]
) -> AsyncGenerator[None]:
    """Limit a wait.

    Args:
        timeout_s: of the wait, in seconds; None for the limit that every command has.
        unfinished: returns what is not reached, for the message.

    Raises:
        WaitOver: the time is over.
    """
    try:
        async with asyncio.timeout(LONGEST_WAIT_S if timeout_s is None else timeout_s):
            yield
    except TimeoutError:
        raise WaitOver(unfinished()) from None


def _set_options(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the options with which another command selects the same set."""
    given: tuple[str, ...] = ()
    if options.config != DEFAULT_CONFIG:
        given += ("--config", str(options.config))
    if options.availability_set:
        given += ("--availability-set", options.availability_set)
    return given
