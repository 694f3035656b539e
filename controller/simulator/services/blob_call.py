"""One request to the Blob service: its target, its headers, and the refusals of the service."""

import uuid
from dataclasses import dataclass

from controller.simulator.services.http_values import Request
from controller.simulator.world.blob_store import Blob, BlobStore, Container
from controller.simulator.world.leases import BlobError


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authenticated request for one path."""

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


def number(call: Call, name: str, *, allowed: range | tuple[int, ...]) -> int | None:
    """Return a header as one of the `allowed` whole numbers; None if it is absent."""
    text = call.header(name)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        raise bad_header(name) from None
    if number not in allowed:
        raise bad_header(name)
    return number


def guid(call: Call, name: str) -> str | None:
    """Return a header that must be a GUID; None if it is absent."""
    text = call.header(name)
    if text is None:
        return None
    try:
        uuid.UUID(text)
    except ValueError:
        raise bad_header(name) from None
    return text


def required_guid(call: Call, name: str) -> str:
    """Return a header that must be present and a GUID."""
    if (value := guid(call, name)) is None:
        raise missing_header(name)
    return value


def permission_mismatch() -> BlobError:
    """Return the refusal of a caller without the permission."""
    return BlobError(
        403,
        "AuthorizationPermissionMismatch",
        "This request is not authorized to perform this operation using this permission.",
    )


def condition_not_met() -> BlobError:
    """Return the refusal of a request whose condition does not hold."""
    return BlobError(
        412,
        "ConditionNotMet",
        "The condition specified using HTTP conditional header(s) is not met.",
    )


def bad_header(name: str) -> BlobError:
    """Return the refusal of a malformed header."""
    return BlobError(
        400,
        "InvalidHeaderValue",
        f"The value for the HTTP header {name} is not in the correct format.",
    )


def missing_header(name: str) -> BlobError:
    """Return the refusal of a request without a mandatory header."""
    return BlobError(
        400, "MissingRequiredHeader", f"The mandatory HTTP header {name} was not specified."
    )


def unsupported() -> BlobError:
    """Return the refusal of an operation that is not simulated."""
    return BlobError(
        400, "UnsupportedHttpVerb", "The simulator does not implement this Blob service operation."
    )
