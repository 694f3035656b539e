"""Requests made by hand: what stands, what a VM is out for, and the laws that hold for it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from scene import (
    APP,
    T0,
    Scene,
    acknowledged,
    at,
    event,
    phase,
    reasons,
    removal,
    restoral,
    writes,
)

from controller.core.actions import Phase, ReadInventory
from controller.core.leadership import handicap
from controller.core.model import REQUEST, EventDocument, Floor, Policy, Request
from controller.core.requests import Requests, Roll, decode, encode
from controller.errors import ContractViolation


def request(vm: str = "web-1", *, until: float = 1800, request_id: str = "R-1") -> Request:
    return Request(
        request_id=request_id, vm=vm, reason="patching", by="ann", at=T0, until=at(until)
    )


def withdrawn(vm: str = "web-1", *, after: float = 60) -> Request:
    return replace(request(vm), ended_at=at(after), ended_by="ben")


def told(scene: Scene) -> list[tuple[str, str]]:
    return [(line.what, line.detail) for line in scene.ledger.transitions]


def out_by_hand(*requests: Request) -> Scene:
    """A set whose web-1 was taken out because somebody asked for it."""
    scene = Scene()
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
    scene = Scene()
    first = scene.adopt(requests=(request("WEB-1"),))
    assert writes(first) == []
    assert [(each.event_id, each.event_type) for each in scene.entry().events] == [("R-1", REQUEST)]
    second = scene.adopt(requests=(request(),))
    assert writes(second) == [removal("web-1")]
    assert acknowledged(second) == []


def test_history_says_once_who_asked_for_what() -> None:
    """The name, the end and the reason stand in the journal of the set, however many passes."""
    scene = out_by_hand()
    assert told(scene) == [
        ("recorded", "app"),
        ("requested", "by ann: patching"),
        ("out", ""),
    ]


def test_whoever_gives_no_reason_is_told_without_one() -> None:
    """The journal names who asked, and ends there."""
    assert ("requested", "by ann") in told(out_by_hand(replace(request(), reason="")))


def test_the_floor_holds_for_requests() -> None:
    """Law S2: a VM that the pool needs is held, and that is told."""
    scene = Scene(policy=Policy(pools={APP: Floor(number=3)}))
    planned = scene.through(requests=(request(),))
    assert (phase(planned), reasons(planned)) == (Phase.HELD, {"web-1": "floor"})
    assert scene.ledger.entries == ()


def test_what_azure_announced_comes_before_what_was_asked_for() -> None:
    """Of two VMs of which one has to stay, the one with the event goes, last by name."""
    scene = Scene(events=[event("web-3")], policy=Policy(pools={APP: Floor(number=2)}))
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
        ((), 100, ""),
    ],
)
def test_a_vm_comes_back_when_its_request_ends(
    requests: tuple[Request, ...], now: float, why: str
) -> None:
    """Withdrawn, over, or lost with its blob: the VM is put back, and history says why."""
    scene = out_by_hand()
    scene.now = now
    another = replace(withdrawn("web-2"), request_id="R-9", ended_by="eve")
    requests = (*requests, another)
    scene.adopt(requests=requests)
    assert told(scene)[-1] == ("restoring", why)
    assert writes(scene.plan(requests=requests)) == [restoral("web-1")]


def test_a_pass_is_due_when_a_request_ends() -> None:
    """Nobody has to wake the leader for it."""
    planned = out_by_hand(request(until=60)).plan(requests=(request(until=60),))
    assert planned.wake_at == at(60)


@pytest.mark.parametrize(
    ("requests", "events"), [((request(),), []), ((withdrawn(),), [event()]), ((), [event()])]
)
def test_a_vm_stays_out_while_anything_wants_it_out(
    requests: tuple[Request, ...], events: list[object]
) -> None:
    """Law S6: neither the end of a request nor the end of an event is the end of the other."""
    scene = out_by_hand()
    scene.now, scene.events = 100, list(events)  # type: ignore[arg-type]
    assert writes(scene.through(requests=requests)) == []
    assert scene.entry().restoring_at is None


def test_a_request_made_during_an_event_keeps_the_vm_out() -> None:
    """Law S6: it enters the entry of the event, and counts when that is over."""
    scene = Scene(events=[event()])
    scene.take_out()
    scene.adopt(requests=(request(),))
    assert [each.event_type for each in scene.entry().events] == ["Reboot", REQUEST]
    scene.now, scene.events = 300, []
    assert writes(scene.through(requests=(request(),))) == []
    assert ("requested", "by ann: patching") in told(scene)


def test_requests_that_cannot_be_read_keep_a_vm_out() -> None:
    """Law S6: not knowing whether somebody still wants a VM out is no reason to put it back."""
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
    """Law S6: the event is over, and nobody knows whether the request is."""
    scene = Scene(events=[event()])
    scene.take_out()
    scene.adopt(requests=(request(),))
    scene.now, scene.events = 300, []
    assert writes(scene.through(requests=None)) == []
    assert scene.entry().restoring_at is None


def test_requests_that_cannot_be_read_keep_nobody_else_out() -> None:
    """Law L2: a VM that was out for an event alone comes back."""
    scene = Scene(events=[event()])
    scene.take_out()
    scene.now, scene.events = 300, []
    scene.adopt(requests=None)
    assert writes(scene.plan(requests=None)) == [restoral("web-1")]


# --- what cannot be done ---


def test_a_request_for_a_stranger_is_held() -> None:
    """Who mistyped a name learns it, after the set was looked at again."""
    scene = Scene()
    planned = scene.through(requests=(request("web-9"),))
    assert reasons(planned) == {"web-9": "unmanaged_resource"}
    scene.now = 61
    planned = scene.plan(requests=(request("web-9"),), inventory_at=at(0))
    assert ReadInventory() in planned.actions


def test_a_request_for_a_stranger_that_has_ended_is_forgotten() -> None:
    """Nothing is held for what nobody wants any more."""
    scene = Scene(now=10)
    assert reasons(scene.through(requests=(withdrawn("web-9", after=5),))) == {}


def test_a_request_for_a_vm_in_no_pool_is_held() -> None:
    """There is nothing to take it from, and nothing is recorded."""
    scene = Scene()
    scene.inside["web-1"] = []
    planned = scene.through(requests=(request(),))
    assert (phase(planned), reasons(planned)) == (
        Phase.UNMANAGED,
        {"web-1": "unmanaged_resource"},
    )
    assert scene.ledger.entries == ()


def test_a_leader_that_is_asked_for_lets_others_lead() -> None:
    """A VM that is taken out of its pools may lose its way to Azure, as before an event."""

    def asked(*requests: Request, now: float = 10) -> frozenset[str]:
        return handicap(
            vm="web-1",
            document=EventDocument(incarnation=1),
            document_age_s=0,
            policy=Policy(pools={APP: Floor(number=1)}),
            now=at(now),
            requests=requests,
        ).events

    assert asked(request("WEB-1")) == {"r-1"}
    assert not asked(request("web-2"))
    assert not asked(request(), now=1800)
    assert not asked(withdrawn(after=5))


# --- the blob ---


def test_requests_survive_their_blob() -> None:
    """What is written is what is read, fields of a newer minor version included."""
    roll = Roll(
        roll_id="L-1",
        what="reboot",
        vms=("web-1", "web-2"),
        done=("web-1",),
        by="ann",
        at=T0,
        runner="a process",
        beat=3,
        extra={"newer": 1},
    )
    newer = replace(withdrawn("web-2"), reason="half a pair: \ud800", extra={"new": 0})
    requests = Requests(requests=(request(), newer), roll=roll, minor=7, extra={"newest": [1]})
    assert decode(encode(requests)) == requests
    assert decode(b"") == decode(encode(Requests())) == Requests()
    assert requests.roll is not None
    assert requests.roll.left == ("web-2",)


def test_requests_are_values_whatever_a_newer_version_put_into_them() -> None:
    """Equal ones hash alike, and a roll begins with nothing done, failed, ended or unknown."""
    roll = Roll(roll_id="L-1", what="", vms=(), done=(), by="ann", at=T0, runner="a process")
    assert (roll.beat, roll.failed, roll.ended_at, roll.extra) == (0, "", None, {})
    plain = Requests(roll=roll)
    newer = replace(plain, roll=replace(roll, extra={"a": [1]}), extra={"b": [2]})
    assert hash(newer) == hash(plain)
    assert hash(replace(request(), extra={"c": [3]})) == hash(request())


def test_people_can_read_the_blob() -> None:
    """A line for each field, the version first."""
    assert encode(Requests()) == b'{\n "version": "1.0",\n "requests": [],\n "roll": null\n}'


def test_what_is_left_of_a_roll_does_not_depend_on_spelling() -> None:
    """Names of VMs are the same in any case."""
    roll = Roll(
        roll_id="L-1",
        what="",
        vms=("WEB-1", "web-2", "web-3"),
        done=("web-1", "WEB-2"),
        by="ann",
        at=T0,
        runner="a process",
    )
    assert roll.left == ("web-3",)


def test_what_stands_is_neither_withdrawn_nor_over() -> None:
    """The end itself is over."""
    requests = Requests(requests=(request(until=60), withdrawn("web-2", after=5), request("web-3")))
    assert [each.vm for each in requests.standing(at(59))] == ["web-1", "web-3"]
    assert [each.vm for each in requests.standing(at(60))] == ["web-3"]


def test_more_time_is_for_one_request_that_was_not_withdrawn() -> None:
    """Others keep theirs, and a withdrawal stays one."""
    ended = replace(withdrawn("web-2"), request_id="R-2")
    other = request("web-3", request_id="R-3")
    requests = Requests(requests=(request(), ended, other))
    longer = requests.extending("R-1", at(3600)).extending("R-2", at(3600))
    assert longer.requests == (request(until=3600), ended, other)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "the requests"),
        (b"[]", "requests: expected an object, found list"),
        (b'{"version": "2.0"}', "the requests has version 2.0"),
        (b'{"version": "1.0", "requests": [{"request_id": 1}]}', "requests.requests[0].request_id"),
        (b'{"version": "1.0", "requests": [], "roll": []}', "requests.roll"),
        (
            b'{"version": "1.0", "requests": [], "roll": {"roll_id": "", "what": "", "vms": [1]}}',
            "requests.roll.vms[0]: expected str, found int",
        ),
    ],
)
def test_what_holds_no_requests_is_refused(body: bytes, says: str) -> None:
    """The message says where it is wrong."""
    with pytest.raises(ContractViolation) as caught:
        decode(body)
    assert says in str(caught.value)


def test_a_newer_request_ends_the_older_one() -> None:
    """A VM is wanted out by one request at a time: the newest."""
    both = (
        Requests().adding(request()).adding(replace(request("WEB-1"), request_id="R-2", at=at(9)))
    )
    assert [(each.request_id, each.ended_at, each.ended_by) for each in both.requests] == [
        ("R-1", at(9), "ann"),
        ("R-2", None, ""),
    ]
    assert both.of("web-1", at(10)) == both.called("r-2") == both.called("R-2")
    assert both.called("R-3") is None


def test_ended_requests_are_kept_for_a_while() -> None:
    """The newest of them say who wanted what; those that stand are all kept."""
    requests = Requests(requests=(request("web-3", until=99999, request_id="stands"),))
    for number in range(55):
        new = replace(
            request(f"web-{number % 2}", request_id=f"R{number}"),
            at=T0 + timedelta(seconds=number),
        )
        requests = requests.adding(new)
    kept = [each.request_id for each in requests.requests]
    assert kept[0] == "stands"
    assert kept[1:] == [f"R{number}" for number in range(3, 55)]  # fifty, and two that stand


@pytest.mark.parametrize(
    "change",
    [lambda r: r.withdrawing("web-2", at=at(1), by="ben"), lambda r: r],
)
def test_withdrawing_touches_only_what_stands(change: Callable[[Requests], Requests]) -> None:
    """A second withdrawal, and one of somebody else's VM, change nothing."""
    requests = Requests(requests=(withdrawn(), request("web-3")))
    assert change(requests) == requests
