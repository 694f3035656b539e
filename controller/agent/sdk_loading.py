"""Load the management SDK before the first write needs it, and not earlier.

It takes more memory than everything else in a standby, so an idle leader does without it. A leader
loads it, in a thread, when there is something to do for it: an impacting event is announced, an
operator requests a drain, or the ledger has an entry. A removal is preceded by reads and by a write
of the ledger, which take as long as the import.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from controller.agent.event_watcher import EventWatcher
from controller.agent.operator_blobs import OperatorBlobs
from controller.config.in_force import ConfigurationInForce
from controller.core.ledger import Ledger
from controller.errors import NotSent
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.agent")


class SdkLoading:
    """Loads the SDK once; `run` is a task of the agent.

    Args:
        load: loads it; raises NotSent if that is not possible.
        leading: returns whether this agent leads.
        watcher: the event document and the clock.
        operator: drain requests.
        configuration: the policy in force.
        ledger: returns the newest durable ledger.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[None]],
        *,
        leading: Callable[[], bool],
        watcher: EventWatcher,
        operator: OperatorBlobs,
        configuration: ConfigurationInForce,
        ledger: Callable[[], Ledger],
    ) -> None:
        self._load, self._leading = load, leading
        self._watcher, self._operator = watcher, operator
        self._configuration, self._ledger = configuration, ledger
        self._wanted = asyncio.Event()

    def check(self) -> None:
        """Begin to load if there is something to do now; returns at once."""
        if not self._wanted.is_set() and self._leading() and self._has_work():
            self._wanted.set()

    async def run(self) -> None:
        """Load as soon as there is something to do, and return.

        After a failure the first write tries again, with the back-off of every write. An agent
        that goes on failing gives up the lease, so that another agent drains (`core.ability`).
        """
        await self._wanted.wait()
        try:
            await self._load()
        except NotSent as error:
            log(
                logger,
                logging.ERROR,
                str(error),
                event="azure_request_failed",
                outcome=error.word(),
            )

    def _has_work(self) -> bool:
        policy, document = self._configuration.policy, self._watcher.document
        if policy.close_only:
            return False
        now = self._watcher.now()
        return (
            any(policy.impacting(event) for event in (document.events if document else ()))
            or any(each.is_active(now) for each in self._operator.requests.requests or ())
            or any(not entry.waits_for_place for entry in self._ledger().entries)
        )
