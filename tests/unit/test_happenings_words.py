"""What a message says beside its text, and what makes two messages the same."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from scene import APP, at, event, membership, vm_id

from controller.core.actions import Phase, Plan, Reason, VmPhase
from controller.core.happenings import (
    Happening,
    Kind,
    KnownEvent,
    Told,
    follow,
    history,
    look,
    of_leadership,
    of_silence,
    told_in,
    with_told,
)
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.model import EventDocument, Floor, Policy, ScheduledEvent

EARLY = EventReference(event_id="E-1", event_type="Reboot", not_before=at(600))
LATE = EventReference(event_id="E-2", event_type="Reboot", not_before=at(900))
OPEN = EventReference(event_id="E-3", event_type="Reboot")
POLICY = Policy(pools={APP: Floor(number=1)})
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
) -> list[Happening]:
    found = look(
        (),
        plan=plan or planned(),
        ledger=ledger,
        document=EventDocument(incarnation=1, events=tuple(events)),
        clean_documents=(),
        policy=POLICY,
        now=at(now),
    )
    return [each for each in found if each.kind is not Kind.RECEIVED]


# --- transitions ---


def test_a_message_about_a_drain_names_the_earliest_deadline() -> None:
    """Of several events, some without a NotBefore, the first that may start counts."""
    ledger = Ledger().with_entry(entry("web-1", LATE, OPEN, EARLY))
    [told] = history(ledger.noting(at=at(550), vm="web-1", what="out"))
    assert (told.vm, told.not_before) == ("web-1", at(600))
    assert told.text == "web-1 is out of rotation, 50 s before NotBefore"


def test_a_drain_in_any_spelling_finds_its_entry() -> None:
    """The deadline of the entry Web-1 is told of the transition WEB-1."""
    ledger = Ledger().with_entry(entry("Web-1", EARLY)).noting(at=at(540), vm="WEB-1", what="out")
    [told] = history(ledger)
    assert told.text == "WEB-1 is out of rotation, 1 min 0 s before NotBefore"


def test_an_acknowledgement_is_told_with_its_event_and_deadline() -> None:
    """Receivers that group by event find VM, id and deadline in the message."""
    ledger = Ledger().with_entry(entry("web-1", EARLY))
    [told] = history(ledger.noting(at=at(5), vm="web-1", what="acknowledged", detail="E-1"))
    assert (told.vm, told.event_id, told.not_before) == ("web-1", "E-1", at(600))


def test_an_acknowledgement_that_only_the_entry_knows_names_its_event() -> None:
    """In a large set the transition may have been dropped already."""
    ledger = Ledger().with_entry(entry("web-1", replace(EARLY, acknowledged_at=at(9))))
    [told] = history(ledger)
    assert (told.event_id, told.at) == ("E-1", at(9))
    assert told.text == "event E-1 is acknowledged: it may start"


# --- holds ---


def hold(subject: str = "web-1", reason: Reason = Reason.FLOOR, since: datetime = START) -> Hold:
    return Hold(subject=subject, reason=reason.value, message="because", since=since)


def test_a_hold_names_the_vm_as_the_plan_spells_it() -> None:
    """A hold of a VM, in any spelling, names it; a hold of anything else names none."""
    plan = planned(VmPhase(vm="Web-1", phase=Phase.IN_SERVICE))
    ledger = Ledger(holds=(hold("WEB-1"), hold(APP)))
    assert [each.vm for each in seen(ledger, plan=plan, now=60)] == ["Web-1", ""]


def test_a_hold_of_a_deleted_vm_is_not_told() -> None:
    """That it was deleted is told once, by the transition."""
    assert seen(Ledger(holds=(hold(reason=Reason.VM_GONE),)), now=60) == []


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
        told, _ = seen(Ledger(), events=[*events, other], now=15)
        assert (told.kind, told.vm) == (Kind.AT_RISK, "web-1")
        assert (told.event_id, told.event_type, told.not_before) == ("a-1", "Reboot", at(60))


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
    [told] = seen(Ledger(), events=[event(not_before=60)], now=now)
    assert told.text == f"web-1 is still in rotation and its maintenance {begins}"


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
    """The message names it, and one that is back or deleted is none of them."""
    ledger = (
        Ledger()
        .with_entry(entry("web-1"))
        .with_entry(replace(entry("web-2"), restored_at=at(9)))
        .with_entry(replace(entry("web-3"), gone=True))
    )
    found = [each for each in seen(ledger, now=3600) if each.kind is Kind.OUT_TOO_LONG]
    assert [each.vm for each in found] == ["web-1"]
    assert found[0].text == "web-1 has been out of rotation since 2026-01-05 12:00:00 UTC"


# --- one agent's own ---


@pytest.mark.parametrize(
    ("silent", "kind", "text"),
    [
        (True, Kind.SILENT, "ARM does not answer, as web-1 sees it"),
        (False, Kind.ANSWERS_AGAIN, "ARM answers again, as web-1 sees it"),
    ],
)
def test_a_service_that_is_silent_or_answers_again(silent: bool, kind: Kind, text: str) -> None:
    """The message says which service, who noticed, and when; another agent's is another one."""
    told = of_silence("web-1", "ARM", silent=silent, at=at(3))
    assert (told.kind, told.text, told.vm, told.at) == (kind, text, "web-1", at(3))
    others = [
        of_silence("web-2", "ARM", silent=silent, at=at(3)),
        of_silence("web-1", "IMDS", silent=silent, at=at(3)),
        of_silence("web-1", "ARM", silent=silent, at=at(4)),
        of_silence("web-1", "ARM", silent=not silent, at=at(3)),
    ]
    assert len({each.id for each in (told, *others)}) == 5


