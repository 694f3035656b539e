"""Spans from the ledger's transitions: what ends when, and that ids are the same for everybody."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controller.core.ledger import Entry, EventReference, Ledger
from controller.core.model import NicMembership
from controller.traces import Span, spans

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


def told(
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
        ledger = ledger.noting(at=at(first_s + 10 * number), vm=entry.vm, what=what)
        if what in {"in service", "forgotten"}:
            ledger = ledger.without_entry(entry.vm)
        found += spans(before, ledger, started or {})
    return ledger, found


def shown(found: list[Span]) -> list[tuple[str, float, float]]:
    """Return name, beginning and end of spans, in seconds."""
    seconds = [[(t - NOW).total_seconds() for t in (span.start, span.end)] for span in found]
    return [(span.name, start, end) for span, (start, end) in zip(found, seconds, strict=True)]


def test_an_outing_from_beginning_to_end() -> None:
    """Each span ends with its transition; the outing itself comes last and holds the others."""
    _, found = told(*WHOLE, started={"e1": at(25)})
    assert shown(found) == [
        ("drain", 0, 10),
        ("connections emptying", 10, 20),
        ("acknowledged", 20, 25),
        ("in maintenance", 25, 30),
        ("restore", 30, 40),
        ("outing", 0, 50),
    ]
    *inside, outing = found
    assert {span.trace_id for span in found} == {outing.trace_id}
    assert {span.parent_id for span in inside} == {outing.span_id}
    assert outing.parent_id is None
    assert len({span.span_id for span in found}) == len(found)
    assert all(0 < span.trace_id < 2**128 and 0 < span.span_id < 2**64 for span in found)


def test_what_a_span_says() -> None:
    """VM, event, pools, who led under which epoch, and with how much time to spare it was out."""
    _, found = told(*WHOLE)
    wanted = {
        "lb_drain.vm": "web-2",
        "lb_drain.event.id": "E1",
        "lb_drain.event.type": "Reboot",
        "lb_drain.event.not_before": "2030-01-01T00:10:00+00:00",
        "lb_drain.pools": ("app",),
        "lb_drain.leader": "web-1",
        "lb_drain.epoch": 7,
        "lb_drain.lead_time_s": 590.0,
    }
    assert [dict(span.attributes) for span in found] == [wanted] * len(found)
    assert {span.problem for span in found} == {""}


def test_a_late_drain_is_an_error() -> None:
    """Out after NotBefore: the drain is marked, with a negative lead time."""
    _, (drain,) = told("recorded", "out", first_s=600)
    assert drain.problem == "out only after NotBefore"
    assert drain.attributes["lb_drain.lead_time_s"] == -10.0


def test_a_successor_goes_on_with_the_trace() -> None:
    """Another process, with another clock and name, that reads the ledger makes the same ids."""
    _, whole = told(*WHOLE)
    ledger, first = told(*WHOLE[:3])
    taken_over = replace(ledger, epoch=8, leader="web-3").noting(
        at=at(22), vm="web-3", what="leads"
    )
    _, then = told(*WHOLE[3:], ledger=taken_over, first_s=30, entry=replace(ENTRY, vm="WEB-2"))
    assert [(s.trace_id, s.span_id, s.parent_id) for s in first + then] == [
        (s.trace_id, s.span_id, s.parent_id) for s in whole
    ]
    assert {span.attributes["lb_drain.leader"] for span in then} == {"web-3"}


def test_each_outing_is_a_trace_of_its_own() -> None:
    """The next maintenance of the same VM, and one of another VM, have other ids throughout."""
    ledger, first = told(*WHOLE)
    later = replace(ENTRY, recorded_at=at(100))
    _, second = told(*WHOLE, ledger=ledger, entry=later, first_s=100)
    _, other = told(*WHOLE, entry=replace(ENTRY, vm="web-3"))
    ids = [span.span_id for span in first + second + other]
    assert len(set(ids)) == len(ids)
    assert len({span.trace_id for span in first + second + other}) == 3
    assert shown(second)[-1] == ("outing", 100, 150)


def test_detours() -> None:
    """Without an acknowledgement, out again, or in a pool again: spans are of the last attempt."""
    _, found = told("recorded", "out", "restoring")
    assert shown(found)[1:] == [("in maintenance", 10, 20)]
    _, found = told("recorded", "out", "restoring", "restored", "out again", "out", "acknowledged")
    assert shown(found)[-2:] == [("drain", 40, 50), ("connections emptying", 50, 60)]
    _, found = told("recorded", "recorded", "out", "acknowledged", "acknowledged")
    assert shown(found) == [("drain", 10, 20), ("connections emptying", 20, 30)]
    assert found[0].trace_id == told("recorded", "out")[1][0].trace_id
    _, found = told("recorded", "forgotten")
    assert shown(found) == [("outing", 0, 10)]


def test_clocks_that_disagree_make_no_span_backwards() -> None:
    """An event that was seen started before it was acknowledged, or after all was over."""
    for seconds in (-5, 15, 500):
        _, found = told(*WHOLE, started={"e1": at(seconds)})
        assert all(span.start <= span.end for span in found)
        assert shown(found)[-1] == ("outing", 0, 50)


def test_a_history_that_is_no_longer_whole() -> None:
    """Where the history has been cut the entry says when the outing began: it is the same trace."""
    ledger, first = told("recorded", "out")
    cut = replace(ledger, transitions=ledger.transitions[1:])
    entry = replace(ENTRY, out_at=at(10))
    _, then = told("acknowledged", "in service", ledger=cut, entry=entry, first_s=20)
    assert {span.trace_id for span in first + then} == {first[0].trace_id}
    assert shown(then)[-1] == ("outing", 0, 30)


def test_nothing_new_nothing_told() -> None:
    """A pass that changed nothing has no spans, nor has a line that ends nothing."""
    ledger, found = told("recorded", "requested", "gone", "exists again", "membership dropped")
    assert found == []
    assert list(spans(ledger, ledger, {})) == []
