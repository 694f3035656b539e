"""Leases and blob conditions as the agents use them, through Azure's SDK, over two services.

One suite runs against the simulator (with TLS; with a bearer token and with a connection string)
and against Azurite where it is installed: `AZURITE_BLOB` names the executable, else
`node_modules/.bin/azurite-blob` in the repository, else the `PATH` is searched. To get it:
`npm install --no-save azurite@3.35.0`.

Where Azurite is known to differ from Azure, and what the suite does about it:

- A renewal with a *wrong* id succeeds on an expired lease. Asserted for the simulator only.
- A write with the id of an expired lease is `LeaseNotPresentWithBlobOperation`; Azure documents
  `LeaseLost`. Both are 412: the suite asserts the status.
- A proposed lease id need not be a GUID. Not asserted here.
- There is no wait after an expiry and no clock to move: expiry takes 15 real seconds.
- With the SDK's default API version it answers 400 unless started with `--skipApiVersionCheck`.
- Tokens need HTTPS and are not verified: a connection string is used.
"""

import asyncio
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob.aio import BlobClient, BlobLeaseClient, BlobServiceClient

from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world
from tests.support.patience import PATIENCE_S
from tests.support.ports import free_port

LEASE_S = 15
REPOSITORY = Path(__file__).parents[2]
# The emulator's account is public knowledge: Microsoft docs, Connect to Azurite.
DEV_ACCOUNT = "devstoreaccount1"
DEV_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class StaticCredential:
    """Hands out one token for ever."""

    token: str

    async def get_token(self, *scopes: str, **kwargs: object) -> AccessToken:
        return AccessToken(self.token, int(time.time()) + 3600)

    async def close(self) -> None:
        """Hold nothing."""

    async def __aenter__(self) -> "StaticCredential":
        return self

    async def __aexit__(self, *args: object) -> None:
        """Hold nothing."""


@dataclass
class Storage:
    """A blob service under test, with a container of its own."""

    service: BlobServiceClient
    simulator: SimulatorServer | None
    shift: list[float] = field(default_factory=lambda: [0.0])
    container: str = field(default_factory=lambda: f"c{uuid.uuid4().hex}")

    def blob(self) -> BlobClient:
        """Return a client of the one blob of these tests."""
        return self.service.get_blob_client(self.container, "set")

    async def create(self) -> BlobClient:
        """Return a client of the blob, which exists."""
        blob = self.blob()
        await blob.upload_blob(b"ledger 1")
        return blob

    async def expire(self, blob: BlobClient) -> None:
        """Let the lease end: by moving the clock, or by waiting where no clock can be moved."""
        self.shift[0] += LEASE_S
        async with asyncio.timeout(LEASE_S + PATIENCE_S):
            while (await blob.get_blob_properties()).lease.state != "expired":  # noqa: ASYNC110
                await asyncio.sleep(0.2)


def find_azurite() -> str | None:
    """Return the executable, or None."""
    named = os.environ.get("AZURITE_BLOB")
    local = REPOSITORY / "node_modules/.bin/azurite-blob"
    found = named or (str(local) if local.exists() else shutil.which("azurite-blob"))
    return found if found and shutil.which(found) and shutil.which("node") else None


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Azurite on a free port; yield its account URL."""
    executable = find_azurite()
    if executable is None:
        pytest.skip("Azurite is not installed: set AZURITE_BLOB, or npm install azurite@3.35.0")
    port = free_port()
    location = tmp_path_factory.mktemp("azurite")
    flags = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(location)]
    with subprocess.Popen(
        [executable, *flags, *where], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if b"successfully listen" in line:
                    break
            else:
                pytest.fail("Azurite ended before it listened")
            yield f"http://127.0.0.1:{port}/{DEV_ACCOUNT}"
        finally:
            process.terminate()


@pytest.fixture(params=["simulator-token", "simulator-key", "azurite"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    """Each of the services in turn; the SDK's own retries are off, as they are in the agents."""
    options: dict[str, Any] = {"retry_total": 0, "use_env_settings": False}
    async with AsyncExitStack() as stack:
        if request.param == "azurite":
            url = request.getfixturevalue("azurite")
            service = BlobServiceClient(url, credential=DEV_KEY, **options)
            storage = Storage(service=service, simulator=None)
        else:
            shift = [0.0]
            world = build_world(now=time.time(), vms=2)
            server = SimulatorServer(world, tmp_path, clock=lambda: time.time() + shift[0])
            await stack.enter_async_context(server)
            options["connection_verify"] = str(server.ca_file)
            if request.param == "simulator-key":
                service = BlobServiceClient.from_connection_string(
                    f"BlobEndpoint={server.blob_url};AccountName=lbdrainsim;AccountKey={DEV_KEY}",
                    **options,
                )
            else:
                token: Any = StaticCredential(world.token("web-1", "https://storage.azure.com"))
                service = BlobServiceClient(server.blob_url, credential=token, **options)
            storage = Storage(service=service, simulator=server, shift=shift)
        await stack.enter_async_context(service)
        await service.create_container(storage.container)
        yield storage


