"""Through which channel an acknowledgement is sent: the metadata service, or Resource Manager.

Either channel counts, and they may be mixed (Microsoft docs, Scheduled Events overview,
05/01/2026). Which one is used changes nothing about whether an event may be acknowledged: law S1 is
checked for each attempt, right before it is sent.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Container
from enum import StrEnum

from controller.errors import Conflict, ControllerError, InvariantViolation, LeaseLost

CHANNEL_FAILURES = 2
"""After so many failures in a row the other channel is tried. A leader whose acknowledgements fail
for 20 s hands over, and a request that gets no reply takes 5 s."""


class Channel(StrEnum):
    """One way to acknowledge; the values are for people."""

    IMDS = "the metadata service"
    ARM = "Resource Manager"

    @property
    def other(self) -> "Channel":
        """The other channel."""
        return Channel.ARM if self is Channel.IMDS else Channel.IMDS


def is_channel_failure(error: ControllerError) -> bool:
    """Return whether an attempt failed because of its channel.

    A refusal of the event itself, such as a conflict, would be the same through the other one; what
    was not sent at all, because what it was planned from has changed, proves nothing.
    """
    return not isinstance(error, Conflict | LeaseLost | InvariantViolation)


def channel_for(failures: int, *, both: bool, blocked: Container[Channel] = ()) -> Channel:
    """Return the channel of the next attempt: from the third on the two take turns.

    Args:
        failures: failures of channels in a row, for this event.
        both: whether Resource Manager may be used.
        blocked: channels that Azure asks to leave alone now; they are used only if both are.
    """
    if not both or failures < CHANNEL_FAILURES:
        return Channel.IMDS
    turn = Channel.IMDS if (failures - CHANNEL_FAILURES) % 2 else Channel.ARM
    return turn.other if turn in blocked and turn.other not in blocked else turn
