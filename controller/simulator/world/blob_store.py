"""The storage accounts of a simulated Azure: containers, blobs and their leases. No HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from controller.simulator.world.leases import BlobError, Lease


class Permit(Protocol):
    """Decides whether the principal `by` may do a data action, or an action, on a path."""

    def __call__(self, by: str, action: str, path: str, *, data: bool) -> bool: ...


def _anything(by: str, action: str, path: str, *, data: bool) -> bool:  # noqa: ARG001
    """Allow everything: there are no roles."""
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
    """The caller that acquired or renewed the lease last; the id does not contain it."""


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
    """Status of a write with another holder's lease id. Microsoft documents both 409 and 412."""
    denied_reads: set[str] = field(default_factory=set[str])
    """VMs without `.../blobs/read`."""
    denied_writes: set[str] = field(default_factory=set[str])
    """VMs without `.../blobs/write`, which every lease operation needs too."""
    record: Record = _no_record
    permit: Permit = _anything
    """The roles, for bearer tokens; a shared key is allowed everything."""
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
        account, container, blob = split_path(path)
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


def split_path(path: str) -> tuple[str, str, str]:
    """Split `/account/container/blob/with/slashes` into its three parts."""
    parts = [*path.lstrip("/").split("/", 2), "", "", ""]
    return parts[0], parts[1], parts[2]
