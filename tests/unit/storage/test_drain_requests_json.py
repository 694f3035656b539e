"""Drain requests as their blob stores them."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.drain_requests import (
    DrainRequest,
    DrainRequests,
    RehearsedEvent,
    RollingRun,
)
from controller.errors import ContractViolation
from controller.storage.drain_requests_json import decode_requests, encode_requests

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)


def request(vm: str = "web-1") -> DrainRequest:
    """Return a drain request that has not ended."""
    return DrainRequest(
        request_id="R-1",
        vm=vm,
        reason="patching",
        by="ann",
        at=T0,
        until=T0 + timedelta(seconds=1800),
    )


def withdrawn(vm: str) -> DrainRequest:
    """Return a drain request that was withdrawn."""
    return replace(request(vm), ended_at=T0 + timedelta(seconds=60), ended_by="ben")


def test_round_trip() -> None:
    """What is written is what is read, fields of a newer minor version included."""
    roll = RollingRun(
        run_id="L-1",
        what="reboot",
        vms=("web-1", "web-2"),
        done=("web-1",),
        by="ann",
        at=T0,
        process_id="a process",
        heartbeat=3,
        extra={"newer": 1},
    )
    newer = replace(withdrawn("web-2"), reason="half a pair: \ud800", extra={"new": 0})
    event = RehearsedEvent(event_id="test-1", event_type="Freeze", not_before=T0)
    shown = replace(request(), event=event)
    requests = DrainRequests(
        requests=(request(), newer, shown), roll=roll, minor=7, extra={"newest": [1]}
    )
    assert decode_requests(encode_requests(requests)) == requests
    assert (
        decode_requests(b"") == decode_requests(encode_requests(DrainRequests())) == DrainRequests()
    )
    assert requests.roll is not None
    assert requests.roll.remaining == ("web-2",)


def test_an_operator_can_read_the_blob() -> None:
    """The blob has one line for each field, the version first."""
    assert (
        encode_requests(DrainRequests())
        == b'{\n "version": "1.2",\n "requests": [],\n "roll": null\n}'
    )


def test_a_forced_request_is_an_ordinary_one_to_an_older_agent() -> None:
    """Only a forced request has the key, so an agent that does not know it drains as always."""
    plain = json.loads(encode_requests(DrainRequests(requests=(request(),))))
    forced = DrainRequests(requests=(replace(request(), forced=True),))
    written = json.loads(encode_requests(forced))
    assert decode_requests(encode_requests(forced)) == forced
    assert written["requests"][0].pop("forced") is True
    assert written == plain


@pytest.mark.parametrize("value", ["1", '"yes"', "null", "[]"])
def test_a_forced_request_is_forced_by_true_alone(value: str) -> None:
    """Anything else is refused: it must not suspend the floor by accident."""
    body = encode_requests(DrainRequests(requests=(replace(request(), forced=True),)))
    with pytest.raises(ContractViolation, match=r"requests.requests\[0\].forced: expected true"):
        decode_requests(body.replace(b"true", value.encode()))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the requests"),
        (b"[]", "requests: expected an object, found a list"),
        (b'{"version": "2.0"}', "the requests blob has version 2.0"),
        (b'{"version": "1.0", "requests": [{"request_id": 1}]}', "requests.requests[0].request_id"),
        (b'{"version": "1.0", "requests": [], "roll": []}', "requests.roll"),
        (
            b'{"version": "1.0", "requests": [], "roll": {"roll_id": "", "what": "", "vms": [1]}}',
            "requests.roll.vms[0]: expected text, found a number",
        ),
    ],
)
def test_content_that_is_no_requests(body: bytes, message: str) -> None:
    """The message names the place of the error."""
    with pytest.raises(ContractViolation) as caught:
        decode_requests(body)
    assert message in str(caught.value)
