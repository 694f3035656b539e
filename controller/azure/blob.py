"""Client of a blob that agents share: the ledger, whose lease is leadership, or drain requests."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from azure.core import MatchConditions
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
)
from azure.core.pipeline.transport import AsyncHttpTransport

from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.sdk import BlobClient, BlobLeaseClient, StorageStreamDownloader
from controller.azure.http.write_guard import WriteGuard
from controller.azure.imds_document import parse_instant
from controller.clock import Clock
from controller.core.printable import excerpt
from controller.errors import (
    ConfigError,
    Conflict,
    ContractViolation,
    ControllerError,
    Denied,
    LeaseHeld,
    LeaseLost,
    SetupError,
)

MAX_BODY_BYTES = 4 * 1024 * 1024
NOT_MODIFIED = 304
BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
NO_ETAG = '"0x0"'
NO_LEASE = "00000000-0000-0000-0000-000000000000"
_LEASE_CODES = frozenset(
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
    """The content of the blob, and its lease."""

    body: bytes
    etag: str
    lease_state: str
    """available, leased, expired, breaking or broken."""
    lease_status: str
    """locked or unlocked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobProperties:
    """Etag and lease state, without the content."""

    etag: str
    lease_state: str
    date: datetime | None = None
    """The clock of storage, as the reply has it."""


class _Lease(Protocol):
    state: str | None
    status: str | None


class _Properties(Protocol):
    etag: str | None
    lease: _Lease


class StateBlob:
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
        observer: Observer = ignore_outcome,
    ) -> None:
        self._beside = partial(
            StateBlob,
            container_url,
            transport=transport,
            clock=clock,
            credential=credential,
            connection_string=connection_string,
            api_version=api_version,
            request_timeout_s=request_timeout_s,
            observer=observer,
        )
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

    def beside(self, blob_name: str) -> "StateBlob":
        """Return the client of another blob in the same container."""
        return self._beside(blob_name)

    @property
    def name(self) -> str:
        """The blob's name in its container."""
        return str(self._client.blob_name)

    @property
    def url(self) -> str:
        """The blob's URL, without any secret."""
        return f"{self._container_url}/{self.name}"

    async def create(self) -> None:
        """Create the blob unless it exists; an existing blob keeps content and lease."""
        async with self._call("create"):
            try:
                await self._client.upload_blob(b"", overwrite=False)
            except HttpResponseError as error:
                # The reply for a leased blob can have a lease code; in both cases the blob exists.
                if error_code(error) not in _LEASE_CODES | {"BlobAlreadyExists"}:
                    raise

    async def read(self) -> Content:
        """Return content, etag and lease state from one reply."""
        async with self._call("read"):
            return await read_content(self._client, await self._client.download_blob())

    async def read_if_changed(self, etag: str) -> Content | None:
        """Return what `read` returns, or None if the blob still has this ETag; one request.

        An empty ETag is that of no blob.
        """
        if not etag:
            return await self.read()
        async with self._call("read"):
            try:
                download = await self._client.download_blob(
                    etag=etag, match_condition=MatchConditions.IfModified
                )
            except HttpResponseError as error:
                # The SDK has no class of its own for it: it goes by the code of the reply.
                if error.status_code == NOT_MODIFIED:
                    return None
                raise
            return await read_content(self._client, download)

    async def read_properties(self) -> BlobProperties:
        """Return etag, lease state, and the clock of storage."""
        dates: list[datetime | None] = []

        def note_date(response: Any) -> None:
            dates.append(parse_instant(str(response.http_response.headers.get("date"))))

        async with self._call("get_properties"):
            properties = cast(
                "object", await self._client.get_blob_properties(raw_response_hook=note_date)
            )
            etag, state, _ = _describe(cast("_Properties", properties))
            return BlobProperties(etag=etag, lease_state=state, date=next(iter(dates), None))

    async def acquire(self, lease_id: str, duration_s: int) -> None:
        """Acquire the lease. Repeating it with the same id does no harm. Raises LeaseHeld."""
        async with self._call("acquire", on_lease_code=LeaseHeld):
            await self._lease(lease_id).acquire(lease_duration=duration_s)

    async def renew(self, lease_id: str) -> str:
        """Renew the lease, and return the etag of the blob; "" if unknown. Raises LeaseLost."""
        async with self._call("renew", on_lease_code=LeaseLost, missing_blob=LeaseLost):
            await (lease := self._lease(lease_id)).renew()
            return str(lease.etag or "")

    async def release(self, lease_id: str) -> None:
        """Release the lease, so that a peer can acquire it at once. Raises LeaseLost."""
        async with self._call("release", on_lease_code=LeaseLost, missing_blob=LeaseLost):
            await self._lease(lease_id).release()

    async def break_lease(self) -> None:
        """End the lease of any holder.

        The holder cannot renew it any more, and it is free when its time is over: nothing that the
        holder may still send under it overlaps with the next lease. Raises LeaseLost without one.
        """
        async with self._call("break", on_lease_code=LeaseLost, missing_blob=LeaseLost):
            await self._lease(NO_LEASE).break_lease()

    async def write(self, body: bytes, etag: str, lease_id: str, guard: WriteGuard) -> str:
        """Replace the content, if it still has the etag `etag` and the lease is ours.

        `guard` is checked right before the request leaves, because opening a connection can take
        longer than the lease has left. Returns the new etag. Raises LeaseLost, or Conflict when
        the content has changed.
        """
        async with self._call("write", on_lease_code=LeaseLost, missing_blob=LeaseLost):
            reply = await self._client.upload_blob(
                body,
                overwrite=True,
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
                lease=self._lease(lease_id),
                guard=guard,
            )
            return _written(cast("object", reply.get("etag")))

    async def replace(self, body: bytes, etag: str, guard: WriteGuard | None = None) -> str:
        """Replace the content without a lease, if it still has the etag `etag`.

        An empty etag means that the blob must not exist yet. `guard` is checked right before the
        request leaves. Returns the new etag. Raises Conflict when the content has changed.
        """
        async with self._call("write"):
            conditions: dict[str, Any] = {"overwrite": False, "guard": guard}
            if etag:
                conditions |= {
                    "overwrite": True,
                    "etag": etag,
                    "match_condition": MatchConditions.IfNotModified,
                }
            try:
                reply = await self._client.upload_blob(body, **conditions)
            except ResourceExistsError as error:
                raise Conflict(f"blob write: {error.status_code} {error_code(error)}") from error
            return _written(cast("object", reply.get("etag")))

    async def probe_write(self) -> None:
        """Find out whether the identity can write the blob, with a write that cannot take effect.

        The write has the condition of an etag and of a lease that no blob has. Storage checks
        permissions before conditions.

        Raises:
            Denied: the identity cannot write the blob.
        """
        async with self._call("probe_write"):
            try:
                await self._client.upload_blob(
                    b"",
                    overwrite=True,
                    etag=NO_ETAG,
                    match_condition=MatchConditions.IfNotModified,
                    lease=self._lease(NO_LEASE),
                )
            except HttpResponseError as error:
                # Storage can name either condition first; it checks both after the permission.
                refused_by_condition = error.status_code == 412 or error_code(error) in _LEASE_CODES
                if not refused_by_condition and error_code(error) != "BlobNotFound":
                    raise

    def _lease(self, lease_id: str) -> BlobLeaseClient:
        # A new client each time: the SDK's lease client cannot be used after a release.
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
                code = error_code(error)
                what = f"{self._caller.name_of(operation)}: {error.status_code} {code}"
                if code == "ContainerNotFound":
                    raise SetupError(self._no_container()) from error
                if code == "AuthorizationPermissionMismatch":
                    verb = "read" if operation in {"read", "get_properties"} else "write"
                    raise Denied(
                        self._no_permission(what),
                        action=f"{BLOBS}/{verb}",
                        scope=self._container_url,
                    ) from error
                if code in _LEASE_CODES:
                    raise on_lease_code(what) from error
                if missing_blob is not None and error.status_code == 404:
                    raise missing_blob(what) from error
                raise

    def _no_permission(self, what: str) -> str:
        return (
            f"{what}: the managed identity may not do that to {self.url}. Grant it the role "
            "'lb-drain ledger' (deploy/roles) or the built-in role 'Storage Blob Data Contributor' "
            "on the container; a new role assignment takes some minutes to apply"
        )

    def _no_container(self) -> str:
        account = (urlsplit(self._container_url).hostname or "").split(".", 1)[0]
        return (
            f"election.container_url: there is no container {self._container!r} at "
            f"{self._container_url}. Create it: az storage container create "
            f"--account-name {account} --name {self._container} --auth-mode login"
        )


