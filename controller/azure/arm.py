"""What every Resource Manager client shares: resource ids, transport, policies, and JSON checks.

The SDK's default pipeline is not used. It retries (up to ten times, and silently after any
Retry-After), follows redirects with the token, and registers resource providers by itself; here
retrying lives in the reconcile loop and nothing is written that nobody asked for.
"""

import asyncio
import ctypes
import importlib
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.policies import HeadersPolicy, RequestIdPolicy, UserAgentPolicy
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport
from azure.core.rest import HttpRequest
from azure.mgmt.core import AsyncARMPipelineClient
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from controller.azure.departure import Fence, Send
from controller.azure.failures import Caller, cap, from_status
from controller.core import strict_json
from controller.core.model import fold
from controller.errors import ContractViolation

USER_AGENT = "lb-drain"
CONNECT_TIMEOUT_S = 5.0
MAX_PAGES = 200
MAX_NAME_CHARACTERS = 1024
"""Of an id; the longest that Azure allows has half of that. It ends up in ledger and logs."""
Json = dict[str, Any]
"""A JSON object as Azure sent it, unknown properties included."""
_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/(?P<provider>[^/]+)/(?P<rest>[^/]+/[^/]+(?:/[^/]+/[^/]+)*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceId:
    """The parts of a resource id, in the spelling they came in."""

    subscription: str
    group: str
    provider: str
    names: tuple[str, ...]
    """Name of the resource, preceded by those of its parents."""

    @classmethod
    def parse(cls, text: str) -> "ResourceId":
        """Split an id. Raises ContractViolation, because ids come from Azure or were checked."""
        match = _ID.fullmatch(text.rstrip("/"))
        if match is None:
            raise ContractViolation(f"{cap(text)!r} is not the id of an Azure resource")
        return cls(
            subscription=match["subscription"],
            group=match["group"],
            provider=match["provider"],
            names=tuple(match["rest"].split("/")[1::2]),
        )


# --- transport -----------------------------------------------------------------------------------


class GuardedTransport(AsyncHttpTransport[Any, Any]):
    """azure-core's aiohttp transport on our session, bound to one service.

    A reply can name the next URL (`nextLink`, `Azure-AsyncOperation`). The token is sent there,
    so it has to be the same service: the endpoint's host or, for regional names, one below it.
    """

    def __init__(self, session: aiohttp.ClientSession, endpoint: str) -> None:
        self._inner: AsyncHttpTransport[Any, Any] = AioHttpTransport(
            session=session, session_owner=False, connection_timeout=CONNECT_TIMEOUT_S
        )
        self._origin = urlsplit(endpoint)

    async def send(self, request: Any, **kwargs: Any) -> Any:
        """Send once, through the fence given as the option `fence`."""
        ours = self._origin
        try:
            target = urlsplit(str(request.url))
            port = target.port
        except ValueError as error:
            raise ContractViolation(
                f"a reply leads to what is no URL ({cap(str(error))})"
            ) from error
        host, our_host = target.hostname or "", ours.hostname or ""
        same_host = host == our_host or host.endswith("." + our_host)
        if (target.scheme, port) != (ours.scheme, ours.port) or not same_host:
            raise ContractViolation(
                f"a reply leads to {cap(target.scheme)}://{cap(host)}, which is not {ours.netloc}"
            )
        fence = cast("Fence | None", kwargs.pop("fence", None))
        return await self._inner.send(
            request, trace_request_ctx=Send(str(request.method), fence), **kwargs
        )

    async def open(self) -> None:
        """Open the transport; the session is the composition root's and is open already."""
        await self._inner.open()

    async def close(self) -> None:
        """Leave the session alone: clients come and go, it stays."""

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """How to reach Resource Manager."""

    endpoint: str
    scope: str
    """Of the token, ending in /.default."""
    credential: AsyncTokenCredential
    session: aiohttp.ClientSession
    poll_fallback_s: float = 1.0

    def policies(self) -> list[Any]:
        """Return a fresh pipeline. Policies are linked to each other, so none can be shared."""
        return [
            RequestIdPolicy(),
            HeadersPolicy(),
            UserAgentPolicy(base_user_agent=USER_AGENT),
            AsyncARMChallengeAuthenticationPolicy(self.credential, self.scope),
        ]

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments of an SDK management client."""
        return {
            "base_url": self.endpoint,
            "credential_scopes": [self.scope],
            "policies": self.policies(),
            "transport": GuardedTransport(self.session, self.endpoint),
            "polling_interval": self.poll_fallback_s,
        }


class SlimClient:
    """Raw GETs on the same pipeline as the SDK clients, without their 20 to 40 MB of models.

    Every agent has to find its availability set when it starts, but only the leader goes on to
    use the management SDKs: a standby that imported them would be twice the size for nothing.
    Lists go this way too, because the SDK reads a page without `value` as an empty one.
    """

    def __init__(self, arm: Arm, caller: Caller) -> None:
        self._client: AsyncARMPipelineClient[Any, Any] = AsyncARMPipelineClient(
            arm.endpoint,
            policies=arm.policies(),
            transport=GuardedTransport(arm.session, arm.endpoint),
        )
        self._endpoint = arm.endpoint.rstrip("/")
        self._caller = caller

    async def get(self, operation: str, path: str, version: str, deadline_s: float) -> Json:
        """Return the body of one resource."""
        async with self._caller.call(operation, deadline_s):
            request = HttpRequest("GET", self._endpoint + path, params={"api-version": version})
            return await self._send(request, operation)

    async def list(
        self, operation: str, path: str, params: Mapping[str, str], deadline_s: float
    ) -> list[Json]:
        """Return the entries of all pages of a list."""
        found: list[Json] = []
        async with self._caller.call(operation, deadline_s):
            request = HttpRequest("GET", self._endpoint + path, params=dict(params))
            for _ in range(MAX_PAGES):
                page = await self._send(request, operation)
                if "value" not in page:
                    raise ContractViolation(f"{operation}: a page without value")
                found += children(page, "value", operation)
                next_link = text(page, "nextLink")
                if not next_link:
                    return found
                request = HttpRequest("GET", next_link)
        raise ContractViolation(f"{operation}: more than {MAX_PAGES} pages")

    async def _send(self, request: HttpRequest, operation: str) -> Json:
        response = await self._client.send_request(request)
        if response.status_code != 200:
            headers = {key.casefold(): value for key, value in response.headers.items()}
            body = cast("bytes", response.content)
            raise from_status(response.status_code, headers, body, f"arm {operation}")
        return as_object(json_of(response, operation), operation)


async def load_sdk(package: str) -> Any:
    """Import a management SDK, which only a leader needs, without holding up the event loop.

    The import takes most of a second of processor time, several seconds without compiled bytecode,
    and leaves megabytes of garbage in the heap of a process that then runs for months.
    """
    if package not in sys.modules:
        await asyncio.to_thread(importlib.import_module, package)
        with suppress(OSError, AttributeError):  # not every C library can give memory back
            ctypes.CDLL(None).malloc_trim(0)
    return sys.modules[package]


# --- JSON ---------------------------------------------------------------------------------------


def raw(pipeline_response: Any, _model: object, _headers: object) -> object:
    """Return the body as it came; for the SDK's `cls` argument."""
    return json_of(pipeline_response.http_response, "the reply")


def json_of(response: Any, what: str) -> object:
    """Return the body of an SDK response, which itself would read more than JSON."""
    return strict_json.loads(cast("bytes", response.content), what)


def as_object(value: object, what: str) -> Json:
    """Return `value` if it is a JSON object."""
    if not isinstance(value, dict):
        raise ContractViolation(f"{cap(what)} is {type(value).__name__}, not an object")
    return cast("Json", value)


def about(resource_id: str, body: Json) -> Json:
    """Return the body of the resource that was asked for, and of no other."""
    found = text(body, "id")
    if fold(found) != fold(resource_id):
        raise ContractViolation(f"the reply for {resource_id} is about {cap(found) or 'nothing'}")
    return body


def child(parent: Mapping[str, Any], key: str, what: str) -> Json:
    """Return an object property; absent and null are an empty object."""
    value = cast("object", parent.get(key))
    return {} if value is None else as_object(value, f"{key} of {what}")


def part(parent: Mapping[str, Any], key: str, what: str) -> Json:
    """Return an object property that Azure always sends.

    A body without it is half a body: read as an empty one, it would say that nothing stands there.
    """
    if parent.get(key) is None:
        raise ContractViolation(f"{cap(what)} came without {key}")
    return child(parent, key, what)


def children(parent: Mapping[str, Any], key: str, what: str) -> list[Json]:
    """Return a list of objects; Azure uses absent and empty inconsistently, so both are empty."""
    value = cast("object", parent.get(key))
    if value is None:
        return []
    if not isinstance(value, list):
        raise ContractViolation(f"{key} of {cap(what)} is {type(value).__name__}, not a list")
    return [as_object(item, f"an entry of {key} of {what}") for item in cast("list[object]", value)]


def text(parent: Mapping[str, Any], key: str) -> str:
    """Return a text property; absent and null are empty."""
    value = cast("object", parent.get(key))
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ContractViolation(f"{key} is {type(value).__name__}, not text")
    return value


def required(parent: Mapping[str, Any], key: str, what: str) -> str:
    """Return a text property that must be there."""
    value = text(parent, key)
    if not value:
        raise ContractViolation(f"{cap(what)} has no {key}")
    if len(value) > MAX_NAME_CHARACTERS:
        raise ContractViolation(f"{cap(what)} has a {key} of {len(value)} characters")
    return value
