"""What becomes of scheduled events: the lines of the history, and the verdict for each VM."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from controller.core.drain_history import EVENT_STEPS, Step
from controller.core.event_progress import READ_GAP, SeenEvent, SeenEvents
from controller.core.event_record import (
    MAX_VERDICTS,
    MAX_WATCHED_VMS,
    EventVerdict,
    Place,
    Verdict,
    WatchedEvent,
    verdict_text,
)
from controller.core.events import EventDocument, ScheduledEvent, SetAside
from controller.core.ledger import Ledger
from controller.core.ledger_changes import new_verdicts
from controller.core.planning.actions import Plan
from controller.core.policy import EventAction
from controller.core.restarts import Restart
from controller.core.verdict_rules import (
    CONFIRM_S,
    MISSED_WITHIN_S,
    NO_LEADER,
    NO_NOTICE,
    NOT_IN_TIME,
    NOT_KNOWN,
    NOT_NAMED,
    START_NOT_READ,
    is_over_for,
    was_out,
)
from controller.core.verdicts import (
    NOT_READ,
    PUT_BACK,
    ends_soon,
    with_events,
)
from controller.core.vm_report import SeenReport, VmReport, VmState
from controller.status.recorded_events import recorded_document
from controller.storage.ledger_json import decode_ledger, encode_ledger
from tests.support.planner_scenario import (
    APP,
    PlannerScenario,
    at,
    event,
    floor,
    started,
)
from tests.support.policies import make_event_policy


class Watch:
    """A leader that plans, makes the ledger durable, and meets what a test lets happen."""

    def __init__(self, **fields: Any) -> None:
        self.scene = PlannerScenario(**fields)
        self.seen: list[SeenEvent] = []
        self.read = SeenEvents()
        self.over: dict[str, Any] = {}

    def passes(self, seconds: float = 0, *events: ScheduledEvent) -> Plan:
        """Let time pass until these are the events, and plan until the ledger says it all."""
        scene = self.scene
        scene.now, scene.events = max(scene.now, seconds), list(events)
        for _ in range(6):
            observed, now = scene.observe(**self.over), at(scene.now)
            planned = with_events(
                scene.plan(**self.over),
                observed,
                scene.ledger,
                scene.policy,
                now,
                seen=self.seen,
            )
            if planned.ledger is None:
                return planned
            # As a new leader would read it.
            scene.ledger = decode_ledger(encode_ledger(planned.ledger))
        raise AssertionError("the ledger never says it all")

    def reads(self, seconds: float, *events: ScheduledEvent) -> None:
        """Let the agent read a document with these events."""
        self.read.record(EventDocument(incarnation=1, events=events), at(seconds))
        self.seen = list(self.read.known())

    def drained(self, seconds: float, *events: ScheduledEvent, vm: str = "web-1") -> None:
        """Let the agents take a VM out at that time."""
        self.passes(seconds, *events)
        self.scene.inside[vm] = []
        self.passes(seconds + 1, *events)

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """The verdicts as VM and text."""
        return [(each.vm, verdict_text(each)) for each in self.scene.ledger.verdicts]

    @property
    def lines(self) -> list[str]:
        """The lines of the history about events."""
        of_events = (x for x in self.scene.ledger.transitions if x.step in EVENT_STEPS)
        return [f"{each.vm} {each.step}" for each in of_events]


def test_a_vm_that_was_out_in_time_is_drained() -> None:
    """The verdict states the time before NotBefore, once the VM stayed out after the start."""
    watch = Watch()
    watch.drained(10, event())
    watch.passes(620, started())
    assert watch.verdicts == []
    watch.passes(620 + CONFIRM_S, started())
    assert watch.verdicts == [("web-1", "drained 9 min 49 s before NotBefore")]
    watch.passes(700)
    assert watch.lines == ["web-1 announced", "web-1 started", "web-1 completed"]
    assert len(watch.verdicts) == 1
    assert watch.scene.ledger.events == ()


def closing_watch(connections: int) -> Watch:
    """Return a leader whose web-1 is recorded, has closed, and has connections left."""
    watch = Watch()
    watch.scene.policy = replace(watch.scene.policy, close=True)
    watch.passes(10, event())
    report = VmReport(
        vm="web-1", boot_id="b", state=VmState.CLOSED, since=at(11), at=at(12), counted=True,
        connections=connections, drain=watch.scene.entry().recorded_at,
    )  # fmt: skip
    watch.over["reports"] = {"web-1": SeenReport(report, at(12))}
    return watch


@pytest.mark.parametrize(("connections", "rest"), [(0, ""), (3, ": connections cut: 3")])
def test_a_verdict_states_the_connections_that_the_removal_cut(connections: int, rest: str) -> None:
    """A drain in time that cut connections is not the same as one that cut none."""
    watch = closing_watch(connections)
    watch.scene.inside["web-1"] = []
    watch.passes(60, event())
    watch.passes(620, started())
    watch.passes(620 + CONFIRM_S, started())
    assert watch.verdicts == [("web-1", f"drained 9 min 0 s before NotBefore{rest}")]


def test_the_start_of_an_event_cuts_what_a_vm_in_rotation_has_left() -> None:
    """The line of the start and the verdict state it, and a later removal does not count again."""
    watch = closing_watch(2)
    watch.passes(620, started())
    (start,) = [x for x in watch.scene.ledger.transitions if x.step == Step.STARTED]
    assert start.detail.endswith(", connections cut: 2")
    watch.scene.inside["web-1"] = []
    watch.passes(630, started())
    watch.passes(630 + CONFIRM_S, started())
    ((_, text),) = watch.verdicts
    assert text.startswith("late")
    assert text.endswith(f"{NOT_IN_TIME}; connections cut: 2")


def test_the_start_of_an_event_cuts_what_is_left_without_a_removal() -> None:
    """A VM that stays in rotation until the end is hit, with the connections that it lost."""
    watch = closing_watch(2)
    watch.passes(620, started())
    watch.passes(700)
    assert watch.verdicts == [("web-1", f"hit in rotation: {NOT_IN_TIME}; connections cut: 2")]


def test_a_vm_that_was_closed_in_its_pools_is_drained() -> None:
    """It got nothing new and had nothing left: in rotation is not hit (closed by proof)."""
    watch = Watch()
    watch.passes(10, event())
    entry = watch.scene.entry()
    watch.scene.ledger = watch.scene.ledger.with_entry(replace(entry, closed_at=at(20)))
    watch.passes(30, event())
    watch.passes(620, started())
    watch.passes(620 + CONFIRM_S, started())
    assert watch.verdicts == [("web-1", "drained 9 min 40 s before NotBefore")]


def test_another_event_that_restarts_a_closed_vm_voids_its_closing() -> None:
    """V1: the application opened when the VM started again; no other client has put it back."""
    watch, second = Watch(), event(event_id="E-2", not_before=660)
    watch.passes(10, event(), second)
    entry = watch.scene.entry()
    watch.scene.ledger = watch.scene.ledger.with_entry(replace(entry, closed_at=at(20)))
    watch.passes(30, event(), second)
    watch.passes(620, started(), second)
    watch.passes(650, second)
    watch.passes(660, started(event_id="E-2"))
    watch.passes(700)
    assert watch.verdicts == [
        ("web-1", "drained 9 min 40 s before NotBefore"),
        ("web-1", f"hit in rotation: {NOT_IN_TIME}"),
    ]


def test_an_unread_pool_does_not_show_that_a_vm_that_only_closes_is_out() -> None:
    """V1: a new leader knows that it closed, and that another event has restarted it since."""
    watch, second = Watch(), event(event_id="E-2", not_before=660)
    watch.scene.policy = replace(watch.scene.policy, close=True, close_only=True)
    watch.passes(10, event(), second)
    entry = replace(watch.scene.entry(), closed_at=at(20), out_at=at(20))
    watch.scene.ledger = watch.scene.ledger.with_entry(entry)
    watch.over.update(pools=(), nics=())
    watch.passes(620, started(), second)
    assert [vm.place for each in watch.scene.ledger.events for vm in each.vms] == [
        "out",
        "in rotation",
    ]


def test_a_short_event_is_drained_when_it_is_gone() -> None:
    """An acknowledged event that came and went between two polls is drained, not cancelled."""
    watch = Watch()
    watch.drained(10, event())
    watch.over["acknowledged"] = {"e-1": at(50)}
    watch.passes(60, event())
    watch.passes(90)
    assert watch.verdicts == [("web-1", "drained 9 min 49 s before NotBefore")]
    assert watch.lines == ["web-1 announced", "web-1 completed"]


def test_a_vm_that_was_out_after_not_before_is_late() -> None:
    """The verdict states by how much, and what was in the way."""
    watch = Watch()
    floor(watch.scene, 3)
    watch.passes(10, event())
    watch.passes(610, started())
    floor(watch.scene, 1)
    watch.drained(625, started())
    [(vm, text)] = watch.verdicts
    assert vm == "web-1"
    assert text.startswith("late, out of rotation 26 s after NotBefore: web-1 stays in pool app: 2")


def test_a_vm_in_rotation_until_the_end_is_hit() -> None:
    """The verdict states the hold that was in the way when the event began."""
    watch = Watch()
    floor(watch.scene, 3)
    watch.passes(10, event())
    watch.passes(610, started())
    assert watch.verdicts == []
    watch.passes(700)
    [(_, text)] = watch.verdicts
    assert text.startswith("hit in rotation: web-1 stays in pool app: 2 healthy members")


def test_an_event_without_notice() -> None:
    """A VM that is taken out after the start of an event that was never announced is late."""
    watch = Watch()
    watch.passes(10, started())
    watch.drained(18, started())
    assert watch.verdicts == [("web-1", f"late, out of rotation 9 s after its start: {NO_NOTICE}")]


def test_a_removal_that_does_not_end() -> None:
    """Without any hold, the removal had not ended when the event began."""
    watch = Watch()
    watch.passes(10, event())
    watch.passes(610, started())
    watch.passes(700)
    assert watch.verdicts == [("web-1", f"hit in rotation: {NOT_IN_TIME}")]


def test_no_leader_when_it_began() -> None:
    """An event that began before the tenure of the present leader had no leader."""
    watch = Watch()
    watch.passes(10, event())
    watch.scene.ledger = replace(watch.scene.ledger, leader_since=at(640))
    watch.passes(650, started())
    watch.passes(700)
    assert watch.verdicts == [("web-1", f"hit in rotation: {NO_LEADER}")]


def test_an_event_that_came_and_went_without_a_leader() -> None:
    """The next leader judges what it has read as a standby, once."""
    watch = Watch()
    gone = SeenEvent(
        event=event(),
        first_seen_at=at(5),
        unstarted_at=at(601),
        started_at=at(602),
        gone=True,
        gone_at=at(650),
    )
    watch.seen = [gone]
    watch.scene.ledger = replace(watch.scene.ledger, leader_since=at(700))
    watch.passes(701)
    assert watch.verdicts == [("web-1", f"hit in rotation: {NO_LEADER}")]
    assert watch.lines == ["web-1 announced", "web-1 started", "web-1 completed"]
    watch.passes(800)
    assert len(watch.verdicts) == 1


@pytest.mark.parametrize("not_before", [610.0, None])
def test_a_clock_that_was_set_back_judges_nothing_again(not_before: float | None) -> None:
    """An event that was read before the clock was set back has one verdict, not one a pass."""
    watch = Watch()
    read_by_old_clock = SeenEvent(
        event=event(not_before=not_before) if not_before else started(),
        first_seen_at=at(86_400),
        started_at=at(86_400),
        gone=True,
        gone_at=at(700),
    )
    watch.seen = [read_by_old_clock]
    watch.passes(701)
    watch.passes(800)
    assert len(watch.verdicts) == 1


def test_an_old_event_is_not_judged() -> None:
    """What left the document hours ago is not judged by a new leader."""
    watch = Watch()
    watch.seen = [SeenEvent(event=event(), first_seen_at=at(5), gone=True, gone_at=at(650))]
    watch.passes(651 + MISSED_WITHIN_S)
    assert watch.verdicts == []


def test_the_history_of_a_leader_of_the_old_version_counts() -> None:
    """A VM that the history shows as out is drained, although no leader watched the event."""
    watch = Watch()
    watch.drained(10, event())
    watch.scene.ledger = replace(watch.scene.ledger, events=())
    watch.passes(605, started())
    watch.scene.ledger = replace(watch.scene.ledger, events=())
    watch.scene.inside["web-1"] = [APP]
    watch.seen = [
        SeenEvent(
            event=event(),
            first_seen_at=at(5),
            unstarted_at=at(604),
            started_at=at(605),
            gone=True,
            gone_at=at(700),
        )
    ]
    watch.scene.ledger = replace(watch.scene.ledger.without_entry("web-1"), leader_since=at(800))
    watch.passes(801)
    assert [verdict for _, verdict in watch.verdicts] == ["drained 9 min 49 s before NotBefore"]


@pytest.mark.parametrize(
    ("steps", "out_at"),
    [
        ({20: Step.OUT}, 20),
        ({20: Step.OUT, 300: Step.PUT_BACK}, None),
        ({20: Step.OUT, 300: Step.PUT_BACK, 305: Step.OUT}, 305),
        ({20: Step.OUT, 300: Step.RESTORED, 400: Step.RECORDED, 405: Step.OUT}, 405),
        ({20: Step.OUT, 300: Step.RESTORED}, None),
        ({20: Step.OUT, 650: Step.PUT_BACK}, 20),
        ({20: Step.OUT, 650: Step.RESTORED}, 20),
        ({800: Step.OUT}, None),
    ],
)
def test_the_history_shows_whether_a_vm_was_out(
    steps: dict[int, Step], out_at: float | None
) -> None:
    """V1: a VM that another client has put back before the event began was not out."""
    ledger = Ledger()
    for seconds, step in steps.items():
        ledger = ledger.noting(at=at(seconds), vm="web-1", step=step)
    watched = WatchedEvent(
        event_id="E-1",
        event_type="Reboot",
        first_seen_at=at(5),
        not_before=at(600),
        gone_at=at(700),
    )
    assert was_out(watched, "WEB-1", ledger.transitions) == moment(out_at)


@pytest.mark.parametrize(("restarted_at", "counts"), [(10, True), (300, False), (650, True)])
def test_a_vm_that_only_closes_is_not_out_after_another_event_restarted_it(
    restarted_at: float, *, counts: bool
) -> None:
    """V1: it may have opened before this event began, and its agent need not have reported that."""
    ledger = Ledger().noting(at=at(20), vm="web-1", step=Step.OUT)
    watched = WatchedEvent(
        event_id="E-1",
        event_type="Reboot",
        first_seen_at=at(5),
        not_before=at(600),
        gone_at=at(700),
    )
    restart = Restart(event_id="E-0", began_at=at(restarted_at), over_at=at(restarted_at + 5))
    assert bool(was_out(watched, "web-1", ledger.transitions, [restart])) is counts


def test_a_cancelled_event() -> None:
    """An event that leaves the document before NotBefore without approval is cancelled."""
    watch = Watch()
    watch.drained(10, event())
    watch.reads(55, event())
    watch.reads(60)
    watch.passes(60)
    assert watch.verdicts == [("web-1", "cancelled before it began")]
    assert watch.lines == ["web-1 announced", "web-1 cancelled"]


def test_an_event_that_a_new_agent_never_read_may_have_begun() -> None:
    """V1: any VM can approve an event, and it can end before the next leader reads a document."""
    watch = Watch()
    watch.passes(10, event())
    watch.scene.ledger = replace(watch.scene.ledger, leader_since=at(90))
    watch.passes(95)
    assert watch.verdicts == [("web-1", f"hit in rotation: {NOT_READ}")]
    assert watch.lines == ["web-1 announced", "web-1 completed"]


def test_a_vm_that_was_out_while_the_event_was_read_is_drained() -> None:
    """V1: what the previous leader recorded as out was out before the event could begin."""
    watch = Watch()
    watch.drained(10, event())
    watch.scene.ledger = replace(watch.scene.ledger, leader_since=at(90))
    watch.passes(95)
    assert watch.verdicts == [("web-1", "drained 9 min 49 s before NotBefore")]


@pytest.mark.parametrize("gap_s", [READ_GAP.total_seconds(), READ_GAP.total_seconds() + 1])
def test_polls_that_failed_hide_the_start_of_an_event(gap_s: float) -> None:
    """V1: an agent that reads no document for a while calls nothing cancelled, and no VM drained
    that it saw out only after that time began."""
    watch = Watch()
    watch.reads(10, event())
    watch.drained(11, event())
    watch.reads(10 + gap_s)
    watch.passes(10 + gap_s)
    [(_, text)] = watch.verdicts
    unread = gap_s > READ_GAP.total_seconds()
    late = f"late, out of rotation after it may have begun: {NOT_READ}"
    assert text == (late if unread else "cancelled before it began")


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("gap_s", [READ_GAP.total_seconds(), READ_GAP.total_seconds() + 1])
def test_polls_that_failed_hide_when_an_event_began(*, gap_s: float, announced: bool) -> None:
    """V1: a VM that was seen out only after the last document that was read before the start may
    have been in rotation when the event began."""
    watch = Watch()
    watch.reads(10, *([event()] if announced else []))
    watch.drained(11, event())
    watch.reads(10 + gap_s, started())
    watch.passes(10 + gap_s, started())
    watch.passes(10 + gap_s + CONFIRM_S, started())
    [(_, text)] = watch.verdicts
    unread = gap_s > READ_GAP.total_seconds()
    late = f"late, out of rotation after it may have begun: {START_NOT_READ}"
    assert text == (late if unread else "drained 9 min 48 s before NotBefore")


@pytest.mark.parametrize("how", ["first document", "forwarded", "forwarded before", "document"])
def test_an_event_that_was_never_read_before_it_started_began_at_any_time(how: str) -> None:
    """V1: a VM that was out for something else may have been in rotation when it began."""
    watch = Watch()
    other = event(event_id="e-0")
    if how != "first document":
        watch.reads(5, other)
    watch.drained(6, other)
    first = replace(started(), forwarded=how.startswith("forwarded"))
    if how == "forwarded before":
        watch.reads(9, other, replace(event(), forwarded=True))
    watch.reads(10, other, first)
    watch.passes(10, other, first)
    watch.passes(10 + CONFIRM_S, other, first)
    [(_, text)] = watch.verdicts
    known = how in ("document", "forwarded before")
    assert text.startswith("drained" if known else "late")
    assert (START_NOT_READ in text) is not known


def test_an_event_that_an_earlier_leader_watched_before_it_started_began_after_that() -> None:
    """V1: the first document of a new leader shows the start, and the ledger that it was later."""
    watch = Watch()
    watch.drained(6, event())
    watch.reads(20, started())
    watch.passes(20, started())
    watch.passes(20 + CONFIRM_S, started())
    [(_, text)] = watch.verdicts
    assert text.startswith("drained")


def test_a_start_that_was_read_late_changes_nothing_for_a_vm_that_was_out_before() -> None:
    """V1: it was out while a document still showed that the event had not begun."""
    watch = Watch()
    watch.drained(10, event())
    watch.reads(20, event())
    watch.reads(80, started())
    watch.passes(80, started())
    watch.passes(80 + CONFIRM_S, started())
    assert watch.verdicts == [("web-1", "drained 9 min 49 s before NotBefore")]


def test_an_event_that_was_acknowledged_began_after_that() -> None:
    """V1: its VM was out then, however late its start is read."""
    watch = Watch()
    watch.reads(10, event())
    watch.drained(11, event())
    watch.over["acknowledged"] = {"e-1": at(13)}
    watch.reads(80, started())
    watch.passes(80, started())
    watch.passes(80 + CONFIRM_S, started())
    assert watch.verdicts == [("web-1", "drained 9 min 48 s before NotBefore")]


def test_a_start_that_an_earlier_leader_read_is_known() -> None:
    """V1: what the ledger says counts, and not that this agent read it later."""
    watch = Watch()
    watch.reads(10, event())
    watch.drained(11, event())
    watch.passes(20, started())
    watch.reads(80, started())
    watch.passes(80, started())
    assert watch.verdicts == [("web-1", "drained 9 min 48 s before NotBefore")]


def test_a_leader_that_returns_has_not_seen_the_end_of_what_others_forward() -> None:
    """V1: only a leader reads what other agents forward, and the event began meanwhile."""
    watch, forwarded = Watch(), replace(event(), forwarded=True, acknowledgeable=False)
    watch.reads(10, forwarded)
    watch.drained(10, forwarded)
    watch.reads(90, forwarded)
    watch.read.record(EventDocument(incarnation=1), at(91), complete=False)
    watch.scene.ledger = replace(watch.scene.ledger, leader_since=at(695))
    watch.reads(700)
    watch.passes(700)
    assert watch.lines[-1] == "web-1 completed"
    assert watch.verdicts == [("web-1", "drained 9 min 49 s before NotBefore")]


def test_one_poll_without_the_event_is_not_its_end() -> None:
    """S6: one clean poll proves nothing, and a document with an unreadable event neither."""
    watch = Watch(clean=False)
    watch.passes(10, event())
    watch.passes(60)
    assert watch.verdicts == []
    watch.over["clean_documents"] = ()
    watch.over["document"] = EventDocument(incarnation=3, set_aside=(SetAside(problem="odd"),))
    watch.passes(62)
    assert watch.verdicts == []
    assert ends_soon(watch.scene.ledger, EventDocument(incarnation=3))
    assert not ends_soon(watch.scene.ledger, EventDocument(incarnation=3, events=(event(),)))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"duration_s": 2}, "it lasts 2 s, min_duration_s = 5 in [policy.events.Reboot]"),
        ({"event_type": "Redeploy"}, 'action = "ignore" in [policy.events.Redeploy]'),
    ],
)
def test_an_ignored_event(fields: dict[str, Any], why: str) -> None:
    """An ignored event names the setting, when it is announced and at its start."""
    watch = Watch()
    policies = {
        "Reboot": make_event_policy(min_duration_s=5),
        "Redeploy": make_event_policy(action=EventAction.IGNORE),
    }
    watch.scene.policy = replace(watch.scene.policy, events=policies)
    watch.passes(10, event(**fields))
    [line] = watch.scene.ledger.transitions
    assert line.detail.endswith(f"ignored: {why}")
    watch.passes(601, started(**fields))
    assert watch.verdicts == [("web-1", f"ignored: {why}")]


def test_an_unmanaged_vm() -> None:
    """A VM in no managed pool, and a name outside the set, are unmanaged."""
    watch = Watch()
    watch.scene.inside["web-9"] = []
    watch.passes(10, event("web-9", "other"))
    watch.passes(601, started("web-9", "other"))
    assert watch.verdicts == [
        ("web-9", "unmanaged, in no managed pool"),
        ("other", "unmanaged, in no managed pool"),
    ]


def test_a_vm_that_another_client_put_back() -> None:
    """A VM that is in a pool again when its event begins is hit, whatever was done before."""
    watch = Watch()
    watch.drained(10, event())
    watch.scene.inside["web-1"] = [APP]
    watch.passes(605, started())
    watch.passes(700)
    assert watch.verdicts == [("web-1", f"hit in rotation: {PUT_BACK}")]


@pytest.mark.parametrize("inside", [False, True], ids=["out", "put back"])
def test_a_recovered_entry_does_not_show_that_a_vm_was_put_back(*, inside: bool) -> None:
    """V1: the older entry lacks that the VM is out, and no report confirms it while it starts."""
    watch = closing_watch(0)
    before = watch.scene.entry()
    watch.scene.inside["web-1"] = []
    watch.passes(60, event())
    watch.passes(620, started())
    watch.scene.ledger = watch.scene.ledger.with_entry(before)
    watch.over.clear()
    watch.scene.inside["web-1"] = [APP] if inside else []
    scene = watch.scene
    scene.now, scene.events = 621, [started()]
    unread = replace(scene.plan(), ledger=None)  # nothing was observed out again yet
    followed = with_events(
        unread, scene.observe(), scene.ledger, scene.policy, at(621), seen=watch.seen
    ).ledger
    (event_now,) = (followed or scene.ledger).events
    assert event_now.vms[0].place == (Place.IN_ROTATION if inside else Place.OUT)
    watch.passes(621, started())
    watch.passes(622)
    text = f"hit in rotation: {PUT_BACK}" if inside else "drained 9 min 0 s before NotBefore"
    assert watch.verdicts == [("web-1", text)]


def test_an_event_that_is_over_for_one_vm_of_two() -> None:
    """The leader restores that VM while the event goes on for the other one."""
    watch = Watch()
    watch.drained(10, event("web-1", "web-2"))
    watch.passes(605, started("web-1", "web-2"))
    watch.passes(610, started("web-2"))
    watch.scene.inside["web-1"] = [APP]
    watch.passes(700, started("web-2"))
    watch.passes(800)
    assert ("web-1", "drained 9 min 49 s before NotBefore") in watch.verdicts


@pytest.mark.parametrize("again", [False, True])
def test_the_first_poll_without_an_event_that_was_over_for_one_vm(*, again: bool) -> None:
    """V1: the leader had restored that VM, and may have drained it again for another event."""
    watch, other = Watch(), (event(event_id="E-2", not_before=2000),) if again else ()
    watch.drained(10, event("web-1", "web-2"))
    watch.passes(620, event("web-2"))
    watch.scene.inside["web-1"] = [APP]
    watch.passes(700, event("web-2"))
    watch.passes(800, event("web-2"))
    assert watch.scene.ledger.entry("web-1") is None
    if again:
        watch.drained(1200, event("web-2"), *other)
    watch.scene.clean = False
    watch.passes(1510, *other)
    watch.scene.clean = True
    watch.passes(1511, *other)
    assert ("web-1", "drained 9 min 49 s before NotBefore") in watch.verdicts


@pytest.mark.parametrize(
    ("fields", "over"),
    [
        ({}, False),
        ({"out_at": None, "restoring_at": at(700)}, True),
        ({"restored_at": at(700)}, True),
        ({"events": ()}, True),
    ],
)
def test_the_ledger_shows_that_an_event_was_over_for_a_vm(
    fields: dict[str, Any], *, over: bool
) -> None:
    """A document that lacks the event does not show for which VMs it was over before."""
    watch = Watch()
    watch.drained(10, event())
    (watched,) = watch.scene.ledger.events
    entry = replace(watch.scene.entry(), **fields)
    assert is_over_for(watched.vms[0], watched, None, entry) is over


def test_a_vm_that_returned_between_two_maintenances() -> None:
    """S6: the leader has restored it, so nobody else is blamed when the next event hits it."""
    watch = Watch()
    far = event(event_id="E-2", not_before=90_000)
    watch.drained(10, event(), far)
    watch.passes(300, far)
    watch.scene.inside["web-1"] = [APP]
    watch.passes(310, far)
    watch.passes(400, far)
    assert watch.scene.ledger.entries == ()
    assert [each.why for each in watch.scene.ledger.events[0].vms] == [""]


def test_a_set_that_was_not_read() -> None:
    """While the set is not read nothing is judged; in the end what is not known counts as a hit."""
    watch = Watch()
    watch.over["inventory_at"] = None
    watch.over |= {"vms": (), "nics": (), "pools": ()}
    watch.passes(10, event())
    watch.passes(605, started())
    watch.passes(700)
    assert watch.verdicts == []
    watch.passes(1301)
    assert watch.verdicts == [("web-1", f"hit in rotation: {NOT_KNOWN}")]


def test_every_vm_of_an_event_has_its_verdict() -> None:
    """One event can be drained for one VM and a hit for another."""
    watch = Watch()
    both = ("web-1", "web-2")
    floor(watch.scene, 2)
    watch.drained(10, event(*both))
    watch.passes(605, started(*both))
    watch.passes(700)
    assert [(vm, text[:15]) for vm, text in watch.verdicts] == [
        ("web-1", "drained 9 min 4"),
        ("web-2", "hit in rotation"),
    ]
    assert watch.lines[0] == "web-1, web-2 announced"


def test_two_entries_with_one_id() -> None:
    """V1: the VMs of both entries have a verdict: only the id distinguishes events."""
    watch = Watch()
    soon = [replace(event(vm), acknowledgeable=False) for vm in ("web-1", "web-2")]
    begun = [replace(started(vm), acknowledgeable=False) for vm in ("web-1", "web-2")]
    watch.reads(10, *soon)
    watch.passes(10, *soon)
    watch.scene.inside |= {"web-1": [], "web-2": []}
    watch.passes(20, *soon)
    watch.reads(610, *soon)
    watch.reads(620, *begun)
    watch.passes(620, *begun)
    watch.passes(700)
    assert [(vm, text[:7]) for vm, text in watch.verdicts] == [
        ("web-1", "drained"),
        ("web-2", "drained"),
    ]
    [seen] = watch.seen
    assert seen.event.resources == ("web-1", "web-2")


def test_an_event_that_returns_was_not_gone() -> None:
    """Old documents hide an event for a while: what was concluded from that is withdrawn."""
    watch = Watch()
    watch.passes(10, event("web-1", "web-2"))
    watch.passes(20)
    assert [vm for vm, _ in watch.verdicts] == ["web-1", "web-2"]
    watch.passes(40, event("web-1", "web-2"))
    assert watch.verdicts == []
    watch.passes(620, started("web-1", "web-2"))
    watch.passes(700)
    assert [vm for vm, _ in watch.verdicts] == ["web-1", "web-2"]


def test_an_event_that_returns_as_started_was_not_gone() -> None:
    """A started event has no NotBefore; it is the one that was announced."""
    watch = Watch()
    watch.passes(10, event())
    watch.passes(20)
    watch.passes(40, started())
    assert watch.verdicts == []
    watch.passes(50)
    assert len(watch.verdicts) == 1


def test_a_verdict_that_is_withdrawn_reports_no_other_one_again() -> None:
    """V1: the log, the metrics and their alert count each verdict once."""
    watch = Watch()
    for event_id, start in (("E-0", 0), ("E-1", 2000)):
        watch.passes(start + 10, event(event_id=event_id, not_before=start + 600))
        watch.passes(start + 700)
    before = watch.scene.ledger
    watch.passes(2710, event(event_id="E-1", not_before=2600))
    assert len(watch.verdicts) == 1
    assert new_verdicts(before, watch.scene.ledger) == ()


@pytest.mark.parametrize("left", [event(), started()])
def test_what_an_agent_left_forwarded_withdraws_no_verdict(left: ScheduledEvent) -> None:
    """V1: it ended with its VM, and the next leader has read the event in no document."""
    watch, left = Watch(), replace(left, forwarded=True, acknowledgeable=False)
    watch.drained(10, event())
    watch.passes(620, started())
    watch.passes(630)
    drained = [("web-1", "drained 9 min 49 s before NotBefore")]
    assert watch.verdicts == drained
    watch.passes(640, left)
    assert watch.verdicts == drained
    watch.passes(650)
    assert watch.verdicts == drained
    assert watch.lines == ["web-1 announced", "web-1 started", "web-1 completed"]


def test_what_is_forwarded_withdraws_a_verdict_without_a_start() -> None:
    """The leader could not read what agents forward for a while, and the event may begin yet."""
    watch, forwarded = Watch(), replace(event(), forwarded=True, acknowledgeable=False)
    watch.passes(10, forwarded)
    watch.passes(20)
    assert [vm for vm, _ in watch.verdicts] == ["web-1"]
    watch.passes(30, forwarded)
    assert watch.verdicts == []


def test_what_an_agent_left_forwarded_counts_for_another_vm() -> None:
    """An event that one agent forwards late may still go on for its VM."""
    watch, both = Watch(), replace(event("web-1", "web-2"), forwarded=True, acknowledgeable=False)
    watch.drained(10, event())
    watch.passes(620, started())
    watch.passes(630)
    watch.passes(640, both)
    watch.passes(650)
    assert sorted(vm for vm, _ in watch.verdicts) == ["web-1", "web-2"]


def test_a_vm_that_an_event_names_later_has_a_verdict_too() -> None:
    """V1: the agents of a scale set forward an event one after the other."""
    watch = Watch()
    watch.passes(10, event("web-1"))
    watch.drained(25, event("web-1", "WEB-2"), vm="web-2")
    watch.passes(620, started("web-1", "web-2"))
    watch.passes(700)
    assert watch.lines[:2] == ["web-1 announced", "WEB-2 announced"]
    assert [(vm, text[:15]) for vm, text in watch.verdicts] == [
        ("web-1", "hit in rotation"),
        ("WEB-2", "drained 9 min 3"),
    ]


@pytest.mark.parametrize("later", [started("web-1", "web-2"), event("web-1", "web-2")])
def test_a_vm_that_an_event_names_after_it_began(later: ScheduledEvent) -> None:
    """The verdict states that the leader did not know before."""
    watch = Watch()
    watch.passes(10, event("web-1"))
    watch.passes(620, later)
    watch.passes(700)
    assert watch.verdicts[1] == ("web-2", f"hit in rotation: {NOT_NAMED}")


def test_an_event_that_returns_for_another_vm() -> None:
    """The verdict for a VM stays until the event names that VM again; none has two."""
    watch = Watch()
    watch.passes(10, event("web-1"))
    watch.passes(20)
    watch.passes(40, event("web-2"))
    assert [vm for vm, _ in watch.verdicts] == ["web-1"]
    watch.passes(50, event("web-1", "web-2"))
    assert watch.verdicts == []
    watch.passes(60)
    assert sorted(vm for vm, _ in watch.verdicts) == ["web-1", "web-2"]


def test_an_id_that_is_used_again() -> None:
    """A later event with the id of an earlier one has a verdict of its own."""
    watch = Watch()
    for start in (0, 2000):
        watch.passes(start + 10, event(not_before=start + 600))
        watch.reads(start + 95, event(not_before=start + 600))
        watch.reads(start + 100)
        watch.passes(start + 100)
    assert [text for _, text in watch.verdicts] == ["cancelled before it began"] * 2


def test_an_id_that_is_used_again_after_a_start() -> None:
    """V1: the start of the earlier event is not that of the later one, which is cancelled."""
    watch = Watch()
    watch.reads(10, event())
    watch.drained(11, event())
    watch.reads(605, event())
    for seconds, events in ((610.0, (started(),)), (700.0, ()), (705.0, ())):
        watch.reads(seconds, *events)
        watch.passes(seconds, *events)
    later = event(not_before=2600)
    for seconds, events in ((2010.0, (later,)), (2025.0, (later,)), (2030.0, ())):
        watch.reads(seconds, *events)
        watch.passes(seconds, *events)
    assert [text[:9] for _, text in watch.verdicts] == ["drained 9", "cancelled"]
    assert watch.lines[-2:] == ["web-1 announced", "web-1 cancelled"]


@pytest.mark.parametrize("noted", [True, False])
def test_an_id_that_is_used_again_after_an_acknowledgement(*, noted: bool) -> None:
    """V1: what was acknowledged is the earlier event; the later one is cancelled, not hit."""
    watch, later = Watch(), event(not_before=2600)
    floor(watch.scene, 3)
    watch.reads(10, event())
    watch.passes(10, event())
    if noted:
        ledger = watch.scene.ledger
        watch.scene.ledger = ledger.noting(
            at=at(20), vm="web-1", step=Step.ACKNOWLEDGED, detail="E-1"
        )
    else:
        watch.over["acknowledged"] = {"e-1": at(20)}
    watch.reads(30)
    watch.passes(30)
    watch.reads(2010, later)
    watch.passes(2010, later)
    watch.reads(2025)
    watch.passes(2025)
    assert [text for _, text in watch.verdicts][1:] == ["cancelled before it began"]


def test_an_event_of_a_used_id_that_is_acknowledged_too() -> None:
    """V1: the later event may begin and end between two polls, as the earlier one."""
    watch = Watch()
    for start in (0, 2000):
        soon = event(not_before=start + 600)
        watch.reads(start + 10, soon)
        watch.drained(start + 11, soon)
        assert [x.step for x in watch.scene.ledger.transitions][-1] != Step.ACKNOWLEDGED
        watch.over["acknowledged"] = {"e-1": at(start + 20)}
        watch.passes(start + 20, soon)
        watch.reads(start + 30)
        watch.passes(start + 30)
        watch.scene.inside["web-1"] = [APP]
        watch.passes(start + 40)
        watch.passes(start + 200)
    assert [text[:7] for _, text in watch.verdicts] == ["drained"] * 2


def test_an_idle_set_writes_nothing() -> None:
    """H1: without events, and with events of long ago, the plan is the planner's."""
    watch = Watch()
    watch.seen = [SeenEvent(event=event(), first_seen_at=at(5), gone=True, gone_at=at(10))]
    assert watch.passes(11 + MISSED_WITHIN_S).ledger is None
    assert watch.scene.ledger.events == ()


