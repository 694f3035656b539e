"""Content of blobs that is huge, forged or garbage: bounded when read, and never grown."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.azure.blob import MAX_BODY_BYTES
from controller.core.blob_limits import (
    MAX_ENTRIES,
    MAX_HOLDS,
    MAX_ID_CHARACTERS,
    MAX_LEDGER_BYTES,
    MAX_TEXT_CHARACTERS,
)
from controller.core.drain_history import Step, Transition
from controller.core.drain_requests import DrainRequest, DrainRequests
from controller.core.event_record import WatchedEvent
from controller.core.ledger import MAX_TRANSITIONS, Entry, EventReference, Hold, Ledger
from controller.core.resources import AddressMembership, NicMembership
from controller.errors import ContractViolation
from controller.storage.drain_requests_json import decode_requests, encode_requests
from controller.storage.ledger_json import decode_ledger, encode_bounded, encode_ledger
from tests.support.planner_scenario import PlannerScenario, at

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)


def entry(number: int, **fields: Any) -> Entry:
    known: dict[str, Any] = {
        "vm": f"web-{number}",
        "vm_id": f"/vm/web-{number}",
        "events": (),
        "memberships": (NicMembership(pool_id="p", nic_id="n", ip_configuration="c"),),
        "recorded_at": T0,
    }
    return Entry(**{**known, **fields})


def stored(ledger: Ledger) -> dict[str, Any]:
    return dict(json.loads(encode_ledger(ledger)))


def decoded(document: dict[str, Any]) -> Ledger:
    return decode_ledger(json.dumps(document).encode())


def request(number: int, vm: str, reason: str = "") -> DrainRequest:
    return DrainRequest(
        request_id=f"r-{number}", vm=vm, reason=reason, by="eve", at=at(0), until=at(9e6)
    )


# --- what a writer of the container can put there ---


def test_texts_for_people_are_cut_when_they_are_read() -> None:
    """A megabyte in a hold, in the history or in a request does not travel on."""
    huge = "\U0001f4a3" * 100_000
    document = stored(Ledger()) | {
        "holds": [{"subject": huge, "reason": huge, "message": huge, "since": T0.isoformat()}],
        "transitions": [{"at": T0.isoformat(), "vm": huge, "what": huge, "detail": huge}],
    }
    ledger = decoded(document)
    assert len(ledger.holds[0].subject) == len(ledger.transitions[0].vm) == MAX_TEXT_CHARACTERS
    assert len(encode_ledger(ledger)) < 50_000
    requests = json.loads(encode_requests(DrainRequests(requests=(request(1, "web-1"),))))
    requests["requests"][0]["reason"] = huge
    found = decode_requests(json.dumps(requests).encode())
    assert len(found.requests[0].reason) == MAX_TEXT_CHARACTERS


def test_counts_are_bounded_when_they_are_read() -> None:
    """More holds and more history than any leader writes are left out."""
    hold = {"subject": "s", "reason": "r", "message": "m", "since": T0.isoformat()}
    line = {"at": T0.isoformat(), "vm": "v", "what": "out", "detail": ""}
    lines = [line | {"detail": str(number)} for number in range(9999)]
    ledger = decoded(stored(Ledger()) | {"holds": [hold] * 9999, "transitions": lines})
    assert (len(ledger.holds), len(ledger.transitions)) == (MAX_HOLDS, MAX_TRANSITIONS)
    assert len(decoded(stored(Ledger()) | {"vms": ["v"] * 9999}).vms) == MAX_ENTRIES
    assert ledger.transitions[-1].detail == "9998"


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": 2**63},
        {"epoch": 1e400},
        {"epoch": 1.0},
        {"leader": "x" * (MAX_ID_CHARACTERS + 1)},
        {"leader_since": "9999-12-31T23:59:59+00:00"},
        {"leader_since": 2**63},
        {"entries": [stored(Ledger(entries=(entry(n),)))["entries"][0] for n in range(1001)]},
        {"set_id": ["/set"]},
        {"set_id": "x" * 100_000},
    ],
    ids=str,
)
def test_what_cannot_be_cut_is_refused_as_a_whole(change: dict[str, Any]) -> None:
    """An id is never cut; the content is left untouched, and the message is short."""
    with pytest.raises(ContractViolation) as raised:
        decoded(stored(Ledger()) | change)
    assert len(str(raised.value)) < 500
    assert MAX_ENTRIES == 1000


@pytest.mark.parametrize(("count", "fits"), [(MAX_ENTRIES, True), (MAX_ENTRIES + 1, False)])
def test_a_ledger_that_no_agent_can_read_is_never_written(count: int, *, fits: bool) -> None:
    """L1: the ledger in storage stays as it is, and the message has the remedy."""
    ledger = Ledger(entries=tuple(entry(number) for number in range(count)))
    if fits:
        assert len(decode_ledger(encode_bounded(ledger)[1]).entries) == count
    else:
        with pytest.raises(ContractViolation, match="lb-drain forget VM"):
            encode_bounded(ledger)


@pytest.mark.parametrize(
    "change",
    [
        {"vm": "web-1" * 9999},
        {"recorded_at": "NaN"},
        {"memberships": [{"kind": "nic"}]},
        {"memberships": {}},
        {"lost": [1]},
        {"gone": "no"},
    ],
    ids=str,
)
def test_a_forged_entry_is_refused(change: dict[str, Any]) -> None:
    """Of an entry that cannot be understood nothing is used."""
    document = stored(Ledger(entries=(entry(1),)))
    document["entries"][0] |= change
    with pytest.raises(ContractViolation):
        decoded(document)


def test_one_vm_in_two_spellings_is_refused() -> None:
    """To keep one of both would lose what was removed according to the other."""
    document = stored(Ledger(entries=(entry(1),)))
    document["entries"] += [document["entries"][0] | {"vm": "WEB-1"}]
    with pytest.raises(ContractViolation, match="two entries for one VM"):
        decoded(document)


# --- what a leader writes ---


def test_a_ledger_is_never_written_that_no_agent_can_read() -> None:
    """The oldest history goes first, then events, names, and what is newer; entries never."""
    assert MAX_LEDGER_BYTES < MAX_BODY_BYTES
    lines = tuple(
        Transition(at=T0, vm="v", step=Step.OUT, detail=f"{n} " + "é" * 290)
        for n in range(MAX_TRANSITIONS)
    )
    big = Ledger(
        entries=tuple(
            entry(
                n,
                memberships=(
                    AddressMembership(pool_id="p", name="n", ip_address="i", body="x" * 14_500),
                ),
            )
            for n in range(200)
        ),
        transitions=lines,
        extra={"newer": "y" * 100_000},
    )
    kept, body = encode_bounded(big)
    assert len(body) <= MAX_LEDGER_BYTES
    assert decode_ledger(body) == kept
    assert kept.entries == big.entries
    assert kept.extra == big.extra
    assert kept.transitions == lines[-len(kept.transitions) :]
    without, body = encode_bounded(replace(big, extra={"newer": "y" * 400_000}))
    assert (without.extra, without.transitions) == ({}, ())
    assert len(body) <= MAX_LEDGER_BYTES
    watched = tuple(
        WatchedEvent(event_id=f"E{n}" + "z" * 2000, event_type="Reboot", first_seen_at=T0)
        for n in range(400)
    )
    fewer, body = encode_bounded(replace(big, events=watched))
    assert fewer.entries == big.entries
    assert fewer.events == watched[-len(fewer.events) :] or not fewer.events
    assert len(body) <= MAX_LEDGER_BYTES
    unnamed, body = encode_bounded(replace(big, vms=("v" * MAX_ID_CHARACTERS,) * 100))
    assert (unnamed.vms, unnamed.entries, unnamed.extra) == ((), big.entries, big.extra)
    assert len(body) <= MAX_LEDGER_BYTES
    with pytest.raises(ContractViolation, match="is not written"):
        encode_bounded(
            replace(
                big,
                entries=tuple(replace(e, vm=f"{e.vm}{n}") for n in range(9) for e in big.entries),
            )
        )


def test_a_ledger_of_ordinary_size_is_written_as_it_is() -> None:
    """The bounds change nothing for a set of 200 VMs."""
    ledger = Ledger(entries=tuple(entry(n) for n in range(200)), extra={"newer": 1})
    kept, body = encode_bounded(ledger)
    assert kept is ledger
    assert body == encode_ledger(ledger)


@pytest.mark.parametrize(
    "requests",
    [
        [request(1, "web-1", "\U0001f4a3" * 400_000)],
        [request(n, f"vm-{n:05d}" + "x" * 60) for n in range(9000)],
        [request(n, "web-1", "x" * 300) for n in range(9000)],
        [request(n, f"{n}" + "y" * 100_000) for n in range(30)],
    ],
    ids=["one long reason", "unknown VMs", "one VM", "long names"],
)
def test_requests_do_not_grow_the_ledger(requests: list[DrainRequest]) -> None:
    """K6: whatever the requests blob holds, the ledger stays small, and reports the excess."""
    scene = PlannerScenario()
    body = encode_requests(DrainRequests(requests=tuple(requests)))
    known = decode_requests(body).requests
    for _ in range(5):
        scene.adopt(requests=known)
    assert len(encode_ledger(scene.ledger)) < 50_000
    holds = {hold.subject for hold in scene.ledger.holds}
    assert ("drain requests" in holds) == (len({each.vm for each in known}) > 10)


def test_instants_of_the_future_are_clamped_in_the_ledger() -> None:
    """K6, S7: what a wrong clock recorded is corrected by the first pass, and kept that way."""
    later = at(3600)
    scene = PlannerScenario(now=10)
    scene.ledger = Ledger(
        leader_since=later,
        holds=(Hold(subject="s", reason="r", message="m", since=later),),
        entries=(entry(9, recorded_at=later, out_at=later),),
    )
    scene.adopt()
    assert scene.ledger.entries[0].recorded_at == at(10)
    scene.now = 20
    scene.adopt()
    assert scene.ledger.entries[0].recorded_at == at(10)


def test_a_tenure_does_not_begin_in_the_future() -> None:
    """K6: a leader whose clock was wrong waits for a minute, not for an hour."""
    scene = PlannerScenario(now=100, ledger=Ledger(leader_since=at(3600)))
    views = scene.evidence(tenure_at=at(30)).views
    assert views.conclusive_from("/pool", since=at(0)) == at(90)
    early = replace(scene.ledger, leader_since=at(10))
    scene.ledger = early
    assert scene.evidence(tenure_at=at(30)).views.conclusive_from("/pool", since=at(0)) == at(70)


TEXT = st.text(max_size=400) | st.text(min_size=900, max_size=1000)


@given(TEXT, TEXT, st.integers(min_value=0, max_value=10**18), st.integers(-9, 9))
def test_whatever_is_read_can_be_written_and_read_again(
    text: str, other: str, epoch: int, days: int
) -> None:
    """What an agent read from a blob is what it reads after it has written that."""
    since = T0 + timedelta(days=days)
    ledger = Ledger(
        epoch=epoch,
        leader=text[:50],
        entries=(
            entry(1, vm=other[:60], events=(EventReference(event_id=text, event_type=other),)),
        ),
        holds=(Hold(subject=text, reason=other, message=text, since=since),),
        transitions=(Transition(at=since, vm=text, step=other, detail=text),),
    )
    kept, body = encode_bounded(decode_ledger(encode_ledger(ledger)))
    assert decode_ledger(body) == kept == ledger
