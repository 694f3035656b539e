"""The notices of a set, derived from plans that the planner made, and what a new leader knows."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest

from controller.core.drain_history import Step
from controller.core.drain_requests import DrainRequest
from controller.core.event_record import EventVerdict, Verdict
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import (
    MAX_TRANSITIONS,
    Entry,
    EventReference,
    Hold,
    Ledger,
)
from controller.core.notices.event_notices import MAX_EVENTS, follow_events
from controller.core.notices.notice import MAX_DELIVERED_IDS, DeliveredNotices, Notice, NoticeKind
from controller.core.notices.set_notices import current_notices, ledger_notices
from controller.core.planning.actions import HoldReason
from controller.core.policy import Floor
from controller.storage.ledger_json import decode_ledger, encode_ledger
from controller.storage.notices_json import load_delivered, with_delivered
from tests.support.planner_scenario import (
    APP,
    PlannerScenario,
    at,
    event,
    membership,
    started,
    vm_id,
)
from tests.support.policies import make_policy

POLICY = make_policy(pools={APP: Floor(number=1)})


def kinds(found: Iterable[Notice]) -> list[str]:
    return [each.kind.value for each in found]


def documents(*polls: list[ScheduledEvent]) -> tuple[EventDocument, ...]:
    return tuple(EventDocument(incarnation=1, events=tuple(events)) for events in polls)


def entry(name: str = "web-1", *, recorded: float = 0, **fields: object) -> Entry:
    return Entry(
        vm=name,
        vm_id=vm_id(name),
        events=(EventReference(event_id="E-1", event_type="Reboot", not_before=at(600)),),
        memberships=(membership(name),),
        recorded_at=at(recorded),
        **fields,  # type: ignore[arg-type]
    )


@dataclass
class Leader:
    """Derives the notices of a scene and delivers those that are new, as an agent does."""

    delivered: DeliveredNotices = field(default_factory=DeliveredNotices)

    def deliver(
        self,
        scene: PlannerScenario,
        *,
        clean: bool = True,
        requests: tuple[DrainRequest, ...] = (),
    ) -> list[Notice]:
        now = at(scene.now)
        document = EventDocument(incarnation=1, events=tuple(scene.events))
        polls = (document, document) if clean else (document,)
        events = follow_events(
            self.delivered.events,
            ledger=scene.ledger,
            clean_documents=polls,
            policy=scene.policy,
            delivered=frozenset(self.delivered.ids),
            now=now,
        )
        current = current_notices(
            events,
            plan=scene.plan(),
            ledger=scene.ledger,
            document=document,
            clean_documents=polls,
            policy=scene.policy,
            now=now,
            requests=requests,
        )
        fresh = [each for each in current if each.id not in self.delivered.ids]
        self.delivered = replace(self.delivered, events=events).adding(
            (e.id for e in fresh), current
        )
        return fresh


def test_an_idle_set_has_no_notices() -> None:
    """Without events and entries there are no notices."""
    assert Leader().deliver(PlannerScenario()) == []


def test_an_event_is_received_and_started_once() -> None:
    """One event has one notice when it is announced and one when it starts, in any spelling."""
    leader, scene = Leader(), PlannerScenario(events=[event("web-1", "web-2")])
    [received] = leader.deliver(scene)
    assert received.kind is NoticeKind.EVENT_ANNOUNCED
    assert received.text == ("Reboot of web-1, web-2 announced, not before 2026-01-05 12:10:00 UTC")
    assert leader.deliver(scene) == []
    scene.events = [started("web-1", "WEB-2", event_id="e-1")]
    found = leader.deliver(scene)
    assert NoticeKind.EVENT_STARTED in {each.kind for each in found}
    assert NoticeKind.EVENT_ANNOUNCED not in {each.kind for each in found}
    assert leader.deliver(scene) == []


def test_an_event_that_policy_ignores() -> None:
    """A freeze of two seconds causes no notice."""
    assert (
        Leader().deliver(PlannerScenario(events=[event(event_type="Freeze", duration_s=2)])) == []
    )


@pytest.mark.parametrize(
    ("step", "detail", "kind", "text"),
    [
        (
            Step.END_REPORTED,
            "Reboot E-1: Completed",
            "ended",
            "Azure reports the end of Reboot E-1, Completed (web-1)",
        ),
        (Step.OUT, "", "drained", "web-1 is out of rotation, 9 min 50 s before NotBefore"),
        (
            Step.OUT,
            "connections cut: 3",
            "drained",
            "web-1 is out of rotation, 9 min 50 s before NotBefore, connections cut: 3",
        ),
        (Step.ACKNOWLEDGED, "E-1", "acknowledged", "event E-1 is acknowledged: it may start"),
        (
            Step.RESTORED,
            "",
            "restored",
            "web-1 is back in rotation, in every pool that it was removed from",
        ),
        (Step.GONE, "", "failed", "web-1 was deleted while it was out of rotation"),
        (Step.FORGOTTEN, "deleted: app", "failed", "web-1 is not restored: deleted: app"),
        (
            Step.MEMBERSHIP_DROPPED,
            "deleted: api",
            "failed",
            "web-1 is not restored to every pool: deleted: api",
        ),
    ],
)
def test_transitions_with_a_notice(step: Step, detail: str, kind: str, text: str) -> None:
    """Each transition that people need to know has its own text."""
    ledger = Ledger().with_entry(entry()).noting(at=at(10), vm="web-1", step=step, detail=detail)
    [found] = ledger_notices(ledger)
    assert (found.kind.value, found.text, found.at) == (kind, text, at(10))


def test_every_vm_of_a_large_set_has_a_notice() -> None:
    """More VMs than the history has room for all have one notice."""
    ledger, names = Ledger(), [f"web-{n}" for n in range(2 * MAX_TRANSITIONS)]
    acknowledged = EventReference(event_id="E-1", event_type="Reboot", acknowledged_at=at(9))
    for name in names:
        out = replace(entry(name, out_at=at(5)), events=(acknowledged,))
        ledger = ledger.with_entry(out).noting(at=at(5), vm=name, step=Step.OUT)
    found = ledger_notices(ledger)
    assert sorted(each.vm for each in found if each.kind is NoticeKind.VM_DRAINED) == sorted(names)
    assert len(found) == len(names) + 1
    back = Ledger().with_entry(entry(restored_at=at(9)))
    noted = back.noting(at=at(9), vm="web-1", step=Step.RESTORED)
    assert [each.id for each in ledger_notices(noted)] == [each.id for each in ledger_notices(back)]
    assert kinds(ledger_notices(back)) == ["restored"]


def test_transitions_without_a_notice() -> None:
    """What only a log needs is no message."""
    ledger = Ledger()
    for step in (
        Step.LEADS,
        Step.RECORDED,
        Step.RESTORING,
        Step.IN_SERVICE,
        Step.OUT_AGAIN,
        Step.EXISTS_AGAIN,
    ):
        ledger = ledger.noting(at=at(1), vm="web-1", step=step)
    assert ledger_notices(ledger) == ()


def test_one_acknowledgement_of_several_vms_is_one_notice() -> None:
    """The event is acknowledged, not each VM."""
    ledger = Ledger()
    for vm in ("web-1", "web-2"):
        ledger = ledger.noting(at=at(1), vm=vm, step=Step.ACKNOWLEDGED, detail="E-1")
    assert kinds(ledger_notices(ledger)) == ["acknowledged"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (HoldReason.FLOOR, "held"),
        (HoldReason.UNMANAGED_RESOURCE, "held"),
        (HoldReason.WRITE_FAILED, "failed"),
        (HoldReason.NOT_ACKNOWLEDGED, "failed"),
        (HoldReason.EVENT_UNSEEN, "failed"),
    ],
)
def test_a_hold_that_lasts_has_a_notice(reason: HoldReason, kind: str) -> None:
    """A hold that ends soon has no notice; one that lasts has one, with its text."""
    hold = Hold(subject="web-1", reason=reason.value, message="because", since=at(100))
    leader, scene = Leader(), PlannerScenario(now=109, ledger=Ledger(holds=(hold,)))
    assert leader.deliver(scene) == []
    scene.now = 110
    [notice] = leader.deliver(scene)
    assert (notice.kind.value, notice.text, notice.vm) == (kind, "because", "web-1")
    scene.now = 500
    assert leader.deliver(scene) == []


def test_a_vm_at_risk_has_one_notice() -> None:
    """A VM that is in rotation two minutes before NotBefore has one notice per event."""
    scene = PlannerScenario(
        now=400, events=[event()], policy=make_policy(pools={APP: Floor(number=3)})
    )
    leader = Leader()
    assert kinds(leader.deliver(scene)) == ["received"]
    scene.now = 481
    [notice] = leader.deliver(scene)
    assert notice.text == (
        "web-1 is still in rotation and its maintenance may begin at 2026-01-05 12:10:00 UTC"
    )
    scene.now = 599
    assert leader.deliver(scene) == []


def test_a_vm_at_risk_by_an_id_that_is_used_again_has_another_notice() -> None:
    """The alarm of the earlier event was delivered, and would stand for this one too."""
    earlier = EventVerdict(
        at=at(-500),
        vm="web-1",
        event_id="e-1",
        event_type="Reboot",
        verdict=Verdict.HIT_IN_ROTATION,
        not_before=at(-600),
    )
    ids: list[str] = []
    for verdicts in ((), (replace(earlier, not_before=at(600)),), (earlier,)):
        scene = PlannerScenario(
            now=481,
            events=[event()],
            ledger=Ledger(verdicts=verdicts),
            policy=make_policy(pools={APP: Floor(number=3)}),
        )
        found = {each.kind: each for each in Leader().deliver(scene)}
        ids.append(found[NoticeKind.AT_RISK].id)
    assert ids[0] == ids[1] != ids[2]


def test_a_start_in_rotation_is_a_warning() -> None:
    """A VM that is still in rotation when its event starts is named; one that is out is not."""
    scene = PlannerScenario(
        events=[started("web-1", "web-2")],
        inside={"web-1": [APP], "web-2": [], "web-3": [APP]},
        ledger=Ledger().with_entry(entry("web-2", out_at=at(-60))),
        policy=make_policy(pools={APP: Floor(number=3)}),
    )
    found = {each.kind: each for each in Leader().deliver(scene)}
    assert found[NoticeKind.EVENT_STARTED].text == (
        "Reboot of web-1, web-2 has started while in rotation: web-1"
    )
    assert found[NoticeKind.EVENT_STARTED].problem
    assert not found[NoticeKind.EVENT_ANNOUNCED].problem


def test_a_new_leader_that_sees_nothing_yet_waits_before_it_warns() -> None:
    """Without a plan a VM counts as in rotation, but not in the first seconds of an office."""
    document = EventDocument(incarnation=1, events=(event(not_before=60),))

    def found(now: float) -> list[str]:
        ledger = Ledger(leader_since=at(0))
        plan = PlannerScenario().plan(document=None)
        seen = current_notices(
            (),
            plan=plan,
            ledger=ledger,
            document=document,
            clean_documents=(document,),
            policy=POLICY,
            now=at(now),
        )
        return kinds(seen)

    assert found(5) == ["received"]
    assert found(15) == ["received", "at_risk"]


def test_a_vm_that_is_out_for_too_long_has_one_notice() -> None:
    """An hour is too long for a VM that is out, and none for one that was deleted or is back."""
    scene = PlannerScenario(
        now=3599,
        inside={"web-1": []},
        ledger=Ledger()
        .with_entry(entry("web-1", out_at=at(1)))
        .with_entry(entry("web-2", out_at=at(1), gone=True))
        .with_entry(entry("web-3", restored_at=at(9))),
        events=[started()],
    )
    leader = Leader()
    assert "out_too_long" not in kinds(leader.deliver(scene))
    scene.now = 3600
    assert kinds(leader.deliver(scene)) == ["out_too_long"]
    scene.now = 9999
    assert leader.deliver(scene) == []


def test_an_event_that_is_gone_before_it_began_was_cancelled() -> None:
    """Two clean polls lack it: then it has one notice, and is dropped after the delivery."""
    scene, leader = PlannerScenario(events=[event(not_before=90_000)]), Leader()
    leader.deliver(scene)
    scene.events = []
    assert leader.deliver(scene, clean=False) == []
    [notice] = leader.deliver(scene)
    assert notice.text == "Reboot of web-1 was cancelled before it started"
    assert leader.deliver(scene) == []
    assert leader.delivered.events == ()


@pytest.mark.parametrize("how", ["started", "acknowledged", "noted", "due"])
def test_an_event_that_began_was_not_cancelled(how: str) -> None:
    """Started, acknowledged or there at its NotBefore: when it leaves, it is over."""
    scene, leader = PlannerScenario(events=[event()], inside={"web-1": []}), Leader()
    leader.deliver(scene)
    if how == "started":
        scene.events = [started()]
    elif how == "acknowledged":
        scene.ledger = scene.ledger.noting(
            at=at(1), vm="web-1", step=Step.ACKNOWLEDGED, detail="e-1"
        )
    elif how == "noted":
        reference = EventReference(event_id="E-1", event_type="Reboot", acknowledged_at=at(2))
        scene.ledger = scene.ledger.with_entry(replace(entry(out_at=at(1)), events=(reference,)))
    else:
        scene.now = 600
    leader.deliver(scene)
    scene.events = []
    assert "cancelled" not in kinds(leader.deliver(scene))
    assert leader.delivered.events == ()


def test_a_new_leader_neither_repeats_nor_forgets() -> None:
    """A new leader reads the delivered ids from the ledger and delivers the remaining notices."""
    scene, first = PlannerScenario(events=[event()]), Leader()
    assert kinds(first.deliver(scene)) == ["received"]
    scene.ledger = with_delivered(scene.ledger, first.delivered)
    # The leader died after it noted the step and before it could deliver the notice.
    scene.ledger = scene.ledger.with_entry(entry()).noting(at=at(5), vm="web-1", step=Step.OUT)
    read = decode_ledger(encode_ledger(scene.ledger))
    delivered = load_delivered(read)
    assert delivered is not None
    scene.ledger = read
    assert kinds(Leader(delivered).deliver(scene)) == ["drained"]


@pytest.mark.parametrize("crash", range(7))
@pytest.mark.parametrize("noted", [True, False])
def test_a_leader_may_die_after_any_step(crash: int, noted: bool) -> None:
    """Every notice is delivered, and none twice that the ledger has as delivered."""
    scene, delivered = PlannerScenario(inside={"web-1": []}), DeliveredNotices()
    out = entry(out_at=at(5))
    back = entry(recorded=0, restored_at=at(700))
    ledgers = [
        ledger := Ledger(),
        ledger := ledger.with_entry(out).noting(at=at(5), vm="web-1", step=Step.OUT),
        ledger := ledger.noting(at=at(9), vm="web-1", step=Step.ACKNOWLEDGED, detail="E-1"),
        ledger,
        ledger,
        ledger := ledger.with_entry(back).noting(at=at(700), vm="web-1", step=Step.RESTORED),
        ledger.without_entry("web-1"),
    ]
    polls = [[event()], [event()], [event()], [started()], [started()], [], []]
    leader, kinds_delivered = Leader(delivered), list[str]()
    for step, (ledger, events) in enumerate(zip(ledgers, polls, strict=True)):
        scene.ledger, scene.events = with_delivered(ledger, delivered), events
        fresh = kinds(leader.deliver(scene))
        if step != crash or noted:
            kinds_delivered += fresh
            delivered = leader.delivered
        if step == crash:
            leader = Leader(
                load_delivered(decode_ledger(encode_ledger(with_delivered(ledger, delivered))))
                or DeliveredNotices()
            )
    assert sorted(kinds_delivered) == ["acknowledged", "drained", "received", "restored", "started"]


def test_the_record_of_deliveries_stays_small() -> None:
    """Old ids are dropped; the ids of current notices are kept, however many there are."""
    current = [
        Notice(kind=NoticeKind.HELD, id=f"now-{n}", at=at(0), text="")
        for n in range(MAX_DELIVERED_IDS)
    ]
    delivered = DeliveredNotices().adding((each.id for each in current), current)
    delivered = delivered.adding((f"old-{n}" for n in range(3 * MAX_DELIVERED_IDS)), current)
    assert len(delivered.ids) == 2 * MAX_DELIVERED_IDS
    assert {each.id for each in current} <= set(delivered.ids)
    assert delivered.ids[-1] == f"old-{3 * MAX_DELIVERED_IDS - 1}"
    events = [event(event_id=f"E-{n}") for n in range(2 * MAX_EVENTS)]
    known = follow_events(
        (),
        ledger=Ledger(),
        clean_documents=documents(events),
        policy=POLICY,
        delivered=frozenset(),
        now=at(0),
    )
    assert len(known) == MAX_EVENTS


def test_ids_are_the_same_for_every_agent() -> None:
    """An id does not depend on the clock of the agent."""

    def ids(now: datetime) -> list[str]:
        document = EventDocument(incarnation=1, events=(event(),))
        return [
            each.id
            for each in current_notices(
                (),
                plan=PlannerScenario().plan(),
                ledger=Ledger().noting(at=at(3), vm="web-1", step=Step.OUT),
                document=document,
                clean_documents=(document,),
                policy=POLICY,
                now=now,
            )
        ]

    assert ids(at(5)) == ids(at(6))
    assert len(ids(at(5))) == 2


@pytest.mark.parametrize(
    ("verdict", "kind", "text"),
    [
        (Verdict.DRAINED, "handled", "Reboot of web-1: drained 9 min 0 s before NotBefore"),
        (Verdict.LATE, "late", "Reboot of web-1: late, out of rotation 1 min 0 s after NotBefore"),
        (Verdict.HIT_IN_ROTATION, "hit_in_rotation", "Reboot of web-1: hit in rotation"),
        (Verdict.IGNORED, None, ""),
        (Verdict.CANCELLED, None, ""),
        (Verdict.UNMANAGED, None, ""),
    ],
)
def test_verdicts_with_a_notice(verdict: Verdict, kind: str | None, text: str) -> None:
    """Success is reported as failure is; an event for which nothing was to be done is not."""
    found = EventVerdict(
        at=at(700),
        vm="web-1",
        event_id="E-1",
        event_type="Reboot",
        verdict=verdict,
        not_before=at(600),
        out_at=at(660 if verdict is Verdict.LATE else 60),
    )
    notices = ledger_notices(Ledger(verdicts=(found,)))
    assert [(each.kind.value, each.text) for each in notices] == ([(kind, text)] if kind else [])


@pytest.mark.parametrize(
    ("ids", "test"), [(("test-1",), True), (("test-1", "E-1"), False), (("E-1",), False)]
)
def test_the_notices_of_a_rehearsal_say_so(ids: tuple[str, ...], test: bool) -> None:
    """A VM that is out for a test alone, and what became of a test event, are marked."""
    events = tuple(EventReference(event_id=each, event_type="Reboot") for each in ids)
    drained = replace(entry(out_at=at(5)), events=events)
    found = EventVerdict(
        at=at(9), vm="web-2", event_id=ids[-1], event_type="Reboot", verdict=Verdict.DRAINED
    )
    notices = ledger_notices(Ledger(verdicts=(found,)).with_entry(drained))
    real = ids[-1] == "E-1"
    assert [(each.kind.value, each.test) for each in notices] == [
        ("drained", test),
        ("handled", not real),
    ]


def test_the_notices_of_a_test_event_say_so() -> None:
    """Announced, started and cancelled: each is marked, those of a real event are not."""
    leader, scene = Leader(), PlannerScenario(events=[event(event_id="test-1"), event("web-2")])
    found = leader.deliver(scene)
    scene.events = [started(event_id="test-1"), started("web-2")]
    found += leader.deliver(scene)
    gone = Leader()
    scene = PlannerScenario(events=[event(event_id="test-1"), event("web-2")])
    gone.deliver(scene)
    scene.events = []
    found += gone.deliver(scene)
    of_events = {
        NoticeKind.EVENT_ANNOUNCED,
        NoticeKind.EVENT_STARTED,
        NoticeKind.EVENT_CANCELLED,
    }
    marked = [(each.kind, each.test) for each in found if each.kind in of_events]
    assert len(marked) == 6
    assert {kind for kind, test in marked if test} == of_events
    assert {kind for kind, test in marked if not test} == of_events


def request(request_id: str, vm: str = "web-2", *, until: float = 900) -> DrainRequest:
    return DrainRequest(request_id=request_id, vm=vm, reason="", by="me", at=at(0), until=at(until))


@pytest.mark.parametrize(
    ("requests", "events", "entry_of", "test"),
    [
        ((request("test-1"),), [], "", True),
        ((request("TEST-1"),), [event("web-2", event_id="test-2")], "test-1", True),
        ((), [event("web-2", event_id="test-2")], "", True),
        ((request("test-1"), request("r-1")), [], "", False),
        ((request("test-1"),), [event("web-2")], "", False),
        ((request("test-1"),), [], "E-1", False),
        ((request("test-1", "web-1"),), [], "", False),
        ((request("test-1", until=10),), [], "test-1", False),
        ((), [], "test-1", False),
    ],
)
def test_a_hold_of_a_rehearsal_says_so(
    requests: tuple[DrainRequest, ...], events: list[ScheduledEvent], entry_of: str, test: bool
) -> None:
    """A VM that only a rehearsal wants out; held after the rehearsal, it is a problem."""
    hold = Hold(subject="web-2", reason=HoldReason.FLOOR.value, message="stays", since=at(0))
    ledger = replace(Ledger(), holds=(hold,))
    if entry_of:
        reference = EventReference(event_id=entry_of, event_type="Reboot")
        ledger = ledger.with_entry(replace(entry("web-2"), events=(reference,)))
    scene = PlannerScenario(now=60, events=events, ledger=ledger)
    (found,) = (
        each for each in Leader().deliver(scene, requests=requests) if each.kind is NoticeKind.HELD
    )
    assert found.test is test


def test_a_hold_of_several_vms_is_of_a_rehearsal_if_all_are() -> None:
    """One VM that Azure maintains makes it a problem."""
    hold = Hold(
        subject="app",
        reason=HoldReason.WRITE_FAILED.value,
        message="refused",
        since=at(0),
        vms=("web-1", "web-2"),
    )
    scene = PlannerScenario(now=60, ledger=replace(Ledger(), holds=(hold,)))
    both = (request("test-1", "web-1"), request("test-2", "web-2"))
    assert [each.test for each in Leader().deliver(scene, requests=both)] == [True]
    assert [each.test for each in Leader().deliver(scene, requests=both[:1])] == [False]


def test_a_drain_that_cut_connections_has_one_notice() -> None:
    """The entry repeats the line of the history without its detail: that is no second notice."""
    out = entry(out_at=at(5))
    ledger = Ledger().with_entry(out)
    noted = ledger.noting(at=at(5), vm="web-1", step=Step.OUT, detail="connections cut: 3")
    (found,) = ledger_notices(noted)
    assert found.text.endswith("connections cut: 3")
    assert [each.id for each in ledger_notices(ledger)] == [found.id]
