"""The composition of the clients that read containers: no configuration file, no other service."""

from collections.abc import AsyncGenerator, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from controller.azure.container import StateContainer
from controller.azure.http.arm_client import GuardedTransport
from controller.azure.http.identity import Identity, managed_identity, remove_identity_overrides
from controller.azure.http.sdk import AzureCliCredential, ManagedIdentityCredential
from controller.azure.http.session import (
    EMULATOR_API_VERSION,
    SessionFactory,
    Sessions,
    TrafficKind,
    is_on_this_host,
    limit_sdk_logs,
    tcp_session,
)
from controller.clock import Clock
from controller.config.azure import Azure
from controller.config.schema import STORAGE_CONNECTION_STRING


@asynccontextmanager
async def open_containers(
    urls: Sequence[str],
    azure: Azure,
    *,
    clock: Clock,
    environ: MutableMapping[str, str],
    identity: Identity,
    session_factory: SessionFactory = tcp_session,
) -> AsyncGenerator[tuple[StateContainer, ...]]:
    """Open the sessions, yield a client for each container, close the sessions.

    Args:
        urls: checked URLs of containers.
        azure: the metadata endpoint and the certificate authorities.
        clock: the two clocks.
        environ: `os.environ` in production, as for `open_azure`.
        identity: the identity that the requests are made with; a connection string overrides it.
        session_factory: builds the sessions.

    Raises:
        ConfigError: the CA file or the connection string cannot be used.
    """
    connection_string = environ.get(STORAGE_CONNECTION_STRING, "")
    remove_identity_overrides(environ, azure.imds_endpoint)
    limit_sdk_logs()
    async with AsyncExitStack() as stack:
        sessions = Sessions(stack, session_factory, azure.ca_file, environ)
        credential: ManagedIdentityCredential | AzureCliCredential
        if identity is Identity.VM:
            identity_session = await sessions.open(TrafficKind.IDENTITY)
            credential = managed_identity(azure, identity_session, clock)
        else:
            credential = AzureCliCredential()
        stack.push_async_callback(credential.close)
        blobs = await sessions.open(TrafficKind.BLOB)
        yield tuple(
            StateContainer(
                url,
                transport=GuardedTransport(blobs, url),
                clock=clock,
                credential=credential,
                connection_string=connection_string,
                api_version=EMULATOR_API_VERSION if is_on_this_host(url) else "",
            )
            for url in urls
        )
