"""What Resource Graph adds: the end of an event and disagreement, and nothing that is done."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.drain_history import Step
from controller.core.event_progress import SeenEvent
from controller.core.event_record import EventVerdict, Verdict, WatchedEvent, verdict_text
from controller.core.events import EventDocument, ScheduledEvent, SetAside
from controller.core.ledger import Hold, Ledger
from controller.core.ledger_changes import new_transitions, new_verdicts
from controller.core.planning.actions import Plan, ReadInventory
from controller.core.second_source import (
    MAX_HELD,
    MAX_ROWS,
    REASON,
    STALE_AFTER_S,
    UNPUBLISHED_AFTER_S,
    UNSEEN_AFTER_S,
    GraphEvent,
    GraphReply,
    GraphStatus,
    SecondSource,
    asked_about,
    by_id,
    early_ends,
    ends,
    is_busy,
    unpublished,
    with_second_source,
)
from controller.storage.ledger_json import decode_ledger, encode_ledger
from tests.support.planner_scenario import PlannerScenario, at, event

COMPLETED, CANCELED = GraphStatus.COMPLETED, GraphStatus.CANCELED
SCHEDULED, STARTED, UNKNOWN = GraphStatus.SCHEDULED, GraphStatus.STARTED, GraphStatus.UNKNOWN
PLAN = Plan(ledger=None, actions=(ReadInventory(),), phases=(), holds=(), wake_at=at(30))


def row(status: GraphStatus, event_id: str = "E-1", **fields: Any) -> GraphEvent:
    """Return a row about web-1."""
    given: dict[str, Any] = {"event_type": "Reboot", "vms": ("web-1",)}
    return GraphEvent(event_id=event_id, status=status, **(given | fields))


def knows(*rows: GraphEvent, seconds: float = 0) -> SecondSource:
    """Return what is known after one reply."""
    return SecondSource().answered(GraphReply(rows=rows), at(seconds))


def document(*events: ScheduledEvent, set_aside: tuple[SetAside, ...] = ()) -> EventDocument:
    return EventDocument(incarnation=1, events=events, set_aside=set_aside)


def verdict(kind: str = Verdict.DRAINED, event_id: str = "E-1", **fields: Any) -> EventVerdict:
    given: dict[str, Any] = {"at": at(0), "vm": "web-1", "event_type": "Reboot"}
    return EventVerdict(event_id=event_id, verdict=kind, **(given | fields))


def passed(
    ledger: Ledger,
    known: SecondSource | None,
    *events: ScheduledEvent,
    now: datetime | None = None,
    seen: tuple[SeenEvent, ...] = (),
    planned: Plan = PLAN,
) -> Plan:
    """Return the plan of a pass in which these events are in the document."""
    return with_second_source(planned, ledger, known, document(*events), now or at(10), seen=seen)


# --- rows ---


def test_rows_of_one_event_are_one_event() -> None:
    """Azure may write a row for each VM; ids are compared without case."""
    found = by_id([row(STARTED, "e-1"), row(STARTED, "E-1", vms=("web-2",))])
    assert found == {"e-1": row(STARTED, "e-1", vms=("web-1", "web-2"))}


@pytest.mark.parametrize("other", [CANCELED, STARTED, UNKNOWN])
def test_rows_that_contradict_each_other_prove_no_status(other: GraphStatus) -> None:
    """Neither of two statuses counts, in whichever order they come."""
    for rows in ((row(COMPLETED), row(other)), (row(other), row(COMPLETED))):
        assert by_id(rows)["e-1"].status is UNKNOWN
        assert ends(knows(*rows), document()) == {}


def test_no_more_rows_are_kept_than_the_limit() -> None:
    """A huge reply is bounded."""
    assert len(by_id(row(STARTED, f"E-{n}") for n in range(MAX_ROWS + 9))) == MAX_ROWS


# --- the end ---


def test_an_end_is_known_only_of_what_the_metadata_service_lacks() -> None:
    """Presence is decided by the metadata service: `Completed` there is no end."""
    known = knows(row(COMPLETED), row(CANCELED, "E-2"), row(STARTED, "E-3"), row(UNKNOWN, "E-4"))
    assert ends(known, document()) == {"e-1": COMPLETED, "e-2": CANCELED}
    assert ends(known, document(event(event_id="e-1"))) == {"e-2": CANCELED}
    assert early_ends(known, document(event(event_id="e-1"), event(event_id="E-3"))) == ("e-1",)


@pytest.mark.parametrize("read", [None, document(set_aside=(SetAside(problem="?"),))])
def test_without_a_clean_document_nothing_has_ended(read: EventDocument | None) -> None:
    """What cannot be read may be the event."""
    assert ends(knows(row(COMPLETED)), read) == {}


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        (Verdict.CANCELLED, CANCELED, "cancelled before it began, as Azure confirms"),
        (
            Verdict.CANCELLED,
            COMPLETED,
            "cancelled before it began, but Azure reports it as completed",
        ),
        (Verdict.DRAINED, COMPLETED, "drained before it began, and Azure confirms its end"),
        (
            Verdict.DRAINED,
            CANCELED,
            "drained before it began, but Azure reports it as cancelled",
        ),
        (Verdict.UNMANAGED, COMPLETED, "unmanaged, in no managed pool, and Azure confirms its end"),
    ],
)
def test_the_end_is_stated_in_the_verdict(kind: Verdict, status: GraphStatus, text: str) -> None:
    """The verdict stays what it is; its text states what Azure adds."""
    planned = passed(Ledger(verdicts=(verdict(kind),)), knows(row(status)))
    assert planned.ledger is not None
    (found,) = planned.ledger.verdicts
    assert (found.verdict, found.end, verdict_text(found)) == (kind, status.value, text)
    assert decode_ledger(encode_ledger(planned.ledger)).verdicts == (found,)


def test_an_end_of_a_newer_version_is_shown_as_it_is() -> None:
    """A later minor version may know other ends."""
    assert verdict_text(verdict(end="Postponed")) == (
        "drained before it began, end by Resource Graph: Postponed"
    )


def test_an_end_is_noted_once_for_all_vms_of_an_event() -> None:
    """The history has one line; nothing more is written afterwards."""
    before = Ledger(verdicts=(verdict(), verdict(vm="web-2"), verdict(event_id="E-2")))
    planned = passed(before, knows(row(COMPLETED)))
    assert planned.ledger is not None
    (line,) = new_transitions(before, planned.ledger)
    assert (line.vm, line.step, line.detail) == (
        "web-1, web-2",
        Step.END_REPORTED,
        "Reboot E-1: Completed",
    )
    assert new_verdicts(before, planned.ledger) == ()
    assert passed(planned.ledger, knows(row(COMPLETED))) == PLAN


def test_an_end_that_is_known_stays() -> None:
    """A later row that says something else changes nothing, nor does an absent row."""
    ledger = Ledger(verdicts=(verdict(end="Completed"),))
    assert passed(ledger, knows(row(CANCELED))) == PLAN
    assert passed(ledger, knows()) == PLAN
    assert passed(ledger, None) == PLAN


def test_a_verdict_that_follows_an_annotated_one_is_new() -> None:
    """Verdicts are counted once, also when the last known one got its end in the same pass."""
    first, second = verdict(), verdict(event_id="E-2")
    after = Ledger(verdicts=(replace(first, end="Completed"), second))
    assert new_verdicts(Ledger(verdicts=(first,)), after) == (second,)


# --- it decides nothing ---


STATUSES = st.sampled_from(list(GraphStatus))
ROWS = st.lists(
    st.builds(
        row,
        STATUSES,
        st.sampled_from(["E-1", "e-1", "E-2", "E-9"]),
        not_before=st.none() | st.integers(-9000, 9000).map(at),
    ),
    max_size=6,
)


@given(rows=ROWS, present=st.booleans(), out=st.booleans(), now=st.integers(0, 2000))
def test_no_row_changes_what_is_done(
    rows: list[GraphEvent], present: bool, out: bool, now: int
) -> None:
    """Laws S1 and S6: actions, phases, entries and the next pass are the planner's own."""
    scene = PlannerScenario()
    if out:
        scene.events = [event(not_before=600)]
        scene.take_out()
    scene.now, scene.events = now, [event(not_before=600)] if present else []
    planned = scene.plan()
    known = knows(*rows).answered(GraphReply(rows=tuple(rows)), at(now))
    found = with_second_source(
        planned, scene.ledger, known, document(*scene.events), at(now), seen=()
    )
    assert found.actions == planned.actions
    assert found.phases == planned.phases
    assert found.wake_at == planned.wake_at
    before, after = planned.ledger or scene.ledger, found.ledger or scene.ledger
    assert after.entries == before.entries
    assert after.events == before.events
    assert [h for h in found.holds if h.reason != REASON] == list(planned.holds)


