"""What there is to tell, derived from plans that the planner made, and what a new leader knows."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest
from scene import APP, Scene, at, event, membership, started, vm_id

from controller.core.actions import Reason
from controller.core.happenings import (
    FIELD,
    MOST_EVENTS,
    MOST_TOLD,
    Happening,
    Kind,
    KnownEvent,
    Silence,
    Told,
    follow,
    history,
    look,
    told_in,
    with_told,
)
from controller.core.ledger import (
    MOST_TRANSITIONS,
    Entry,
    EventReference,
    Hold,
    Ledger,
    decode,
    encode,
)
from controller.core.model import EventDocument, Floor, Policy, ScheduledEvent

POLICY = Policy(pools={APP: Floor(number=1)})


def kinds(found: Iterable[Happening]) -> list[str]:
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
    """Looks at a scene and tells what nobody has told, as the shell does."""

    told: Told = field(default_factory=Told)

    def tells(self, scene: Scene, *, clean: bool = True) -> list[Happening]:
        now = at(scene.now)
        document = EventDocument(incarnation=1, events=tuple(scene.events))
        polls = (document, document) if clean else (document,)
        events = follow(
            self.told.events,
            ledger=scene.ledger,
            clean_documents=polls,
            policy=scene.policy,
            told=frozenset(self.told.ids),
            now=now,
        )
        current = look(
            events,
            plan=scene.plan(),
            ledger=scene.ledger,
            document=document,
            clean_documents=polls,
            policy=scene.policy,
            now=now,
        )
        fresh = [each for each in current if each.id not in self.told.ids]
        self.told = replace(self.told, events=events).adding((e.id for e in fresh), current)
        return fresh


def test_an_idle_set_has_nothing_to_tell() -> None:
    """Without events and entries there is nothing to tell."""
    assert Leader().tells(Scene()) == []


def test_an_event_is_received_and_started_once() -> None:
    """The same event tells received when it comes and started when it starts, in any spelling."""
    leader, scene = Leader(), Scene(events=[event("web-1", "web-2")])
    [received] = leader.tells(scene)
    assert received.kind is Kind.RECEIVED
    assert received.text == ("Reboot of web-1, web-2 announced, not before 2026-01-05 12:10:00 UTC")
    assert leader.tells(scene) == []
    scene.events = [started("web-1", "WEB-2", event_id="e-1")]
    found = leader.tells(scene)
    assert Kind.STARTED in {each.kind for each in found}
    assert Kind.RECEIVED not in {each.kind for each in found}
    assert leader.tells(scene) == []


def test_an_event_that_policy_ignores_is_not_told() -> None:
    """A freeze of two seconds is nobody's business."""
    assert Leader().tells(Scene(events=[event(event_type="Freeze", duration_s=2)])) == []


@pytest.mark.parametrize(
    ("what", "detail", "kind", "text"),
    [
        ("out", "", "drained", "web-1 is out of rotation, 9 min 50 s before NotBefore"),
        ("acknowledged", "E-1", "acknowledged", "event E-1 is acknowledged: it may start"),
        (
            "restored",
            "",
            "restored",
            "web-1 is back in rotation, in every pool it was taken out of",
        ),
        ("gone", "", "failed", "web-1 was deleted while it was out of rotation"),
        ("forgotten", "deleted: app", "failed", "web-1 is not put back: deleted: app"),
        (
            "membership dropped",
            "deleted: api",
            "failed",
            "web-1 is not put back everywhere: deleted: api",
        ),
    ],
)
def test_transitions_that_are_told(what: str, detail: str, kind: str, text: str) -> None:
    """Success and failure are told alike, each with its words."""
    ledger = Ledger().with_entry(entry()).noting(at=at(10), vm="web-1", what=what, detail=detail)
    [found] = history(ledger)
    assert (found.kind.value, found.text, found.at) == (kind, text, at(10))


def test_a_large_set_is_told_of_every_vm() -> None:
    """More VMs than there is room for transitions are told all, and each once."""
    ledger, names = Ledger(), [f"web-{n}" for n in range(2 * MOST_TRANSITIONS)]
    acknowledged = EventReference(event_id="E-1", event_type="Reboot", acknowledged_at=at(9))
    for name in names:
        out = replace(entry(name, out_at=at(5)), events=(acknowledged,))
        ledger = ledger.with_entry(out).noting(at=at(5), vm=name, what="out")
    found = history(ledger)
    assert sorted(each.vm for each in found if each.kind is Kind.DRAINED) == sorted(names)
    assert len(found) == len(names) + 1
    back = Ledger().with_entry(entry(restored_at=at(9)))
    noted = back.noting(at=at(9), vm="web-1", what="restored")
    assert [each.id for each in history(noted)] == [each.id for each in history(back)]
    assert kinds(history(back)) == ["restored"]


def test_steps_on_the_way_are_not_told() -> None:
    """What only a log needs is no message."""
    ledger = Ledger()
    for what in ("leads", "recorded", "restoring", "in service", "out again", "exists again"):
        ledger = ledger.noting(at=at(1), vm="web-1", what=what)
    assert history(ledger) == ()