def test_the_record_is_bounded() -> None:
    """However many events there are, the ledger watches so many VMs and keeps so many verdicts."""
    watch = Watch()
    many = [event(*(f"x{i}-{j}" for j in range(100)), event_id=f"E-{i}") for i in range(12)]
    watch.passes(10, *many)
    assert sum(len(each.vms) for each in watch.scene.ledger.events) == MAX_WATCHED_VMS
    watch.passes(20, event(*many[0].resources, "late", event_id="E-0"), *many[1:])
    assert sum(len(each.vms) for each in watch.scene.ledger.events) == MAX_WATCHED_VMS
    watch.passes(50)
    assert len(watch.scene.ledger.verdicts) == MAX_VERDICTS
    assert watch.scene.ledger.events == ()


def test_an_event_whose_verdicts_were_dropped_is_not_judged_again() -> None:
    """V1: a large set has more verdicts within hours than the ledger keeps."""
    watch = Watch()
    for number in range(3):
        start = 1000 * number
        vms = [f"x{number}-{each}" for each in range(MAX_VERDICTS * 3 // 5)]
        soon = event(*vms, event_id=f"E-{number}", not_before=start + 600)
        watch.reads(start + 5, soon)
        watch.passes(start + 10, soon)
        watch.reads(start + 100)
        watch.passes(start + 100)
    announced = [x for x in watch.scene.ledger.transitions if x.step == Step.ANNOUNCED]
    assert len(announced) == 3
    assert len(watch.scene.ledger.verdicts) == MAX_VERDICTS


def moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else at(seconds)


@pytest.mark.parametrize(
    ("verdict", "not_before", "started_at", "out_at", "text"),
    [
        (Verdict.DRAINED, 600, None, 60, "drained 9 min 0 s before NotBefore"),
        (Verdict.DRAINED, 600, 100, 60, "drained 9 min 0 s before NotBefore"),
        (Verdict.DRAINED, None, 100, 60, "drained 40 s before its start"),
        (Verdict.DRAINED, 20_000, None, 60, "drained 5 h 32 min before NotBefore"),
        (Verdict.DRAINED, 200_000, None, 60, "drained 2 d 7 h before NotBefore"),
        (Verdict.DRAINED, None, None, 60, "drained before it began"),
        (Verdict.LATE, 600, 601, 620, "late, out of rotation 20 s after NotBefore: w"),
        (Verdict.LATE, 600, 100, 160, "late, out of rotation 1 min 0 s after its start: w"),
        (Verdict.LATE, None, 100, 130, "late, out of rotation 30 s after its start: w"),
        ("from_the_future", None, None, None, "from the future: w"),
    ],
)
def test_the_words_of_a_verdict(
    verdict: str,
    not_before: float | None,
    started_at: float | None,
    out_at: float | None,
    text: str,
) -> None:
    """Every verdict says how far the VM was from what it had to precede."""
    found = EventVerdict(
        at=at(0),
        vm="web-1",
        event_id="E-1",
        event_type="Reboot",
        verdict=verdict,
        not_before=moment(not_before),
        started_at=moment(started_at),
        out_at=moment(out_at),
        why="" if verdict == Verdict.DRAINED else "w",
    )
    assert verdict_text(found) == text
    assert verdict_text(replace(found, event_id="test-1")) == f"TEST, {text}"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, ""),
        (
            {"acknowledgeable": False},
            "another event may have its id, or its newest form cannot be read",
        ),
        (
            {"acknowledgeable": False, "forwarded": True},
            "the event document of the leader does not show it",
        ),
        ({"acknowledgeable": False, "event_id": "test-1"}, ""),
    ],
)
def test_what_cannot_be_acknowledged_is_recorded(fields: dict[str, Any], why: str) -> None:
    """The ledger has the reason, for commands that read no event document."""
    watch = Watch()
    watch.passes(0, event("web-1", **fields))
    (watched,) = watch.scene.ledger.events
    assert watched.not_acknowledgeable == why
    if not why:
        return
    (shown,) = recorded_document(watch.scene.ledger).events
    assert not shown.acknowledgeable
    watch.passes(5, event("web-1"))
    (watched,) = watch.scene.ledger.events
    assert watched.not_acknowledgeable == ""
