"""Drain requests: which are active, which VMs they keep out, and the laws that hold for them."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.core.blob_limits import MAX_TEXT_CHARACTERS
from controller.core.drain_requests import (
    DRAIN_REQUEST,
    MINOR,
    DrainRequest,
    DrainRequests,
    RehearsedEvent,
    RollingRun,
    merged,
    rehearsed_events,
)
from controller.core.events import EventDocument, EventSource, EventStatus, ScheduledEvent
from controller.core.lease import reasons_not_to_lead
from controller.core.planning.actions import Phase, ReadInventory
from controller.core.policy import Floor
from tests.support.planner_scenario import (
    APP,
    T0,
    PlannerScenario,
    acknowledged,
    at,
    event,
    phase,
    reasons,
    removal,
    restoral,
    writes,
)
from tests.support.policies import make_policy


def request(vm: str = "web-1", *, until: float = 1800, request_id: str = "R-1") -> DrainRequest:
    return DrainRequest(
        request_id=request_id, vm=vm, reason="patching", by="ann", at=T0, until=at(until)
    )


def withdrawn(vm: str = "web-1", *, after: float = 60) -> DrainRequest:
    return replace(request(vm), ended_at=at(after), ended_by="ben")


def history(scene: PlannerScenario) -> list[tuple[str, str]]:
    return [(line.step, line.detail) for line in scene.ledger.transitions]


def out_by_hand(*requests: DrainRequest) -> PlannerScenario:
    """Return a set whose web-1 was drained because of a request."""
    scene = PlannerScenario()
    asked = requests or (request(),)
    scene.adopt(requests=asked)
    scene.inside["web-1"] = []
    scene.now = 5
    scene.adopt(requests=asked)
    assert scene.entry().out_at == at(5)
    return scene


# --- out ---


def test_a_request_takes_its_vm_out_like_an_event() -> None:
    """It is recorded first, with its reason, and then removed; nothing is acknowledged."""
    scene = PlannerScenario()
    first = scene.adopt(requests=(request("WEB-1"),))
    assert writes(first) == []
    assert [(each.event_id, each.event_type) for each in scene.entry().events] == [
        ("R-1", DRAIN_REQUEST)
    ]
    second = scene.adopt(requests=(request(),))
    assert writes(second) == [removal("web-1")]
    assert acknowledged(second) == []


def test_history_has_each_request_once() -> None:
    """The name, the end and the reason stand in the journal of the set, however many passes."""
    scene = out_by_hand()
    assert history(scene) == [
        ("requested", "by ann: patching"),
        ("recorded", "app"),
        ("out", ""),
    ]


def test_a_request_without_a_reason() -> None:
    """The journal names who asked, and ends there."""
    assert ("requested", "by ann") in history(out_by_hand(replace(request(), reason="")))


def test_a_test_is_drained_like_any_request_and_says_what_it_is() -> None:
    """The id of a rehearsal is all that differs, so an older agent drains the same."""
    scene = out_by_hand(replace(request(), request_id="test-R-1"))
    assert [(each.event_id, each.event_type) for each in scene.entry().events] == [
        ("test-R-1", DRAIN_REQUEST)
    ]
    assert history(scene)[0] == ("requested", "TEST, by ann: patching")


NOTICE = RehearsedEvent(event_id="test-E", event_type="Freeze", not_before=at(600))


def shown(vm: str = "web-1", *, request_id: str = "test-R", **fields: Any) -> DrainRequest:
    return replace(request(vm, until=700, request_id=request_id), **{"event": NOTICE, **fields})


def test_the_event_of_a_rehearsal() -> None:
    """One event for all its VMs, which starts and ends by the clock and is never acknowledged."""
    requests = (shown(), shown("web-2", request_id="test-S"), request("web-3"))
    (found,) = rehearsed_events(requests, at(599))
    assert found == ScheduledEvent(
        event_id="test-E",
        event_type="Freeze",
        status=EventStatus.SCHEDULED,
        resources=("web-1", "web-2"),
        not_before=at(600),
        source=EventSource.PLATFORM,
        acknowledgeable=False,
    )
    started = replace(found, status=EventStatus.STARTED, not_before=None)
    assert rehearsed_events(requests, at(600)) == (started,)
    assert rehearsed_events(requests, at(699)) == (started,)
    assert rehearsed_events(requests, at(700)) == ()
    over = (replace(requests[0], ended_at=at(1)), requests[1])
    assert [each.resources for each in rehearsed_events(over, at(5))] == [("web-2",)]


def test_no_request_can_show_an_event_of_azure() -> None:
    """An event without the id of a test is not shown, whatever the blob holds."""
    forged = replace(NOTICE, event_id="602d9444-d2cd-49c7-8624-8643e7171297")
    assert rehearsed_events((shown(event=forged),), at(0)) == ()


def test_a_request_that_shows_an_event_does_not_drain_by_itself() -> None:
    """Its VM is drained for the event, when that is due; no request is in force or lost."""
    scene = PlannerScenario()
    assert scene.adopt(requests=(shown(),)).ledger is None
    scene.events = list(rehearsed_events((shown(),), at(0)))
    planned = scene.adopt(requests=(shown(),))
    assert [(each.event_id, each.event_type) for each in scene.entry().events] == [
        ("test-E", "Freeze")
    ]
    assert acknowledged(planned) == []


def test_the_floor_holds_for_requests() -> None:
    """Law S2: a VM that the pool needs is held, and the hold is reported."""
    scene = PlannerScenario(policy=make_policy(pools={APP: Floor(number=3)}))
    planned = scene.through(requests=(request(),))
    assert (phase(planned), reasons(planned)) == (Phase.HELD, {"web-1": "floor"})
    assert scene.ledger.entries == ()


def test_what_azure_announced_comes_before_what_was_asked_for() -> None:
    """Of two VMs of which one has to stay, the one with the event goes, last by name."""
    scene = PlannerScenario(
        events=[event("web-3")], policy=make_policy(pools={APP: Floor(number=2)})
    )
    scene.through(requests=(request("web-1"),))
    assert [entry.vm for entry in scene.ledger.entries] == ["web-3"]
    assert reasons(scene.plan(requests=(request("web-1"),))) == {"web-1": "floor"}


def test_an_event_of_a_vm_that_is_out_by_hand_is_acknowledged() -> None:
    """Law L2: the VM is out and empty, so the platform need not wait."""
    scene = out_by_hand()
    scene.now, scene.events = 100, [event()]
    scene.adopt(requests=(request(),))
    assert acknowledged(scene.plan(requests=(request(),))) == ["E-1"]


# --- back ---


@pytest.mark.parametrize(
    ("requests", "now", "why"),
    [
        ((withdrawn(),), 100, "withdrawn by ben"),
        ((request(until=90),), 100, "the request is over"),
        ((), 1800, ""),
    ],
)
def test_a_vm_comes_back_when_its_request_ends(
    requests: tuple[DrainRequest, ...], now: float, why: str
) -> None:
    """Withdrawn, over, or lost and over: the VM is restored, and history has the reason."""
    scene = out_by_hand()
    scene.now = now
    another = replace(withdrawn("web-2"), request_id="R-9", ended_by="eve")
    requests = (*requests, another)
    scene.adopt(requests=requests)
    assert history(scene)[-1] == ("restoring", why)
    assert writes(scene.plan(requests=requests)) == [restoral("web-1")]


def test_a_pass_is_due_when_a_request_ends() -> None:
    """The leader plans its next pass for that instant."""
    planned = out_by_hand(request(until=60)).plan(requests=(request(until=60),))
    assert planned.wake_at == at(60)


@pytest.mark.parametrize(
    ("requests", "events"), [((request(),), []), ((withdrawn(),), [event()]), ((), [event()])]
)
def test_a_vm_stays_out_while_anything_wants_it_out(
    requests: tuple[DrainRequest, ...], events: list[object]
) -> None:
    """Law S6: neither the end of a request nor the end of an event is the end of the other."""
    scene = out_by_hand()
    scene.now, scene.events = 100, list(events)  # type: ignore[arg-type]
    assert writes(scene.through(requests=requests)) == []
    assert scene.entry().restoring_at is None


def test_a_request_made_during_an_event_keeps_the_vm_out() -> None:
    """Law S6: it enters the entry of the event, and counts when that is over."""
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    scene.adopt(requests=(request(),))
    assert [each.event_type for each in scene.entry().events] == ["Reboot", DRAIN_REQUEST]
    scene.now, scene.events = 300, []
    assert writes(scene.through(requests=(request(),))) == []
    assert ("requested", "by ann: patching") in history(scene)


def test_requests_that_cannot_be_read_keep_a_vm_out() -> None:
    """Law S6: a VM is not restored while the requests are unknown."""
    scene = out_by_hand()
    scene.now = 100
    scene.ledger = replace(scene.ledger, leader_since=at(80))
    early = scene.through(requests=None)
    assert (phase(early), reasons(early), early.wake_at) == (Phase.RESTORE_DUE, {}, at(101))
    scene.now = 110
    assert reasons(scene.through(requests=None)) == {}
    scene.now = 111
    late = scene.through(requests=None)
    assert (phase(late), reasons(late)) == (Phase.HELD, {"web-1": "requests_unread"})
    assert writes(late) == []


def test_requests_that_cannot_be_read_keep_out_who_is_out_for_an_event_too() -> None:
    """Law S6: the event is over, and it is unknown whether the request is."""
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    scene.adopt(requests=(request(),))
    scene.now, scene.events = 300, []
    assert writes(scene.through(requests=None)) == []
    assert scene.entry().restoring_at is None


def test_requests_that_cannot_be_read_keep_no_other_vm_out() -> None:
    """Law L2: a VM that was out for an event alone comes back."""
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    scene.now, scene.events = 300, []
    scene.adopt(requests=None)
    assert writes(scene.plan(requests=None)) == [restoral("web-1")]


# --- what cannot be done ---


def test_a_request_for_another_machine_is_held() -> None:
    """An operator who mistyped a name is informed, after the set was read again."""
    scene = PlannerScenario()
    planned = scene.through(requests=(request("web-9"),))
    assert reasons(planned) == {"web-9": "unmanaged_resource"}
    scene.now = 61
    planned = scene.plan(requests=(request("web-9"),), inventory_at=at(0))
    assert ReadInventory() in planned.actions


def test_an_ended_request_for_another_machine_is_forgotten() -> None:
    """A request that has ended causes no hold."""
    scene = PlannerScenario(now=10)
    assert reasons(scene.through(requests=(withdrawn("web-9", after=5),))) == {}


def test_a_request_for_a_vm_in_no_pool_is_held() -> None:
    """There is nothing to take it from, and nothing is recorded."""
    scene = PlannerScenario()
    scene.inside["web-1"] = []
    planned = scene.through(requests=(request(),))
    assert (phase(planned), reasons(planned)) == (
        Phase.UNMANAGED,
        {"web-1": "unmanaged_resource"},
    )
    assert scene.ledger.entries == ()


def test_a_leader_that_is_asked_for_lets_others_lead() -> None:
    """A VM that is taken out of its pools may lose its way to Azure, as before an event."""

    def asked(*requests: DrainRequest, now: float = 10) -> frozenset[str]:
        return reasons_not_to_lead(
            vm="web-1",
            document=EventDocument(incarnation=1),
            document_age_s=0,
            policy=make_policy(pools={APP: Floor(number=1)}),
            now=at(now),
            requests=requests,
        ).events

    assert asked(request("WEB-1")) == {"r-1"}
    assert not asked(request("web-2"))
    assert not asked(request(), now=1800)
    assert not asked(withdrawn(after=5))


def test_requests_are_values_whatever_a_newer_version_put_into_them() -> None:
    """Equal ones hash alike, and a roll begins with nothing done, failed, ended or unknown."""
    roll = RollingRun(
        run_id="L-1", what="", vms=(), done=(), by="ann", at=T0, process_id="a process"
    )
    assert (roll.heartbeat, roll.failed, roll.ended_at, roll.extra) == (0, "", None, {})
    plain = DrainRequests(roll=roll)
    newer = replace(plain, roll=replace(roll, extra={"a": [1]}), extra={"b": [2]})
    assert hash(newer) == hash(plain)
    assert hash(replace(request(), extra={"c": [3]})) == hash(request())


def test_what_is_left_of_a_roll_does_not_depend_on_spelling() -> None:
    """Names of VMs are the same in any case."""
    roll = RollingRun(
        run_id="L-1",
        what="",
        vms=("WEB-1", "web-2", "web-3"),
        done=("web-1", "WEB-2"),
        by="ann",
        at=T0,
        process_id="a process",
    )
    assert roll.remaining == ("web-3",)


def test_what_stands_is_neither_withdrawn_nor_over() -> None:
    """The end itself is over."""
    requests = DrainRequests(
        requests=(request(until=60), withdrawn("web-2", after=5), request("web-3"))
    )
    assert [each.vm for each in requests.active(at(59))] == ["web-1", "web-3"]
    assert [each.vm for each in requests.active(at(60))] == ["web-3"]


def test_more_time_is_for_one_request_that_was_not_withdrawn() -> None:
    """Others keep theirs, and a withdrawal stays one."""
    ended = replace(withdrawn("web-2"), request_id="R-2")
    other = request("web-3", request_id="R-3")
    requests = DrainRequests(requests=(request(), ended, other))
    longer = requests.extending("R-1", at(3600)).extending("R-2", at(3600))
    assert longer.requests == (request(until=3600), ended, other)


def test_requests_for_one_vm_stand_beside_each_other() -> None:
    """A newer request ends no older one, and each is withdrawn on its own."""
    newer = replace(request("WEB-1"), request_id="R-2", at=at(9))
    both = DrainRequests().adding(request()).adding(newer)
    assert both.active_for("web-1", at(10)) == both.requests == (request(), newer)
    assert (both.by_id("r-2"), both.by_id("R-3")) == (newer, None)
    one = both.ending(["r-2"], at=at(20), by="ben")
    assert one.active_for("web-1", at(20)) == (request(),)


def test_an_operator_withdraws_the_only_request_or_own_ones() -> None:
    """Of several requests, those of other operators stay in force."""
    alone = DrainRequests().adding(request())
    assert alone.withdrawing("WEB-1", at=at(20), by="ben").active(at(20)) == ()
    own = replace(request(), request_id="R-2", by="ben")
    both = alone.adding(own)
    assert both.withdrawing("web-1", at=at(20), by="ben").active(at(20)) == (request(),)
    assert both.withdrawing("web-1", at=at(20), by="ann").active(at(20)) == (own,)
    assert both.withdrawing("web-1", at=at(20), by="eve") == both


def test_ended_requests_are_kept_for_a_while() -> None:
    """Requests whose time is over are dropped first; active requests are all kept."""
    requests = DrainRequests(requests=(request("web-3", until=99999, request_id="stands"),))
    for number in range(55):
        new = replace(
            request(f"web-{number % 2}", until=1000 + number, request_id=f"R{number}"),
            at=T0 + timedelta(seconds=number),
        )
        requests = requests.adding(new)
    assert len(requests.requests) == 56
    late = replace(request("web-9", until=9999, request_id="late"), at=at(2000))
    kept = [each.request_id for each in requests.adding(late).requests]
    assert kept == ["stands", *(f"R{number}" for number in range(5, 55)), "late"]


def test_withdrawals_are_kept_until_their_time_is_over() -> None:
    """The ledger can name a withdrawn request until then: what is dropped would count as lost."""
    requests = DrainRequests()
    for number in range(300):
        requests = requests.adding(request(request_id=f"R{number}"))
        requests = requests.withdrawing("web-1", at=at(1), by="ann")
    assert len(requests.adding(request(request_id="new")).requests) == 251


# --- what is lost from the blob ---


def test_a_request_that_the_blob_lost_stays_in_force_until_its_end() -> None:
    """S6: a blob that was deleted, emptied or restored from a backup withdraws nothing."""
    scene = out_by_hand()
    scene.now = 100
    planned = scene.through(requests=())
    assert (phase(planned), reasons(planned)) == (Phase.OUT, {"web-1": "request_lost"})
    assert "2026-01-05 12:30 UTC" in planned.holds[0].message
    assert "lb-drain restore web-1" in planned.holds[0].message
    assert writes(planned) == []
    scene.now = 1800
    scene.adopt(requests=())
    assert writes(scene.plan(requests=())) == [restoral("web-1")]


def test_a_request_that_a_first_ledger_records_without_its_end_stays_in_force_for_a_day() -> None:
    """Ledgers before minor 2 do not record the end of a request."""
    scene = out_by_hand()
    entry = scene.entry()
    undated = replace(entry, events=tuple(replace(each, until=None) for each in entry.events))
    scene.ledger = scene.ledger.with_entry(undated)
    scene.now = 86_399
    assert reasons(scene.through(requests=())) == {"web-1": "request_lost"}
    scene.now = 86_400
    scene.adopt(requests=())
    assert writes(scene.plan(requests=())) == [restoral("web-1")]


def test_an_end_that_only_the_ledger_knows_is_bounded() -> None:
    """K6: another writer of the ledger cannot keep a VM out of rotation for good."""
    scene = out_by_hand()
    entry, never = scene.entry(), datetime(8999, 1, 1, tzinfo=UTC)
    forged = replace(entry, events=tuple(replace(each, until=never) for each in entry.events))
    scene.ledger = scene.ledger.with_entry(forged)
    scene.now = 30 * 86_400 - 1
    assert reasons(scene.through(requests=())) == {"web-1": "request_lost"}
    scene.now = 30 * 86_400
    scene.adopt(requests=())
    assert writes(scene.plan(requests=())) == [restoral("web-1")]


def test_a_restore_that_has_begun_goes_on_when_the_blob_is_lost() -> None:
    """It was decided on a read that showed the end of the request."""
    scene = out_by_hand()
    scene.now = 100
    scene.adopt(requests=(withdrawn(),))
    assert writes(scene.plan(requests=())) == [restoral("web-1")]


def test_a_request_that_came_after_a_restore_is_in_force_when_the_blob_is_lost() -> None:
    """S6: the restore was decided on the end of another request, before the VM was recorded."""
    scene = out_by_hand()
    scene.now = 100
    scene.adopt(requests=(withdrawn(),))
    scene.inside["web-1"], scene.now = [APP], 110
    second = request(request_id="R-2")
    scene.adopt(requests=(withdrawn(), second))
    assert scene.entry().restoring_at == at(100), "the restore can still land"
    scene.now = 120
    planned = scene.through(requests=())
    assert reasons(planned) == {"web-1": "request_lost"}
    assert writes(planned) == [removal("web-1")]


def test_the_ledger_follows_an_extended_request_shortly_before_its_end() -> None:
    """H1: a rolling run extends its request every few seconds, and the ledger changes rarely."""
    scene = out_by_hand(request(until=600))
    assert scene.entry().events[0].until == at(600)
    scene.now = 539
    scene.adopt(requests=(request(until=1139),))
    assert scene.entry().events[0].until == at(600)
    scene.now = 541
    scene.adopt(requests=(request(until=1141),))
    assert scene.entry().events[0].until == at(1141)


def test_a_vm_is_out_while_any_request_for_it_stands() -> None:
    """The end of one request ends no other, whichever began first."""
    ann, ben = request(), replace(request(until=300), request_id="R-2", by="ben")
    scene = out_by_hand(ann, ben)
    assert [each.event_id for each in scene.entry().events] == ["R-1", "R-2"]
    scene.now = 310
    assert writes(scene.through(requests=(ann, ben))) == []
    ended = replace(ann, ended_at=at(320), ended_by="ann")
    scene.now = 330
    scene.adopt(requests=(ended, ben))
    assert history(scene)[-1] == ("restoring", "withdrawn by ann, the request is over")


# --- what is known and what is read ---


@pytest.mark.parametrize(
    ("known", "read", "result"),
    [
        ([], [request()], [request()]),
        ([request()], [], [request()]),
        ([withdrawn()], [request()], [withdrawn()]),
        ([request()], [withdrawn()], [withdrawn()]),
        ([request(until=900)], [request(until=700)], [request(until=900)]),
        ([request(until=700)], [request(until=900)], [request(until=900)]),
        ([request(until=50)], [], []),
    ],
)
def test_absence_ends_no_request(
    known: list[DrainRequest], read: list[DrainRequest], result: list[DrainRequest]
) -> None:
    """A withdrawal counts whichever read shows it; a lost request counts until its end."""
    assert list(merged(known, read, at(60))) == result


def test_what_is_remembered_is_bounded() -> None:
    """A blob whose content changes all the time does not make the agent grow."""
    known = [request(request_id=f"R{number}") for number in range(600)]
    assert len(merged(known, [request(request_id="new")], at(0))) == 501


@pytest.mark.parametrize(
    "change",
    [lambda r: r.withdrawing("web-2", at=at(1), by="ben"), lambda r: r],
)
def test_withdrawing_touches_only_what_stands(
    change: Callable[[DrainRequests], DrainRequests],
) -> None:
    """A second withdrawal, and one of another VM, change nothing."""
    requests = DrainRequests(requests=(withdrawn(), request("web-3")))
    assert change(requests) == requests


def test_the_version_of_the_format() -> None:
    """Agents of another version read by the minor version which fields they do not know."""
    assert (MINOR, DrainRequests().minor) == (2, 2)


@pytest.mark.parametrize("name", ["vm", "reason", "by", "ended_by"])
def test_texts_of_a_request_are_bounded(name: str) -> None:
    """Every client that may write the container writes these texts, and people read them."""
    long = DrainRequest(**{**_fields(request()), name: "x\x1b" * 100_000})
    text = str(getattr(long, name))
    assert len(text) <= MAX_TEXT_CHARACTERS
    assert "\x1b" not in text


def _fields(value: DrainRequest) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(value)}
