"""What availability sets that share a backend pool state, in one small blob per pool.

Each leader writes the share of its own set: the machines that the set has in the pool, and which
machines are out or about to leave. It does so with the condition that the blob did not change
since it was read. So of two sets that want to leave at the same time one is refused by storage,
reads the other's share, and counts again (law S2).

Machines are named as the pool lists them: by folded id of the NIC, or by folded address.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.resources import NOTHING_EXTRA, Extra

MINOR = 0
"""The minor version of the format that this agent writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShare:
    """What one availability set states about its machines in a pool."""

    availability_set_id: str
    members: tuple[str, ...]
    """The machines of the set in the pool, when nothing is out; sorted."""
    out: tuple[str, ...]
    """The members that are out of the pool, or about to leave it; sorted."""
    written_at: datetime
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def states(self, other: "PoolShare") -> bool:
        """Return whether another share states the same about the machines."""
        return (self.members, self.out) == (other.members, other.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolShares:
    """The whole content of the blob of one pool."""

    pool_id: str
    shares: tuple[PoolShare, ...] = ()
    """One per availability set, by folded id of the set."""
    minor: int = MINOR
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def share_of(self, availability_set_id: str) -> PoolShare | None:
        """Return the share of a set."""
        wanted = fold(availability_set_id)
        return next((s for s in self.shares if fold(s.availability_set_id) == wanted), None)

    def others(self, availability_set_id: str) -> tuple[PoolShare, ...]:
        """Return the shares of the other sets."""
        own = fold(availability_set_id)
        return tuple(s for s in self.shares if fold(s.availability_set_id) != own)

    def with_share(self, share: PoolShare) -> "PoolShares":
        """Return the content with the share of one set added or replaced."""
        shares = (*self.others(share.availability_set_id), share)
        ordered = sorted(shares, key=lambda each: fold(each.availability_set_id))
        return replace(self, shares=tuple(ordered))


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPool:
    """The blob of one pool as an agent last read or wrote it."""

    shares: PoolShares
    availability_set_id: str
    """The set of this agent."""
    etag: str
    """Empty while the blob does not exist."""
    observed_at: datetime

    @property
    def own(self) -> PoolShare | None:
        """The share of the set of this agent."""
        return self.shares.share_of(self.availability_set_id)

    @property
    def others(self) -> tuple[PoolShare, ...]:
        """The shares of the other sets."""
        return self.shares.others(self.availability_set_id)
