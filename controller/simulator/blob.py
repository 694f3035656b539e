"""Simulated Azure Blob Storage: as much of it as one leased, conditionally written blob needs.

Path style, as the storage emulator has it: `/account/container/blob`. Block blobs, leases, ETag
conditions, bearer tokens with data actions. A `SharedKey` header is taken at its word, so that a
connection string works. Listing, snapshots, versions, tiers and container leases do not exist.

Pure on the injected `now` (epoch seconds). Error codes: Microsoft docs, Blob service error codes.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol
from xml.sax.saxutils import escape

from controller.simulator.access import CONTAINERS
from controller.simulator.leases import INFINITE, BlobError, Lease, LeaseState
from controller.simulator.wire import Reply, Request

AUDIENCE = "https://storage.azure.com/"
SERVICE_VERSION = "2026-10-06"
MAX_BLOB_BYTES = 8 * 1024 * 1024
"""Far above any ledger; a bound so that a runaway client cannot fill the simulator's memory."""

Caller = Callable[[str], str | None]
"""Maps a bearer token to the name of the VM it was issued to; None when it is not valid."""


class Permit(Protocol):
    """Decides whether the principal `by` may do a data action, or an action, on a path."""

    def __call__(self, by: str, action: str, path: str, *, data: bool) -> bool: ...


def _anything(by: str, action: str, path: str, *, data: bool) -> bool:  # noqa: ARG001
    """Allow everything: nobody has roles."""
    return True


class Record(Protocol):
    """Where lease changes and writes are reported; `World.record` fits."""

    def __call__(self, kind: str, subject: str, **detail: object) -> object: ...


def _no_record(kind: str, subject: str, **detail: object) -> None:
    """Report nowhere."""