@pytest.mark.parametrize(
    ("missing", "kind", "text"),
    [
        (
            True,
            Kind.NO_LEADER,
            "no agent leads the set: no VM is drained, as web-1 sees it",
        ),
        (False, Kind.LEADER_AGAIN, "the set has a leader again, as web-1 sees it"),
    ],
)
def test_a_set_without_a_leader_or_with_one_again(missing: bool, kind: Kind, text: str) -> None:
    """The message says who noticed, and when; another agent's is another one."""
    told = of_leadership("web-1", missing=missing, at=at(3))
    assert (told.kind, told.text, told.vm, told.at) == (kind, text, "web-1", at(3))
    others = [
        of_leadership("web-2", missing=missing, at=at(3)),
        of_leadership("web-1", missing=missing, at=at(4)),
        of_leadership("web-1", missing=not missing, at=at(3)),
    ]
    assert len({each.id for each in (told, *others)}) == 4


# --- what stays from version to version ---


def test_kinds_are_called_as_in_configurations_and_dashboards() -> None:
    """Operators choose by these names, and metrics are labelled with them."""
    assert [kind.value for kind in Kind] == [
        "received",
        "drained",
        "held",
        "at_risk",
        "acknowledged",
        "started",
        "restored",
        "cancelled",
        "failed",
        "out_too_long",
        "silent",
        "answers_again",
        "no_leader",
        "leader_again",
    ]


def test_ids_are_the_same_in_every_version() -> None:
    """The ledger keeps them, so an agent of another version must not derive others."""
    document = EventDocument(incarnation=1, events=(event(),))
    found = look(
        (),
        plan=planned(),
        ledger=Ledger().noting(at=at(3), vm="web-1", what="out"),
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
        ledger = ledger.noting(at=instant, vm="web-2", what="out")
        return [each.id for each in seen(ledger, now=3600)]

    assert ids(moved=True) == ids(moved=False)
    assert len(ids(moved=True)) == 3


def test_a_name_that_is_no_unicode_has_an_id_as_well() -> None:
    """JSON can hold half a surrogate pair: strange, and no reason to fail."""
    [told] = history(Ledger().noting(at=at(3), vm="web-\ud800", what="restored"))
    assert len(told.id) == 16


def test_what_was_told_is_one_more_field_of_the_ledger() -> None:
    """It is called `told`, holds instants in UTC, and leaves what others wrote alone."""
    known = KnownEvent(
        event_id="E", event_type="Reboot", vms=("w",), not_before=elsewhere(at(1)), begun=False
    )
    ledger = with_told(Ledger(extra={"newer": 1}), Told(ids=("a",), events=(known,)))
    assert ledger.extra == {
        "newer": 1,
        "told": {
            "ids": ["a"],
            "events": [
                {
                    "event_id": "E",
                    "event_type": "Reboot",
                    "vms": ["w"],
                    "not_before": "2026-01-05T12:00:01+00:00",
                    "begun": False,
                }
            ],
        },
    }


def test_instants_are_read_in_any_zone_and_kept_in_utc() -> None:
    """Whoever wrote the field, the core's instants are UTC."""
    fields = {"event_id": "E", "event_type": "", "vms": [], "begun": False}
    told = told_in(
        Ledger(
            extra={
                "told": {
                    "ids": [],
                    "events": [{**fields, "not_before": "2026-01-05T13:00:01+01:00"}],
                }
            }
        )
    )
    assert told is not None
    instant = told.events[0].not_before
    assert instant is not None
    assert instant.isoformat() == "2026-01-05T12:00:01+00:00"


def test_how_much_is_kept() -> None:
    """128 ids that cannot be told again, and 100 events: little enough for the ledger's blob."""
    assert len(Told().adding((str(n) for n in range(500)), ()).ids) == 128
    events = tuple(event(event_id=f"E-{n}") for n in range(500))
    known = follow(
        (),
        ledger=Ledger(),
        clean_documents=(EventDocument(incarnation=1, events=events),),
        policy=POLICY,
        told=frozenset(),
        now=at(0),
    )
    assert len(known) == 100
