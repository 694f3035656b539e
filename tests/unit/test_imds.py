"""The event document's parser and the client's behaviour at the edges of the contract."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from inspect import signature
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses
from hypothesis import given
from hypothesis import strategies as st

from controller import errors
from controller.azure.imds import (
    Imds,
    parse_document,
    parse_instance,
    parse_not_before,
)
from controller.clock import SystemClock
from controller.core.model import EventSource, EventStatus

ENDPOINT = "http://127.0.0.1:1"
EVENTS = f"{ENDPOINT}/metadata/scheduledevents?api-version=2020-07-01"
MOMENT = datetime(2016, 9, 19, 18, 29, 47, tzinfo=UTC)
# Microsoft docs, Scheduled Events.
EVENT: dict[str, Any] = {
    "EventId": "C7061BAC-AFDC-4513-B24B-AA5F13A16123",
    "EventStatus": "Scheduled",
    "EventType": "Freeze",
    "ResourceType": "VirtualMachine",
    "Resources": ["web-1", "web-2"],
    "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT",
    "Description": "Host server is undergoing maintenance.",
    "EventSource": "Platform",
    "DurationInSeconds": 9,
}


def document(*events: object, incarnation: object = 5) -> bytes:
    return json.dumps({"DocumentIncarnation": incarnation, "Events": list(events)}).encode()


def event(**changes: object) -> dict[str, Any]:
    """Return the sample event with changes; a key that is set to `...` is left out."""
    return {key: value for key, value in (EVENT | changes).items() if value is not ...}


# --- parser -------------------------------------------------------------------------------------


def test_the_documented_event_is_read_in_full() -> None:
    """Every field of Microsoft's sample arrives."""
    parsed = parse_document(document(EVENT))
    (found,) = parsed.events
    assert parsed.incarnation == 5
    assert found.event_id == EVENT["EventId"]
    assert (found.event_type, found.status) == ("Freeze", EventStatus.SCHEDULED)
    assert found.resources == ("web-1", "web-2")
    assert found.not_before == MOMENT
    assert (found.duration_s, found.source) == (9, EventSource.PLATFORM)


def test_old_versions_leave_fields_out() -> None:
    """An event with nothing but its id and resources is an event all the same."""
    (found,) = parse_document(document({"EventId": "a", "Resources": ["web-1"]})).events
    assert (found.status, found.source) == (EventStatus.UNKNOWN, EventSource.UNKNOWN)
    assert (found.not_before, found.duration_s, found.event_type) == (None, -1, "")


@pytest.mark.parametrize(
    ("changes", "attribute", "expected"),
    [
        ({"EventType": "REBOOT"}, "event_type", "Reboot"),
        ({"EventType": "Defrost"}, "event_type", "Defrost"),
        ({"EventStatus": "started"}, "status", EventStatus.STARTED),
        ({"EventStatus": "Completed"}, "status", EventStatus.UNKNOWN),
        ({"EventSource": "user"}, "source", EventSource.USER),
        ({"EventSource": "Alien"}, "source", EventSource.UNKNOWN),
        ({"DurationInSeconds": None}, "duration_s", -1),
        ({"NotBefore": ""}, "not_before", None),
        ({"NotBefore": "soon"}, "not_before", None),
        ({"Surprise": {"x": 1}}, "event_type", "Freeze"),
        ({"Resources": []}, "resources", ()),
    ],
)
def test_spellings_and_surprises(
    changes: dict[str, object], attribute: str, expected: object
) -> None:
    """Known words are recognised in any case, unknown ones kept or marked, and none is fatal."""
    (found,) = parse_document(document(event(**changes))).events
    assert getattr(found, attribute) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 19 Sep 2016 18:29:47 GMT",
        "Fri, 19 Sep 2016 18:29:47 GMT",
        "19 Sep 2016 18:29:47 GMT",
        "2016-09-19T18:29:47Z",
        "2016-09-19T18:29:47",
        "2016-09-19T18:29:47.000000Z",
        "2016-09-19T18:29:47.0000000Z",
        "2016-09-19 20:29:47+02:00",
        " 2016-09-19T18:29:47Z ",
    ],
)
def test_not_before_in_every_known_spelling(text: str) -> None:
    """RFC 1123 with any weekday and ISO 8601 with or without zone and fraction mean the same."""
    assert parse_not_before(text) == MOMENT


@given(st.text())
def test_not_before_never_raises(text: str) -> None:
    """No text whatever breaks the parser, and what it returns is aware."""
    moment = parse_not_before(text)
    assert moment is None or moment.tzinfo is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \r\n",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"<html>",
        b"\xff\xfe\x00",
        b'{"DocumentIncarnation":1}',
        b'{"DocumentIncarnation":1,"Events":null}',
        b'{"DocumentIncarnation":1,"Events":{}}',
        b'{"Events":[1]}',
        b"[" * 200_000,
        b'{"DocumentIncarnation":1,"Events":[]',
        document(incarnation="5"),
        document(incarnation=True),
        document(event(EventId=...)),
        document(event(EventId="")),
        document(event(EventId=5)),
        document(event(Resources=...)),
        document(event(Resources="web-1")),
        document(event(Resources=["web-1", None])),
        document(event(DurationInSeconds="9")),
        document(event(DurationInSeconds=True)),
        document(event(NotBefore=5)),
        document(event(EventStatus=["Started"])),
        document(EVENT, event(EventId=...)),
        document(EVENT, event(EventId=EVENT["EventId"].lower(), Resources=["web-3"])),
        document(event(EventId="E" * 2000)),
        document(event(Resources=["web-1", "x" * 2000])),
        document(EVENT)[:-1] + b', "Events": []}',
        document(EVENT).replace(b'"Resources"', b'"Resources": ["web-3"], "Resources"'),
        document(event(Resources=["web-\ud800"])),
    ],
)
def test_what_is_no_document_is_refused_as_a_whole(body: bytes) -> None:
    """One unreadable event, or nothing at all, must not pass for "no event" (S6)."""
    with pytest.raises(errors.ContractViolation) as caught:
        parse_document(body)
    assert len(str(caught.value)) < 500


