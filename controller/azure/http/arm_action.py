"""The client for actions of Resource Manager that answer a question: a POST, and its result.

Azure answers 202 with a `Location`, which answers 202 until the result is there (Microsoft docs,
Track asynchronous Azure operations). Such an action changes nothing, so it passes no write guard.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from azure.core.rest import HttpRequest
from azure.mgmt.core import AsyncARMPipelineClient

from controller.azure.http.arm_client import Arm
from controller.azure.http.call import Caller
from controller.azure.http.error_body import retry_after
from controller.azure.http.error_mapping import from_status
from controller.azure.http.json_reader import Json, as_object, json_of
from controller.errors import ContractViolation

POLL_S = 2.0
"""Between two requests for a result, if Azure names no other time."""
SHORTEST_POLL_S = 0.5
ACTION_TIMEOUT_S = 45.0
"""Deadline of an action with its result."""


class ArmAction:
    """POSTs on the same pipeline as the SDK clients.

    Args:
        arm: endpoint, identity and session.
        caller: runs the requests.
    """

    def __init__(self, arm: Arm, caller: Caller) -> None:
        self._client: AsyncARMPipelineClient[Any, Any] = AsyncARMPipelineClient(
            arm.endpoint,
            policies=arm.policies(),
            transport=arm.transport(),
        )
        self._endpoint, self._version = arm.endpoint.rstrip("/"), arm.network_version
        self._caller = caller

    async def post(self, operation: str, path: str) -> Json:
        """Send the action and return the body of its result.

        Raises:
            ControllerError: it was refused, failed, or had no result within `ACTION_TIMEOUT_S`.
        """
        params = {"api-version": self._version.value}
        request = HttpRequest("POST", self._endpoint + path, params=params)
        async with self._caller.call(operation, ACTION_TIMEOUT_S):
            response = await self._send(request, operation)
            while response.status_code == 202:
                headers = _headers(response)
                location = headers.get("location", "")
                if not location:
                    raise ContractViolation(f"{self._name(operation)}: 202 without Location")
                asked_s = retry_after(headers)
                await asyncio.sleep(POLL_S if asked_s is None else max(SHORTEST_POLL_S, asked_s))
                response = await self._send(HttpRequest("GET", location), operation)
            name = self._name(operation)
            return as_object(json_of(response, name), name)

    def _name(self, operation: str) -> str:
        return self._caller.name_of(operation)

    async def _send(self, request: HttpRequest, operation: str) -> Any:
        response = await self._client.send_request(request)
        if response.status_code not in {200, 202}:
            headers, name = _headers(response), self._name(operation)
            raise from_status(response.status_code, headers, cast("bytes", response.content), name)
        return response


def _headers(response: Any) -> Mapping[str, str]:
    return {key.casefold(): value for key, value in response.headers.items()}
