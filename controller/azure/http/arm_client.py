"""Transport and policies of every Resource Manager client.

The SDK's default pipeline is not used. It retries (up to ten times, and silently after any
Retry-After), follows redirects with the token, and registers resource providers automatically.
Here the reconcile loop retries, and no request is sent that the agent does not need.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.policies import HeadersPolicy, RequestIdPolicy, UserAgentPolicy
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport
from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

from controller.azure.http.api_versions import ApiVersion
from controller.azure.http.origin import refuse_foreign
from controller.azure.http.request_waits import RequestWaits
from controller.azure.http.write_guard import GuardedWrite, WriteGuard
from controller.config.api_versions import COMPUTE_VERSIONS, NETWORK_VERSIONS

USER_AGENT = "lb-drain"
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 15.0
"""Deadline of one GET."""


class GuardedTransport(AsyncHttpTransport[Any, Any]):
    """azure-core's aiohttp transport on our session, bound to one service.

    A reply can name the next URL (`nextLink`, `Azure-AsyncOperation`). The token is sent there,
    so it must lead to the same service (`refuse_foreign`). A GET without any reply for
    `reply_timeout_s` seconds fails: an operation that cannot be followed is noticed soon. With
    `waits`, no request is sent before the time at which Azure asks to send it again.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        *,
        reply_timeout_s: float | None = None,
        waits: RequestWaits | None = None,
    ) -> None:
        self._reply_timeout_s, self._waits = reply_timeout_s, waits
        self._inner: AsyncHttpTransport[Any, Any] = AioHttpTransport(
            session=session, session_owner=False, connection_timeout=CONNECT_TIMEOUT_S
        )
        self._origin = urlsplit(endpoint)

    async def send(self, request: Any, **kwargs: Any) -> Any:
        """Send once, past the `WriteGuard` given as the option `guard`."""
        refuse_foreign(str(request.url), self._origin)
        guard = cast("WriteGuard | None", kwargs.pop("guard", None))
        if self._reply_timeout_s is not None and request.method == "GET":
            kwargs.setdefault("read_timeout", self._reply_timeout_s)
        method, url, waits = str(request.method), str(request.url), self._waits
        async with waits.turn(method, url) if waits is not None else nullcontext():
            response = await self._inner.send(
                request, trace_request_ctx=GuardedWrite(method, guard), **kwargs
            )
            if waits is not None:
                waits.heard(method, url, response.status_code, response.headers)
        if guard is not None and response.status_code < 300:
            guard.accepted()
        return response

    async def open(self) -> None:
        """Open the transport; `open_azure` has opened the session."""
        await self._inner.open()

    async def close(self) -> None:
        """Keep the session open; `open_azure` closes it."""

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Endpoint, identity and session for Resource Manager."""

    endpoint: str
    scope: str
    """The scope of the token; it ends in /.default."""
    credential: AsyncTokenCredential
    session: aiohttp.ClientSession
    waits: RequestWaits
    """Shared by all clients: each may send what another one was asked not to repeat yet."""
    poll_fallback_s: float = 1.0
    compute_version: ApiVersion = field(default_factory=lambda: ApiVersion(COMPUTE_VERSIONS))
    network_version: ApiVersion = field(default_factory=lambda: ApiVersion(NETWORK_VERSIONS))

    def policies(self) -> list[Any]:
        """Return a new pipeline. Policies are linked to each other, so they cannot be shared."""
        return [
            RequestIdPolicy(),
            HeadersPolicy(),
            UserAgentPolicy(base_user_agent=USER_AGENT),
            AsyncARMChallengeAuthenticationPolicy(self.credential, self.scope),
        ]

    def transport(self, *, reply_timeout_s: float | None = None) -> GuardedTransport:
        """Return a transport to Resource Manager."""
        return GuardedTransport(
            self.session, self.endpoint, reply_timeout_s=reply_timeout_s, waits=self.waits
        )

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments of an SDK management client."""
        return {
            "base_url": self.endpoint,
            "credential_scopes": [self.scope],
            "policies": self.policies(),
            "transport": self.transport(reply_timeout_s=READ_TIMEOUT_S),
            "polling_interval": self.poll_fallback_s,
        }