@given(st.binary(max_size=200))
def test_bytes_are_a_document_or_a_violation(body: bytes) -> None:
    """No bytes whatever raise anything else."""
    with suppress(errors.ContractViolation):
        parse_document(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(EVENT)), json_values))
def test_any_json_in_any_field_is_an_event_or_a_violation(changes: dict[str, object]) -> None:
    """Whatever stands in a known field, the id and resources are never made up."""
    try:
        (found,) = parse_document(document(event(**changes))).events
    except errors.ContractViolation:
        return
    assert found.event_id == (EVENT | changes)["EventId"]
    assert list(found.resources) == (EVENT | changes)["Resources"]


def test_instance_id_is_composed_when_missing() -> None:
    """A metadata service without resourceId still tells the ARM id."""
    compute = {"name": "web-1", "subscriptionId": "s", "resourceGroupName": "g", "resourceId": ""}
    found = parse_instance(json.dumps({"compute": compute}).encode())
    assert found.vm_id == (
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web-1"
    )


# --- client -------------------------------------------------------------------------------------


class Reply(aiohttp.ClientResponse):
    """A response as aioresponses builds it, for aiohttp versions that ask for one thing more."""

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        if "stream_writer" in signature(aiohttp.ClientResponse.__init__).parameters:
            keywords.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*positional, **keywords)


class Wire:
    """What the metadata service answers."""

    def __init__(self, mock: aioresponses) -> None:
        self._mock = mock

    def answer(self, method: str, **reply: Any) -> None:
        self._mock.add(EVENTS, method, response_class=Reply, **reply)

    def only_call(self) -> Any:
        ((call,),) = self._mock.requests.values()
        return call.kwargs


@pytest.fixture
def wire() -> Iterator[Wire]:
    with aioresponses() as mock:
        yield Wire(mock)


@pytest.fixture
async def imds() -> AsyncIterator[Imds]:
    async with aiohttp.ClientSession() as session:
        yield Imds(session, endpoint=ENDPOINT, clock=SystemClock(), timeout_s=1, first_timeout_s=2)


async def test_poll_sends_the_header_and_returns_the_clock(imds: Imds, wire: Wire) -> None:
    """A poll carries `Metadata: true` and brings the service's date."""
    wire.answer("GET", body=document(EVENT), headers={"Date": "Mon, 19 Sep 2016 18:29:47 GMT"})
    poll = await imds.poll()
    assert wire.only_call()["headers"]["Metadata"] == "true"
    assert poll.date == MOMENT


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"body": b""}, errors.ContractViolation),
        ({"status": 400, "body": b'{"error":"Bad request"}'}, errors.ContractViolation),
        ({"status": 404}, errors.NotFound),
        ({"status": 410}, errors.ServiceFault),
        ({"status": 429}, errors.Throttled),
        ({"status": 500}, errors.ServiceFault),
        ({"status": 302}, errors.ContractViolation),
        ({"exception": aiohttp.ServerDisconnectedError()}, errors.OutcomeUnknown),
        ({"exception": TimeoutError()}, errors.OutcomeUnknown),
    ],
)
async def test_failed_polls(
    imds: Imds, wire: Wire, reply: dict[str, Any], expected: type[Exception]
) -> None:
    """A poll is a complete document or an error, never an empty list of events (S6)."""
    wire.answer("GET", **reply)
    with pytest.raises(expected):
        await imds.poll()


async def test_patience_ends_with_the_first_success(imds: Imds, wire: Wire) -> None:
    """The long deadline of the first poll lasts until one has succeeded, and no longer."""
    wire.answer("GET", status=500)
    wire.answer("GET", body=document())
    with pytest.raises(errors.ServiceFault):
        await imds.poll()
    assert imds.poll_timeout_s == 2
    await imds.poll()
    assert imds.poll_timeout_s == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.Conflict),
        (404, errors.Conflict),
        (429, errors.Throttled),
        (500, errors.ServiceFault),
    ],
)
async def test_refused_acknowledgements(
    imds: Imds, wire: Wire, status: int, expected: type[Exception]
) -> None:
    """400 and 404 may mean that the event is gone; the next poll decides."""
    wire.answer("POST", status=status)
    with pytest.raises(expected):
        await imds.acknowledge(["a"], lambda: None)


async def test_acknowledgement_has_the_documented_body(imds: Imds, wire: Wire) -> None:
    """Several ids go in one StartRequests list, as JSON; an empty answer is a good one."""
    wire.answer("POST", status=200, body=b"")
    await imds.acknowledge(["a", "b"], lambda: None)
    assert wire.only_call()["json"] == {"StartRequests": [{"EventId": "a"}, {"EventId": "b"}]}


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_an_instant_that_means_unset_is_none(text: str) -> None:
    """A NotBefore at the edge of the calendar is none; arithmetic on it would end every agent."""
    assert parse_not_before(text) is None