# --- disagreement ---


def announced(seconds: float, *later: GraphEvent, **fields: Any) -> SecondSource:
    """Return what is known when a row has announced an event for so long."""
    first = knows(row(SCHEDULED, **fields))
    return first.answered(GraphReply(rows=later or (row(SCHEDULED, **fields),)), at(seconds))


def holds(planned: Plan) -> list[str]:
    return [hold.subject for hold in planned.holds if hold.reason == REASON]


def test_an_event_that_no_agent_reads_is_an_alarm_after_a_while() -> None:
    """The set may be blind. The hold names the VMs, and stays the same while it lasts."""
    early, late = at(UNSEEN_AFTER_S - 1), at(UNSEEN_AFTER_S + 1)
    known = announced(200, not_before=at(600))
    assert passed(Ledger(), known, now=early) == PLAN
    planned = passed(Ledger(), known, now=late)
    (hold,) = planned.holds
    assert hold.message.startswith(
        "Resource Graph announces Reboot of web-1, not before 2026-01-05 12:10:00 UTC, and no "
        "agent reads it"
    )
    assert planned.ledger is not None
    assert planned.ledger.holds == (hold,)
    assert planned.actions == PLAN.actions
    again = passed(planned.ledger, known, now=at(900), planned=replace(PLAN, holds=()))
    assert again.holds == (hold,)


