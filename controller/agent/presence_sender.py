"""Publishes that this agent runs: at its start, on a change, and every 2 minutes.

It writes one small blob of its own and nothing to Resource Manager (law H1). Nothing waits for it,
and nothing is decided by it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from controller.agent.context import AgentContext
from controller.agent.startup import configuration_digest
from controller.clock import Clock
from controller.core.agent_presence import PERIOD_S, AgentPresence
from controller.core.azure_names import fold
from controller.core.blob_owner import BlobOwner
from controller.errors import TRANSIENT, ControllerError
from controller.observability.logs import log
from controller.observability.release import release
from controller.storage.presence_json import presence_blob_name
from controller.storage.presence_store import PresenceWriter

logger = logging.getLogger("lbdrain.agent")

CHECK_S = 10.0
"""How often the agent looks whether anything has changed, and tries again after a failure."""
STOPPED_WITHIN_S = 1.0
"""An agent that ends waits no longer than this to publish that."""


class PresenceSender:
    """Publishes the presence of one agent; `run` is a task.

    Args:
        writer: of the blob of this agent.
        first: what is known at the start.
        clock: the corrected clock.
        problem: returns why the agent is not ready; empty when it is.
    """

    def __init__(
        self,
        writer: PresenceWriter,
        first: AgentPresence,
        *,
        clock: Clock,
        problem: Callable[[], str],
    ) -> None:
        self._writer, self._first, self._clock, self._problem = writer, first, clock, problem
        self._sent: AgentPresence | None = None
        self._denied = False

    async def run(self) -> None:
        """Publish until cancelled."""
        before = ""
        while True:
            now, problem = self._clock.now(), self._problem()
            # What the next check does not find any more is no news: every start has a moment.
            presence = replace(self._first, at=now, problem=problem if before else "")
            before = problem
            if self._is_due(presence):
                await self._send(presence)
            await asyncio.sleep(CHECK_S)

    def configured(self, digest: str) -> None:
        """Publish another configuration from now on."""
        self._first = replace(self._first, configuration=digest)

    async def stopped(self) -> None:
        """Publish that the agent has ended, unless that takes long."""
        now = self._clock.now()
        with suppress(TimeoutError, ControllerError):
            async with asyncio.timeout(STOPPED_WITHIN_S):
                await self._writer.write(replace(self._first, at=now, stopped_at=now))

    def _is_due(self, presence: AgentPresence) -> bool:
        sent = self._sent
        if sent is None:
            return True
        # The text of a problem counts seconds: only that there is one is a change.
        changed = bool(sent.problem) != bool(presence.problem)
        changed = changed or sent.configuration != presence.configuration
        # What left before the clock was corrected can lie ahead.
        return changed or not 0 <= (presence.at - sent.at).total_seconds() < PERIOD_S

    async def _send(self, presence: AgentPresence) -> None:
        try:
            await self._writer.write(presence)
        except TRANSIENT:
            return  # the election reports storage that does not answer
        except ControllerError as error:
            if not self._denied:
                self._denied = True
                message = f"the presence of this agent cannot be published: {error}"
                log(
                    logger,
                    logging.WARNING,
                    message,
                    event="azure_request_failed",
                    vm=presence.vm,
                    outcome=error.word(),
                )
        else:
            self._sent, self._denied = presence, False


def assemble_presence(context: AgentContext, ledger_name: str, owner: BlobOwner) -> PresenceSender:
    """Return what publishes the presence of one agent.

    Args:
        context: what the agent is built from.
        ledger_name: the name of the blob with the ledger.
        owner: what the blobs of this agent belong to.
    """
    vm, now = context.identity.vm, context.clock.now()
    sender = PresenceSender(
        PresenceWriter(context.azure.state_blob(presence_blob_name(ledger_name, vm))),
        AgentPresence(
            vm=vm,
            release=release(),
            configuration=owner.configuration,
            started_at=now,
            at=now,
            set_id=fold(owner.set_id),
        ),
        clock=context.clock,
        problem=context.problem,
    )
    configuration = context.configuration
    configuration.on_change(lambda: sender.configured(configuration_digest(configuration.file)))
    return sender
