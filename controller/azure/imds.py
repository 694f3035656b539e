"""Client of the instance metadata service (IMDS): this VM, and the scheduled events of its set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import aiohttp

from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.error_mapping import from_status
from controller.azure.http.write_guard import GuardedWrite, WriteGuard
from controller.azure.imds_document import (
    Instance,
    parse_document,
    parse_instance,
    parse_instant,
    value_excerpt,
)
from controller.clock import Clock
from controller.core.events import EventDocument
from controller.errors import Conflict, ContractViolation

EVENTS_VERSION = "2020-07-01"
INSTANCE_VERSION = "2021-12-13"
MAX_BODY_BYTES = 1024 * 1024
_HEADERS: Mapping[str, str] = MappingProxyType({"Metadata": "true"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """A poll that succeeded."""

    document: EventDocument
    date: datetime | None
    """The time of the service, from the `Date` header."""


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
        observer: Observer = ignore_outcome,
    ) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._caller = Caller(service="imds", clock=clock, observer=observer)
        self._timeout_s = timeout_s
        # The first request of a VM enables the service and can take two minutes (Microsoft docs,
        # Scheduled Events, enabling and disabling).
        self.poll_timeout_s = first_timeout_s

    async def instance(self) -> Instance:
        """Return name and id of this VM."""
        async with self._caller.call("instance", self._timeout_s):
            reply = await self._exchange("instance", "instance", INSTANCE_VERSION)
            return parse_instance(reply.body_if_ok())

    async def poll(self) -> Poll:
        """Return the current event document. An incomplete document is an error."""
        async with self._caller.call("poll", self.poll_timeout_s):
            reply = await self._exchange("poll", "scheduledevents", EVENTS_VERSION)
            document = parse_document(reply.body_if_ok())
        self.poll_timeout_s = self._timeout_s
        return Poll(document=document, date=parse_instant(reply.headers.get("date", "")))

    async def acknowledge(self, event_ids: Iterable[str], guard: WriteGuard) -> None:
        """Approve events, so that Azure starts them now. Repeating it does no harm.

        `guard` is checked right before the request is sent. The reply for an id that is no longer
        in the document is not documented; 400 and 404 become `Conflict`, which is harmless if the
        next poll shows that the id is gone.
        """
        body = {"StartRequests": [{"EventId": event_id} for event_id in event_ids]}
        async with self._caller.call("acknowledge", self._timeout_s):
            write = GuardedWrite("POST", guard)
            reply = await self._exchange(
                "acknowledge", "scheduledevents", EVENTS_VERSION, body=body, write=write
            )
            if reply.status in {400, 404}:
                raise Conflict(f"event approval: {reply.status} {value_excerpt(reply.body)}")
            reply.body_if_ok()

    async def _exchange(
        self,
        operation: str,
        path: str,
        version: str,
        *,
        body: object = None,
        write: GuardedWrite | None = None,
    ) -> "_Reply":
        async with self._session.request(
            "GET" if body is None else "POST",
            f"{self._endpoint}/metadata/{path}",
            params={"api-version": version},
            headers=_HEADERS,
            json=body,
            allow_redirects=False,
            trace_request_ctx=write,
        ) as response:
            return _Reply(
                what=self._caller.name_of(operation),
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

    def body_if_ok(self) -> bytes:
        """Return the body of a reply with status 200, or raise the error of any other."""
        if self.status != 200:
            raise from_status(self.status, self.headers, self.body, self.what)
        return self.body


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise ContractViolation(f"IMDS: a reply of more than {MAX_BODY_BYTES} bytes")
    return bytes(content)