def test_one_acknowledgement_of_several_vms_is_told_once() -> None:
    """The event is acknowledged, not each VM."""
    ledger = Ledger()
    for vm in ("web-1", "web-2"):
        ledger = ledger.noting(at=at(1), vm=vm, what="acknowledged", detail="E-1")
    assert kinds(history(ledger)) == ["acknowledged"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.FLOOR, "held"),
        (Reason.UNMANAGED_RESOURCE, "held"),
        (Reason.WRITE_FAILED, "failed"),
        (Reason.NOT_ACKNOWLEDGED, "failed"),
    ],
)
def test_a_hold_is_told_once_it_lasts(reason: Reason, kind: str) -> None:
    """What is over by the next attempt is not told; what lasts is, once, with the hold's words."""
    hold = Hold(subject="web-1", reason=reason.value, message="because", since=at(100))
    leader, scene = Leader(), Scene(now=109, ledger=Ledger(holds=(hold,)))
    assert leader.tells(scene) == []
    scene.now = 110
    [told] = leader.tells(scene)
    assert (told.kind.value, told.text, told.vm) == (kind, "because", "web-1")
    scene.now = 500
    assert leader.tells(scene) == []


def test_a_vm_at_risk_is_told_once() -> None:
    """Who is still in two minutes before NotBefore is told once per event."""
    scene = Scene(now=400, events=[event()], policy=Policy(pools={APP: Floor(number=3)}))
    leader = Leader()
    assert kinds(leader.tells(scene)) == ["received"]
    scene.now = 481
    [told] = leader.tells(scene)
    assert told.text == (
        "web-1 is still in rotation and its maintenance may begin at 2026-01-05 12:10:00 UTC"
    )
    scene.now = 599
    assert leader.tells(scene) == []


def test_a_new_leader_that_sees_nothing_yet_waits_before_it_warns() -> None:
    """Without a plan a VM counts as in rotation, but not in the first seconds of an office."""
    document = EventDocument(incarnation=1, events=(event(not_before=60),))

    def found(now: float) -> list[str]:
        ledger = Ledger(leader_since=at(0))
        plan = Scene().plan(document=None)
        seen = look(
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


def test_a_vm_that_is_out_for_too_long_is_told_once() -> None:
    """An hour is too long for a VM that is out, and none for one that was deleted or is back."""
    scene = Scene(
        now=3599,
        inside={"web-1": []},
        ledger=Ledger()
        .with_entry(entry("web-1", out_at=at(1)))
        .with_entry(entry("web-2", out_at=at(1), gone=True))
        .with_entry(entry("web-3", restored_at=at(9))),
        events=[started()],
    )
    leader = Leader()
    assert "out_too_long" not in kinds(leader.tells(scene))
    scene.now = 3600
    assert kinds(leader.tells(scene)) == ["out_too_long"]
    scene.now = 9999
    assert leader.tells(scene) == []


def test_an_event_that_leaves_before_it_began_was_cancelled() -> None:
    """It takes two clean polls, is told once, and is then forgotten."""
    scene, leader = Scene(events=[event(not_before=90_000)]), Leader()
    leader.tells(scene)
    scene.events = []
    assert leader.tells(scene, clean=False) == []
    [told] = leader.tells(scene)
    assert told.text == "Reboot of web-1 was cancelled before it started"
    assert leader.tells(scene) == []
    assert leader.told.events == ()


@pytest.mark.parametrize("how", ["started", "acknowledged", "noted", "due"])
def test_an_event_that_began_was_not_cancelled(how: str) -> None:
    """Started, acknowledged or there at its NotBefore: when it leaves, it is over."""
    scene, leader = Scene(events=[event()], inside={"web-1": []}), Leader()
    leader.tells(scene)
    if how == "started":
        scene.events = [started()]
    elif how == "acknowledged":
        scene.ledger = scene.ledger.noting(at=at(1), vm="web-1", what="acknowledged", detail="e-1")
    elif how == "noted":
        reference = EventReference(event_id="E-1", event_type="Reboot", acknowledged_at=at(2))
        scene.ledger = scene.ledger.with_entry(replace(entry(out_at=at(1)), events=(reference,)))
    else:
        scene.now = 600
    leader.tells(scene)
    scene.events = []
    assert "cancelled" not in kinds(leader.tells(scene))
    assert leader.told.events == ()


def test_a_new_leader_neither_repeats_nor_forgets() -> None:
    """What was told is read from the ledger; what was noted and not told is told by the next."""
    scene, first = Scene(events=[event()]), Leader()
    assert kinds(first.tells(scene)) == ["received"]
    scene.ledger = with_told(scene.ledger, first.told)
    # Noted, and the leader died before it could tell.
    scene.ledger = scene.ledger.with_entry(entry()).noting(at=at(5), vm="web-1", what="out")
    read = decode(encode(scene.ledger))
    told = told_in(read)
    assert told is not None
    scene.ledger = read
    assert kinds(Leader(told).tells(scene)) == ["drained"]


@pytest.mark.parametrize("crash", range(7))
@pytest.mark.parametrize("noted", [True, False])
def test_a_leader_may_die_after_any_step(crash: int, noted: bool) -> None:
    """Whoever leads when: everything is told, and nothing twice that the ledger knows of."""
    scene, told = Scene(inside={"web-1": []}), Told()
    out = entry(out_at=at(5))
    back = entry(recorded=0, restored_at=at(700))
    ledgers = [
        ledger := Ledger(),
        ledger := ledger.with_entry(out).noting(at=at(5), vm="web-1", what="out"),
        ledger := ledger.noting(at=at(9), vm="web-1", what="acknowledged", detail="E-1"),
        ledger,
        ledger,
        ledger := ledger.with_entry(back).noting(at=at(700), vm="web-1", what="restored"),
        ledger.without_entry("web-1"),
    ]
    polls = [[event()], [event()], [event()], [started()], [started()], [], []]
    leader, said = Leader(told), list[str]()
    for step, (ledger, events) in enumerate(zip(ledgers, polls, strict=True)):
        scene.ledger, scene.events = with_told(ledger, told), events
        fresh = kinds(leader.tells(scene))
        if step != crash or noted:
            said += fresh
            told = leader.told
        if step == crash:
            leader = Leader(told_in(decode(encode(with_told(ledger, told)))) or Told())
    assert sorted(said) == ["acknowledged", "drained", "received", "restored", "started"]


def test_what_was_told_survives_the_ledger() -> None:
    """Ids and events come back as they were, and the same again changes nothing."""
    told = Told(
        ids=("a", "b"),
        events=(
            KnownEvent(event_id="E", event_type="Reboot", vms=("w",), not_before=at(1), begun=True),
            KnownEvent(event_id="F", event_type="Freeze", vms=(), not_before=None, begun=False),
        ),
    )
    ledger = decode(encode(with_told(Ledger(), told)))
    assert told_in(ledger) == told
    assert with_told(ledger, told) is ledger


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"ids": []},
        {"ids": [1], "events": []},
        {"ids": "abc", "events": []},
        {"ids": [], "events": [{}]},
        {
            "ids": [],
            "events": [
                {
                    "event_id": "E",
                    "event_type": "",
                    "vms": [],
                    "not_before": "2026-01-01T00:00:00",
                    "begun": False,
                }
            ],
        },
    ],
)
def test_what_cannot_be_read_tells_nothing(value: object) -> None:
    """A field of another shape is as good as none, and never an error."""
    assert told_in(Ledger(extra={FIELD: value})) is None
    assert told_in(Ledger()) is None


