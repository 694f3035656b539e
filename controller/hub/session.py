"""The composition of what polls a Hub: session, identity and reader."""

from collections.abc import AsyncGenerator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager

from controller.azure.http.arm_client import Arm
from controller.azure.http.request_waits import RequestWaits
from controller.azure.http.session import (
    SessionFactory,
    Sessions,
    TrafficKind,
    limit_sdk_logs,
    tcp_session,
)
from controller.clock import Clock
from controller.config.update_watch import UpdateWatch
from controller.hub.sign_in import ServicePrincipal
from controller.hub.updates import UpdateReader

REGIONAL_AUTHORITY = "AZURE_REGIONAL_AUTHORITY_NAME"


@asynccontextmanager
async def open_hub(
    settings: UpdateWatch,
    clock: Clock,
    environ: MutableMapping[str, str],
    *,
    session_factory: SessionFactory = tcp_session,
) -> AsyncGenerator[UpdateReader]:
    """Open the session, yield the reader, close the session.

    `environ` must be `os.environ` in production: azure-identity reads it directly, so a variable
    that would direct the sign-in to another host than the configured one is removed from it.

    Raises:
        ConfigError: the CA file, the secret or the certificate cannot be used.
    """
    environ.pop(REGIONAL_AUTHORITY, None)
    limit_sdk_logs()
    async with AsyncExitStack() as stack:
        sessions = Sessions(stack, session_factory, settings.ca_file, environ)
        credential = await stack.enter_async_context(ServicePrincipal(settings))
        arm = Arm(
            endpoint=settings.endpoint,
            scope=settings.scope,
            credential=credential,
            session=await sessions.open(TrafficKind.ARM),
            waits=RequestWaits(clock),
        )
        yield UpdateReader(arm, settings, clock)
