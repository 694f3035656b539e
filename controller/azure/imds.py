"""The instance metadata service: who this VM is, and the scheduled events of its set.

No OpenAPI exists for scheduled events, so the parser takes every event field as optional, keeps
what it does not know, and refuses a document as a whole where guessing could hide an event:
"not in the document" is what a restore is decided on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import cast

import aiohttp

from controller.azure.departure import Fence, Send
from controller.azure.failures import Caller, Observer, cap, from_status, ignore
from controller.clock import Clock
from controller.core import strict_json
from controller.core.model import (
    EventDocument,
    EventSource,
    EventStatus,
    ScheduledEvent,
    fold,
)
from controller.errors import Conflict, ContractViolation

EVENTS_VERSION = "2020-07-01"
INSTANCE_VERSION = "2021-12-13"
MAX_BODY_BYTES = 1024 * 1024
MAX_TEXT_CHARACTERS = 1024
"""Of a name, an id or a date. They end up in the ledger and in logs."""
_HEADERS: Mapping[str, str] = MappingProxyType({"Metadata": "true"})
_TYPES = {
    name.casefold(): name for name in ("Freeze", "Reboot", "Redeploy", "Preempt", "Terminate")
}
_STATUSES = {status.value.casefold(): status for status in EventStatus}
_SOURCES = {source.value.casefold(): source for source in EventSource}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """This VM as the metadata service describes it."""

    name: str
    vm_id: str
    """ARM resource id."""
    subscription_id: str
    resource_group: str
    location: str
    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One good poll."""

    document: EventDocument
    date: datetime | None
    """The service's clock, from the `Date` header."""