def test_what_was_told_stays_small() -> None:
    """Old ids go, those that could be told again stay, however many there are."""
    current = [
        Happening(kind=Kind.HELD, id=f"now-{n}", at=at(0), text="") for n in range(MOST_TOLD)
    ]
    told = Told().adding((each.id for each in current), current)
    told = told.adding((f"old-{n}" for n in range(3 * MOST_TOLD)), current)
    assert len(told.ids) == 2 * MOST_TOLD
    assert {each.id for each in current} <= set(told.ids)
    assert told.ids[-1] == f"old-{3 * MOST_TOLD - 1}"
    events = [event(event_id=f"E-{n}") for n in range(2 * MOST_EVENTS)]
    known = follow(
        (),
        ledger=Ledger(),
        clean_documents=documents(events),
        policy=POLICY,
        told=frozenset(),
        now=at(0),
    )
    assert len(known) == MOST_EVENTS


def outcomes(*steps: tuple[float, bool]) -> list[bool]:
    silence, alarms = Silence(), list[bool]()
    for now_s, answered in steps:
        silence = silence.after(answered, now_s)
        alarms.append(silence.told)
    return alarms


@pytest.mark.parametrize(
    ("steps", "alarms"),
    [
        ([(0, False), (1, False), (59, False)], [False, False, False]),
        ([(0, False), (1, False), (60, False)], [False, False, True]),
        ([(0, False), (99, False)], [False, False]),
        ([(0, False), (50, True), (51, False), (52, False), (70, False)], [False] * 5),
        ([(0, False), (1, False), (60, False), (61, False), (62, True)], [False] * 2
         + [True] * 2 + [False]),
    ],
)  # fmt: skip
def test_silence_is_several_failures_that_last(
    steps: list[tuple[float, bool]], alarms: list[bool]
) -> None:
    """Three in a row over a minute are an alarm until an answer; fewer or shorter ones are not."""
    assert outcomes(*steps) == alarms


def test_ids_are_the_same_for_every_agent() -> None:
    """The clock of whoever looks is no part of an id."""

    def ids(now: datetime) -> list[str]:
        document = EventDocument(incarnation=1, events=(event(),))
        return [
            each.id
            for each in look(
                (),
                plan=Scene().plan(),
                ledger=Ledger().noting(at=at(3), vm="web-1", what="out"),
                document=document,
                clean_documents=(document,),
                policy=POLICY,
                now=now,
            )
        ]

    assert ids(at(5)) == ids(at(6))
    assert len(ids(at(5))) == 2
