"""Spans from transitions: what ends when, and that every agent derives the same ids."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from controller.core.drain_history import Step
from controller.core.drain_spans import Span, spans
from controller.core.ledger import Entry, EventReference, Ledger
from controller.core.resources import NicMembership

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NOT_BEFORE = NOW + timedelta(seconds=600)
POOL = "/subscriptions/s/x/loadBalancers/web-lb/backendAddressPools/app"
WHOLE = ("recorded", "out", "acknowledged", "restoring", "restored", "in service")
ENTRY = Entry(
    vm="web-2",
    vm_id="/vm/web-2",
    events=(EventReference(event_id="E1", event_type="Reboot", not_before=NOT_BEFORE),),
    memberships=(NicMembership(pool_id=POOL, nic_id="/nic", ip_configuration="ipconfig1"),),
    recorded_at=NOW,
)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def noted(
    *whats: str,
    ledger: Ledger | None = None,
    entry: Entry = ENTRY,
    first_s: float = 0,
    started: Mapping[str, datetime] | None = None,
) -> tuple[Ledger, list[Span]]:
    """Write one transition after the other, ten seconds apart; return the ledger and all spans."""
    ledger = (ledger or Ledger(epoch=7, leader="web-1")).with_entry(entry)
    found: list[Span] = []
    for number, what in enumerate(whats):
        before = ledger
        ledger = ledger.noting(at=at(first_s + 10 * number), vm=entry.vm, step=Step(what))
        if what in {"in service", "forgotten"}:
            ledger = ledger.without_entry(entry.vm)
        found += spans(before, ledger, started or {})
    return ledger, found


def shown(found: list[Span]) -> list[tuple[str, float, float]]:
    """Return name, beginning and end of spans, in seconds."""
    seconds = [[(t - NOW).total_seconds() for t in (span.start, span.end)] for span in found]
    return [(span.name, start, end) for span, (start, end) in zip(found, seconds, strict=True)]


def test_a_drain_episode_from_beginning_to_end() -> None:
    """Each span ends with its transition; the drain episode comes last and holds the others."""
    _, found = noted(*WHOLE, started={"e1": at(25)})
    assert shown(found) == [
        ("drain", 0, 10),
        ("connection drain", 10, 20),
        ("acknowledged", 20, 25),
        ("maintenance", 25, 30),
        ("restore", 30, 40),
        ("drain episode", 0, 50),
    ]
    *inside, root = found
    assert {span.trace_id for span in found} == {root.trace_id}
    assert {span.parent_id for span in inside} == {root.span_id}
    assert root.parent_id is None
    assert len({span.span_id for span in found}) == len(found)
    assert all(0 < span.trace_id < 2**128 and 0 < span.span_id < 2**64 for span in found)


def test_the_attributes_of_a_span() -> None:
    """VM, event, pools, the leader with its epoch, and the lead time."""
    _, found = noted(*WHOLE)
    expected = {
        "lb_drain.vm": "web-2",
        "lb_drain.event.id": "E1",
        "lb_drain.event.type": "Reboot",
        "lb_drain.event.not_before": "2030-01-01T00:10:00+00:00",
        "lb_drain.pools": ("app",),
        "lb_drain.leader": "web-1",
        "lb_drain.epoch": 7,
        "lb_drain.lead_time_s": 590.0,
    }
    assert [dict(span.attributes) for span in found] == [expected] * len(found)
    assert {span.problem for span in found} == {""}


def test_a_late_drain_is_an_error() -> None:
    """Out after NotBefore: the drain is marked, with a negative lead time."""
    _, (drain,) = noted("recorded", "out", first_s=600)
    assert drain.problem == "out of rotation after NotBefore"
    assert drain.attributes["lb_drain.lead_time_s"] == -10.0


def test_a_successor_goes_on_with_the_trace() -> None:
    """Another process, with another clock and name, that reads the ledger makes the same ids."""
    _, whole = noted(*WHOLE)
    ledger, first = noted(*WHOLE[:3])
    taken_over = replace(ledger, epoch=8, leader="web-3").noting(
        at=at(22), vm="web-3", step=Step.LEADS
    )
    _, then = noted(*WHOLE[3:], ledger=taken_over, first_s=30, entry=replace(ENTRY, vm="WEB-2"))
    assert [(s.trace_id, s.span_id, s.parent_id) for s in first + then] == [
        (s.trace_id, s.span_id, s.parent_id) for s in whole
    ]
    assert {span.attributes["lb_drain.leader"] for span in then} == {"web-3"}


def test_a_new_leader_that_is_out_itself() -> None:
    """The step `leads` belongs to no drain episode, not even to one whose history was cut."""
    before = Ledger(epoch=8, leader="web-2").with_entry(ENTRY)
    after = before.noting(at=at(22), vm=ENTRY.vm, step=Step.LEADS)
    assert list(spans(before, after, {})) == []


def test_each_drain_episode_is_a_trace_of_its_own() -> None:
    """The next maintenance of the same VM, and one of another VM, have other ids throughout."""
    ledger, first = noted(*WHOLE)
    later = replace(ENTRY, recorded_at=at(100))
    _, second = noted(*WHOLE, ledger=ledger, entry=later, first_s=100)
    _, other = noted(*WHOLE, entry=replace(ENTRY, vm="web-3"))
    ids = [span.span_id for span in first + second + other]
    assert len(set(ids)) == len(ids)
    assert len({span.trace_id for span in first + second + other}) == 3
    assert shown(second)[-1] == ("drain episode", 100, 150)


def test_detours() -> None:
    """Without an acknowledgement, out again, or in a pool again: spans are of the last attempt."""
    _, found = noted("recorded", "out", "restoring")
    assert shown(found)[1:] == [("maintenance", 10, 20)]
    _, found = noted("recorded", "out", "restoring", "restored", "out again", "out", "acknowledged")
    assert shown(found)[-2:] == [("drain", 40, 50), ("connection drain", 50, 60)]
    _, found = noted("recorded", "recorded", "out", "acknowledged", "acknowledged")
    assert shown(found) == [("drain", 10, 20), ("connection drain", 20, 30)]
    assert found[0].trace_id == noted("recorded", "out")[1][0].trace_id
    _, found = noted("recorded", "forgotten")
    assert shown(found) == [("drain episode", 0, 10)]


def test_clocks_that_disagree_make_no_span_backwards() -> None:
    """An event that was seen started before it was acknowledged, or after all was over."""
    for seconds in (-5, 15, 500):
        _, found = noted(*WHOLE, started={"e1": at(seconds)})
        assert all(span.start <= span.end for span in found)
        assert shown(found)[-1] == ("drain episode", 0, 50)


def test_a_history_that_is_no_longer_whole() -> None:
    """If the history was cut, the entry has the start of the episode: the trace is the same."""
    ledger, first = noted("recorded", "out")
    cut = replace(ledger, transitions=ledger.transitions[1:])
    entry = replace(ENTRY, out_at=at(10))
    _, then = noted("acknowledged", "in service", ledger=cut, entry=entry, first_s=20)
    assert {span.trace_id for span in first + then} == {first[0].trace_id}
    assert shown(then)[-1] == ("drain episode", 0, 30)


def test_no_span_without_an_end() -> None:
    """A pass that changed nothing has no spans, nor has a line that ends nothing."""
    ledger, found = noted("recorded", "requested", "gone", "exists again", "membership dropped")
    assert found == []
    assert list(spans(ledger, ledger, {})) == []


def test_ids_are_the_same_in_every_version() -> None:
    """The ids of an episode are golden: agents of two versions must build one trace."""
    local = timezone(timedelta(hours=2))
    entry = replace(ENTRY, vm="Web-2", recorded_at=NOW.astimezone(local))
    _, found = noted("out", "forgotten", entry=entry)
    assert [(hex(span.trace_id), hex(span.span_id)) for span in found] == [
        ("0x3dc886c488c4ba20440db6efe4d1ccf1", "0x306c090e9a8099df"),
        ("0x3dc886c488c4ba20440db6efe4d1ccf1", "0xc3ca727851ea0285"),
    ]


def test_several_transitions_in_one_pass() -> None:
    """Each of them ends its own span, also if the entry is as new as they are."""
    after = Ledger(leader="web-1").with_entry(ENTRY)
    for number, step in enumerate((Step.RECORDED, Step.OUT, Step.ACKNOWLEDGED)):
        after = after.noting(at=at(10 * number), vm="web-2", step=step)
    found = list(spans(Ledger(), after, {}))
    assert shown(found) == [("drain", 0, 10), ("connection drain", 10, 20)]
    assert list(spans(Ledger(), after.without_entry("web-2"), {})) == []
    for step in (Step.FORGOTTEN, Step.RECORDED):
        after = after.noting(at=at(30), vm="web-2", step=step)
    (episode,) = spans(
        Ledger().with_entry(ENTRY), replace(after, transitions=after.transitions[-2:]), {}
    )
    assert shown([episode]) == [("drain episode", 0, 30)]


def test_an_episode_starts_with_its_first_transition() -> None:
    """The record may be renewed later; if the first steps are lost, the record counts."""
    renewed = replace(ENTRY, recorded_at=at(10))
    _, found = noted("recorded", "recorded", "forgotten", entry=renewed)
    assert shown(found) == [("drain episode", 0, 20)]
    _, found = noted("requested", "forgotten", entry=renewed, first_s=20)
    assert shown(found) == [("drain episode", 10, 30)]


def test_steps_that_the_history_has_lost() -> None:
    """The record stands in for a lost start; without its start no connection drain is known."""
    starts = {step: shown(noted(step, first_s=30)[1]) for step in ("out", "restoring", "restored")}
    assert starts == {
        "out": [("drain", 0, 30)],
        "restoring": [("maintenance", 0, 30)],
        "restored": [("restore", 0, 30)],
    }
    assert noted("acknowledged")[1] == []


def test_acknowledgements_of_another_attempt() -> None:
    """An acknowledgement counts for the drain before it, and only the first one does."""
    _, found = noted("out", "acknowledged", "out again", "out", "restoring")
    assert shown(found)[-1] == ("maintenance", 30, 40)
    _, found = noted("acknowledged", "out", "acknowledged", "acknowledged", "restoring")
    assert shown(found)[1:] == [("connection drain", 10, 20), ("acknowledged", 20, 40)]
    ledger, _ = noted("acknowledged")
    _, found = noted("out", "acknowledged", ledger=ledger)
    assert shown(found)[1:] == []


def test_the_first_event_to_start_counts() -> None:
    """With two events the maintenance starts with the earlier one."""
    events = (*ENTRY.events, EventReference(event_id="E2", event_type="Freeze"))
    entry, started = replace(ENTRY, events=events), {"e1": at(17), "e2": at(13)}
    _, found = noted("out", "acknowledged", "restoring", entry=entry, started=started)
    assert shown(found)[2:] == [("acknowledged", 10, 13), ("maintenance", 13, 20)]


@pytest.mark.parametrize(
    ("lead_s", "shown_s", "problem"),
    [
        (0, 0, ""),
        (0.4, 0.4, ""),
        (-0.4, -0.4, "out of rotation after NotBefore"),
        (-5, -5, "out of rotation after NotBefore"),
        (1.23456, 1.235, ""),
    ],
)
def test_the_lead_time(lead_s: float, shown_s: float, problem: str) -> None:
    """In seconds, to the millisecond; a negative one is an error."""
    local = timezone(timedelta(hours=2))
    reference = replace(ENTRY.events[0], not_before=at(lead_s).astimezone(local))
    _, (drain,) = noted("out", entry=replace(ENTRY, events=(reference,)))
    assert drain.attributes["lb_drain.lead_time_s"] == shown_s
    assert drain.attributes["lb_drain.event.not_before"] == at(lead_s).isoformat()
    assert drain.problem == problem


def test_what_is_not_known_is_left_out() -> None:
    """An event without a NotBefore has no lead time, and an entry without events has neither."""
    started = replace(ENTRY.events[0], not_before=None)
    for events, known in (((started,), {"lb_drain.event.id", "lb_drain.event.type"}), ((), set())):
        _, (drain,) = noted("out", entry=replace(ENTRY, events=events))
        assert drain.problem == ""
        assert set(drain.attributes) == known | {
            *("lb_drain.vm", "lb_drain.pools", "lb_drain.leader", "lb_drain.epoch")
        }


def test_pools_are_sorted() -> None:
    """However many pools there are, their order is the same in every process."""
    pools = [f"{POOL}{number}" for number in (3, 1, 2)]
    memberships = tuple(
        NicMembership(pool_id=pool, nic_id="/nic", ip_configuration="ipconfig1") for pool in pools
    )
    _, (drain,) = noted("out", entry=replace(ENTRY, memberships=memberships))
    assert drain.attributes["lb_drain.pools"] == ("app1", "app2", "app3")
