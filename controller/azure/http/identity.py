"""The identity behind the requests: the managed identity of this VM, or the Azure CLI.

The managed identity is always requested from the configured metadata service, directly: no proxy
and no environment variable can direct the request to another address.
"""

import asyncio
import logging
from collections.abc import MutableMapping
from enum import Enum
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport

from controller.azure.http.arm_client import CONNECT_TIMEOUT_S
from controller.azure.http.sdk import ManagedIdentityCredential
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


class OneRequestAtATime(ManagedIdentityCredential):
    """The credential, with one token request for each scope at a time; the others use its token.

    The metadata service throttles at 5 requests a second, and every client asks for its own token
    when the first requests are sent together (Microsoft docs, Instance Metadata Service).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._scope_locks: dict[tuple[str, ...], asyncio.Lock] = {}

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token, from the cache if another request has just brought one."""
        async with self._scope_locks.setdefault(scopes, asyncio.Lock()):
            token: AccessToken = await super().get_token(*scopes, **options)
            return token

    async def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return a token, from the cache if another request has just brought one."""
        async with self._scope_locks.setdefault(scopes, asyncio.Lock()):
            token: AccessTokenInfo = await super().get_token_info(*scopes, options=options)
            return token


def managed_identity(azure: Azure, session: aiohttp.ClientSession) -> ManagedIdentityCredential:
    """Return the credential of this VM's managed identity."""
    options: dict[str, Any] = {
        "transport": _ImdsTransport(session, azure.imds_endpoint),
        # By default up to 75 s of silent retries. The reconcile loop retries, with a deadline.
        "retry_total": 0,
    }
    if azure.client_id:
        options["client_id"] = azure.client_id
    return OneRequestAtATime(**options)


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