def test_it_lasts_when_the_event_starts_and_ends_with_the_row() -> None:
    """Started follows Scheduled; a row with an end is none that the set is blind for."""
    since = at(UNSEEN_AFTER_S + 1)
    assert holds(passed(Ledger(), announced(200, row(STARTED)), now=since)) == ["E-1"]
    for later in (row(COMPLETED), row(CANCELED), row(UNKNOWN), row(SCHEDULED, "E-2")):
        assert holds(passed(Ledger(), announced(200, later), now=since)) == []


@pytest.mark.parametrize(
    "read",
    [
        {"ledger": Ledger(verdicts=(verdict(event_id="e-1"),))},
        {
            "ledger": Ledger(
                events=(WatchedEvent(event_id="E-1", event_type="Reboot", first_seen_at=at(0)),)
            )
        },
        {"seen": (SeenEvent(event=event(), first_seen_at=at(0), gone=True, gone_at=at(9)),)},
        {"events": (event(),)},
    ],
)
def test_an_event_that_an_agent_has_read_is_none(read: dict[str, Any]) -> None:
    """Its row only follows late."""
    given: dict[str, Any] = {"ledger": Ledger(), "seen": (), "events": (), **read}
    known = announced(200)
    planned = with_second_source(
        PLAN, given["ledger"], known, document(*given["events"]), at(900), seen=given["seen"]
    )
    assert holds(planned) == []


