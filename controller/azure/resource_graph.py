"""Client of Azure Resource Graph: the scheduled events of one availability set (preview).

`POST {Resource Manager}/providers/Microsoft.ResourceGraph/resources`. It reads only, so it passes
no write guard. The quota is that of the principal: 15 queries in 5 s (Microsoft docs, Guidance for
throttled requests). For reading, Microsoft's page names the built-in role Scheduled Events
Contributor; its reads are those of the shipped roles.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from azure.core.rest import HttpRequest
from azure.mgmt.core import AsyncARMPipelineClient

from controller.azure.http.arm_client import READ_TIMEOUT_S, Arm
from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.error_mapping import from_status
from controller.azure.http.json_reader import Json, as_object
from controller.azure.http.resource_id import ResourceId
from controller.azure.resource_graph_rows import (
    PAGE_ROWS,
    Page,
    events_query,
    parse_page,
    parse_row,
    quota_wait_s,
)
from controller.clock import Clock
from controller.core import strict_json
from controller.core.azure_names import fold
from controller.core.second_source import MAX_ROWS, GraphEvent, GraphReply
from controller.errors import ContractViolation, Throttled

API_VERSION = "2021-03-01"
PATH = "/providers/Microsoft.ResourceGraph/resources"
MAX_PAGES = 10
MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_SET_ASIDE = 20
"""Of the rows that cannot be used, no more are described."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What one query returned."""

    reply: GraphReply
    wait_s: float | None
    """How long the next query has to wait for the quota, in seconds; None if it need not."""


class ResourceGraph:
    """Client of Resource Graph."""

    def __init__(self, arm: Arm, *, clock: Clock, observer: Observer = ignore_outcome) -> None:
        self._client: AsyncARMPipelineClient[Any, Any] = AsyncARMPipelineClient(
            arm.endpoint,
            policies=arm.policies(),
            transport=arm.transport(),
        )
        self._url = arm.endpoint.rstrip("/") + PATH
        self._caller = Caller(service="resource_graph", clock=clock, observer=observer)

    async def scheduled_events(
        self, set_id: str, vm_ids: Iterable[str], event_ids: Iterable[str]
    ) -> QueryResult:
        """Return the events of a set that are not over, and how the named ones ended.

        A reply counts as a whole: if a page of it cannot be read, nothing of it is used.

        Args:
            set_id: the set.
            vm_ids: its VMs.
            event_ids: events whose end is asked for.

        Raises:
            ControllerError: there is no answer that can be used.
        """
        targets = (*vm_ids, set_id)
        query = events_query(targets, event_ids)
        body: Json = {
            "subscriptions": [ResourceId.parse(set_id).subscription],
            "query": query,
            "options": {"resultFormat": "objectArray", "$top": PAGE_ROWS},
        }
        known = {fold(each) for each in targets}
        rows: list[GraphEvent] = []
        aside: list[str] = []
        tokens: set[str] = set()
        async with self._caller.call("query", READ_TIMEOUT_S):
            while True:
                page, wait_s = await self._page(body)
                for row in page.rows:
                    match parse_row(row, known):
                        case GraphEvent() as event:
                            rows.append(event)
                        case problem:
                            aside.append(problem)
                if not page.skip_token:
                    break
                self._check_next(page.skip_token, tokens, len(rows), wait_s)
                tokens.add(page.skip_token)
                body["options"]["$skipToken"] = page.skip_token
        reply = GraphReply(rows=tuple(rows), set_aside=tuple(aside[:MAX_SET_ASIDE]))
        return QueryResult(reply, wait_s)

    def _check_next(self, token: str, seen: set[str], rows: int, wait_s: float | None) -> None:
        """Raise if another page must not be asked for."""
        name = self._caller.name_of("query")
        if token in seen or len(seen) + 1 >= MAX_PAGES or rows > MAX_ROWS:
            problem = "refers to a page that was read" if token in seen else "does not end"
            raise ContractViolation(f"{name}: the reply {problem}")
        if wait_s is not None:
            message = f"{name}: the quota of this identity is used up"
            raise Throttled(message, retry_after_s=wait_s)

    async def _page(self, body: Json) -> tuple[Page, float | None]:
        name = self._caller.name_of("query")
        request = HttpRequest(
            "POST",
            self._url,
            params={"api-version": API_VERSION},
            headers={"Content-Type": "application/json"},
            content=json.dumps(body).encode("ascii"),
        )
        response = await self._client.send_request(request, stream=True)
        async with response:
            content = await _read_bounded(response, name)
        headers: Mapping[str, str] = {
            key.casefold(): value for key, value in response.headers.items()
        }
        if response.status_code != 200:
            raise from_status(response.status_code, headers, content, name)
        found = as_object(strict_json.loads(content, name), name)
        return parse_page(found), quota_wait_s(headers)


async def _read_bounded(response: Any, name: str) -> bytes:
    content = bytearray()
    async with aclosing(response.iter_bytes()) as chunks:
        async for chunk in chunks:
            content += chunk
            if len(content) > MAX_PAGE_BYTES:
                raise ContractViolation(f"{name}: a page of more than {MAX_PAGE_BYTES} bytes")
    return bytes(content)
