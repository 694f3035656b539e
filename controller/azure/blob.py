"""The blob whose lease is leadership and whose content is the ledger."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from azure.core import MatchConditions
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.storage.blob.aio import BlobClient, BlobLeaseClient

from controller.azure.departure import Fence
from controller.azure.failures import Caller, Observer, cap, ignore
from controller.clock import Clock
from controller.errors import (
    ConfigError,
    Conflict,
    ContractViolation,
    ControllerError,
    Denied,
    LeaseHeld,
    LeaseLost,
)

MAX_BODY_BYTES = 4 * 1024 * 1024
BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
NO_ETAG = '"0x0"'
NO_LEASE = "00000000-0000-0000-0000-000000000000"
_NOT_OURS = frozenset(
    {
        "LeaseAlreadyPresent",
        "LeaseIdMismatchWithBlobOperation",
        "LeaseIdMismatchWithLeaseOperation",
        "LeaseIdMissing",
        "LeaseIsBreakingAndCannotBeAcquired",
        "LeaseIsBreakingAndCannotBeChanged",
        "LeaseIsBrokenAndCannotBeRenewed",
        "LeaseLost",
        "LeaseNotPresentWithBlobOperation",
        "LeaseNotPresentWithLeaseOperation",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The ledger as it stands."""

    body: bytes
    etag: str
    lease_state: str
    """available, leased, expired, breaking or broken."""
    lease_status: str
    """locked or unlocked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peek:
    """The blob without its content."""

    etag: str
    lease_state: str


class _Lease(Protocol):
    state: str | None
    status: str | None


class _Properties(Protocol):
    etag: str | None
    lease: _Lease


class LedgerBlob:
    """Client of one blob. Nothing is retried, and every call ends within `request_timeout_s`."""

    def __init__(
        self,
        container_url: str,
        blob_name: str,
        *,
        transport: AsyncHttpTransport[Any, Any],
        clock: Clock,
        credential: AsyncTokenCredential | None = None,
        connection_string: str = "",
        api_version: str = "",
        request_timeout_s: float = 4,
        observer: Observer = ignore,
    ) -> None:
        self._container_url = container_url.rstrip("/")
        self._container = urlsplit(self._container_url).path.rsplit("/", 1)[-1]
        self._timeout_s = request_timeout_s
        self._caller = Caller(service="blob", clock=clock, observer=observer)
        options: dict[str, Any] = {
            "transport": transport,
            # The default waits 15, 18 and 24 s between attempts: one blip would outlive a lease.
            "retry_total": 0,
            "max_single_get_size": MAX_BODY_BYTES + 1,
            "max_single_put_size": MAX_BODY_BYTES + 1,
        }
        if api_version:
            options["api_version"] = api_version
        if connection_string:
            self._client = BlobClient.from_connection_string(
                connection_string, self._container, blob_name, **options
            )
            if not self._client.url.casefold().startswith(self._container_url.casefold() + "/"):
                raise ConfigError(
                    f"election.container_url is {self._container_url}, but the connection string "
                    "in AZURE_STORAGE_CONNECTION_STRING is for another account or host"
                )
        else:
            self._client = BlobClient.from_blob_url(
                f"{self._container_url}/{blob_name}", credential=credential, **options
            )

    @property
    def name(self) -> str:
        """The blob's name in its container."""
        return str(self._client.blob_name)

    @property
    def url(self) -> str:
        """The blob's URL, without any secret."""
        return f"{self._container_url}/{self.name}"

    async def create(self) -> None:
        """Make sure the blob exists; one that is there keeps content and lease."""
        async with self._call("create"):
            try:
                await self._client.upload_blob(b"", overwrite=False)
            except HttpResponseError as error:
                # A leased blob may answer with the lease code; either way it exists.
                if _code(error) not in _NOT_OURS | {"BlobAlreadyExists"}:
                    raise

    async def read(self) -> Content:
        """Return content, etag and lease state, all of one instant."""
        async with self._call("read"):
            download = await self._client.download_blob()
            if download.size > MAX_BODY_BYTES:
                raise ContractViolation(
                    f"the ledger blob holds {download.size} bytes, more than any ledger"
                )
            body = await download.readall()
            if len(body) != download.size:
                # Cut off at the start it would be an empty ledger, and that is a valid one.
                raise ContractViolation(
                    f"blob read: {len(body)} bytes of a ledger that has {download.size}"
                )
            etag, state, status = _describe(cast("_Properties", download.properties))
            if not body:
                await self._check_empty(etag)
            return Content(body=body, etag=etag, lease_state=state, lease_status=status)

    async def _check_empty(self, etag: str) -> None:
        """Look again at a blob that seems to hold nothing.

        That is what the SDK makes of any 416, and to take a ledger for an empty one is to forget
        every VM that is out (laws S3, S5).
        """
        properties = await self._client.get_blob_properties()
        if properties.etag != etag or properties.size != 0:
            raise ContractViolation(
                f"blob read: nothing came of a ledger that has {properties.size} bytes"
            )

    async def peek(self) -> Peek:
        """Return etag and lease state."""
        async with self._call("peek"):
            properties = cast("object", await self._client.get_blob_properties())
            etag, state, _ = _describe(cast("_Properties", properties))
            return Peek(etag=etag, lease_state=state)

    async def acquire(self, lease_id: str, duration_s: int) -> None:
        """Take the lease. Repeating it with the same id is harmless. Raises LeaseHeld."""
        async with self._call("acquire", on_lease_code=LeaseHeld):
            await self._lease(lease_id).acquire(lease_duration=duration_s)

    async def renew(self, lease_id: str) -> None:
        """Start the lease's time again. Raises LeaseLost."""
        async with self._call("renew", on_lease_code=LeaseLost, missing_blob=LeaseLost):
            await self._lease(lease_id).renew()

    async def release(self, lease_id: str) -> None:
        """Let go of the lease, so that a peer can have it at once. Raises LeaseLost."""
        async with self._call("release", on_lease_code=LeaseLost, missing_blob=LeaseLost):
            await self._lease(lease_id).release()

    async def write(self, body: bytes, etag: str, lease_id: str, fence: Fence) -> str:
        """Replace the content, if it is still the one of `etag` and the lease is ours.

        `fence` is asked right before the request leaves: a connection can take longer to open than
        the lease has left. Returns the new etag. Raises LeaseLost, or Conflict when the content is
        another.
        """
        async with self._call("write", on_lease_code=LeaseLost, missing_blob=LeaseLost):
            reply = await self._client.upload_blob(
                body,
                overwrite=True,
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
                lease=self._lease(lease_id),
                fence=fence,
            )
            return _written(cast("object", reply.get("etag")))

    async def replace(self, body: bytes, etag: str) -> str:
        """Replace the content without a lease, if it is still the one of `etag`.

        An empty etag asks for a blob that does not exist yet. Returns the new etag. Raises Conflict
        when the content is another.
        """
        async with self._call("write"):
            conditions: dict[str, Any] = {"overwrite": False}
            if etag:
                conditions = {
                    "overwrite": True,
                    "etag": etag,
                    "match_condition": MatchConditions.IfNotModified,
                }
            try:
                reply = await self._client.upload_blob(body, **conditions)
            except ResourceExistsError as error:
                raise Conflict(f"blob write: {error.status_code} {_code(error)}") from error
            return _written(cast("object", reply.get("etag")))

    async def rehearse(self) -> None:
        """Find out whether the blob may be written, by a write that cannot take effect.

        It asks for an etag and for a lease that no blob has, and either is enough to refuse it;
        storage looks at permissions before it looks at conditions.

        Raises:
            Denied: it may not be written.
        """
        async with self._call("rehearse"):
            try:
                await self._client.upload_blob(
                    b"",
                    overwrite=True,
                    etag=NO_ETAG,
                    match_condition=MatchConditions.IfNotModified,
                    lease=self._lease(NO_LEASE),
                )
            except HttpResponseError as error:
                # Which of them is told first does not matter: each comes after the permission.
                held_back = error.status_code == 412 or _code(error) in _NOT_OURS
                if not held_back and _code(error) != "BlobNotFound":
                    raise

    def _lease(self, lease_id: str) -> BlobLeaseClient:
        # A fresh one each time: after a release the SDK's lease client is unusable.
        return BlobLeaseClient(self._client, lease_id=lease_id)

    @asynccontextmanager
    async def _call(
        self,
        operation: str,
        *,
        on_lease_code: type[ControllerError] = Conflict,
        missing_blob: type[ControllerError] | None = None,
    ) -> AsyncGenerator[None]:
        async with self._caller.call(operation, self._timeout_s):
            try:
                yield
            except HttpResponseError as error:
                code = _code(error)
                what = f"blob {operation}: {error.status_code} {code}"
                if code == "ContainerNotFound":
                    raise ConfigError(self._no_container()) from error
                if code == "AuthorizationPermissionMismatch":
                    verb = "read" if operation in {"read", "peek"} else "write"
                    raise Denied(
                        self._no_permission(what),
                        action=f"{BLOBS}/{verb}",
                        scope=self._container_url,
                    ) from error
                if code in _NOT_OURS:
                    raise on_lease_code(what) from error
                if missing_blob is not None and error.status_code == 404:
                    raise missing_blob(what) from error
                raise

    def _no_permission(self, what: str) -> str:
        return (
            f"{what}: the managed identity may not do that to {self.url}. Grant it the role "
            "'Storage Blob Data Contributor' on the container; new role assignments take some "
            "minutes"
        )

    def _no_container(self) -> str:
        account = (urlsplit(self._container_url).hostname or "").split(".", 1)[0]
        return (
            f"election.container_url: there is no container {self._container!r} at "
            f"{self._container_url}. Create it: az storage container create "
            f"--account-name {account} --name {self._container} --auth-mode login"
        )


def _describe(properties: _Properties) -> tuple[str, str, str]:
    etag = properties.etag
    if not etag:
        raise ContractViolation("blob: a reply without ETag")
    lease = properties.lease
    return etag, str(lease.state or "available"), str(lease.status or "unlocked")


def _written(etag: object) -> str:
    if not isinstance(etag, str) or not etag:
        raise ContractViolation("blob write: the reply has no etag")
    return etag


def _code(error: HttpResponseError) -> str:
    """Return the storage error code. HEAD replies have it in a header only; the SDK reads both."""
    code = cast("object", getattr(error, "error_code", None))
    return cap(str(getattr(code, "value", code) or ""))
