"""Client of a container with the blobs of many availability sets. It only reads.

Listing and reading need one data action, `.../containers/blobs/read` (Microsoft docs, List Blobs).
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import AsyncHttpTransport

from controller.azure.blob import BLOBS, MAX_BODY_BYTES, Content, error_code, read_content
from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.sdk import ContainerClient
from controller.clock import Clock
from controller.errors import ConfigError, ContractViolation, Denied, SetupError

LIST_TIMEOUT_S = 60.0
"""Deadline of a listing: a page holds 5,000 blobs."""
MAX_BLOBS = 100_000
"""A listing with more blobs is not continued: the container is for something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedBlob:
    """One blob of a listing."""

    name: str
    etag: str
    size: int
    written_at: datetime
    lease_state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The blobs of a container."""

    blobs: tuple[ListedBlob, ...]
    at: datetime
    """When the first page was sent, by the clock of the storage account."""


class _Lease(Protocol):
    state: str | None


class _Properties(Protocol):
    name: str
    etag: str | None
    size: int | None
    last_modified: datetime | None
    lease: _Lease


class StateContainer:
    """Client of one container. Nothing is retried, and every call has a deadline."""

    def __init__(
        self,
        container_url: str,
        *,
        transport: AsyncHttpTransport[Any, Any],
        clock: Clock,
        credential: AsyncTokenCredential | None = None,
        connection_string: str = "",
        api_version: str = "",
        request_timeout_s: float = 10,
        observer: Observer = ignore_outcome,
    ) -> None:
        self.url = container_url.rstrip("/")
        self._clock, self._timeout_s = clock, request_timeout_s
        self._caller = Caller(service="blob", clock=clock, observer=observer)
        options: dict[str, Any] = {
            "transport": transport,
            "retry_total": 0,
            "max_single_get_size": MAX_BODY_BYTES + 1,
        }
        if api_version:
            options["api_version"] = api_version
        if connection_string:
            name = urlsplit(self.url).path.rsplit("/", 1)[-1]
            self._client = ContainerClient.from_connection_string(
                connection_string, name, **options
            )
            if self._client.url.casefold() != self.url.casefold():
                raise ConfigError(
                    f"the container is {self.url}, but the connection string in "
                    "AZURE_STORAGE_CONNECTION_STRING is for another account or host"
                )
        else:
            # Its blob clients share one pipeline, and so one token.
            self._client = ContainerClient.from_container_url(
                self.url, credential=credential, **options
            )

    async def list(self, prefix: str = "") -> Listing:
        """Return every blob of the container whose name begins so.

        Raises:
            SetupError: there is no such container.
            Denied: the identity may not read blobs there.
            ControllerError: it could not be listed.
        """
        found: list[ListedBlob] = []
        dates: list[datetime] = []

        def note_date(response: Any) -> None:
            dates.append(_date(response.http_response.headers.get("date")) or self._clock.now())

        async with self._call("list", LIST_TIMEOUT_S):
            async for each in self._client.list_blobs(
                name_starts_with=prefix or None, raw_response_hook=note_date
            ):
                found.append(_listed(cast("_Properties", each)))
                if len(found) > MAX_BLOBS:
                    raise ContractViolation(
                        f"the container {self.url} has more than {MAX_BLOBS} blobs: it is not one "
                        "of lb-drain, or other programs use it too"
                    )
        return Listing(blobs=tuple(found), at=dates[0] if dates else self._clock.now())

    async def read(self, name: str) -> Content:
        """Return the content of a blob.

        Raises:
            ControllerError: it could not be read.
        """
        async with self._call("read", self._timeout_s):
            client = self._client.get_blob_client(name)
            return await read_content(client, await client.download_blob())

    @asynccontextmanager
    async def _call(self, operation: str, deadline_s: float) -> AsyncGenerator[None]:
        async with self._caller.call(operation, deadline_s):
            try:
                yield
            except HttpResponseError as error:
                code = error_code(error)
                what = f"{self._caller.name_of(operation)}: {error.status_code} {code}"
                if code == "ContainerNotFound":
                    raise SetupError(f"{what}: there is no container at {self.url}") from error
                if code == "AuthorizationPermissionMismatch":
                    raise Denied(
                        f"{what}: this identity may not read blobs in {self.url}. Grant it the "
                        "built-in role 'Storage Blob Data Reader' on the container; a new role "
                        "assignment takes some minutes to apply",
                        action=f"{BLOBS}/read",
                        scope=self.url,
                    ) from error
                raise


def _listed(blob: _Properties) -> ListedBlob:
    written_at, lease = blob.last_modified, blob.lease
    if not blob.etag or written_at is None:
        raise ContractViolation("container listing: a blob without ETag or time")
    return ListedBlob(
        name=blob.name,
        etag=blob.etag,
        size=blob.size or 0,
        written_at=written_at.astimezone(UTC),
        lease_state=str(lease.state or "available"),
    )


def _date(header: object) -> datetime | None:
    """Return the instant in a `Date` header; None if it has none."""
    try:
        return parsedate_to_datetime(str(header)).astimezone(UTC)
    except ValueError:
        return None