class Imds:
    """Client of the link-local endpoint. The session must not use a proxy."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        endpoint: str,
        clock: Clock,
        first_timeout_s: float = 130,
        timeout_s: float = 5,
        observer: Observer = ignore,
    ) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._caller = Caller(service="imds", clock=clock, observer=observer)
        self._timeout_s = timeout_s
        # The first request of a VM switches the service on and may take two minutes (Microsoft
        # docs, Scheduled Events, enabling and disabling).
        self.poll_timeout_s = first_timeout_s

    async def instance(self) -> Instance:
        """Return who this VM is."""
        async with self._caller.call("instance", self._timeout_s):
            reply = await self._exchange("GET", "instance", INSTANCE_VERSION)
            return parse_instance(reply.good())

    async def poll(self) -> Poll:
        """Return the present event document; anything but a complete one is an error."""
        async with self._caller.call("poll", self.poll_timeout_s):
            reply = await self._exchange("GET", "scheduledevents", EVENTS_VERSION)
            document = parse_document(reply.good())
        self.poll_timeout_s = self._timeout_s
        return Poll(document=document, date=_parse_date(reply.headers.get("date", "")))

    async def acknowledge(self, event_ids: Iterable[str], fence: Fence) -> None:
        """Let events start now, if `fence` does when the request leaves. Repeating does no harm.

        What Azure answers for an id that has left the document is not documented; 400 and 404
        become `Conflict`, which is benign once the next poll shows that the id is gone.
        """
        body = {"StartRequests": [{"EventId": event_id} for event_id in event_ids]}
        async with self._caller.call("acknowledge", self._timeout_s):
            send = Send("POST", fence)
            reply = await self._exchange("POST", "scheduledevents", EVENTS_VERSION, body, send)
            if reply.status in {400, 404}:
                raise Conflict(f"imds acknowledge: {reply.status} {_excerpt(reply.body)}")
            reply.good()

    async def _exchange(
        self,
        method: str,
        path: str,
        version: str,
        body: object = None,
        send: Send | None = None,
    ) -> "_Reply":
        async with self._session.request(
            method,
            f"{self._endpoint}/metadata/{path}",
            params={"api-version": version},
            headers=_HEADERS,
            json=body,
            allow_redirects=False,
            trace_request_ctx=send,
        ) as response:
            return _Reply(
                what=f"imds {method} {path}",
                status=response.status,
                headers={key.casefold(): value for key, value in response.headers.items()},
                body=await _read_bounded(response),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    what: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def good(self) -> bytes:
        """Return the body of a 200, or raise what the reply stands for."""
        if self.status != 200:
            raise from_status(self.status, self.headers, self.body, self.what)
        return self.body


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise ContractViolation(f"imds: a reply of more than {MAX_BODY_BYTES} bytes")
    return bytes(content)


def parse_document(body: bytes) -> EventDocument:
    """Return the event document in `body`.

    Raises ContractViolation for everything that is not one, an empty body included: some VMs
    answer 200 with nothing, and that is no statement about events.
    """
    document = _object(_parse_json(body), "event document")
    incarnation = document.get("DocumentIncarnation")
    if incarnation is not None and (
        isinstance(incarnation, bool) or not isinstance(incarnation, int)
    ):
        raise ContractViolation(f"DocumentIncarnation is {_excerpt(incarnation)}, not an integer")
    events = document.get("Events")
    if not isinstance(events, list):
        raise ContractViolation(f"Events is {_excerpt(events)}, not a list")
    parsed = tuple(_parse_event(event) for event in cast("list[object]", events))
    if len({fold(event.event_id) for event in parsed}) < len(parsed):
        # An acknowledgement names an event by its id: it would release both of them (law S1).
        raise ContractViolation("two events have one EventId")
    return EventDocument(incarnation=incarnation, events=parsed)


def _parse_event(value: object) -> ScheduledEvent:
    event = _object(value, "event")
    event_id = _text(event, "EventId")
    if not event_id:
        raise ContractViolation(f"an event without EventId: {_excerpt(event)}")
    resources = event.get("Resources")
    if not isinstance(resources, list):
        raise ContractViolation(f"Resources of event {event_id} is {_excerpt(resources)}")
    names = cast("list[object]", resources)
    if not all(isinstance(name, str) and len(name) <= MAX_TEXT_CHARACTERS for name in names):
        raise ContractViolation(f"Resources of event {event_id} holds {_excerpt(names)}")
    event_type = _text(event, "EventType")
    return ScheduledEvent(
        event_id=event_id,
        event_type=_TYPES.get(event_type.casefold(), event_type),
        status=_STATUSES.get(_text(event, "EventStatus").casefold(), EventStatus.UNKNOWN),
        resources=tuple(cast("list[str]", names)),
        not_before=parse_not_before(_text(event, "NotBefore")),
        duration_s=_integer(event, "DurationInSeconds", default=-1),
        source=_SOURCES.get(_text(event, "EventSource").casefold(), EventSource.UNKNOWN),
    )


SANE_YEARS = range(2000, 9000)


def parse_not_before(text: str) -> datetime | None:
    """Return the instant that `text` names: RFC 1123 or ISO 8601; None when it names none.

    The weekday is not looked at: in Microsoft's own samples it does not match the date.
    """
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text.strip())
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
        # "0001-01-01" is how some clients of Azure write "not set".
        return moment if moment.year in SANE_YEARS else None
    return None


def parse_instance(body: bytes) -> Instance:
    """Return who the VM is, from the instance document."""
    compute = _object(_object(_parse_json(body), "instance document").get("compute"), "compute")
    name = _text(compute, "name")
    subscription_id = _text(compute, "subscriptionId")
    resource_group = _text(compute, "resourceGroupName")
    if not (name and subscription_id and resource_group):
        raise ContractViolation("the instance document lacks name, subscription or resource group")
    composed = (
        f"/subscriptions/{subscription_id}/resourceGroups/{resource_group}"
        f"/providers/Microsoft.Compute/virtualMachines/{name}"
    )
    return Instance(
        name=name,
        vm_id=_text(compute, "resourceId") or composed,
        subscription_id=subscription_id,
        resource_group=resource_group,
        location=_text(compute, "location"),
        environment=_text(compute, "azEnvironment"),
    )


def _parse_date(text: str) -> datetime | None:
    return parse_not_before(text) if text else None


def _parse_json(body: bytes) -> object:
    if not body.strip():
        raise ContractViolation("imds: 200 with an empty body")
    try:
        return strict_json.loads(body, "imds: the reply")
    except ContractViolation as error:
        raise ContractViolation(f"{error}: {_excerpt(body)}") from error


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ContractViolation(f"the {what} is {_excerpt(value)}, not an object")
    return cast("dict[str, object]", value)


def _text(fields: Mapping[str, object], key: str) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ContractViolation(f"{key} is {_excerpt(value)}, not text")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise ContractViolation(f"{key} has {len(value)} characters: {_excerpt(value)}")
    return value


def _integer(fields: Mapping[str, object], key: str, *, default: int) -> int:
    value = fields.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ContractViolation(f"{key} is {_excerpt(value)}, not an integer")
    return value


def _excerpt(value: object) -> str:
    """Return at most 120 characters of a value, for a message."""
    text = value[:2000].decode(errors="replace") if isinstance(value, bytes) else repr(value)
    return cap(text, 120)