def code(error: pytest.ExceptionInfo[HttpResponseError]) -> tuple[int | None, str | None]:
    """Return status and error code."""
    return error.value.status_code, getattr(error.value, "error_code", None)


async def lease_state(blob: BlobClient) -> tuple[str, str, str | None]:
    """Return state, status and kind of duration, as HEAD tells them."""
    lease = (await blob.get_blob_properties()).lease
    return lease.state, lease.status, lease.duration


async def test_create_only_once(storage: Storage) -> None:
    """Of two clients that create the blob under If-None-Match, one receives that it exists."""
    blob = storage.blob()
    await blob.upload_blob(b"{}", overwrite=False)
    with pytest.raises(ResourceExistsError) as refused:
        await blob.upload_blob(b"other", overwrite=False)
    assert code(refused) == (409, "BlobAlreadyExists")
    assert await (await blob.download_blob()).readall() == b"{}"


async def test_read_back(storage: Storage) -> None:
    """What was written is read with the ETag of its properties, an empty blob included."""
    blob = await storage.create()
    for body in (b"ledger 2", b""):
        written = await blob.upload_blob(body, overwrite=True)
        download = await blob.download_blob()
        assert await download.readall() == body
        assert download.properties.etag == written["etag"]
        properties = await blob.get_blob_properties()
        assert (properties.etag, properties.size) == (written["etag"], len(body))


async def test_write_under_if_match(storage: Storage) -> None:
    """A write under the ETag that was read succeeds once, and not again under the same one."""
    blob = await storage.create()
    etag = (await blob.get_blob_properties()).etag

    async def write() -> None:
        await blob.upload_blob(
            b"2", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified
        )

    await write()
    with pytest.raises(ResourceModifiedError) as refused:
        await write()
    assert code(refused) == (412, "ConditionNotMet")


async def test_missing_things(storage: Storage) -> None:
    """Neither a missing blob nor a missing container can be read or leased."""
    nowhere = storage.service.get_blob_client("c" + uuid.uuid4().hex, "set")
    for blob, expected in ((storage.blob(), "BlobNotFound"), (nowhere, "ContainerNotFound")):
        with pytest.raises(ResourceNotFoundError) as refused:
            await blob.download_blob()
        assert code(refused) == (404, expected)
        with pytest.raises(ResourceNotFoundError):
            await BlobLeaseClient(blob).acquire(LEASE_S)


async def test_one_of_two_gets_the_lease(storage: Storage) -> None:
    """While one client holds the lease, another is refused with LeaseAlreadyPresent."""
    blob = await storage.create()
    await BlobLeaseClient(blob).acquire(LEASE_S)
    assert await lease_state(blob) == ("leased", "locked", "fixed")
    with pytest.raises(ResourceExistsError) as refused:
        await BlobLeaseClient(blob).acquire(LEASE_S)
    assert code(refused) == (409, "LeaseAlreadyPresent")


async def test_acquire_again_is_idempotent(storage: Storage) -> None:
    """The holder may acquire again under its own id, which settles a lost reply."""
    blob = await storage.create()
    lease = BlobLeaseClient(blob)
    await lease.acquire(LEASE_S)
    held = lease.id
    await lease.acquire(LEASE_S)
    assert lease.id == held


