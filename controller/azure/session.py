"""The composition of the Azure adapters: sessions, identity, TLS, and who gets which.

Three rules live here. IMDS and the identity are asked directly, never through a proxy and never
anywhere else because of an environment variable. A bearer token travels over HTTPS only. And one
session carries each kind of traffic, so that a test, or the simulation, can supply its own.
"""

import logging
import ssl
from collections.abc import AsyncGenerator, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport
from azure.identity.aio import AzureCliCredential, ManagedIdentityCredential

from controller.azure.arm import CONNECT_TIMEOUT_S, Arm, GuardedTransport
from controller.azure.blob import LedgerBlob
from controller.azure.compute import Compute
from controller.azure.departure import guard_trace
from controller.azure.failures import Observer, ignore
from controller.azure.imds import Imds
from controller.azure.maintenance import Maintenance
from controller.azure.network import Network
from controller.azure.survey import Survey
from controller.clock import Clock
from controller.config import Settings
from controller.errors import ConfigError

AUTHORITY_HOST = "AZURE_POD_IDENTITY_AUTHORITY_HOST"
CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
EMULATOR_API_VERSION = "2025-11-05"
"""Newest storage version that released emulators accept; the SDK's own default they refuse."""
HIJACKERS = (
    # Each of these makes azure-identity ask something else than IMDS for the token.
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
)
_PROXIES = ("https_proxy", "http_proxy", "all_proxy")
_log = logging.getLogger(__name__)


class Identity(Enum):
    """Who the requests are made as."""

    VM = "vm"
    """The managed identity of this VM."""
    AZURE_CLI = "azure-cli"
    """Whoever has logged in with `az login`: a person at a workstation."""


