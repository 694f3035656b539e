"""Opens a VM that an earlier run of the agent has closed, while this run cannot start (law S9).

The closing side needs the availability set, which Azure names. Until Azure does, nothing reads the
ledger and nothing renews the flag file. An application that reads only the file would stay closed
as long as Azure does not answer. A flag whose time lies ahead does not count, as for the responder.
While an event of the VM is announced, the flag is renewed: the responder reads nothing else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from controller.clock import Clock
from controller.observability.logs import log
from controller.probe.flag_file import CLOCK_STEP_S
from controller.vm_side.closing_side import found_flag
from controller.vm_side.machine import Machine

logger = logging.getLogger("lbdrain.closing")

CHECK_S = 5.0
"""How often the age of the flag file is compared."""
RENEW_BEFORE_S = 30.0
"""How long before its end a flag is renewed for an announced event: the question takes time too."""


class FlagExpiry:
    """Removes the flag file once it is too old.

    Args:
        machine: the machine of the agent.
        open_after_s: `[drain] open_after_s`.
        clock: monotonic clock: the wall clock can be set back while this waits.
        announced: returns whether an event of this VM is announced that requires a drain; the VM
            stays closed for it.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        open_after_s: float,
        clock: Clock,
        announced: Callable[[], Awaitable[bool]],
    ) -> None:
        self._machine, self._open_after_s = machine, open_after_s
        self._clock, self._announced = clock, announced

    async def run(self) -> None:
        """Return when the VM is open."""
        reported, found, found_at = "", None, self._clock.monotonic()
        while (flag := found_flag(self._machine, "")) is not None:
            if found is None or flag.renewed_at != found.renewed_at:
                found, found_at = flag, self._clock.monotonic()
            age_s = found.age_s + self._clock.monotonic() - found_at
            # Its age is not known, and each restart of the agent would count from zero.
            set_back = found.ahead_s > CLOCK_STEP_S
            ends = set_back or age_s > self._open_after_s - RENEW_BEFORE_S
            problem = ""
            if ends and await self._announced():
                problem = self._machine.renew_flag()
                # Its age counts on: the VM opens as soon as the event is over.
                found = replace(found, renewed_at=(self._machine.flag() or found).renewed_at)
            elif set_back or age_s > self._open_after_s:
                problem = self._machine.clear_flag()
                if not problem:
                    why = "the clock was set back" if set_back else f"for {age_s:.0f} s"
                    message = f"open: no news from storage, {why}, and the agent cannot start"
                    log(logger, logging.WARNING, message, event="vm_opened")
                    return
            if problem and problem != reported:
                reported = problem
                log(logger, logging.WARNING, problem, event="vm_side_failed")
            await asyncio.sleep(CHECK_S)