async def test_lease_calls_keep_the_etag(storage: Storage) -> None:
    """Acquire, renew and release leave the ETag alone, so they never disturb a writer."""
    blob = await storage.create()
    before = (await blob.get_blob_properties()).etag
    lease = BlobLeaseClient(blob)
    await lease.acquire(LEASE_S)
    await lease.renew()
    await lease.release()
    assert (await blob.get_blob_properties()).etag == before


async def test_released_lease_is_free_at_once(storage: Storage) -> None:
    """After a release the next client acquires without waiting."""
    blob = await storage.create()
    first = BlobLeaseClient(blob)
    await first.acquire(LEASE_S)
    await first.release()
    assert await lease_state(blob) == ("available", "unlocked", None)
    await BlobLeaseClient(blob).acquire(LEASE_S)


async def test_only_the_holder_renews_and_releases(storage: Storage) -> None:
    """Renewal and release under another id are refused while the lease is held."""
    blob = await storage.create()
    await BlobLeaseClient(blob).acquire(LEASE_S)
    for attempt in ("renew", "release"):
        with pytest.raises(ResourceExistsError) as refused:
            await getattr(BlobLeaseClient(blob), attempt)()
        assert code(refused) == (409, "LeaseIdMismatchWithLeaseOperation")


async def test_change_gives_the_lease_another_id(storage: Storage) -> None:
    """After a change only the new id is the holder's."""
    blob = await storage.create()
    lease = BlobLeaseClient(blob)
    await lease.acquire(LEASE_S)
    old, new = lease.id, str(uuid.uuid4())
    await lease.change(new)
    await BlobLeaseClient(blob, new).renew()
    with pytest.raises(ResourceExistsError):
        await BlobLeaseClient(blob, old).renew()


async def test_break_ends_the_lease(storage: Storage) -> None:
    """A broken lease cannot be renewed, and another client may take it."""
    blob = await storage.create()
    lease = BlobLeaseClient(blob)
    await lease.acquire(LEASE_S)
    assert await BlobLeaseClient(blob).break_lease(0) == 0
    assert (await lease_state(blob))[0] == "broken"
    with pytest.raises(ResourceExistsError) as refused:
        await lease.renew()
    assert code(refused) == (409, "LeaseIsBrokenAndCannotBeRenewed")
    await BlobLeaseClient(blob).acquire(LEASE_S)


async def test_breaking_lease_still_protects(storage: Storage) -> None:
    """During a break period the holder writes, and nobody acquires."""
    blob = await storage.create()
    lease = BlobLeaseClient(blob)
    await lease.acquire(LEASE_S)
    assert 0 < await BlobLeaseClient(blob).break_lease(10) <= 10
    assert (await lease_state(blob))[:2] == ("breaking", "locked")
    await blob.upload_blob(b"2", overwrite=True, lease=lease)
    with pytest.raises(ResourceExistsError):
        await BlobLeaseClient(blob).acquire(LEASE_S)


async def test_write_to_a_leased_blob(storage: Storage) -> None:
    """A leased blob is written with the holder's id, and with no other and with none."""
    blob = await storage.create()
    lease = BlobLeaseClient(blob)
    await lease.acquire(LEASE_S)
    with pytest.raises(HttpResponseError) as refused:
        await blob.upload_blob(b"none", overwrite=True)
    assert code(refused) == (412, "LeaseIdMissing")
    unknown: Any = str(uuid.uuid4())
    with pytest.raises(HttpResponseError) as refused:
        await blob.upload_blob(b"other", overwrite=True, lease=unknown)
    assert code(refused) == (412, "LeaseIdMismatchWithBlobOperation")
    await blob.upload_blob(b"holder", overwrite=True, lease=lease)
    assert await (await blob.download_blob()).readall() == b"holder"


async def test_write_with_an_id_needs_a_lease(storage: Storage) -> None:
    """A write that names a lease fails when there is none: a deposed leader cannot write."""
    blob = await storage.create()
    unknown: Any = str(uuid.uuid4())
    with pytest.raises(HttpResponseError) as refused:
        await blob.upload_blob(b"2", overwrite=True, lease=unknown)
    assert code(refused) == (412, "LeaseNotPresentWithBlobOperation")


