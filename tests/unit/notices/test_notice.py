"""The fields of a notice, its text, and what makes two notices the same."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from controller.core.drain_history import Step
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.notices.event_notices import follow_events
from controller.core.notices.notice import DeliveredNotices, Notice, NoticeKind
from controller.core.notices.set_notices import current_notices, ledger_notices
from controller.core.planning.actions import HoldReason, Phase, Plan, VmPhase
from controller.core.policy import Floor
from tests.support.planner_scenario import APP, at, event, membership, vm_id
from tests.support.policies import make_policy

EARLY = EventReference(event_id="E-1", event_type="Reboot", not_before=at(600))
LATE = EventReference(event_id="E-2", event_type="Reboot", not_before=at(900))
OPEN = EventReference(event_id="E-3", event_type="Reboot")
POLICY = make_policy(pools={APP: Floor(number=1)})
START = at(0)
ELSEWHERE = timezone(timedelta(hours=1))


def elsewhere(instant: datetime) -> datetime:
    return instant.astimezone(ELSEWHERE)


def entry(name: str = "web-1", *events: EventReference, recorded_at: datetime = START) -> Entry:
    return Entry(
        vm=name,
        vm_id=vm_id(name),
        events=events,
        memberships=(membership(name),),
        recorded_at=recorded_at,
    )


def planned(*phases: VmPhase) -> Plan:
    return Plan(ledger=None, actions=(), phases=phases, holds=(), wake_at=None)


def seen(
    ledger: Ledger, *, plan: Plan | None = None, events: Iterable[ScheduledEvent] = (), now: float
) -> list[Notice]:
    found = current_notices(
        (),
        plan=plan or planned(),
        ledger=ledger,
        document=EventDocument(incarnation=1, events=tuple(events)),
        clean_documents=(),
        policy=POLICY,
        now=at(now),
    )
    return [each for each in found if each.kind is not NoticeKind.EVENT_ANNOUNCED]


# --- transitions ---


def test_a_message_about_a_drain_names_the_earliest_deadline() -> None:
    """Of several events, some without a NotBefore, the first that may start counts."""
    ledger = Ledger().with_entry(entry("web-1", LATE, OPEN, EARLY))
    [notice] = ledger_notices(ledger.noting(at=at(550), vm="web-1", step=Step.OUT))
    assert (notice.vm, notice.not_before) == ("web-1", at(600))
    assert notice.text == "web-1 is out of rotation, 50 s before NotBefore"


def test_a_drain_in_any_spelling_finds_its_entry() -> None:
    """The transition WEB-1 has the deadline of the entry Web-1."""
    ledger = (
        Ledger().with_entry(entry("Web-1", EARLY)).noting(at=at(540), vm="WEB-1", step=Step.OUT)
    )
    [notice] = ledger_notices(ledger)
    assert notice.text == "WEB-1 is out of rotation, 1 min 0 s before NotBefore"


def test_an_acknowledgement_has_its_event_and_deadline() -> None:
    """Receivers that group by event find VM, id and deadline in the message."""
    ledger = Ledger().with_entry(entry("web-1", EARLY))
    [notice] = ledger_notices(
        ledger.noting(at=at(5), vm="web-1", step=Step.ACKNOWLEDGED, detail="E-1")
    )
    assert (notice.vm, notice.event_id, notice.not_before) == ("web-1", "E-1", at(600))


def test_an_acknowledgement_that_only_the_entry_knows_names_its_event() -> None:
    """In a large set the transition may have been dropped already."""
    ledger = Ledger().with_entry(entry("web-1", replace(EARLY, acknowledged_at=at(9))))
    [notice] = ledger_notices(ledger)
    assert (notice.event_id, notice.at) == ("E-1", at(9))
    assert notice.text == "event E-1 is acknowledged: it may start"


# --- holds ---


def hold(
    subject: str = "web-1", reason: HoldReason = HoldReason.FLOOR, since: datetime = START
) -> Hold:
    return Hold(subject=subject, reason=reason.value, message="because", since=since)


def test_a_hold_names_the_vm_as_the_plan_spells_it() -> None:
    """A hold of a VM, in any spelling, names it; a hold of anything else names none."""
    plan = planned(VmPhase(vm="Web-1", phase=Phase.IN_SERVICE))
    ledger = Ledger(holds=(hold("WEB-1"), hold(APP)))
    assert [each.vm for each in seen(ledger, plan=plan, now=60)] == ["Web-1", ""]


def test_a_hold_of_a_deleted_vm_has_no_notice() -> None:
    """Its transition has the only notice about that."""
    assert seen(Ledger(holds=(hold(reason=HoldReason.VM_GONE),)), now=60) == []


# --- VMs at risk ---


def test_a_vm_at_risk_names_the_event_that_comes_first_by_id() -> None:
    """Of its own events, in any order and spelling, and with the earliest of their deadlines."""
    mine = [
        event("web-1", event_id="B-1", not_before=60, event_type="Redeploy"),
        event("web-1", event_id="a-1", not_before=90),
        event("web-1", event_id="C-1", not_before=None, event_type="Redeploy"),
    ]
    other = event("web-9", event_id="0", not_before=30)
    for events in (mine, mine[::-1]):
        notice, _ = seen(Ledger(), events=[*events, other], now=15)
        assert (notice.kind, notice.vm) == (NoticeKind.AT_RISK, "web-1")
        assert (notice.event_id, notice.event_type, notice.not_before) == ("a-1", "Reboot", at(60))


def test_the_same_events_in_another_order_are_the_same_risk() -> None:
    """Azure promises no order, and no spelling."""
    ids = set[str]()
    for first, second in (("a-1", "B-1"), ("A-1", "b-1")):
        events = [event(event_id=first, not_before=60), event(event_id=second, not_before=60)]
        ids |= {seen(Ledger(), events=each, now=15)[0].id for each in (events, events[::-1])}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("now", "begins"),
    [(59, "may begin at 2026-01-05 12:01:00 UTC"), (60, "may have begun"), (61, "may have begun")],
)
def test_from_its_deadline_on_maintenance_may_have_begun(now: float, begins: str) -> None:
    """A time that has passed is no warning."""
    [notice] = seen(Ledger(), events=[event(not_before=60)], now=now)
    assert notice.text == f"web-1 is still in rotation and its maintenance {begins}"


@pytest.mark.parametrize(
    ("since", "drains", "now", "warns"),
    [
        (0, False, 9, False),
        (0, False, 10, True),
        (None, False, 9, True),
        (0, True, 9, True),
    ],
)
def test_when_a_new_leader_warns(
    since: float | None, drains: bool, now: float, warns: bool
) -> None:
    """After ten seconds in office, or as soon as it has a plan."""
    ledger = Ledger(leader_since=None if since is None else at(since))
    plan = planned(*([VmPhase(vm="web-1", phase=Phase.DRAINING)] if drains else []))
    found = seen(ledger, plan=plan, events=[event(not_before=60)], now=now)
    assert bool(found) is warns


# --- VMs out for long ---


def test_only_a_vm_that_is_still_out_is_out_too_long() -> None:
    """The notice names it; a VM that is back or deleted has none."""
    ledger = (
        Ledger()
        .with_entry(entry("web-1"))
        .with_entry(replace(entry("web-2"), restored_at=at(9)))
        .with_entry(replace(entry("web-3"), gone=True))
    )
    found = [each for each in seen(ledger, now=3600) if each.kind is NoticeKind.OUT_TOO_LONG]
    assert [each.vm for each in found] == ["web-1"]
    since = "2026-01-05 12:00:00 UTC"
    assert found[0].text == f"web-1 is still in a pool, and its drain began at {since}"
    out = Ledger().with_entry(replace(entry("web-1"), out_at=START))
    (found_out,) = (each for each in seen(out, now=3600) if each.kind is NoticeKind.OUT_TOO_LONG)
    assert found_out.text == f"web-1 has been out of rotation since {since}"


# --- what stays from version to version ---


def test_kinds_are_called_as_in_configurations_and_dashboards() -> None:
    """Operators choose by these names, and metrics are labelled with them."""
    assert [kind.value for kind in NoticeKind] == [
        "received",
        "drained",
        "held",
        "at_risk",
        "acknowledged",
        "started",
        "restored",
        "cancelled",
        "handled",
        "late",
        "hit_in_rotation",
        "ended",
        "failed",
        "out_too_long",
        "silent",
        "answers_again",
        "no_leader",
        "leader_again",
        "update_started",
        "update_succeeded",
        "update_failed",
        "update_changed",
        "update_unknown",
        "update_known",
        "digest",
        "test",
    ]


def test_ids_are_the_same_in_every_version() -> None:
    """The ledger keeps them, so an agent of another version must not derive others."""
    document = EventDocument(incarnation=1, events=(event(),))
    found = current_notices(
        (),
        plan=planned(),
        ledger=Ledger().noting(at=at(3), vm="web-1", step=Step.OUT),
        document=document,
        clean_documents=(document,),
        policy=POLICY,
        now=at(5),
    )
    assert [each.id for each in found] == ["25e29886c9a2b063", "6d326d6c0740714f"]


def test_ids_do_not_depend_on_the_time_zone() -> None:
    """The same instant is the same happening, however it is written."""

    def ids(*, moved: bool) -> list[str]:
        instant = elsewhere(at(0)) if moved else at(0)
        ledger = Ledger(holds=(hold(since=instant),)).with_entry(entry(recorded_at=instant))
        ledger = ledger.noting(at=instant, vm="web-2", step=Step.OUT)
        return [each.id for each in seen(ledger, now=3600)]

    assert ids(moved=True) == ids(moved=False)
    assert len(ids(moved=True)) == 3


def test_a_name_that_is_no_unicode_has_an_id_as_well() -> None:
    """JSON can hold half a surrogate pair: strange, and no reason to fail."""
    [notice] = ledger_notices(Ledger().noting(at=at(3), vm="web-\ud800", step=Step.RESTORED))
    assert len(notice.id) == 16


def test_how_much_is_kept() -> None:
    """128 ids of past notices and 100 events are kept: little enough for the ledger's blob."""
    assert len(DeliveredNotices().adding((str(n) for n in range(500)), ()).ids) == 128
    events = tuple(event(event_id=f"E-{n}") for n in range(500))
    known = follow_events(
        (),
        ledger=Ledger(),
        clean_documents=(EventDocument(incarnation=1, events=events),),
        policy=POLICY,
        delivered=frozenset(),
        now=at(0),
    )
    assert len(known) == 100