async def read_content(client: BlobClient, download: StorageStreamDownloader[bytes]) -> Content:
    """Return the content of a blob from a download that has begun.

    Raises:
        ContractViolation: it is too large, or the reply is not complete.
    """
    size = download.size
    if size > MAX_BODY_BYTES:
        raise ContractViolation(f"blob read: {size} bytes, the limit is {MAX_BODY_BYTES}")
    body = await download.readall()
    if len(body) != size:
        # A body that is cut to nothing would be read as an empty ledger, which is valid.
        raise ContractViolation(f"blob read: {len(body)} bytes of a blob with {size} bytes")
    etag, state, status = _describe(cast("_Properties", download.properties))
    if not body:
        await _check_empty(client, etag)
    return Content(body=body, etag=etag, lease_state=state, lease_status=status)


async def _check_empty(client: BlobClient, etag: str) -> None:
    """Confirm with a second request that the blob is empty.

    The SDK returns an empty body for any reply with status 416. An agent that reads a ledger
    as empty would never restore the VMs that are out (laws S3, S5).
    """
    properties = await client.get_blob_properties()
    if properties.etag != etag or properties.size != 0:
        raise ContractViolation(f"blob read: an empty body of a blob with {properties.size} bytes")


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


def error_code(error: HttpResponseError) -> str:
    """Return the storage error code; the SDK finds it in the body or in a header."""
    code = cast("object", getattr(error, "error_code", None))
    return excerpt(str(getattr(code, "value", code) or ""))
