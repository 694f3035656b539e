"""What follows from a failed action: how long to wait, how many writes at once, what to read again.

Azure refuses parallel NIC writes within one availability set in some regions and at some times, and
does not document which. So the limit adapts: it starts at the operator's maximum, halves on every
conflict, never below one, and grows by one after a run of writes without a conflict.

Pure: standard library only, no I/O, no clock, no randomness.
"""

from dataclasses import dataclass, replace

from controller.core.planning.actions import (
    Action,
    ChangeMembership,
    PublishShare,
    Read,
    ReadLoadBalancer,
    ReadNic,
    ReadRuleHealth,
    ReadVmReport,
)
from controller.errors import (
    Busy,
    Conflict,
    ControllerError,
    Denied,
    NotFound,
    NotSent,
    OutcomeUnknown,
    Throttled,
    retry_after_of,
)

INCREASE_AFTER = 10
"""Consecutive writes without a conflict after which the limit grows by one."""
MIN_BACKOFF_S = 1.0
MAX_BACKOFF_S = 15.0
"""In seconds. Short against the notice of an event: five minutes must be expected (5 min 19 s were
observed)."""
OPTIONAL_AGAIN_S = 120.0
"""When a read on which nothing depends is tried again after a failure, in seconds."""
REPORT_AGAIN_S = 2.0
"""When the report of a VM is read again that could not be read. A removal waits no longer."""
DENIED_AGAIN_S = 3600.0
"""The same when the role does not allow it."""
ROUTINE_FAILURES = 5
"""Conflicts and throttling are routine in a busy set below this many consecutive failures."""


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """The current limit on writes in flight."""

    limit: int
    maximum: int
    """The operator's limit."""
    successes: int = 0
    """Consecutive writes without a conflict since the limit last changed."""

    @classmethod
    def starting_at(cls, maximum: int) -> "ConcurrencyLimit":
        """Return the limit of an agent that has met no conflict yet."""
        return cls(limit=maximum, maximum=maximum)

    def succeeded(self) -> "ConcurrencyLimit":
        """Return the limit after a write without a conflict."""
        if self.limit >= self.maximum:
            return self
        if self.successes + 1 < INCREASE_AFTER:
            return replace(self, successes=self.successes + 1)
        return replace(self, limit=self.limit + 1, successes=0)

    def conflicted(self) -> "ConcurrencyLimit":
        """Return the limit after a write was refused because of another one."""
        return replace(self, limit=max(1, self.limit // 2), successes=0)


def backoff_s(attempts: int, *, jitter: float) -> float:
    """Return how long to wait after this many consecutive failures, in seconds.

    1, 2, 4, 8, 15, 15, … seconds, each multiplied by 0.5 to 1.0.

    Args:
        attempts: failures so far, at least one.
        jitter: a random number from 0 to 1.
    """
    full = min(MAX_BACKOFF_S, MIN_BACKOFF_S * 2.0 ** min(attempts - 1, 10))
    return full * (0.5 + 0.5 * jitter)


def pause_s(error: ControllerError, *, throttled: int, jitter: float) -> float:
    """Return how long other writes pause after one was throttled, in seconds.

    Only the write that Azure refused waits as long as Azure asks: the limit may be that of its
    resource. Others are tried again, at a pace that slows down with every refusal.

    Args:
        error: the refusal.
        throttled: writes that were throttled in a row, of any resource.
        jitter: a random number from 0 to 1.
    """
    asked_s = retry_after_of(error)
    pace_s = backoff_s(throttled, jitter=jitter)
    return pace_s if asked_s is None else min(asked_s, pace_s)


def is_routine(error: ControllerError, *, attempts: int) -> bool:
    """Return whether a failure needs no attention yet: a conflict or throttling, few in a row.

    Args:
        error: the failure.
        attempts: consecutive failures, this one included.
    """
    return isinstance(error, Conflict | Throttled) and attempts < ROUTINE_FAILURES


def is_refusal(error: ControllerError) -> bool:
    """Return whether a failure may depend on what the request contained.

    A conflict, throttling and a missing reply do not: the same request can succeed a moment later.
    """
    return not isinstance(error, Conflict | NotSent | OutcomeUnknown | Throttled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What an agent does about a failed action, in addition to the back-off of its key."""

    mark_absent: bool = False
    """The read shows that its resource is absent; one such reply is no proof of deletion."""
    forget_body: bool = False
    """The body that the write was computed from must not be used again."""
    reread: tuple[Read, ...] = ()
    """Read these now."""
    defer_read_s: float | None = None
    """Do not read the resource of this write for this many seconds; None for no delay."""
    unsent: bool = False
    """The service refused the write: it counts as never sent."""
    fewer_writes: bool = False
    """Lower the limit on concurrent writes."""
    pause_writes: bool = False
    """Start no write at all for a moment (`pause_s`)."""
    later_s: float | None = None
    """Try again after this many seconds, and report nothing: nothing depends on it. None for the
    usual back-off."""


def reaction(action: Action, error: ControllerError, *, refused: bool) -> Reaction:
    """Return what follows from a failed action.

    Args:
        action: what failed.
        error: how it failed.
        refused: the service itself answered that it did not do it (4xx).
    """
    write = action if isinstance(action, ChangeMembership) else None
    throttled = isinstance(error, Throttled)
    keeps_body = write is not None and write.method.keeps_body
    # The read at the end of the write was throttled.
    unverified = keeps_body and isinstance(error, OutcomeUnknown)
    return Reaction(
        mark_absent=isinstance(error, NotFound) and isinstance(action, ReadNic | ReadLoadBalancer),
        forget_body=keeps_body or isinstance(action, PublishShare),
        reread=_reread(write, error, refused=refused) if write else (),
        defer_read_s=retry_after_of(error) if unverified else None,
        unsent=write is not None and refused,
        fewer_writes=isinstance(error, Busy) or (write is not None and throttled),
        pause_writes=write is not None and throttled,
        later_s=_later_s(action, error),
    )


def _later_s(action: Action, error: ControllerError) -> float | None:
    """Return when to try again what nothing depends on, in seconds; None for everything else."""
    if isinstance(action, ReadVmReport):
        return max(REPORT_AGAIN_S, retry_after_of(error) or 0.0)
    if not isinstance(action, ReadRuleHealth):
        return None
    if isinstance(error, Denied):
        return DENIED_AGAIN_S
    return max(OPTIONAL_AGAIN_S, retry_after_of(error) or 0.0)


def _reread(write: ChangeMembership, error: ControllerError, *, refused: bool) -> tuple[Read, ...]:
    """Return the reads that show what a failed write met."""
    reads: list[Read] = []
    if isinstance(error, NotFound):  # of a write, a 404 may be about any resource it refers to
        reads.append(write.shown_by)
    in_the_way = isinstance(error, Conflict | Throttled)
    if write.restore and refused and not in_the_way:
        # Azure refuses a reference to a deleted pool with an error that does not name the cause.
        reads += write.refers_to
    return tuple(reads)
