"""What a dry run would have come to, pass by pass."""

from controller.core.dry_run import imagined
from controller.core.event_progress import SeenEvents
from controller.core.event_record import Verdict
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import Ledger
from tests.support.planner_scenario import PlannerScenario, at, event, started


class DryRun:
    """An agent that plans and writes nothing, and the ledger that it imagines."""

    def __init__(self) -> None:
        self.scene, self.ledger, self.read = PlannerScenario(), Ledger(), SeenEvents()

    def passes(self, seconds: float, *events: ScheduledEvent) -> Ledger:
        """Read a document with these events, and complete a pass."""
        scene = self.scene
        scene.now, scene.events = seconds, list(events)
        self.read.record(EventDocument(incarnation=1, events=events), at(seconds))
        self.ledger = imagined(
            self.ledger,
            scene.plan(),
            real=Ledger(),
            observed=scene.observe(),
            policy=scene.policy,
            now=at(seconds),
            seen=self.read.known(),
        )
        return self.ledger


def test_a_removal_that_is_planned_counts_as_done() -> None:
    """The VM is out from the first pass that would remove it, in every later one too."""
    dry = DryRun()
    for seconds in (0, 5, 10):
        (entry,) = dry.passes(seconds, event()).entries
        assert (entry.vm, entry.out_at) == ("web-1", at(0))


def test_an_event_is_judged_once_it_is_over() -> None:
    """An event keeps its record from pass to pass, and ends as one verdict."""
    dry = DryRun()
    announced = dry.passes(0, event())
    assert len(announced.events) == 1
    assert dry.passes(5, event()).events == announced.events
    dry.passes(20, started("web-1"))
    for seconds in (60, 65, 70, 120):
        dry.passes(seconds)
    assert [(each.vm, each.verdict) for each in dry.ledger.verdicts] == [("web-1", Verdict.DRAINED)]
