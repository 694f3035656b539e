"""Conditions of requests to the Blob service: ETags and byte ranges."""

from controller.simulator.services.blob_call import Call, bad_header, condition_not_met
from controller.simulator.world.blob_store import Blob
from controller.simulator.world.leases import BlobError


def check_write_conditions(call: Call, blob: Blob | None) -> None:
    """Check If-Match and If-None-Match of a write; they are checked before the lease."""
    if call.header("if-none-match") == "*" and blob is not None:
        raise BlobError(409, "BlobAlreadyExists", "The specified blob already exists.")
    if_match = call.header("if-match")
    if if_match is not None and (blob is None or not _etag_matches(if_match, blob.etag)):
        raise condition_not_met()
    if_none_match = call.header("if-none-match")
    if if_none_match is not None and blob is not None and _etag_matches(if_none_match, blob.etag):
        raise condition_not_met()


def check_read_conditions(call: Call, blob: Blob) -> None:
    """Check If-Match and If-None-Match of a read or a lease operation."""
    if_match = call.header("if-match")
    if if_match is not None and not _etag_matches(if_match, blob.etag):
        raise condition_not_met()
    if_none_match = call.header("if-none-match")
    if if_none_match is not None and _etag_matches(if_none_match, blob.etag):
        if call.request.method in {"GET", "HEAD"}:
            raise BlobError(304, "ConditionNotMet", "")
        raise condition_not_met()


def byte_range(text: str, size: int) -> tuple[int, int]:
    """Parse `bytes=first-[last]`; an empty blob satisfies no range, as in Azure."""
    first, _, last = text.removeprefix("bytes=").partition("-")
    if not text.startswith("bytes=") or not first.isdigit() or (last and not last.isdigit()):
        raise bad_header("x-ms-range")
    if int(first) >= size:
        raise BlobError(
            416,
            "InvalidRange",
            "The range specified is invalid for the current size of the resource.",
        )
    return int(first), min(int(last) if last else size - 1, size - 1)


def _etag_matches(wanted: str, etag: str) -> bool:
    return wanted == "*" or wanted.strip('"') == etag.strip('"')
