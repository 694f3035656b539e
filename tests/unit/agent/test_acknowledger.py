"""Acknowledgements through two channels: which is used, what a failure says, what is not lost."""

from typing import TYPE_CHECKING, cast

import pytest

from controller.agent.acknowledger import MAX_EVENTS, Acknowledger
from controller.azure.http.write_guard import WriteGuard
from controller.core.acknowledge_channel import Channel
from controller.core.planning.actions import Acknowledge
from controller.errors import (
    Conflict,
    ControllerError,
    Denied,
    LeaseLost,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
)
from tests.support.clocks import StoppedClock

if TYPE_CHECKING:
    from controller.azure.event_acknowledgement import EventAcknowledgement
    from controller.azure.imds import Imds

GUARD = WriteGuard(check=lambda: None)
TARGETS = ("/set", "/vm")


class Service:
    """One channel, which answers as the test says."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name, self._log = name, log
        self.error: ControllerError | None = None

    async def acknowledge(self, *given: object) -> None:
        assert given[-1] is GUARD  # law S1 is checked for each attempt, whichever channel it takes
        self._log.append(self._name)
        if self.error is not None:
            raise self.error


class Bench:
    """An acknowledger with both channels."""

    def __init__(self, *, both: bool = True) -> None:
        self.sent: list[str] = []
        self.imds, self.arm = Service("imds", self.sent), Service("arm", self.sent)
        self.clock = StoppedClock()
        self.sender = Acknowledger(
            cast("Imds", self.imds),
            clock=self.clock,
            second=cast("EventAcknowledgement", self.arm) if both else None,
            targets=lambda _: TARGETS,
        )

    async def tries(self, *event_ids: str) -> list[str]:
        """Send each once; return what went through, or the message of each failure."""
        found: list[str] = []
        for event_id in event_ids:
            try:
                found.append((await self.sender.send(event_id, GUARD)).name)
            except ControllerError as error:
                found.append(str(error))
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_resource_manager_is_used_after_two_failures(bench: Bench) -> None:
    """It is accepted there; the next repetition begins with the metadata service again."""
    bench.imds.error = OutcomeUnknown("no reply")
    assert await bench.tries("E-1", "e-1", "E-1") == ["no reply", "no reply", Channel.ARM.name]
    bench.imds.error = None
    assert await bench.tries("E-1") == [Channel.IMDS.name]
    assert bench.sent == ["imds", "imds", "arm", "imds"]


async def test_a_conflict_counts_for_nothing(bench: Bench) -> None:
    """Nor does a write that was stopped before it left."""
    for error in (Conflict("409"), LeaseLost("lapsed")):
        bench.imds.error = error
        await bench.tries(*["E-1"] * 5)
    assert set(bench.sent) == {"imds"}


async def test_each_event_has_a_count_of_its_own(bench: Bench) -> None:
    """Failures of one event say little of another one that was refused once."""
    bench.imds.error = ServiceFault("500")
    await bench.tries("E-1", "E-2")
    assert bench.sent == ["imds", "imds"]


async def test_both_channels_take_turns_and_the_message_states_both(bench: Bench) -> None:
    """No attempt is lost, and an operator reads why neither works."""
    bench.imds.error, bench.arm.error = OutcomeUnknown("no reply"), Denied("no role")
    found = await bench.tries(*["E-1"] * 6)
    assert bench.sent == ["imds", "imds", "arm", "imds", "arm", "imds"]
    assert found[2].startswith("no role; and through the metadata service: no reply")
    assert "through Resource Manager: no role" in found[3]
    assert all(len(each) < 200 for each in found[:4])
    bench.arm.error = None
    assert await bench.tries("E-1") == [Channel.ARM.name]


async def test_a_failure_is_an_obstacle_only_when_both_ways_have_failed(bench: Bench) -> None:
    """Before that nothing is held."""
    assert bench.sender.has_another_way(Acknowledge("E-1"))
    bench.imds.error = bench.arm.error = ServiceFault("500")
    await bench.tries("E-1", "E-1")
    assert bench.sender.has_another_way(Acknowledge("E-1"))
    await bench.tries("E-1")
    assert not bench.sender.has_another_way(Acknowledge("E-1"))
    assert not Bench(both=False).sender.has_another_way(Acknowledge("E-1"))


async def test_a_channel_that_throttles_does_not_hold_up_the_other(bench: Bench) -> None:
    """Its Retry-After is respected for itself alone."""
    throttled = Throttled("429", retry_after_s=600.0)
    bench.imds.error, bench.arm.error = ServiceFault("500"), throttled
    await bench.tries(*["E-1"] * 6)
    assert bench.sent == ["imds", "imds", "arm", "imds", "imds", "imds"]
    assert throttled.retry_after_s is None
    bench.clock.move(601)
    bench.arm.error = None
    assert await bench.tries("E-1") == [Channel.ARM.name]


async def test_without_the_second_channel_an_error_stays_as_it_is() -> None:
    """Retry-After included."""
    bench = Bench(both=False)
    bench.imds.error = error = Throttled("429", retry_after_s=7.0)
    assert await bench.tries(*["E-1"] * 4) == ["429"] * 4
    assert (set(bench.sent), error.retry_after_s) == ({"imds"}, 7.0)


async def test_the_memory_of_failures_is_bounded(bench: Bench) -> None:
    """The newest are kept."""
    bench.imds.error = ServiceFault("500")
    ids = [f"E-{n}" for n in range(MAX_EVENTS + 20)]
    await bench.tries(*ids)
    assert len(bench.sender._failures) == MAX_EVENTS
    assert len(bench.sender._last) <= MAX_EVENTS + 1
