"""The simulator's server as Azure's own SDK and an IMDS client see it: TLS, tokens, operations."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from azure.mgmt.network.aio import NetworkManagementClient

from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from tests.support.patience import new_tasks_end

EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource="
METADATA = {"Metadata": "true"}


class ImdsCredential:
    """Fetches a token from the VM's IMDS, as the managed identity does."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def get_token(self, *scopes: str, **kwargs: object) -> AccessToken:
        resource = "https%3A%2F%2Fmanagement.azure.com%2F"
        async with self.session.get(self.url + TOKEN + resource, headers=METADATA) as reply:
            token = await reply.json()
        return AccessToken(token["access_token"], int(token["expires_on"]))

    async def close(self) -> None:
        """The session is somebody else's."""

    async def __aenter__(self) -> "ImdsCredential":
        return self

    async def __aexit__(self, *args: object) -> None:
        """Hold nothing."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SimulatorServer]:
    settings = WorldSettings(operation_latency_s=0.2, lro_retry_after_s=None)
    async with SimulatorServer(
        build_world(now=time.time(), vms=2, settings=settings), tmp_path
    ) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(trust_env=False) as opened:
        yield opened


@pytest.fixture
async def network(
    server: SimulatorServer, session: aiohttp.ClientSession
) -> AsyncIterator[NetworkManagementClient]:
    async with NetworkManagementClient(
        cast("Any", ImdsCredential(session, server.imds_url("web-1"))),
        server.world.subscription,
        base_url=server.arm_url,
        credential_scopes=["https://management.azure.com/.default"],
        connection_verify=str(server.ca_file),
        use_env_settings=False,
        retry_total=0,
        polling_interval=0.05,
    ) as client:
        yield client


async def drain(server: SimulatorServer, network: NetworkManagementClient) -> None:
    """Take web-1 out of its pool through the SDK, under If-Match."""
    group, name = server.world.network_group, server.world.vm("web-1").nic_ids[0].split("/")[-1]
    nic = await network.network_interfaces.get(group, name)
    nic.ip_configurations[0].load_balancer_backend_address_pools = None
    poller = await network.network_interfaces.begin_create_or_update(
        group, name, nic, headers={"If-Match": nic.etag}
    )
    await poller.result()


async def test_operation_through_the_sdk(
    server: SimulatorServer, network: NetworkManagementClient
) -> None:
    """A NIC write is polled at the simulator's own address until it ends, and has its effect."""
    await drain(server, network)
    assert server.world.rotation(server.world.pool_id("app")) == ("web-2",)


async def test_failed_operation(server: SimulatorServer, network: NetworkManagementClient) -> None:
    """An operation that a rule lets fail is an HttpResponseError with status 200, no effect."""
    server.faults.add(Fault(effect=Effect.OPERATION, method="PUT", operation="failed"))
    with pytest.raises(HttpResponseError) as failed:
        await drain(server, network)
    assert failed.value.status_code == 200
    assert server.world.rotation(server.world.pool_id("app")) == ("web-1", "web-2")


async def test_ca_is_needed(server: SimulatorServer, session: aiohttp.ClientSession) -> None:
    """A client that does not trust the private CA gets no connection."""
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await session.get(server.arm_url)


async def test_events_start_without_requests(
    server: SimulatorServer, session: aiohttp.ClientSession
) -> None:
    """Simulated time goes on by itself, and every VM's endpoint shows the same document."""
    server.world.events.schedule("Reboot", "web-1", notice_s=0.05, impact_s=60)
    await server.notify()
    await server.wait_until(lambda: not server.world.serving("web-1"))
    async with session.get(server.imds_url("web-2") + EVENTS, headers=METADATA) as reply:
        document = await reply.json(content_type=None)
        assert "Date" in reply.headers
    assert [event["EventStatus"] for event in document["Events"]] == ["Started"]


async def test_rebooting_vm_is_cut_off(
    server: SimulatorServer, session: aiohttp.ClientSession
) -> None:
    """A rebooting VM's requests are reset at the socket."""
    server.world.set_vm_state("web-1", "rebooting")
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await session.get(server.imds_url("web-1") + EVENTS, headers=METADATA)


async def test_hang_holds_the_connection(
    server: SimulatorServer, session: aiohttp.ClientSession
) -> None:
    """A hanging request is never answered, and the server stops in spite of it."""
    server.faults.add(Fault(effect=Effect.HANG, service=Service.IMDS))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(
            session.get(server.imds_url("web-1") + EVENTS, headers=METADATA), 0.2
        )


async def test_token_is_refused_over_plain_http(
    server: SimulatorServer, session: aiohttp.ClientSession
) -> None:
    """The SDK sends no bearer token without TLS; this is why the simulator has it."""
    async with NetworkManagementClient(
        cast("Any", ImdsCredential(session, server.imds_url("web-1"))),
        server.world.subscription,
        base_url=server.control_url,
        credential_scopes=["https://management.azure.com/.default"],
        use_env_settings=False,
        retry_total=0,
    ) as client:
        with pytest.raises(ServiceRequestError):
            await client.network_interfaces.get("web-rg", "web-1-nic")


async def test_control_over_http(server: SimulatorServer, session: aiohttp.ClientSession) -> None:
    """The control endpoint answers JSON and refuses what comes from a web page."""
    async with session.get(server.control_url + "/state") as reply:
        assert [vm["name"] for vm in (await reply.json())["vms"]] == ["web-1", "web-2"]
    headers = {"Origin": "https://example.org"}
    async with session.delete(server.control_url + "/faults", headers=headers) as reply:
        assert reply.status == 403


async def test_nothing_stays_behind(tmp_path: Path) -> None:
    """On exit every task of the server has ended, hanging requests included."""
    before = asyncio.all_tasks()
    async with SimulatorServer(build_world(now=time.time(), vms=1), tmp_path) as server:
        server.faults.add(Fault(effect=Effect.HANG))
        async with aiohttp.ClientSession() as session:
            request = asyncio.create_task(session.get(server.imds_url("web-1") + EVENTS))
            await server.wait_until(lambda: bool(server.world.changes("fault")))
            await server.__aexit__(None, None, None)
            with pytest.raises(aiohttp.ClientError):
                await request
    await new_tasks_end(before)