async def test_bad_duration(storage: Storage) -> None:
    """A lease shorter than 15 seconds is refused as a bad header."""
    blob = await storage.create()
    with pytest.raises(HttpResponseError) as refused:
        await BlobLeaseClient(blob).acquire(14)
    assert code(refused) == (400, "InvalidHeaderValue")


async def test_expiry(storage: Storage) -> None:
    """An expired id cannot write but can renew, until somebody else has acquired."""
    blob = await storage.create()
    lease, other = BlobLeaseClient(blob), BlobLeaseClient(blob)
    await lease.acquire(LEASE_S)
    await storage.expire(blob)
    with pytest.raises(HttpResponseError) as refused:
        await blob.upload_blob(b"late", overwrite=True, lease=lease)
    assert refused.value.status_code == 412
    await lease.renew()
    await storage.expire(blob)
    await other.acquire(LEASE_S)
    for late in (lease.renew, lease.release):
        with pytest.raises(ResourceExistsError) as conflict:
            await late()
        assert code(conflict) == (409, "LeaseIdMismatchWithLeaseOperation")
    with pytest.raises(HttpResponseError) as refused:
        await blob.upload_blob(b"late", overwrite=True, lease=lease)
    assert refused.value.status_code == 412


async def test_write_ends_an_expired_lease(storage: Storage) -> None:
    """Once somebody wrote without a lease, the expired id can no longer renew."""
    blob = await storage.create()
    lease = BlobLeaseClient(blob)
    await lease.acquire(LEASE_S)
    await storage.expire(blob)
    await blob.upload_blob(b"2", overwrite=True)
    assert (await lease_state(blob))[0] == "available"
    with pytest.raises(ResourceExistsError) as refused:
        await lease.renew()
    assert refused.value.status_code == 409


def simulator_of(storage: Storage) -> SimulatorServer:
    """Return the simulator, or skip what no emulator offers."""
    if storage.simulator is None:
        pytest.skip("Azurite has no such behaviour; see the list at the top of this module")
    return storage.simulator


async def test_wrong_id_never_renews_an_expired_lease(storage: Storage) -> None:
    """A renewal under an id that never held the lease fails after expiry, too."""
    simulator_of(storage)
    blob = await storage.create()
    await BlobLeaseClient(blob).acquire(LEASE_S)
    await storage.expire(blob)
    with pytest.raises(ResourceExistsError):
        await BlobLeaseClient(blob).renew()


async def test_lost_reply_took_effect(storage: Storage) -> None:
    """A write whose reply is lost has changed the blob, whichever error the SDK makes of it.

    A reset by the peer comes out as ServiceRequestError, whose name says "never sent".
    """
    simulator = simulator_of(storage)
    blob = await storage.create()
    # Twice: aiohttp itself sends a PUT again when a kept-alive connection is reset under it.
    simulator.faults.add(
        Fault(service=Service.BLOB, method="PUT", effect=Effect.RESET_AFTER, times=2)
    )
    with pytest.raises((ServiceRequestError, ServiceResponseError)):
        await blob.upload_blob(b"2", overwrite=True)
    assert await (await blob.download_blob()).readall() == b"2"


async def test_missing_data_action(storage: Storage) -> None:
    """A VM without the write data action gets 403 with the code that names the problem."""
    simulator = simulator_of(storage)
    blob = await storage.create()
    simulator.world.blobs.denied_writes |= {"web-1", "shared key"}
    with pytest.raises(HttpResponseError) as refused:
        await BlobLeaseClient(blob).acquire(LEASE_S)
    assert code(refused) == (403, "AuthorizationPermissionMismatch")


async def test_invalid_token(tmp_path: Path) -> None:
    """A token for another audience is an authentication error."""
    world = build_world(now=time.time(), vms=1)
    async with SimulatorServer(world, tmp_path) as server:
        server.container_url("lb-drain")
        token: Any = StaticCredential(world.token("web-1", "https://management.azure.com"))
        async with BlobServiceClient(
            server.blob_url,
            credential=token,
            retry_total=0,
            use_env_settings=False,
            connection_verify=str(server.ca_file),
        ) as service:
            with pytest.raises(ClientAuthenticationError):
                await service.get_blob_client("lb-drain", "set").upload_blob(b"1")
