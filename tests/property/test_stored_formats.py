"""What an agent writes into a blob is read by another agent, whatever the platform has shown."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.azure.imds_document import parse_document
from controller.core.agent_presence import AgentPresence
from controller.core.controls import Controls, EventControl, HandOver, Override, Pause
from controller.core.drain_requests import (
    DrainRequest,
    DrainRequests,
    ForgetRequest,
    RehearsedEvent,
    RollingRun,
)
from controller.core.event_record import (
    EventVerdict,
    Place,
    Verdict,
    WatchedEvent,
    WatchedVm,
)
from controller.core.forwarded_events import ForwardedEvents, forwarded
from controller.core.ledger import Ledger
from controller.core.shared_pools import PoolShare, PoolShares
from controller.core.vm_report import HookOutcome, VmReport, VmState
from controller.errors import ContractViolation
from controller.storage.controls_json import decode_controls, encode_controls
from controller.storage.drain_requests_json import decode_requests, encode_requests
from controller.storage.forwarded_events_store import (
    decode_forwarded,
    encode_forwarded,
    forwarded_blob_name,
)
from controller.storage.ledger_json import decode_ledger, encode_ledger
from controller.storage.presence_json import decode_presence, encode_presence
from controller.storage.shared_pool_json import decode_shares, encode_shares
from controller.storage.vm_report_json import decode_report, encode_report

BOUNDED = settings(max_examples=25)
NOW = datetime(2030, 1, 1, tzinfo=UTC)

texts = st.text(max_size=12)
names = st.sampled_from(["web-1", "WEB-1", "web-2", ""]) | texts
instants = st.integers(0, 2**53).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)
maybe = st.none() | instants
counts = st.integers(0, 10**18)
numbers = st.integers() | st.floats(allow_nan=True, allow_infinity=True)
shown_times = st.sampled_from(
    [
        "Mon, 19 Sep 2016 18:29:47 GMT",
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "2000-01-01T00:00:00+14:00",
        "8999-12-31T23:59:59-12:00",
        "9999-12-31T23:59:59-14:00",
        "",
    ]
)
odd = st.none() | st.booleans() | numbers | numbers.map(str) | texts
shown_events = st.fixed_dictionaries(
    {"EventId": texts, "EventType": texts, "Resources": st.lists(names, max_size=3)},
    optional={
        "EventStatus": st.sampled_from(["Scheduled", "started", "Completed"]) | odd,
        "EventSource": st.sampled_from(["Platform", "user"]) | odd,
        "NotBefore": shown_times | odd,
        "DurationInSeconds": odd,
    },
)


def bare(kind: type[Any], /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return values of a type; fields of newer versions are another test."""
    return st.builds(kind, extra=st.just({}), **fields)


