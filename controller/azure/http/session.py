"""The composition of the Azure adapters: sessions, identity, TLS, and which adapter uses which.

Three rules apply here. IMDS and the identity are never reached through a proxy. A bearer token is
sent over HTTPS only. Each kind of traffic has a session of its own, so that a test, or the
simulation, can supply it.
"""

import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from controller.azure.blob import StateBlob
from controller.azure.compute import Compute
from controller.azure.container import StateContainer
from controller.azure.event_acknowledgement import EventAcknowledgement
from controller.azure.http.api_versions import ApiVersion
from controller.azure.http.arm_client import CONNECT_TIMEOUT_S, Arm, GuardedTransport
from controller.azure.http.call import Observer, ignore_outcome
from controller.azure.http.identity import Identity, managed_identity, remove_identity_overrides
from controller.azure.http.request_waits import RequestWaits
from controller.azure.http.sdk import AzureCliCredential, ManagedIdentityCredential
from controller.azure.http.write_guard import write_guard_trace
from controller.azure.imds import Imds
from controller.azure.maintenance import Maintenance
from controller.azure.network import Network
from controller.azure.permission_probe import PermissionProbe
from controller.azure.resource_graph import ResourceGraph
from controller.azure.topology import Topology
from controller.clock import Clock
from controller.config.api_versions import COMPUTE_VERSIONS, NETWORK_VERSIONS
from controller.config.azure import Azure as AzureSettings
from controller.config.base import is_loopback
from controller.config.schema import STORAGE_CONNECTION_STRING, Settings
from controller.errors import ConfigError

EMULATOR_API_VERSION = "2025-11-05"
"""The newest storage version that released emulators accept; they refuse the SDK's default."""
_PROXY_VARIABLES = ("https_proxy", "http_proxy", "all_proxy")


class TrafficKind(Enum):
    """The kinds of traffic. Each has a session of its own."""

    IMDS = "imds"
    IDENTITY = "identity"
    ARM = "arm"
    BLOB = "blob"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """The options of a session; pass `arguments()` to `aiohttp.ClientSession`."""

    traffic: TrafficKind
    tls: ssl.SSLContext
    trust_env: bool
    trace_configs: tuple[aiohttp.TraceConfig, ...] = ()
    """Must reach the session: the write guard depends on them."""

    def arguments(self) -> dict[str, Any]:
        """Return everything but the connector."""
        return {
            "trust_env": self.trust_env,
            "trace_configs": list(self.trace_configs),
            "cookie_jar": aiohttp.DummyCookieJar(),
            # azure-core decompresses by itself.
            "auto_decompress": self.traffic is TrafficKind.IMDS,
            # Each call has a deadline, which includes the time to get a token.
            "timeout": aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S),
        }


SessionFactory = Callable[[SessionOptions], aiohttp.ClientSession]


def tcp_session(options: SessionOptions) -> aiohttp.ClientSession:
    """Build a session on ordinary sockets."""
    connector = aiohttp.TCPConnector(ssl=options.tls)
    return aiohttp.ClientSession(connector=connector, **options.arguments())


