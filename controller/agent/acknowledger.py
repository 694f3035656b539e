"""Sends acknowledgements: through the metadata service, and through Resource Manager if that fails.

Whether an event may be acknowledged is not decided here: the planner has, and the guard checks it
again right before each request leaves (law S1), whichever channel it takes.
"""

from collections.abc import Callable

from controller.azure.event_acknowledgement import EventAcknowledgement
from controller.azure.http.write_guard import WriteGuard
from controller.azure.imds import Imds
from controller.clock import Clock
from controller.core.acknowledge_channel import (
    CHANNEL_FAILURES,
    Channel,
    channel_for,
    is_channel_failure,
)
from controller.core.azure_names import fold
from controller.core.planning.actions import Acknowledge, Action
from controller.errors import ControllerError, retry_after_of

MAX_EVENTS = 100
"""Of how many events the failures are remembered."""
Targets = Callable[[str], tuple[str, ...]]
"""Returns the resources under which Resource Manager may know an event: the set, then its VMs."""


class Acknowledger:
    """Sends the acknowledgements of one agent.

    Args:
        imds: the metadata service.
        clock: only its monotonic time is used.
        second: Resource Manager; None if it is not to be used.
        targets: where Resource Manager may know an event.
    """

    def __init__(
        self,
        imds: Imds,
        *,
        clock: Clock,
        second: EventAcknowledgement | None = None,
        targets: Targets = lambda _: (),
    ) -> None:
        self._imds, self._clock = imds, clock
        self._second, self._targets = second, targets
        self._failures: dict[str, int] = {}
        self._last: dict[tuple[str, Channel], str] = {}
        self._blocked_until: dict[Channel, float] = {}

    def has_another_way(self, action: Action) -> bool:
        """Return whether the other channel is to be tried before a failure is an obstacle."""
        if self._second is None or not isinstance(action, Acknowledge):
            return False
        return self._failures.get(fold(action.event_id), 0) <= CHANNEL_FAILURES

    async def send(self, event_id: str, guard: WriteGuard) -> Channel:
        """Acknowledge an event once; return through which channel.

        Raises:
            ControllerError: it was not accepted; states how the other channel failed before.
        """
        key, now = fold(event_id), self._clock.monotonic()
        blocked = {each for each, until in self._blocked_until.items() if until > now}
        failures = self._failures.get(key, 0)
        channel = channel_for(failures, both=self._second is not None, blocked=blocked)
        try:
            if channel is Channel.ARM and self._second is not None:
                await self._second.acknowledge(event_id, self._targets(event_id), guard)
            else:
                await self._imds.acknowledge([event_id], guard)
        except ControllerError as error:
            if is_channel_failure(error):
                self._failed(key, channel, error)
            raise
        self._failures.pop(key, None)
        return channel

    def _failed(self, key: str, channel: Channel, error: ControllerError) -> None:
        self._failures[key] = self._failures.pop(key, 0) + 1
        for oldest in list(self._failures)[:-MAX_EVENTS]:
            del self._failures[oldest]
        if self._second is None:
            return
        if (wait_s := retry_after_of(error)) is not None:
            # The other channel need not wait for this one.
            self._blocked_until[channel] = self._clock.monotonic() + wait_s
            error.retry_after_s = None
        before = self._last.get((key, channel.other), "")
        self._last = {each: text for each, text in self._last.items() if each[0] in self._failures}
        self._last[key, channel] = str(error)
        if before:
            error.args = (f"{error}; and through {channel.other}: {before}",)