class Traffic(Enum):
    """What a session carries."""

    IMDS = "imds"
    IDENTITY = "identity"
    ARM = "arm"
    BLOB = "blob"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How a session has to be built; pass `arguments()` on to `aiohttp.ClientSession`."""

    traffic: Traffic
    tls: ssl.SSLContext
    trust_env: bool
    trace_configs: tuple[aiohttp.TraceConfig, ...] = ()
    """Must reach the session: the fence hangs on them."""

    def arguments(self) -> dict[str, Any]:
        """Return everything but the connector."""
        return {
            "trust_env": self.trust_env,
            "trace_configs": list(self.trace_configs),
            "cookie_jar": aiohttp.DummyCookieJar(),
            # azure-core decompresses by itself.
            "auto_decompress": self.traffic is Traffic.IMDS,
            # Deadlines are set around the calls, where the token is included.
            "timeout": aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S),
        }


SessionFactory = Callable[[SessionOptions], aiohttp.ClientSession]


def tcp_session(options: SessionOptions) -> aiohttp.ClientSession:
    """Build a session on ordinary sockets."""
    connector = aiohttp.TCPConnector(ssl=options.tls)
    return aiohttp.ClientSession(connector=connector, **options.arguments())


@dataclass(frozen=True, slots=True, kw_only=True)
class Azure:
    """All adapters, ready for use."""

    imds: Imds
    compute: Compute
    maintenance: Maintenance
    network: Network
    survey: Survey
    ledger: Callable[[str], LedgerBlob]
    """Makes the client of a blob in the configured container, from its name."""


@asynccontextmanager
async def open_azure(
    settings: Settings,
    clock: Clock,
    environ: MutableMapping[str, str],
    *,
    identity: Identity = Identity.VM,
    observer: Observer = ignore,
    session_factory: SessionFactory = tcp_session,
) -> AsyncGenerator[Azure]:
    """Open the sessions, yield the adapters, close the sessions.

    `environ` must be `os.environ` in production: azure-identity reads nothing else, so what
    misleads it is removed from there.
    """
    connection_string = environ.get(CONNECTION_STRING, "")
    _check_https(settings, has_connection_string=bool(connection_string))
    _scrub(environ, settings.azure.imds_endpoint)
    # The SDK reports every token and request at INFO; this service says only what changed.
    logging.getLogger("azure").setLevel(logging.WARNING)
    # Each failed token request is an error of the call that needed it, and reported as that.
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    # So is an error reply that is not JSON, which the SDK would log with its traceback.
    logging.getLogger("azure.mgmt").setLevel(logging.ERROR)
    tls = _tls(settings.azure.ca_file)
    proxied = any(environ.get(name) or environ.get(name.upper()) for name in _PROXIES)
    async with AsyncExitStack() as stack:

        async def session(traffic: Traffic) -> aiohttp.ClientSession:
            options = SessionOptions(
                traffic=traffic,
                tls=tls,
                # Only where a proxy is set: aiohttp looks it up in a thread on every request.
                trust_env=proxied and traffic in {Traffic.ARM, Traffic.BLOB},
                trace_configs=(guard_trace(),),
            )
            return await stack.enter_async_context(session_factory(options))

        credential: ManagedIdentityCredential | AzureCliCredential
        if identity is Identity.VM:
            credential = managed_identity(settings, await session(Traffic.IDENTITY))
        else:
            credential = AzureCliCredential()
        stack.push_async_callback(credential.close)
        arm = Arm(
            endpoint=settings.azure.resource_manager_endpoint.rstrip("/"),
            scope=settings.azure.token_audience.rstrip("/") + "/.default",
            credential=credential,
            session=await session(Traffic.ARM),
            poll_fallback_s=settings.azure.poll_fallback_s,
        )
        imds = Imds(
            await session(Traffic.IMDS),
            endpoint=settings.azure.imds_endpoint,
            clock=clock,
            first_timeout_s=settings.watch.first_timeout_s,
            timeout_s=settings.watch.timeout_s,
            observer=observer,
        )
        blobs = await session(Traffic.BLOB)

        def ledger(blob_name: str) -> LedgerBlob:
            container_url = settings.election.container_url
            return LedgerBlob(
                container_url,
                blob_name,
                transport=GuardedTransport(blobs, container_url),
                clock=clock,
                credential=credential,
                connection_string=connection_string,
                api_version=EMULATOR_API_VERSION if _is_loopback(container_url) else "",
                request_timeout_s=settings.election.request_timeout_s,
                observer=observer,
            )

        compute = Compute(arm, clock=clock, observer=observer)
        yield Azure(
            imds=imds,
            compute=compute,
            maintenance=Maintenance(compute, clock=clock, observer=observer),
            network=Network(arm, clock=clock, observer=observer),
            survey=Survey(arm, clock=clock, observer=observer),
            ledger=ledger,
        )


class _IdentityTransport(AsyncHttpTransport[Any, Any]):
    """azure-core's transport, bound to one metadata endpoint.

    azure-identity reads the endpoint from the process environment at every request. One process
    may hold several agents (the simulation does), so the address is fixed here once more.
    """

    def __init__(self, session: aiohttp.ClientSession, endpoint: str) -> None:
        self._inner: AsyncHttpTransport[Any, Any] = AioHttpTransport(
            session=session, session_owner=False, connection_timeout=CONNECT_TIMEOUT_S
        )
        self._endpoint = urlsplit(endpoint)

    async def send(self, request: Any, **kwargs: Any) -> Any:
        asked = urlsplit(str(request.url))
        request.url = urlunsplit(
            asked._replace(scheme=self._endpoint.scheme, netloc=self._endpoint.netloc)
        )
        return await self._inner.send(request, **kwargs)

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        """Leave the session to the composition root."""

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


def managed_identity(
    settings: Settings, session: aiohttp.ClientSession
) -> ManagedIdentityCredential:
    options: dict[str, Any] = {
        "transport": _IdentityTransport(session, settings.azure.imds_endpoint),
        # By default up to 75 s of silent retries. The reconcile loop retries, with a deadline.
        "retry_total": 0,
    }
    if settings.azure.client_id:
        options["client_id"] = settings.azure.client_id
    return ManagedIdentityCredential(**options)


def _scrub(environ: MutableMapping[str, str], imds_endpoint: str) -> None:
    workload = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")  # count only with a federated token
    names = HIJACKERS + (workload if "AZURE_FEDERATED_TOKEN_FILE" in environ else ())
    for name in names:
        if environ.pop(name, None) is not None:
            _log.warning(
                "environment variable %s is ignored: it would take the managed identity away "
                "from this VM's metadata service",
                name,
            )
    environ[AUTHORITY_HOST] = imds_endpoint


def _check_https(settings: Settings, *, has_connection_string: bool) -> None:
    endpoint = settings.azure.resource_manager_endpoint
    if urlsplit(endpoint).scheme != "https":
        raise ConfigError(
            f"azure.resource_manager_endpoint is {endpoint}: tokens are sent over https only"
        )
    container_url = settings.election.container_url
    if urlsplit(container_url).scheme == "https":
        return
    if not (has_connection_string and _is_loopback(container_url)):
        raise ConfigError(
            f"election.container_url is {container_url}: tokens are sent over https only. Plain "
            f"http is for an emulator on this host, together with {CONNECTION_STRING}"
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def _tls(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"azure.ca_file: {ca_file} cannot be used: {error}") from error
    return context
