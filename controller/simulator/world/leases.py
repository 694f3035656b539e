"""The lease on one blob: five states, five operations, the outcome of each on an injected clock.

Follows the table "Outcomes of lease operations on blobs by lease state" of Microsoft docs, Lease
Blob. Where that page leaves an error code open, the code is the one Azurite answers. Only
`available`, `leased`, `breaking` and `broken` are stored: `expired`, and `broken` after a break
period, follow from the clock. Pure: no I/O, no HTTP beyond status and code.
"""

import math
from dataclasses import dataclass
from enum import Enum

INFINITE = -1


class LeaseState(Enum):
    """The value of `x-ms-lease-state`."""

    AVAILABLE = "available"
    LEASED = "leased"
    BREAKING = "breaking"
    BROKEN = "broken"
    EXPIRED = "expired"


class BlobError(Exception):
    """A refusal in the words of the service: HTTP status and `x-ms-error-code`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def _conflict(code: str, message: str) -> BlobError:
    return BlobError(409, code, message)


def _precondition(code: str, message: str) -> BlobError:
    return BlobError(412, code, message)


@dataclass(slots=True, kw_only=True)
class Lease:
    """The lease of one blob. `ends_at` is the end of the lease, or of the break period."""

    stored: LeaseState = LeaseState.AVAILABLE
    id: str | None = None
    duration_s: int = INFINITE
    ends_at: float = math.inf

    def state(self, now: float) -> LeaseState:
        """Return the state at `now` (epoch seconds); a lease ends at its last instant."""
        if self.stored is LeaseState.LEASED and now >= self.ends_at:
            return LeaseState.EXPIRED
        if self.stored is LeaseState.BREAKING and now >= self.ends_at:
            return LeaseState.BROKEN
        return self.stored

    def holder(self, now: float) -> str | None:
        """Return the id that may write at `now`: a lease that is being broken still counts."""
        held = self.state(now) in {LeaseState.LEASED, LeaseState.BREAKING}
        return self.id if held else None

    def acquire(
        self, lease_id: str, duration_s: int, now: float, *, wait_after_expiry_s: float = 0
    ) -> None:
        """Take the lease, or take it again under the same id.

        `wait_after_expiry_s` is how long a *different* id is still refused after an expiry: up to
        one minute according to Microsoft docs. A release or a break has no such wait.
        """
        same = _same(lease_id, self.id)
        match self.state(now):
            case LeaseState.LEASED if not same:
                raise _already_present()
            case LeaseState.BREAKING if same:
                raise _conflict(
                    "LeaseIsBreakingAndCannotBeAcquired",
                    "The lease is breaking and cannot be acquired until the break has ended.",
                )
            case LeaseState.BREAKING:
                raise _already_present()
            case LeaseState.EXPIRED if not same and now < self.ends_at + wait_after_expiry_s:
                raise _already_present()
            case _:
                self.stored = LeaseState.LEASED
                self.id = lease_id
                self.duration_s = duration_s
                self._start_clock(now)

    def renew(self, lease_id: str, now: float) -> None:
        """Restart the lease; also after expiry, if there was no write or other lease since."""
        self._require_match(lease_id)
        if self.state(now) in {LeaseState.BREAKING, LeaseState.BROKEN}:
            raise _conflict(
                "LeaseIsBrokenAndCannotBeRenewed",
                "The lease ID matched, but the lease has been broken and cannot be renewed.",
            )
        self.stored = LeaseState.LEASED
        self._start_clock(now)

    def change(self, lease_id: str, proposed_id: str, now: float) -> None:
        """Give the lease another id; repeating a change that took place succeeds."""
        state = self.state(now)
        if state not in {LeaseState.LEASED, LeaseState.BREAKING}:
            raise _conflict(
                "LeaseNotPresentWithLeaseOperation", "There is currently no lease on the blob."
            )
        if not _same(proposed_id, self.id):
            self._require_match(lease_id)
        if state is LeaseState.BREAKING:
            raise _conflict(
                "LeaseIsBreakingAndCannotBeChanged",
                "The lease ID matched, but the lease is breaking and cannot be changed.",
            )
        self.id = proposed_id

    def release(self, lease_id: str) -> None:
        """Make the blob available at once; works in every state that still remembers the id."""
        self._require_match(lease_id)
        self.clear()

    def break_(self, period_s: int | None, now: float) -> int:
        """End the lease, now or after a period; return the seconds left, for `x-ms-lease-time`."""
        state = self.state(now)
        if state is LeaseState.AVAILABLE:
            raise _conflict(
                "LeaseNotPresentWithLeaseOperation", "There is currently no lease on the blob."
            )
        remaining_s = self.ends_at - now if self.holder(now) is not None else 0.0
        if period_s is not None:
            remaining_s = min(remaining_s, float(period_s))
        elif math.isinf(remaining_s):
            remaining_s = 0.0  # without a period an infinite lease breaks at once
        self.stored = LeaseState.BREAKING if remaining_s > 0 else LeaseState.BROKEN
        self.ends_at = now + remaining_s
        return math.ceil(remaining_s)

    def check_read(self, lease_id: str | None, now: float) -> None:
        """Refuse a read that names a lease which is not held; without an id refuse none."""
        if lease_id is None:
            return
        self._check_id(lease_id, now, mismatch_status=412)

    def check_write(self, lease_id: str | None, now: float, *, mismatch_status: int = 412) -> None:
        """Refuse a write that does not prove it holds the lease; call `written` after it."""
        if lease_id is not None:
            self._check_id(lease_id, now, mismatch_status=mismatch_status)
        elif self.holder(now) is not None:
            raise _precondition(
                "LeaseIdMissing",
                "There is currently a lease on the blob and no lease ID was specified.",
            )

    def written(self, now: float) -> None:
        """Clear a broken or expired lease: a renewal after expiry proves that no write happened."""
        if self.state(now) in {LeaseState.BROKEN, LeaseState.EXPIRED}:
            self.clear()

    def clear(self) -> None:
        """Become available."""
        self.stored = LeaseState.AVAILABLE
        self.id = None
        self.ends_at = math.inf

    def _start_clock(self, now: float) -> None:
        self.ends_at = math.inf if self.duration_s == INFINITE else now + self.duration_s

    def _require_match(self, lease_id: str) -> None:
        if not _same(lease_id, self.id):
            raise _conflict(
                "LeaseIdMismatchWithLeaseOperation",
                "The lease ID specified did not match the lease ID for the blob.",
            )

    def _check_id(self, lease_id: str, now: float, *, mismatch_status: int) -> None:
        state = self.state(now)
        if state is LeaseState.AVAILABLE:
            raise _precondition(
                "LeaseNotPresentWithBlobOperation", "There is currently no lease on the blob."
            )
        if not _same(lease_id, self.id):
            status = mismatch_status if state is LeaseState.LEASED else 412
            raise BlobError(
                status,
                "LeaseIdMismatchWithBlobOperation",
                "The lease ID specified did not match the lease ID for the blob.",
            )
        if state in {LeaseState.BROKEN, LeaseState.EXPIRED}:
            raise _precondition(
                "LeaseLost", "A lease ID was specified, but the lease for the blob has expired."
            )


def _already_present() -> BlobError:
    return _conflict("LeaseAlreadyPresent", "There is already a lease present.")


def _same(left: str, right: str | None) -> bool:
    return right is not None and left.casefold() == right.casefold()
