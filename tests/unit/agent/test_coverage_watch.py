"""Events that this agent's document shows, and that the leader does not know."""

from dataclasses import replace

import pytest

from controller.agent.coverage_watch import FORWARDED_AFTER_S, UNKNOWN_FOR_S, CoverageWatch
from controller.agent.present_set import PresentSet
from controller.core.event_record import WatchedEvent, WatchedVm
from controller.core.events import EventDocument
from controller.core.ledger import Ledger
from controller.core.policy import Policy
from tests.support.clocks import StoppedClock
from tests.support.planner_scenario import PlannerScenario, at, event

COMPUTE = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute"
FLEX, WEB = f"{COMPUTE}/virtualMachineScaleSets/flex", f"{COMPUTE}/availabilitySets/web"
SHOWN = event("web-2", event_id="E-1")
RECORDED = WatchedEvent(
    event_id="e-1",
    event_type="Reboot",
    not_before=None,
    first_seen_at=at(0),
    vms=(WatchedVm(vm="WEB-2"),),
)


class Standby:
    """A standby of web-2, in a scale set that web-1 leads."""

    def __init__(self, policy: Policy) -> None:
        self.clock, self.set = StoppedClock(), PresentSet(FLEX)
        self.ledger: Ledger | None = Ledger(leader="web-1")
        self.document: EventDocument | None = EventDocument(incarnation=1, events=(SHOWN,))
        self.watch = CoverageWatch(
            vm="web-2",
            present_set=self.set,
            clock=self.clock,
            policy=lambda: policy,
            ledger=lambda: self.ledger,
            document=lambda: self.document,
        )

    def after(self, seconds: float) -> str:
        """Let time pass, and return what is reported then."""
        self.watch.polled()
        self.clock.move(seconds)
        self.watch.polled()
        return self.watch.problem

    def lacking(self) -> list[tuple[str, ...]]:
        """Return the VMs of each event that is to be forwarded."""
        return [each.resources for each in self.watch.unknown]


@pytest.fixture
def standby() -> Standby:
    """Return a standby whose document shows an event that the ledger does not record."""
    return Standby(PlannerScenario().policy)


def test_an_event_that_the_leader_does_not_know_is_reported(
    standby: Standby, caplog: pytest.LogCaptureFixture
) -> None:
    """The report states which event, of which VMs, and what to do; the log has it once."""
    assert standby.after(UNKNOWN_FOR_S - 1) == ""
    said = standby.after(1)
    assert said.startswith("the event document of web-2 shows the Reboot E-1 of web-2, and the ")
    assert said.endswith("lb-drain drain web-2")
    standby.after(60)
    assert [each.getMessage() for each in caplog.records] == [said]


def test_an_event_that_the_leader_records_is_covered(standby: Standby) -> None:
    """It may take a moment; the report ends with the record."""
    standby.after(UNKNOWN_FOR_S)
    assert standby.ledger is not None
    standby.ledger = replace(standby.ledger, events=(RECORDED,))
    assert standby.after(UNKNOWN_FOR_S) == ""


def test_what_the_leader_lacks_is_to_be_forwarded(standby: Standby) -> None:
    """For the VMs that it does not record, after the agents of these VMs had time to do it."""
    standby.document = EventDocument(
        incarnation=1, events=(event("web-2", "web-3", event_id="E-1"),)
    )
    assert standby.ledger is not None
    standby.ledger = replace(standby.ledger, events=(RECORDED,))
    standby.after(FORWARDED_AFTER_S - 1)
    assert standby.lacking() == []
    standby.after(1)
    assert standby.lacking() == [("web-3",)]


def test_the_time_counts_from_when_the_event_is_seen(standby: Standby) -> None:
    """An event that leaves the document is no longer reported, and a new one has its own time."""
    standby.after(UNKNOWN_FOR_S)
    standby.document = EventDocument(incarnation=2, events=())
    assert standby.after(1) == ""
    standby.document = EventDocument(incarnation=3, events=(SHOWN,))
    assert standby.after(UNKNOWN_FOR_S - 1) == ""


@pytest.mark.parametrize(
    ("own", "recorded", "reported"),
    [
        (WEB, Ledger(leader="web-1", set_id=WEB, converted_to=FLEX.casefold()), True),
        (WEB, Ledger(leader="web-1", set_id=WEB), False),
        (WEB, Ledger(leader="web-1"), False),
        (FLEX, Ledger(leader="web-1", set_id=WEB), True),
    ],
    ids=["converted", "not converted", "older ledger", "conversion that the leader does not know"],
)
def test_the_set_was_converted(
    standby: Standby, own: str, recorded: Ledger, reported: bool
) -> None:
    """S7: only leaders read the set again; a standby learns of the conversion from the ledger."""
    standby.set.set_id, standby.ledger = own, recorded
    assert bool(standby.after(UNKNOWN_FOR_S)) is reported
    assert standby.watch.is_in_scale_set() is reported


@pytest.mark.parametrize("why", ["leader", "availability set", "no document", "ignored event"])
def test_nothing_is_reported(why: str) -> None:
    """The leader itself, one documented document for all VMs, no news, and no need to drain."""
    standby = Standby(PlannerScenario().policy)
    if why == "leader":
        standby.ledger = None
    elif why == "availability set":
        standby.set.set_id = WEB
    elif why == "no document":
        standby.document = None
    else:
        brief = event("web-2", event_id="E-1", event_type="Freeze", duration_s=0)
        standby.document = EventDocument(incarnation=1, events=(brief,))
    assert standby.after(UNKNOWN_FOR_S) == ""
