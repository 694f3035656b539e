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
from controller.azure.imds import Imds
from controller.azure.imds_document import (
    MAX_SET_ASIDE,
    parse_document,
    parse_instance,
    parse_instant,
)
from controller.clock import SystemClock
from controller.core.events import EventSource, EventStatus
from tests.support.write_guards import OPEN_GUARD

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
    """Every field of Microsoft's sample is parsed."""
    parsed = parse_document(document(EVENT))
    (found,) = parsed.events
    assert parsed.incarnation == 5
    assert found.event_id == EVENT["EventId"]
    assert (found.event_type, found.status) == ("Freeze", EventStatus.SCHEDULED)
    assert found.resources == ("web-1", "web-2")
    assert found.not_before == MOMENT
    assert (found.duration_s, found.source) == (9, EventSource.PLATFORM)


def test_old_versions_leave_fields_out() -> None:
    """An event with only an id and resources is an event."""
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
        ({"DurationInSeconds": 9.0}, "duration_s", 9),
        ({"DurationInSeconds": 4.5}, "duration_s", 5),
        ({"DurationInSeconds": "9"}, "duration_s", 9),
        ({"DurationInSeconds": "-1"}, "duration_s", -1),
        ({"DurationInSeconds": "inf"}, "duration_s", -1),
        ({"DurationInSeconds": "nan"}, "duration_s", -1),
        ({"DurationInSeconds": -2}, "duration_s", -1),
        ({"DurationInSeconds": -0.5}, "duration_s", -1),
        ({"DurationInSeconds": 10**400}, "duration_s", -1),
        ({"DurationInSeconds": "soon"}, "duration_s", -1),
        ({"DurationInSeconds": "9" * 5000}, "duration_s", -1),
        ({"DurationInSeconds": True}, "duration_s", -1),
        ({"DurationInSeconds": [9]}, "duration_s", -1),
        ({"EventSource": 1}, "source", EventSource.UNKNOWN),
        ({"EventSource": ...}, "source", EventSource.UNKNOWN),
        ({"EventSource": "U" * 2000}, "source", EventSource.UNKNOWN),
        ({"EventStatus": ["Started"]}, "status", EventStatus.UNKNOWN),
        ({"NotBefore": 5}, "not_before", None),
        ({"NotBefore": ""}, "not_before", None),
        ({"NotBefore": "soon"}, "not_before", None),
        ({"Surprise": {"x": 1}}, "event_type", "Freeze"),
        ({"Resources": []}, "resources", ()),
    ],
)
def test_unusual_spellings_and_values(
    changes: dict[str, object], attribute: str, expected: object
) -> None:
    """Known words are recognised in any case, and unknown words are kept or marked."""
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
    assert parse_instant(text) == MOMENT


@given(st.text())
def test_not_before_never_raises(text: str) -> None:
    """The parser accepts any text, and an instant that it returns has a time zone."""
    moment = parse_instant(text)
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
        b"[" * 200_000,
        b'{"DocumentIncarnation":1,"Events":[]',
        document(EVENT)[:-1] + b', "Events": []}',
        document(EVENT).replace(b'"Resources"', b'"Resources": ["web-3"], "Resources"'),
        document(event(Resources=["web-\ud800"])),
    ],
)
def test_a_body_without_a_list_of_events_is_refused(body: bytes) -> None:
    """A body without a list of events, or an empty body, never means "no event" (S6)."""
    with pytest.raises(errors.ContractViolation) as caught:
        parse_document(body)
    assert len(str(caught.value)) < 500


OTHER = event(EventId="other", EventType="Reboot", Resources=["web-9"])


@pytest.mark.parametrize(
    ("entry", "event_id", "vms"),
    [
        (1, "", ()),
        (None, "", ()),
        (event(EventId=...), "", ("web-1", "web-2")),
        (event(EventId=""), "", ("web-1", "web-2")),
        (event(EventId=5), "", ("web-1", "web-2")),
        (event(EventId="E" * 2000), "", ("web-1", "web-2")),
        (event(EventType=["Reboot"]), EVENT["EventId"], ("web-1", "web-2")),
        (event(Resources=...), EVENT["EventId"], ()),
        (event(Resources=None), EVENT["EventId"], ()),
        (event(Resources="web-1"), EVENT["EventId"], ()),
        (event(Resources=["web-1", None]), EVENT["EventId"], ("web-1",)),
        (event(Resources=["web-1", "x" * 2000]), EVENT["EventId"], ("web-1",)),
    ],
)
def test_an_entry_that_is_not_an_event_is_set_aside(
    entry: object, event_id: str, vms: tuple[str, ...]
) -> None:
    """An entry without readable id, type or resources hides no other event, and is reported."""
    parsed = parse_document(document(entry, OTHER))
    assert [each.event_id for each in parsed.events] == ["other"]
    assert parsed.events[0].acknowledgeable
    (aside,) = parsed.set_aside
    assert (aside.event_id, aside.vms) == (event_id, vms)
    assert 0 < len(aside.problem) < 500