def proxy_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the environment variables that set a proxy."""
    names = (name for each in _PROXY_VARIABLES for name in (each, each.upper()))
    return tuple(name for name in names if environ.get(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Azure:
    """All adapters, ready for use."""

    imds: Imds
    compute: Compute
    maintenance: Maintenance
    network: Network
    permissions: PermissionProbe
    topology: Topology
    resource_graph: ResourceGraph
    event_acknowledgement: EventAcknowledgement
    state_blob: Callable[[str], StateBlob]
    """Returns the client of a blob in the configured container, by its name."""
    container: Callable[[], StateContainer]
    """Returns the client of the configured container, to list its blobs."""


@asynccontextmanager
async def open_azure(
    settings: Settings,
    clock: Clock,
    environ: MutableMapping[str, str],
    *,
    identity: Identity = Identity.VM,
    observer: Observer = ignore_outcome,
    session_factory: SessionFactory = tcp_session,
) -> AsyncGenerator[Azure]:
    """Open the sessions, yield the adapters, close the sessions.

    `environ` must be `os.environ` in production: azure-identity reads it directly, so variables
    that would direct it elsewhere are removed from it.

    Raises:
        ConfigError: a token would be sent without TLS, or the CA file cannot be used.
    """
    connection_string = environ.get(STORAGE_CONNECTION_STRING, "")
    _check_https(settings, has_connection_string=bool(connection_string))
    remove_identity_overrides(environ, settings.azure.imds_endpoint)
    limit_sdk_logs()
    async with AsyncExitStack() as stack:
        sessions = Sessions(stack, session_factory, settings.azure.ca_file, environ)
        credential: ManagedIdentityCredential | AzureCliCredential
        if identity is Identity.VM:
            identity_session = await sessions.open(TrafficKind.IDENTITY)
            credential = managed_identity(settings.azure, identity_session, clock)
        else:
            credential = AzureCliCredential()
        stack.push_async_callback(credential.close)
        arm = _arm(settings.azure, credential, await sessions.open(TrafficKind.ARM), clock)
        imds = Imds(
            await sessions.open(TrafficKind.IMDS),
            endpoint=settings.azure.imds_endpoint,
            clock=clock,
            first_timeout_s=settings.watch.first_timeout_s,
            timeout_s=settings.watch.timeout_s,
            observer=observer,
        )
        blob_transport = GuardedTransport(
            await sessions.open(TrafficKind.BLOB), settings.election.container_url
        )
        container_url = settings.election.container_url
        options: dict[str, Any] = {
            "transport": blob_transport,
            "clock": clock,
            "credential": credential,
            "connection_string": connection_string,
            "observer": observer,
            "api_version": EMULATOR_API_VERSION if is_on_this_host(container_url) else "",
            "request_timeout_s": settings.election.request_timeout_s,
        }
        state_blob = partial(StateBlob, container_url, **options)
        container = partial(StateContainer, container_url, **options)
        yield _adapters(arm, imds, state_blob, container, clock=clock, observer=observer)


def _arm(
    azure: AzureSettings,
    credential: ManagedIdentityCredential | AzureCliCredential,
    session: aiohttp.ClientSession,
    clock: Clock,
) -> Arm:
    return Arm(
        endpoint=azure.resource_manager_endpoint.rstrip("/"),
        scope=azure.token_audience.rstrip("/") + "/.default",
        credential=credential,
        session=session,
        waits=RequestWaits(clock),
        poll_fallback_s=azure.poll_fallback_s,
        compute_version=ApiVersion(COMPUTE_VERSIONS, azure.compute_api_version),
        network_version=ApiVersion(NETWORK_VERSIONS, azure.network_api_version),
    )


def _adapters(
    arm: Arm,
    imds: Imds,
    state_blob: Callable[[str], StateBlob],
    container: Callable[[], StateContainer],
    *,
    clock: Clock,
    observer: Observer,
) -> Azure:
    compute = Compute(arm, clock=clock, observer=observer)
    network = Network(arm, clock=clock, observer=observer)
    return Azure(
        imds=imds,
        compute=compute,
        maintenance=Maintenance(compute, clock=clock, observer=observer),
        network=network,
        permissions=PermissionProbe(network, arm, clock=clock, observer=observer),
        topology=Topology(arm, clock=clock, observer=observer),
        resource_graph=ResourceGraph(arm, clock=clock, observer=observer),
        event_acknowledgement=EventAcknowledgement(arm, clock=clock, observer=observer),
        state_blob=state_blob,
        container=container,
    )


class Sessions:
    """Opens the sessions, each of which closes with `stack`."""

    def __init__(
        self,
        stack: AsyncExitStack,
        factory: SessionFactory,
        ca_file: str,
        environ: Mapping[str, str],
    ) -> None:
        self._stack, self._factory = stack, factory
        self._tls = tls_context(ca_file)
        self._has_proxy = bool(proxy_variables(environ))

    async def open(self, traffic: TrafficKind) -> aiohttp.ClientSession:
        """Return a new session for this kind of traffic."""
        options = SessionOptions(
            traffic=traffic,
            tls=self._tls,
            # Only with a proxy: aiohttp reads the environment in a thread on every request.
            trust_env=self._has_proxy and traffic in {TrafficKind.ARM, TrafficKind.BLOB},
            trace_configs=(write_guard_trace(),),
        )
        return await self._stack.enter_async_context(self._factory(options))


def limit_sdk_logs() -> None:
    """Keep out of the log what the caller of a request reports better."""
    # The SDK logs every token and request at INFO; this service logs only changes.
    logging.getLogger("azure").setLevel(logging.WARNING)
    # The call that needs a token reports a failed token request.
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    # It also reports an error reply that is not JSON or XML, which the SDKs would log.
    for name in ("azure.mgmt", "azure.storage"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _check_https(settings: Settings, *, has_connection_string: bool) -> None:
    endpoint = settings.azure.resource_manager_endpoint
    if urlsplit(endpoint).scheme != "https":
        raise ConfigError(
            f"azure.resource_manager_endpoint is {endpoint}: tokens are sent over https only"
        )
    container_url = settings.election.container_url
    if urlsplit(container_url).scheme == "https":
        return
    if not (has_connection_string and is_on_this_host(container_url)):
        raise ConfigError(
            f"election.container_url is {container_url}: tokens are sent over https only. Plain "
            f"http is for an emulator on this host, together with {STORAGE_CONNECTION_STRING}"
        )


def is_on_this_host(url: str) -> bool:
    """Return whether a URL can only lead to this host."""
    return is_loopback(urlsplit(url).hostname)


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Return the trusted authorities of this host, and those in `ca_file`, if it is not empty.

    Raises:
        ConfigError: the file cannot be used.
    """
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca_file: {ca_file} cannot be used: {error}") from error
    return context
