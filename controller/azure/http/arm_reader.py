"""The client for reads of Resource Manager: one resource, or a list page by page.

Reads need no models, so they do without the management SDKs and their 20 to 40 MB. The SDKs would
also read a page without `value` as an empty page.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from azure.core.rest import HttpRequest
from azure.mgmt.core import AsyncARMPipelineClient

from controller.azure.http.arm_client import READ_TIMEOUT_S, Arm
from controller.azure.http.call import Caller
from controller.azure.http.error_mapping import from_status
from controller.azure.http.json_reader import Json, as_object, json_of, text
from controller.errors import (
    ContractViolation,
    ControllerError,
    InvariantViolation,
    OutcomeUnknown,
    VersionRefused,
)

MAX_PAGES = 200
LIST_TIMEOUT_S = 60.0
"""Deadline of all pages of a list."""
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The part of a list that was read."""

    entries: tuple[Json, ...]
    pages: int
    """How many pages were read."""
    complete: bool
    """Whether the list has no more pages."""
    problem: ControllerError | None = None
    """Why the next page could not be read; None if it was not asked for."""


Enough = Callable[[tuple[Json, ...], int], bool]
"""Returns whether these entries, read from so many pages, make the next page unnecessary."""


def read_all(_entries: tuple[Json, ...], _pages: int) -> bool:
    """Read every page."""
    return False


class ArmReader:
    """GETs on the same pipeline as the SDK clients.

    Args:
        arm: endpoint, identity and session.
        caller: runs the requests; it must have an api-version.
    """

    def __init__(self, arm: Arm, caller: Caller) -> None:
        if caller.version is None:
            raise InvariantViolation("a reader of Resource Manager has no api-version")
        self._client: AsyncARMPipelineClient[Any, Any] = AsyncARMPipelineClient(
            arm.endpoint,
            policies=arm.policies(),
            transport=arm.transport(),
        )
        self._endpoint = arm.endpoint.rstrip("/")
        self._caller, self._version = caller, caller.version

    async def get(self, operation: str, path: str, params: Mapping[str, str] = NOTHING) -> Json:
        """Return the body of one resource, or the first page of a list.

        If Azure refuses the api-version and another one can be used, the GET is sent once more.
        """
        refused = self._version.value
        try:
            return await self._get(operation, path, params)
        except VersionRefused:
            if self._version.value == refused:
                raise
            return await self._get(operation, path, params)

    async def entries(self, operation: str, path: str) -> tuple[Json, ...]:
        """Return the entries of all pages of a list.

        Raises:
            ControllerError: a page could not be read.
        """
        listing = await self.listing(operation, path)
        if listing.problem is not None:
            raise listing.problem
        return listing.entries

    async def listing(
        self,
        operation: str,
        path: str,
        params: Mapping[str, str] = NOTHING,
        *,
        enough: Enough = read_all,
    ) -> Listing:
        """Return what can be read of a list, page by page, until it is enough.

        Entries that are no objects are left out: one odd entry must not hide the others.
        """
        found: list[Json] = []
        seen: set[str] = set()
        pages, link = 0, ""
        deadline = self._caller.clock.monotonic() + LIST_TIMEOUT_S
        try:
            while True:
                if pages == 0:
                    page = await self.get(operation, path, params)
                else:
                    page = await self._next(operation, link, deadline)
                found += self._entries(page, operation)
                pages += 1
                link = text(page, "nextLink")
                if not link or enough(tuple(found), pages):
                    return Listing(entries=tuple(found), pages=pages, complete=not link)
                if link in seen or pages >= MAX_PAGES:
                    problem = "refers to a page that was read" if link in seen else "does not end"
                    raise ContractViolation(f"{self._name(operation)}: the list {problem}")
                seen.add(link)
        except InvariantViolation:
            raise
        except ControllerError as error:
            return Listing(entries=tuple(found), pages=pages, complete=False, problem=error)

    def _name(self, operation: str) -> str:
        return self._caller.name_of(operation)

    def _entries(self, page: Json, operation: str) -> list[Json]:
        entries = cast("object", page.get("value"))
        if not isinstance(entries, list):
            raise ContractViolation(f"{self._name(operation)}: a page has no list of values")
        return [
            cast("Json", entry)
            for entry in cast("list[object]", entries)
            if isinstance(entry, dict)
        ]

    async def _get(self, operation: str, path: str, params: Mapping[str, str]) -> Json:
        query = {"api-version": self._version.value, **params}
        request = HttpRequest("GET", self._endpoint + path, params=query)
        async with self._caller.call(operation, READ_TIMEOUT_S):
            return await self._send(request, operation)

    async def _next(self, operation: str, link: str, deadline: float) -> Json:
        left_s = deadline - self._caller.clock.monotonic()
        if left_s <= 0:
            raise OutcomeUnknown(f"{self._name(operation)}: no end within {LIST_TIMEOUT_S:.0f} s")
        async with self._caller.call(operation, min(left_s, READ_TIMEOUT_S)):
            return await self._send(HttpRequest("GET", link), operation)

    async def _send(self, request: HttpRequest, operation: str) -> Json:
        name = self._name(operation)
        response = await self._client.send_request(request)
        if response.status_code != 200:
            headers = {key.casefold(): value for key, value in response.headers.items()}
            body = cast("bytes", response.content)
            raise from_status(response.status_code, headers, body, name)
        return as_object(json_of(response, name), name)
