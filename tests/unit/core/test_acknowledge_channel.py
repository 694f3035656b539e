"""Through which channel an acknowledgement is sent."""

import pytest

from controller.core.acknowledge_channel import (
    CHANNEL_FAILURES,
    Channel,
    channel_for,
    is_channel_failure,
)
from controller.errors import (
    Busy,
    Conflict,
    ContractViolation,
    ControllerError,
    Denied,
    InvariantViolation,
    LeaseLost,
    NotSent,
    OutcomeUnknown,
    Outdated,
    ServiceFault,
    Throttled,
)

IMDS, ARM = Channel.IMDS, Channel.ARM


def test_the_metadata_service_comes_first_and_then_they_take_turns() -> None:
    """Two failures in a row, then Resource Manager, then each in turn."""
    found = [channel_for(failures, both=True) for failures in range(6)]
    assert found == [IMDS, IMDS, ARM, IMDS, ARM, IMDS]
    assert CHANNEL_FAILURES == 2


def test_without_the_second_channel_there_is_only_the_first() -> None:
    """However often it fails."""
    assert {channel_for(failures, both=False) for failures in range(50)} == {IMDS}


def test_a_channel_that_asks_for_patience_loses_its_turn() -> None:
    """Unless both ask for it."""
    assert channel_for(2, both=True, blocked={ARM}) is IMDS
    assert channel_for(3, both=True, blocked={IMDS}) is ARM
    assert channel_for(2, both=True, blocked={IMDS, ARM}) is ARM
    assert channel_for(1, both=True, blocked={IMDS}) is IMDS
    assert channel_for(9, both=False, blocked={IMDS}) is IMDS


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (OutcomeUnknown("no reply"), True),
        (NotSent("no route"), True),
        (ServiceFault("500"), True),
        (Throttled("429"), True),
        (Denied("403"), True),
        (ContractViolation("odd"), True),
        (Conflict("the event is gone"), False),
        (Busy("busy"), False),
        (Outdated("a VM was put back"), False),
        (LeaseLost("lapsed"), False),
        (InvariantViolation("bug"), False),
    ],
)
def test_a_refusal_of_the_event_is_no_failure_of_the_channel(
    error: ControllerError, counts: bool
) -> None:
    """The other channel would refuse it as well."""
    assert is_channel_failure(error) is counts
