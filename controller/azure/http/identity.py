"""The identity behind the requests: the managed identity of this VM, or the Azure CLI.

The managed identity is always requested from the configured metadata service, directly: no proxy
and no environment variable can direct the request to another address.
"""

import asyncio
import logging
from collections.abc import MutableMapping
from enum import Enum
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport

from controller.azure.http.arm_client import CONNECT_TIMEOUT_S
from controller.azure.http.sdk import ManagedIdentityCredential
from controller.clock import Clock
from controller.config.azure import Azure

AUTHORITY_HOST = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
IDENTITY_OVERRIDES = (
    # Each of these makes azure-identity request the token from another endpoint than IMDS.
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
)
_WORKLOAD_IDENTITY = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
"""They count only together with a federated token."""
FETCH_WITHIN_S = 30.0
"""Deadline of a token request. That of the request that needs the token can be much shorter."""
RENEW_WAIT_S = 1.0
"""How long a request that could use the remembered token waits for a new one."""
RENEW_EVERY_S = 30.0
"""How often a new token is requested while the remembered one is valid."""
STILL_VALID_S = 60.0
"""How long the remembered token must still be valid to be used."""
_log = logging.getLogger("lbdrain.azure.token")


class Identity(Enum):
    """The identity that the requests are made with."""

    VM = "vm"
    """The managed identity of this VM."""
    AZURE_CLI = "azure-cli"
    """The user of `az login`, on a workstation."""


class _ImdsTransport(AsyncHttpTransport[Any, Any]):
    """azure-core's transport, bound to one metadata endpoint.

    azure-identity reads the endpoint from the process environment at every request. One process
    can hold several agents (the simulation does), so the transport sets the address again.
    """

    def __init__(self, session: aiohttp.ClientSession, endpoint: str) -> None:
        self._inner: AsyncHttpTransport[Any, Any] = AioHttpTransport(
            session=session, session_owner=False, connection_timeout=CONNECT_TIMEOUT_S
        )
        self._endpoint = urlsplit(endpoint)

    async def send(self, request: Any, **kwargs: Any) -> Any:
        url = urlsplit(str(request.url))
        request.url = urlunsplit(
            url._replace(scheme=self._endpoint.scheme, netloc=self._endpoint.netloc)
        )
        return await self._inner.send(request, **kwargs)

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        """Keep the session open; `open_azure` closes it."""

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


class _Token(AccessTokenInfo):
    """A token that no repr shows: the repr of a finished task contains the result."""

    __repr__ = object.__repr__


class OneRequestAtATime(ManagedIdentityCredential):
    """The credential, with one token request for each scope at a time; the others use its token.

    The metadata service throttles at 5 requests a second, and every client asks for its own token
    when the first requests are sent together (Microsoft docs, Instance Metadata Service).

    The SDK no longer returns a token whose half life is over, although it is valid for hours, and
    cancels a token request together with the request that needs the token. So this class remembers
    the newest token of each scope for as long as no newer one is issued, and a token request runs
    in a task of its own. The identity of a VM belongs to one tenant, so a scope is enough as a key.
    """

    def __init__(self, clock: Clock, **options: Any) -> None:
        super().__init__(**options)
        self._clock = clock
        self._remembered: dict[tuple[str, ...], _Token] = {}
        self._renew_at: dict[tuple[str, ...], float] = {}
        self._fetches: dict[tuple[tuple[str, ...], str], asyncio.Task[_Token]] = {}

    async def get_token(
        self, *scopes: str, claims: str | None = None, **_options: Any
    ) -> AccessToken:
        """Return a token, as `get_token_info` does."""
        token = await self.get_token_info(*scopes, options={"claims": claims} if claims else {})
        return AccessToken(token.token, token.expires_on)

    async def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return the newest token; the remembered one if none is issued soon."""
        options = options or {}
        if options.get("claims"):
            self._remembered.pop(scopes, None)  # a service has refused it
        remembered = self._remembered.get(scopes)
        if remembered is None or not self._is_valid(remembered):
            fetch = self._fetch(scopes, options)
            await asyncio.wait({fetch})  # a caller that is cancelled does not cancel the fetch
            return fetch.result()
        now_s = self._clock.monotonic()
        if now_s < self._renew_at.get(scopes, now_s):
            return remembered
        self._renew_at[scopes] = now_s + RENEW_EVERY_S
        fetch = self._fetch(scopes, options)
        await asyncio.wait({fetch}, timeout=RENEW_WAIT_S)
        issued = fetch.done() and not fetch.cancelled() and fetch.exception() is None
        return fetch.result() if issued else remembered

    async def close(self) -> None:
        """End the token requests, and close the transport."""
        fetches = tuple(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)
        await super().close()

    def _is_valid(self, token: _Token) -> bool:
        return token.expires_on > self._clock.now().timestamp() + STILL_VALID_S

    def _fetch(
        self, scopes: tuple[str, ...], options: TokenRequestOptions
    ) -> "asyncio.Task[_Token]":
        """Return the task that requests this token; it may be running already."""
        key = scopes, options.get("claims", "")
        if key not in self._fetches:
            fetch = asyncio.create_task(self._request(scopes, options), name="token")
            fetch.add_done_callback(partial(self._ended, key))
            self._fetches[key] = fetch
        return self._fetches[key]

    def _ended(self, key: tuple[tuple[str, ...], str], fetch: "asyncio.Task[_Token]") -> None:
        del self._fetches[key]
        if not fetch.cancelled():
            fetch.exception()  # asyncio logs an error that no caller has read

    async def _request(self, scopes: tuple[str, ...], options: TokenRequestOptions) -> _Token:
        try:
            async with asyncio.timeout(FETCH_WITHIN_S):
                new = await super().get_token_info(*scopes, options=options)
        except TimeoutError as error:
            message = f"the metadata service issued none within {FETCH_WITHIN_S:.0f} s"
            raise ClientAuthenticationError(message=message) from error
        self._remembered[scopes] = _Token(
            new.token, new.expires_on, token_type=new.token_type, refresh_on=new.refresh_on
        )
        return self._remembered[scopes]


def managed_identity(
    azure: Azure, session: aiohttp.ClientSession, clock: Clock
) -> ManagedIdentityCredential:
    """Return the credential of this VM's managed identity."""
    options: dict[str, Any] = {
        "transport": _ImdsTransport(session, azure.imds_endpoint),
        # By default up to 75 s of silent retries. The reconcile loop retries, with a deadline.
        "retry_total": 0,
    }
    if azure.client_id:
        options["client_id"] = azure.client_id
    return OneRequestAtATime(clock, **options)


def remove_identity_overrides(environ: MutableMapping[str, str], imds_endpoint: str) -> None:
    """Remove what would send token requests elsewhere, and set the metadata endpoint."""
    has_federated_token = "AZURE_FEDERATED_TOKEN_FILE" in environ
    for name in (*IDENTITY_OVERRIDES, *(_WORKLOAD_IDENTITY if has_federated_token else ())):
        if environ.pop(name, None) is not None:
            _log.warning(
                "environment variable %s is ignored: with it, tokens would not come from this "
                "VM's managed identity",
                name,
            )
    environ[AUTHORITY_HOST] = imds_endpoint