def test_the_same_event_twice_is_one() -> None:
    """An entry that repeats another one, or differs only in spelling, adds nothing."""
    parsed = parse_document(document(EVENT, EVENT, event(DurationInSeconds="9"), 1, 1))
    assert [each.event_id for each in parsed.events] == [EVENT["EventId"]]
    assert parsed.events[0].acknowledgeable
    assert len(parsed.set_aside) == 1


def test_two_events_with_one_id_are_never_acknowledged() -> None:
    """Different events with one id are both acted on; acknowledging would release both (S1)."""
    other = event(EventId=EVENT["EventId"].lower(), Resources=["web-3"])
    parsed = parse_document(document(EVENT, other, OTHER))
    assert [each.acknowledgeable for each in parsed.events] == [False, False, True]
    (aside,) = parsed.set_aside
    assert aside.vms == ("web-1", "web-2", "web-3")


def test_an_event_with_the_id_of_a_set_aside_entry_is_never_acknowledged() -> None:
    """The id of an entry that is set aside is not acknowledged through another event (S1)."""
    parsed = parse_document(document(EVENT, event(Resources=None), OTHER))
    assert [each.acknowledgeable for each in parsed.events] == [False, True]


@pytest.mark.parametrize("incarnation", ["5", True, 5.5, None])
def test_an_invalid_incarnation_hides_no_event(incarnation: object) -> None:
    """No decision uses the incarnation: one that is not an integer is unknown."""
    parsed = parse_document(document(EVENT, incarnation=incarnation))
    assert parsed.incarnation is None
    assert len(parsed.events) == 1
    assert not parsed.set_aside


@given(st.binary(max_size=200))
def test_bytes_are_a_document_or_a_violation(body: bytes) -> None:
    """The parser returns a document or raises ContractViolation for any bytes."""
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
def test_any_json_in_any_field_is_an_event_or_set_aside(changes: dict[str, object]) -> None:
    """With any value in a known field, id and resources are never invented or lost."""
    try:
        parsed = parse_document(document(event(**changes)))
    except errors.ContractViolation:
        return
    assert len(parsed.events) + len(parsed.set_aside) == 1
    for found in parsed.events:
        assert found.event_id == (EVENT | changes)["EventId"]
        assert list(found.resources) == (EVENT | changes)["Resources"]


def test_instance_id_is_composed_when_missing() -> None:
    """Without resourceId the ARM id is composed of its parts."""
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
    """A poll sends `Metadata: true` and returns the date of the service."""
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


async def test_the_long_deadline_ends_with_the_first_success(imds: Imds, wire: Wire) -> None:
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
    """400 and 404 can mean that the event is gone; the next poll decides."""
    wire.answer("POST", status=status)
    with pytest.raises(expected):
        await imds.acknowledge(["a"], OPEN_GUARD)


async def test_acknowledgement_has_the_documented_body(imds: Imds, wire: Wire) -> None:
    """Several ids are sent in one StartRequests list, as JSON; an empty reply is valid."""
    wire.answer("POST", status=200, body=b"")
    await imds.acknowledge(["a", "b"], OPEN_GUARD)
    assert wire.only_call()["json"] == {"StartRequests": [{"EventId": "a"}, {"EventId": "b"}]}


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_an_instant_that_means_unset_is_none(text: str) -> None:
    """A NotBefore at the limits of the calendar is ignored; arithmetic on it would crash agents."""
    assert parse_instant(text) is None


def test_a_document_full_of_nonsense_is_read_at_once() -> None:
    """H1: tens of thousands of entries that are no events neither stall nor fill the agent."""
    known = event(EventId="known")
    odd = [{"EventId": str(number)} for number in range(10_000)]
    parsed = parse_document(document(known, *range(20_000), *odd))
    assert [each.event_id for each in parsed.events] == ["known"]
    assert len(parsed.set_aside) == MAX_SET_ASIDE + 1
    assert parsed.set_aside[-1].event_id == ""


def test_names_of_entries_that_are_not_described_are_kept() -> None:
    """S6: a VM in an event that cannot be read is not restored, however many there are."""
    odd = [{"EventType": n, "Resources": [f"web-{n}"]} for n in range(200)]
    parsed = parse_document(document(*odd))
    assert {vm for each in parsed.set_aside for vm in each.vms} == {f"web-{n}" for n in range(200)}