@dataclass(slots=True, kw_only=True)
class Blob:
    """One block blob."""

    body: bytes
    etag: str
    created_at: float
    modified_at: float
    content_type: str
    metadata: Mapping[str, str]
    lease: Lease = field(default_factory=Lease)
    leased_by: str = ""
    """Who acquired or renewed it last; the id alone does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseView:
    """One lease as an observer sees it. `ends_at` in epoch seconds; infinite if it never ends."""

    path: str
    state: str
    holder: str | None
    ends_at: float


@dataclass(slots=True, kw_only=True)
class Container:
    """One container, its blobs by name."""

    etag: str
    modified_at: float
    blobs: dict[str, Blob] = field(default_factory=dict[str, Blob])


@dataclass(slots=True, kw_only=True)
class BlobStore:
    """All accounts. Accounts spring into being with their first container."""

    wait_after_expiry_s: float = 0.0
    """How long after an expiry another id is refused; Azure documents up to 60 s."""
    foreign_write_status: int = 412
    """Status of a write that names another's lease id: the documents say 409 here and 412 there."""
    denied_reads: set[str] = field(default_factory=set[str])
    """VMs without `.../blobs/read`."""
    denied_writes: set[str] = field(default_factory=set[str])
    """VMs without `.../blobs/write`, which every lease operation needs too."""
    record: Record = _no_record
    permit: Permit = _anything
    """What roles say of a bearer token; a shared key may do everything."""
    containers: dict[tuple[str, str], Container] = field(
        default_factory=dict[tuple[str, str], Container]
    )
    serial: int = 0

    def create_container(self, account: str, name: str, now: float) -> Container:
        """Create a container; raise BlobError 409 when it exists."""
        if (account, name) in self.containers:
            raise BlobError(
                409, "ContainerAlreadyExists", "The specified container already exists."
            )
        container = Container(etag=self.next_etag(), modified_at=now)
        self.containers[account, name] = container
        return container

    def find(self, path: str) -> Blob | None:
        """Return the blob at `/account/container/blob`, or None, without any check."""
        account, container, blob = _split(path)
        found = self.containers.get((account, container))
        return None if found is None else found.blobs.get(blob)

    def leases(self, now: float) -> tuple["LeaseView", ...]:
        """Return the lease of every blob, in order of path."""
        return tuple(
            LeaseView(
                path=f"/{account}/{name}/{blob_name}",
                state=blob.lease.state(now).value,
                holder=blob.leased_by if blob.lease.holder(now) is not None else None,
                ends_at=blob.lease.ends_at,
            )
            for (account, name), container in sorted(self.containers.items())
            for blob_name, blob in sorted(container.blobs.items())
        )

    def next_etag(self) -> str:
        """Return an ETag that no blob had before."""
        return f'"0x8DD{self.next_serial():012X}"'

    def next_serial(self) -> int:
        """Return the next number; ids made of it are unique and the same in every run."""
        self.serial += 1
        return self.serial


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One authenticated request for one path, with what its handler needs at hand."""

    store: BlobStore
    request: Request
    now: float
    path: str
    account: str
    container_name: str
    blob_name: str
    by: str

    def header(self, name: str) -> str | None:
        return self.request.headers.get(name)

    @property
    def lease_id(self) -> str | None:
        return self.header("x-ms-lease-id")

    @property
    def container(self) -> Container:
        found = self.store.containers.get((self.account, self.container_name))
        if found is None:
            raise BlobError(404, "ContainerNotFound", "The specified container does not exist.")
        return found

    @property
    def blob(self) -> Blob:
        found = self.container.blobs.get(self.blob_name)
        if found is None:
            raise BlobError(404, "BlobNotFound", "The specified blob does not exist.")
        return found


def handle(store: BlobStore, request: Request, now: float, *, caller: Caller) -> Reply:
    """Answer one Blob service request and apply its effect to `store`."""
    common = {
        "x-ms-version": request.headers.get("x-ms-version", SERVICE_VERSION),
        "x-ms-request-id": _request_id(store),
        "server": "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0",
    }
    if client_id := request.headers.get("x-ms-client-request-id"):
        common["x-ms-client-request-id"] = client_id
    try:
        reply = _dispatch(_authenticated(store, request, now, caller))
    except BlobError as error:
        return _error_reply(error, request, common)
    return Reply(status=reply.status, headers=common | dict(reply.headers), body=reply.body)


def _authenticated(store: BlobStore, request: Request, now: float, caller: Caller) -> _Call:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    match scheme.casefold():
        case "bearer":
            by = caller(credential.strip())
            if by is None:
                raise BlobError(
                    401, "InvalidAuthenticationInfo", "Server failed to authenticate the request."
                )
        case "sharedkey":
            by = "shared key"
        case _:
            raise BlobError(
                401, "NoAuthenticationInformation", "Server failed to authenticate the request."
            )
    denied = store.denied_reads if request.method in {"GET", "HEAD"} else store.denied_writes
    if by in denied:
        raise _mismatch()
    account, container, blob = _split(request.path)
    if scheme.casefold() == "bearer" and not _permitted(store, request, by):
        raise _mismatch()
    return _Call(
        store=store,
        request=request,
        now=now,
        path=f"/{account}/{container}/{blob}",
        account=account,
        container_name=container,
        blob_name=blob,
        by=by,
    )


def _permitted(store: BlobStore, request: Request, by: str) -> bool:
    """Ask the roles. A lease counts as a write of its blob; containers have no data actions."""
    *_, blob = _split(request.path)
    verb = {"GET": "read", "HEAD": "read", "DELETE": "delete"}.get(request.method, "write")
    action = f"{CONTAINERS}/blobs/{verb}" if blob else f"{CONTAINERS}/{verb}"
    return store.permit(by, action, request.path, data=bool(blob))


def _dispatch(call: _Call) -> Reply:
    """Choose the operation. Anything not simulated is refused, never half answered."""
    method, comp = call.request.method, call.request.parameter("comp")
    if call.request.parameter("restype") == "container" and not call.blob_name:
        match (method, comp):
            case ("PUT", ""):
                return _create_container(call)
            case ("GET" | "HEAD", ""):
                return _container_properties(call)
            case _:
                raise _unsupported()
    if not call.blob_name:
        raise _unsupported()
    match (method, comp):
        case ("PUT", "lease"):
            return _lease(call)
        case ("PUT", ""):
            return _put_blob(call)
        case ("GET" | "HEAD", ""):
            return _get_blob(call)
        case ("DELETE", ""):
            return _delete_blob(call)
        case _:
            raise _unsupported()


def _create_container(call: _Call) -> Reply:
    created = call.store.create_container(call.account, call.container_name, call.now)
    call.store.record("container_created", call.path, by=call.by)
    return Reply(status=201, headers=_stamp(created.etag, created.modified_at))


def _container_properties(call: _Call) -> Reply:
    found = call.container
    stamp = _stamp(found.etag, found.modified_at)
    return Reply(
        status=200,
        headers=stamp | {"x-ms-lease-state": "available", "x-ms-lease-status": "unlocked"},
    )


def _put_blob(call: _Call) -> Reply:
    """Put Blob: the whole content at once, under conditions and lease."""
    if call.header("x-ms-blob-type") != "BlockBlob":
        raise BlobError(
            400,
            "InvalidHeaderValue",
            "The value for one of the HTTP headers is not in the correct format.",
        )
    if len(call.request.body) > MAX_BLOB_BYTES:
        raise BlobError(413, "RequestBodyTooLarge", "The request body is too large.")
    container = call.container
    existing = container.blobs.get(call.blob_name)
    _check_write_conditions(call, existing)
    if existing is not None:
        existing.lease.check_write(
            call.lease_id, call.now, mismatch_status=call.store.foreign_write_status
        )
        existing.lease.written(call.now)
    elif call.lease_id is not None:
        raise BlobError(
            412, "LeaseNotPresentWithBlobOperation", "There is currently no lease on the blob."
        )
    headers = call.request.headers
    written = Blob(
        body=call.request.body,
        etag=call.store.next_etag(),
        created_at=call.now if existing is None else existing.created_at,
        modified_at=call.now,
        content_type=headers.get("x-ms-blob-content-type", "application/octet-stream"),
        metadata={k: v for k, v in headers.items() if k.startswith("x-ms-meta-")},
        lease=Lease() if existing is None else existing.lease,
        leased_by="" if existing is None else existing.leased_by,
    )
    container.blobs[call.blob_name] = written
    call.store.record(
        "blob_written",
        call.path,
        by=call.by,
        etag=written.etag,
        lease_id=call.lease_id or "",
        body=written.body.decode("utf-8", "replace"),
    )
    stamp = _stamp(written.etag, written.modified_at)
    return Reply(status=201, headers=stamp | {"x-ms-request-server-encrypted": "true"})


def _get_blob(call: _Call) -> Reply:
    """Get Blob and Get Blob Properties; the SDK always asks for a range first."""
    blob = call.blob
    _check_read_conditions(call, blob)
    blob.lease.check_read(call.lease_id, call.now)
    headers = _stamp(blob.etag, blob.modified_at) | _lease_headers(blob.lease, call.now)
    headers |= {
        "content-type": blob.content_type,
        "x-ms-blob-type": "BlockBlob",
        "x-ms-creation-time": _http_date(blob.created_at),
        "x-ms-server-encrypted": "true",
        "accept-ranges": "bytes",
        **blob.metadata,
    }
    if call.request.method == "HEAD":
        return Reply(status=200, headers=headers | {"content-length": str(len(blob.body))})
    wanted = call.header("x-ms-range") or call.header("range")
    if wanted is None:
        return Reply(status=200, headers=headers, body=blob.body)
    first, last = _range(wanted, len(blob.body))
    headers["content-range"] = f"bytes {first}-{last}/{len(blob.body)}"
    return Reply(status=206, headers=headers, body=blob.body[first : last + 1])


def _delete_blob(call: _Call) -> Reply:
    blob = call.blob
    _check_write_conditions(call, blob)
    blob.lease.check_write(call.lease_id, call.now, mismatch_status=call.store.foreign_write_status)
    del call.container.blobs[call.blob_name]
    call.store.record("blob_deleted", call.path, by=call.by)
    return Reply(status=202, headers={"x-ms-delete-type-permanent": "true"})


def _lease(call: _Call) -> Reply:
    """Lease Blob: all five actions. None of them touches ETag or Last-Modified."""
    blob = call.blob
    _check_read_conditions(call, blob)
    lease, now = blob.lease, call.now
    action = (call.header("x-ms-lease-action") or "").casefold()
    headers = _stamp(blob.etag, blob.modified_at)
    status = 200
    match action:
        case "acquire":
            duration_s = _number(call, "x-ms-lease-duration", allowed=(INFINITE, *range(15, 61)))
            if duration_s is None:
                raise _missing("x-ms-lease-duration")
            proposed = _guid(call, "x-ms-proposed-lease-id") or str(
                uuid.UUID(int=call.store.next_serial())
            )
            wait_s = call.store.wait_after_expiry_s
            lease.acquire(proposed, duration_s, now, wait_after_expiry_s=wait_s)
            status = 201
        case "renew":
            lease.renew(_required_guid(call, "x-ms-lease-id"), now)
        case "change":
            proposed = _required_guid(call, "x-ms-proposed-lease-id")
            lease.change(_required_guid(call, "x-ms-lease-id"), proposed, now)
        case "release":
            lease.release(_required_guid(call, "x-ms-lease-id"))
        case "break":
            period_s = _number(call, "x-ms-lease-break-period", allowed=range(61))
            headers["x-ms-lease-time"] = str(lease.break_(period_s, now))
            status = 202
        case _:
            raise _bad_header("x-ms-lease-action")
    call.store.record(f"lease_{action}", call.path, by=call.by, lease_id=lease.id or "")
    if action in {"acquire", "renew"}:
        blob.leased_by = call.by
    if lease.id is not None and action in {"acquire", "renew", "change"}:
        headers["x-ms-lease-id"] = lease.id
    return Reply(status=status, headers=headers)


def _check_write_conditions(call: _Call, blob: Blob | None) -> None:
    """If-Match and If-None-Match of a write; they are checked before the lease."""
    if call.header("if-none-match") == "*" and blob is not None:
        raise BlobError(409, "BlobAlreadyExists", "The specified blob already exists.")
    if_match = call.header("if-match")
    if if_match is not None and (blob is None or not _etag_matches(if_match, blob.etag)):
        raise _condition_not_met()
    if_none_match = call.header("if-none-match")
    if if_none_match is not None and blob is not None and _etag_matches(if_none_match, blob.etag):
        raise _condition_not_met()


def _check_read_conditions(call: _Call, blob: Blob) -> None:
    if_match = call.header("if-match")
    if if_match is not None and not _etag_matches(if_match, blob.etag):
        raise _condition_not_met()
    if_none_match = call.header("if-none-match")
    if if_none_match is not None and _etag_matches(if_none_match, blob.etag):
        if call.request.method in {"GET", "HEAD"}:
            raise BlobError(304, "ConditionNotMet", "")
        raise _condition_not_met()


def _range(text: str, size: int) -> tuple[int, int]:
    """Parse `bytes=first-[last]`; an empty blob satisfies no range, as in Azure."""
    first, _, last = text.removeprefix("bytes=").partition("-")
    if not text.startswith("bytes=") or not first.isdigit() or (last and not last.isdigit()):
        raise _bad_header("x-ms-range")
    if int(first) >= size:
        raise BlobError(
            416,
            "InvalidRange",
            "The range specified is invalid for the current size of the resource.",
        )
    return int(first), min(int(last) if last else size - 1, size - 1)


def _number(call: _Call, name: str, *, allowed: range | tuple[int, ...]) -> int | None:
    text = call.header(name)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        raise _bad_header(name) from None
    if number not in allowed:
        raise _bad_header(name)
    return number


def _guid(call: _Call, name: str) -> str | None:
    text = call.header(name)
    if text is None:
        return None
    try:
        uuid.UUID(text)
    except ValueError:
        raise _bad_header(name) from None
    return text


def _required_guid(call: _Call, name: str) -> str:
    if (guid := _guid(call, name)) is None:
        raise _missing(name)
    return guid


def _lease_headers(lease: Lease, now: float) -> dict[str, str]:
    state = lease.state(now)
    locked = state in {LeaseState.LEASED, LeaseState.BREAKING}
    headers = {
        "x-ms-lease-state": state.value,
        "x-ms-lease-status": "locked" if locked else "unlocked",
    }
    if state is LeaseState.LEASED:
        headers["x-ms-lease-duration"] = "infinite" if lease.duration_s == INFINITE else "fixed"
    return headers


def _stamp(etag: str, modified_at: float) -> dict[str, str]:
    return {"etag": etag, "last-modified": _http_date(modified_at)}


def _http_date(at: float) -> str:
    return formatdate(at, usegmt=True)


def _split(path: str) -> tuple[str, str, str]:
    """Split `/account/container/blob/with/slashes` into its three parts."""
    parts = [*path.lstrip("/").split("/", 2), "", "", ""]
    return parts[0], parts[1], parts[2]


def _etag_matches(wanted: str, etag: str) -> bool:
    return wanted == "*" or wanted.strip('"') == etag.strip('"')


def _request_id(store: BlobStore) -> str:
    return f"{store.next_serial():08x}-001e-0000-0000-000000000000"


def _error_reply(error: BlobError, request: Request, common: Mapping[str, str]) -> Reply:
    headers = {**common, "x-ms-error-code": error.code}
    if error.status == 401:
        headers["www-authenticate"] = (
            "Bearer authorization_uri=https://login.microsoftonline.com/"
            "00000000-0000-0000-0000-000000000000/oauth2/authorize "
            f"resource_id={AUDIENCE.rstrip('/')}"
        )
    if request.method == "HEAD" or error.status == 304:
        return Reply(status=error.status, headers=headers)
    body = (
        '\ufeff<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}\n"
        f"RequestId:{common['x-ms-request-id']}</Message></Error>"
    )
    headers["content-type"] = "application/xml"
    return Reply(status=error.status, headers=headers, body=body.encode())


def _mismatch() -> BlobError:
    return BlobError(
        403,
        "AuthorizationPermissionMismatch",
        "This request is not authorized to perform this operation using this permission.",
    )


def _condition_not_met() -> BlobError:
    return BlobError(
        412,
        "ConditionNotMet",
        "The condition specified using HTTP conditional header(s) is not met.",
    )


def _bad_header(name: str) -> BlobError:
    return BlobError(
        400,
        "InvalidHeaderValue",
        f"The value for the HTTP header {name} is not in the correct format.",
    )


def _missing(name: str) -> BlobError:
    return BlobError(
        400, "MissingRequiredHeader", f"The mandatory HTTP header {name} was not specified."
    )


def _unsupported() -> BlobError:
    return BlobError(
        400, "UnsupportedHttpVerb", "The simulator does not implement this Blob service operation."
    )