def test_a_row_that_nobody_keeps_up_is_none() -> None:
    """A `Scheduled` whose NotBefore is long past, and a `Started` of before the first query."""
    assert holds(passed(Ledger(), announced(900, not_before=at(-STALE_AFTER_S)), now=at(900))) == []
    old = knows(row(STARTED)).answered(GraphReply(rows=(row(STARTED),)), at(900))
    assert holds(passed(Ledger(), old, now=at(900))) == []


def test_an_event_that_cannot_be_read_may_be_the_one() -> None:
    """A document with an entry that was set aside is reported as such."""
    aside = document(set_aside=(SetAside(problem="?"),))
    found = with_second_source(PLAN, Ledger(), announced(200), aside, at(900), seen=())
    assert holds(found) == []


def test_a_new_leader_keeps_the_hold_until_it_knows_better() -> None:
    """It asks first; an announcement that lasts needs no further five minutes."""
    hold = Hold(subject="E-1", reason=REASON, message="m", since=at(0))
    ledger = Ledger(holds=(hold,))
    assert passed(ledger, SecondSource(), planned=PLAN).holds == (hold,)
    assert passed(ledger, knows(row(SCHEDULED))).holds == (hold,)
    assert holds(passed(ledger, knows())) == []
    assert holds(passed(ledger, None)) == []


def test_a_failed_query_changes_nothing_but_its_report() -> None:
    """What was known stays known."""
    known = announced(200).failed("no answer")
    assert known.problem == "no answer"
    assert holds(passed(Ledger(), known, now=at(900))) == ["E-1"]


def test_no_more_holds_than_the_limit() -> None:
    """A huge reply does not fill the ledger."""
    rows = tuple(row(SCHEDULED, f"E-{n}") for n in range(MAX_HELD + 5))
    known = knows(*rows).answered(GraphReply(rows=rows), at(200))
    assert len(holds(passed(Ledger(), known, now=at(900)))) == MAX_HELD


def test_an_event_that_resource_graph_lacks_is_named_after_a_while() -> None:
    """Agents have read it for 15 minutes; a rehearsal is none of Azure's events."""
    seen = (
        SeenEvent(event=event(), first_seen_at=at(0)),
        SeenEvent(event=event(event_id="test-1"), first_seen_at=at(0)),
    )
    read = document(event(), event(event_id="test-1"))
    late = at(UNPUBLISHED_AFTER_S + 1)
    known = knows(seconds=UNPUBLISHED_AFTER_S)
    assert unpublished(known, read, seen, late)[:1] == ("E-1",)
    assert unpublished(known, read, seen, at(UNPUBLISHED_AFTER_S - 1)) == ()
    assert unpublished(known.failed("x"), read, seen, late) == ()
    assert unpublished(SecondSource(), read, seen, late) == ()
    shown = knows(row(SCHEDULED, "e-1"), seconds=900)
    assert "E-1" not in unpublished(shown, read, seen, late)


# --- what is asked, and how often ---


def test_a_query_asks_about_events_whose_end_is_not_known() -> None:
    """Those in the document, those without a verdict, and verdicts without an end."""
    ledger = Ledger(
        events=(WatchedEvent(event_id="E-2", event_type="Reboot", first_seen_at=at(0)),),
        verdicts=(verdict(event_id="E-3"), verdict(event_id="E-4", end="Completed")),
    )
    assert asked_about(ledger, document(event())) == ("E-1", "E-2", "E-3")
    assert asked_about(Ledger(), None) == ()


def test_queries_are_frequent_while_an_event_is_announced_or_its_end_may_follow() -> None:
    """A verdict without an end counts for 15 minutes."""
    late = Ledger(verdicts=(verdict(),))
    assert is_busy(Ledger(), document(event()), at(0))
    assert is_busy(late, document(), at(899))
    assert not is_busy(late, document(), at(901))
    assert not is_busy(Ledger(verdicts=(verdict(end="Completed"),)), document(), at(0))
    assert not is_busy(Ledger(), None, at(0))
