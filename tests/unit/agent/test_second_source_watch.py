"""When the leader asks Resource Graph, and what a failure changes."""

from collections.abc import Iterable
from typing import Any, cast

import pytest

from controller.agent.present_set import PresentSet
from controller.agent.second_source_watch import (
    BUSY_PERIOD_S,
    IDLE_PERIOD_S,
    SecondSourceWatch,
)
from controller.azure.resource_graph import QueryResult, ResourceGraph
from controller.core.event_progress import SeenEvent
from controller.core.events import EventDocument
from controller.core.ledger import Ledger
from controller.core.second_source import (
    UNPUBLISHED_AFTER_S,
    GraphEvent,
    GraphReply,
    GraphStatus,
    SecondSource,
)
from controller.errors import ControllerError, Denied, OutcomeUnknown, ServiceFault, Throttled
from tests.support.clocks import StoppedClock
from tests.support.planner_scenario import event

ROW = GraphEvent(event_id="E-1", status=GraphStatus.SCHEDULED)


class Bench:
    """A watch whose clock, answers and knowledge are the test's."""

    def __init__(self) -> None:
        self.clock = StoppedClock()
        self.leading, self.document = True, EventDocument(incarnation=1)
        self.seen: tuple[SeenEvent, ...] = ()
        self.answer: GraphReply | ControllerError = GraphReply(rows=(ROW,))
        self.wait_s: float | None = None
        self.asked: list[tuple[str, ...]] = []
        self.changes = 0
        self.watch = SecondSourceWatch(
            cast("ResourceGraph", self),
            present_set=PresentSet("/set"),
            vm_ids=lambda: ("/vm",),
            clock=self.clock,
            leading=lambda: self.leading,
            ledger=Ledger,
            document=lambda: self.document,
            seen=lambda: self.seen,
            changed=self._changed,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def scheduled_events(
        self, set_id: str, vm_ids: Iterable[str], event_ids: Iterable[str]
    ) -> QueryResult:
        assert (set_id, (*vm_ids,)) == ("/set", ("/vm",))
        self.asked.append((*event_ids,))
        if isinstance(self.answer, ControllerError):
            raise self.answer
        return QueryResult(self.answer, self.wait_s)

    def announce(self) -> None:
        self.document = EventDocument(incarnation=2, events=(event(),))

    async def after(self, seconds: float) -> int:
        """Let time pass; return how many queries there were then."""
        self.clock.move(seconds)
        await self.watch.turn()
        return len(self.asked)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_set_without_events_is_asked_about_every_ten_minutes(bench: Bench) -> None:
    """The first query comes at once."""
    assert await bench.after(0) == 1
    assert await bench.after(IDLE_PERIOD_S - 1) == 1
    assert await bench.after(1) == 2
    assert bench.asked == [(), ()]


async def test_an_announced_event_is_asked_about_every_minute(bench: Bench) -> None:
    """A query counts from the last one, whatever that was for."""
    await bench.after(0)
    bench.announce()
    assert await bench.after(BUSY_PERIOD_S - 1) == 1
    assert await bench.after(1) == 2
    assert await bench.after(BUSY_PERIOD_S) == 3
    assert bench.asked[-1] == ("E-1",)


async def test_only_a_leader_asks_and_a_new_one_knows_nothing(bench: Bench) -> None:
    """What it knew when it led before is old."""
    await bench.after(0)
    assert bench.watch.known.events
    bench.leading = False
    assert await bench.after(IDLE_PERIOD_S) == 1
    bench.leading, bench.answer = True, ServiceFault("503")
    assert await bench.after(0) == 2
    assert bench.watch.known == SecondSource(problem="503")


@pytest.mark.parametrize(
    ("error", "due_s"),
    [
        (Throttled("429", retry_after_s=130.0), 130.0),
        (Throttled("429", retry_after_s=5.0), BUSY_PERIOD_S),
        (Throttled("429"), BUSY_PERIOD_S),
        (ServiceFault("503", retry_after_s=300.0), 300.0),
        (Denied("403"), BUSY_PERIOD_S),
        (OutcomeUnknown("no answer"), BUSY_PERIOD_S),
    ],
)
async def test_a_failure_is_not_repeated_before_azure_allows_it(
    bench: Bench, error: ControllerError, due_s: float
) -> None:
    """Never earlier than the ordinary period, and later if Azure asks for that."""
    bench.announce()
    bench.answer = error
    await bench.after(0)
    assert await bench.after(due_s - 1) == 1
    assert await bench.after(1) == 2


async def test_a_quota_that_is_used_up_is_respected(bench: Bench) -> None:
    """Also after a good answer."""
    bench.announce()
    bench.wait_s = 200.0
    await bench.after(0)
    assert await bench.after(199) == 1
    assert await bench.after(1) == 2


async def test_a_failed_query_keeps_what_is_known_and_is_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind of failure once, until an answer comes."""
    bench.announce()
    await bench.after(0)
    known = bench.watch.known
    bench.answer = Denied("no role")
    for _ in range(3):
        await bench.after(BUSY_PERIOD_S)
    assert bench.watch.known.events == known.events
    assert bench.watch.known.problem == "no role"
    bench.answer = GraphReply(rows=(ROW,))
    await bench.after(BUSY_PERIOD_S)
    assert bench.watch.known.problem == ""
    bench.answer = Denied("no role")
    await bench.after(BUSY_PERIOD_S)
    logged = [each.message for each in caplog.records if "could not be asked" in each.message]
    assert len(logged) == 2


async def test_a_changed_answer_asks_for_a_pass(bench: Bench) -> None:
    """The same answer does not."""
    bench.announce()
    await bench.after(0)
    await bench.after(BUSY_PERIOD_S)
    assert bench.changes == 1
    bench.answer = GraphReply()
    await bench.after(BUSY_PERIOD_S)
    assert bench.changes == 2


async def test_rows_and_events_that_are_missing_are_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """What is set aside, and what Resource Graph has lacked for long."""
    caplog.set_level("INFO", logger="lbdrain")
    bench.announce()
    bench.seen = (SeenEvent(event=event(), first_seen_at=bench.clock.now()),)
    bench.answer = GraphReply(set_aside=("a row is odd",))
    await bench.after(0)
    for _ in range(3):
        await bench.after(UNPUBLISHED_AFTER_S)
    texts: list[Any] = [each.message for each in caplog.records]
    assert len([each for each in texts if "a row is set aside: a row is odd" in each]) == 1
    assert len([each for each in texts if "Resource Graph does not show it" in each]) == 1
