"""Simulated Azure Blob Storage: the operations that one leased, conditionally written blob needs.

Paths are those of the storage emulator: `/account/container/blob`. Block blobs, leases, ETag
conditions, bearer tokens with data actions, and lists are simulated. A `SharedKey` header is
accepted without a check, so that a connection string works. Snapshots, versions, tiers and
container leases do not exist.

Pure on the injected `now` (epoch seconds). Error codes: Microsoft docs, Blob service error codes.
"""

import uuid
from collections.abc import Callable, Mapping
from email.utils import formatdate
from xml.sax.saxutils import escape

from controller.simulator.services.blob_call import (
    Call,
    bad_header,
    guid,
    missing_header,
    number,
    permission_mismatch,
    required_guid,
    unsupported,
)
from controller.simulator.services.blob_conditions import (
    byte_range,
    check_read_conditions,
    check_write_conditions,
)
from controller.simulator.services.blob_lists import list_blobs, list_containers
from controller.simulator.services.http_values import Reply, Request
from controller.simulator.world.access import CONTAINERS
from controller.simulator.world.blob_store import Blob, BlobStore, split_path
from controller.simulator.world.leases import INFINITE, BlobError, Lease, LeaseState

AUDIENCE = "https://storage.azure.com/"
SERVICE_VERSION = "2026-10-06"
MAX_BLOB_BYTES = 8 * 1024 * 1024
"""Far above any ledger; a bound so that a runaway client cannot fill the simulator's memory."""

Caller = Callable[[str], str | None]
"""Maps a bearer token to the name of the VM it was issued to; None when it is not valid."""


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


def _authenticated(store: BlobStore, request: Request, now: float, caller: Caller) -> Call:
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
        raise permission_mismatch()
    account, container, blob = split_path(request.path)
    if scheme.casefold() == "bearer" and not _permitted(store, request, by):
        raise permission_mismatch()
    return Call(
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
    """Check the roles. A lease needs the permission to write; containers have no data actions."""
    *_, blob = split_path(request.path)
    verb = {"GET": "read", "HEAD": "read", "DELETE": "delete"}.get(request.method, "write")
    # A list of blobs is data of the container; a list of containers is not.
    listing = request.parameter("comp") == "list" and request.parameter("restype") == "container"
    in_blob = bool(blob) or listing
    action = f"{CONTAINERS}/blobs/{verb}" if in_blob else f"{CONTAINERS}/{verb}"
    return store.permit(by, action, request.path, data=in_blob)


def _dispatch(call: Call) -> Reply:
    """Choose the operation. Anything not simulated is refused, never half answered."""
    target = "blob" if call.blob_name else "container" if call.container_name else "account"
    restype = call.request.parameter("restype")
    if target == "container" and restype != "container":
        raise unsupported()
    method = "GET" if call.request.method == "HEAD" else call.request.method
    operation = _OPERATIONS.get((target, method, call.request.parameter("comp")))
    if operation is None:
        raise unsupported()
    return operation(call)


def _create_container(call: Call) -> Reply:
    created = call.store.create_container(call.account, call.container_name, call.now)
    call.store.record("container_created", call.path, by=call.by)
    return Reply(status=201, headers=_stamp(created.etag, created.modified_at))


def _container_properties(call: Call) -> Reply:
    found = call.container
    stamp = _stamp(found.etag, found.modified_at)
    return Reply(
        status=200,
        headers=stamp | {"x-ms-lease-state": "available", "x-ms-lease-status": "unlocked"},
    )


def _put_blob(call: Call) -> Reply:
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
    check_write_conditions(call, existing)
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


def _get_blob(call: Call) -> Reply:
    """Get Blob and Get Blob Properties; the SDK always asks for a range first."""
    blob = call.blob
    check_read_conditions(call, blob)
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
    first, last = byte_range(wanted, len(blob.body))
    headers["content-range"] = f"bytes {first}-{last}/{len(blob.body)}"
    return Reply(status=206, headers=headers, body=blob.body[first : last + 1])


def _delete_blob(call: Call) -> Reply:
    blob = call.blob
    check_write_conditions(call, blob)
    blob.lease.check_write(call.lease_id, call.now, mismatch_status=call.store.foreign_write_status)
    del call.container.blobs[call.blob_name]
    call.store.record("blob_deleted", call.path, by=call.by)
    return Reply(status=202, headers={"x-ms-delete-type-permanent": "true"})


def _lease(call: Call) -> Reply:
    """Lease Blob: all five actions. No action changes ETag or Last-Modified."""
    blob = call.blob
    check_read_conditions(call, blob)
    lease, now = blob.lease, call.now
    action = (call.header("x-ms-lease-action") or "").casefold()
    headers = _stamp(blob.etag, blob.modified_at)
    status = 200
    match action:
        case "acquire":
            duration_s = number(call, "x-ms-lease-duration", allowed=(INFINITE, *range(15, 61)))
            if duration_s is None:
                raise missing_header("x-ms-lease-duration")
            proposed = guid(call, "x-ms-proposed-lease-id") or str(
                uuid.UUID(int=call.store.next_serial())
            )
            wait_s = call.store.wait_after_expiry_s
            lease.acquire(proposed, duration_s, now, wait_after_expiry_s=wait_s)
            status = 201
        case "renew":
            lease.renew(required_guid(call, "x-ms-lease-id"), now)
        case "change":
            proposed = required_guid(call, "x-ms-proposed-lease-id")
            lease.change(required_guid(call, "x-ms-lease-id"), proposed, now)
        case "release":
            lease.release(required_guid(call, "x-ms-lease-id"))
        case "break":
            period_s = number(call, "x-ms-lease-break-period", allowed=range(61))
            headers["x-ms-lease-time"] = str(lease.break_(period_s, now))
            status = 202
        case _:
            raise bad_header("x-ms-lease-action")
    call.store.record(f"lease_{action}", call.path, by=call.by, lease_id=lease.id or "")
    if action in {"acquire", "renew"}:
        blob.leased_by = call.by
    if lease.id is not None and action in {"acquire", "renew", "change"}:
        headers["x-ms-lease-id"] = lease.id
    return Reply(status=status, headers=headers)


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


_OPERATIONS: Mapping[tuple[str, str, str], Callable[[Call], Reply]] = {
    ("account", "GET", "list"): list_containers,
    ("container", "PUT", ""): _create_container,
    ("container", "GET", ""): _container_properties,
    ("container", "GET", "list"): list_blobs,
    ("blob", "PUT", "lease"): _lease,
    ("blob", "PUT", ""): _put_blob,
    ("blob", "GET", ""): _get_blob,
    ("blob", "DELETE", ""): _delete_blob,
}
