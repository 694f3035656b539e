"""Client that acknowledges a scheduled event through Resource Manager (preview).

`POST {VM or set}/providers/Microsoft.Maintenance/scheduledevents/{id}/acknowledge`, api-version
2023-10-01-preview, answers 200 with `{"value": "Successfully approved scheduled event"}` and
approves the event for all its resources, as the metadata service does (Microsoft OpenAPI,
ScheduledEvents_Acknowledge; Microsoft docs, Scheduled Events in Azure Resource Graph, 05/01/2026).
It needs `Microsoft.Maintenance/scheduledevents/acknowledge/action`, which the built-in role
Scheduled Events Contributor has too. Not documented: the reply for an event that is not there any
more, and whether an event of a set is known under the set, under its VMs, or both.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote

from azure.core.rest import HttpRequest
from azure.mgmt.core import AsyncARMPipelineClient

from controller.azure.http.arm_client import READ_TIMEOUT_S, Arm
from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.error_mapping import from_status
from controller.azure.http.resource_id import ResourceId
from controller.azure.http.write_guard import WriteGuard
from controller.clock import Clock
from controller.errors import Conflict, NotFound

API_VERSION = "2023-10-01-preview"
NO_EVENT = "00000000-0000-0000-0000-000000000000"
"""The id of an event that does not exist."""


class EventAcknowledgement:
    """Client of the acknowledgement of Microsoft.Maintenance."""

    def __init__(self, arm: Arm, *, clock: Clock, observer: Observer = ignore_outcome) -> None:
        self._client: AsyncARMPipelineClient[Any, Any] = AsyncARMPipelineClient(
            arm.endpoint,
            policies=arm.policies(),
            transport=arm.transport(),
        )
        self._endpoint = arm.endpoint.rstrip("/")
        self._caller = Caller(service="maintenance", clock=clock, observer=observer)

    async def acknowledge(
        self, event_id: str, targets: Iterable[str], guard: WriteGuard | None
    ) -> None:
        """Approve an event, so that Azure starts it now. Repeating it does no harm.

        Args:
            event_id: the event.
            targets: ids of the set and of VMs of the event: the first that knows it is used.
            guard: checked right before each request is sent; None to probe the permission.

        Raises:
            Conflict: no target knows the event; harmless if the next poll shows that it is gone.
            ControllerError: it was not accepted.
        """
        for target in targets:
            ResourceId.parse(target)
            try:
                await self._post(target, event_id, guard)
            except NotFound:
                continue
            return
        name = self._caller.name_of("acknowledge")
        raise Conflict(f"{name}: 404, neither the set nor its VMs have event {event_id}")

    async def may_acknowledge(self, set_id: str) -> None:
        """Probe the permission with the id of an event that does not exist.

        Raises:
            Denied: it is missing; names it.
        """
        try:
            await self.acknowledge(NO_EVENT, (set_id,), None)
        except Conflict:
            return

    async def _post(self, target: str, event_id: str, guard: WriteGuard | None) -> None:
        event = f"providers/Microsoft.Maintenance/scheduledevents/{quote(event_id, safe='')}"
        url = f"{self._endpoint}{target.rstrip('/')}/{event}/acknowledge"
        name = self._caller.name_of("acknowledge")
        request = HttpRequest("POST", url, params={"api-version": API_VERSION})
        async with self._caller.call("acknowledge", READ_TIMEOUT_S):
            response = await self._client.send_request(request, guard=guard)
            if response.status_code not in {200, 202, 204}:
                headers: Mapping[str, str] = {
                    key.casefold(): value for key, value in response.headers.items()
                }
                body = cast("bytes", response.content)
                raise from_status(response.status_code, headers, body, name)