def lists(each: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return short tuples."""
    return st.lists(each, max_size=most).map(tuple)


@given(st.lists(shown_events, max_size=3))
@example([{"EventId": "a", "EventType": "Reboot", "Resources": ["w"], "DurationInSeconds": -2}])
@example([{"EventId": "a", "EventType": "Reboot", "Resources": ["w"], "DurationInSeconds": 1e300}])
@BOUNDED
def test_what_the_metadata_service_shows_can_be_forwarded(events: list[dict[str, Any]]) -> None:
    """S7: one odd event has no other one of the VM refused; a restart of its agent reads it too."""
    try:
        document = parse_document(json.dumps({"Events": events}).encode())
    except ContractViolation:
        return  # no JSON: a number is infinite
    shown = tuple(forwarded(each, each.resources) for each in document.events)
    found = ForwardedEvents(vm="web-1", at=NOW, events=shown)
    name = forwarded_blob_name("s/rg/flex.json", "web-1")
    assert decode_forwarded(encode_forwarded(found), name) == found


watched_vms = bare(WatchedVm, vm=texts, place=st.sampled_from([*Place]), out_at=maybe, why=texts)
watched_events = bare(
    WatchedEvent,
    event_id=texts,
    event_type=texts,
    first_seen_at=instants,
    watched_at=maybe,
    not_before=maybe,
    started_at=maybe,
    gone_at=maybe,
    ignored=texts,
    not_acknowledgeable=texts,
    vms=lists(watched_vms),
)
verdicts = bare(
    EventVerdict,
    at=instants,
    vm=texts,
    event_id=texts,
    event_type=texts,
    verdict=st.sampled_from([*Verdict]),
    not_before=maybe,
    started_at=maybe,
    out_at=maybe,
    why=texts,
    end=texts,
)
requests = bare(
    DrainRequest,
    request_id=texts,
    vm=texts,
    reason=texts,
    by=texts,
    at=instants,
    until=instants,
    ended_at=maybe,
    ended_by=texts,
    event=st.none() | bare(RehearsedEvent, event_id=texts, event_type=texts, not_before=instants),
    forced=st.booleans(),
)
runs = bare(
    RollingRun,
    run_id=texts,
    what=texts,
    vms=lists(texts),
    done=lists(texts),
    by=texts,
    at=instants,
    process_id=texts,
    request_id=texts,
    heartbeat=counts,
    failed=texts,
    ended_at=maybe,
)
control: dict[str, st.SearchStrategy[Any]] = {
    "by": texts,
    "reason": texts,
    "at": instants,
    "until": instants,
}


@given(lists(watched_events), lists(verdicts), lists(texts), maybe)
@BOUNDED
def test_events_and_verdicts_of_a_ledger(
    events: tuple[WatchedEvent, ...],
    judged: tuple[EventVerdict, ...],
    vms: tuple[str, ...],
    since: datetime | None,
) -> None:
    """V1: the next leader has what this one knew."""
    ledger = Ledger(events=events, verdicts=judged, vms=vms, leader_since=since, set_id="s")
    assert decode_ledger(encode_ledger(ledger)) == ledger


@given(
    bare(
        DrainRequests,
        requests=lists(requests),
        roll=st.none() | runs,
        forgets=lists(bare(ForgetRequest, vm=texts, recorded_at=instants, by=texts, at=instants)),
        set_id=texts,
    )
)
@BOUNDED
def test_drain_requests(wanted: DrainRequests) -> None:
    """What a command writes is what the leader reads."""
    assert decode_requests(encode_requests(wanted)) == wanted


@given(
    bare(
        Controls,
        pause=st.none() | bare(Pause, **control),
        events=lists(
            bare(EventControl, event_id=texts, decision=texts, forced=st.booleans(), **control)
        ),
        hand_over=st.none() | bare(HandOver, request_id=texts, leader=texts, vm=texts, **control),
        overrides=lists(bare(Override, key=texts, pool=texts, value=texts, **control)),
        set_id=texts,
    )
)
@BOUNDED
def test_controls(wanted: Controls) -> None:
    """What a command writes is what every agent reads."""
    assert decode_controls(encode_controls(wanted)) == wanted


@given(
    bare(
        VmReport,
        vm=texts,
        boot_id=texts,
        state=st.sampled_from([*VmState]),
        since=instants,
        at=instants,
        drain=maybe,
        quiet_since=maybe,
        connections=counts,
        counted=st.booleans(),
        refused_probes=counts,
        probe_port=st.integers(0, 65535),
        hook=st.sampled_from([*HookOutcome]),
        problem=texts,
    )
)
@BOUNDED
def test_reports(report: VmReport) -> None:
    """What a VM reports is what the leader reads."""
    assert decode_report(encode_report(report)) == report


@given(
    bare(
        AgentPresence,
        vm=texts,
        release=texts,
        configuration=texts,
        started_at=instants,
        at=instants,
        period_s=counts,
        stopped_at=maybe,
        problem=texts,
        set_id=texts,
    )
)
@BOUNDED
def test_presences(presence: AgentPresence) -> None:
    """What an agent publishes is what the others read."""
    assert decode_presence(encode_presence(presence)) == presence


@given(
    lists(
        bare(
            PoolShare,
            availability_set_id=texts,
            members=lists(texts),
            out=lists(texts),
            written_at=instants,
        )
    )
)
@BOUNDED
def test_shares_of_a_pool(shares: tuple[PoolShare, ...]) -> None:
    """S2: what one set states is what the others read."""
    wanted = PoolShares(pool_id="p", shares=shares)
    assert decode_shares(encode_shares(wanted), "p") == wanted
