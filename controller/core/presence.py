"""Evidence that a thing exists: a VM, NIC, pool, load balancer, address, blob or drain request.

Replies of Azure contradict each other for a while. A replica lags and answers 404, a list misses an
entry, a resource group answers `ResourceGroupNotFound` for minutes. So one reply without a thing
proves little, and each step names the proof of absence that it needs:

| step                                             | proof                                         |
|--------------------------------------------------|-----------------------------------------------|
| write the other places first                     | `ONE_REPLY`                                   |
| go on without it: it cannot show that a VM is    | `LASTING`                                     |
| out, and what is recorded of it waits            |                                               |
| report that the set was converted, when a VM is  | `ONE_REPLY`                                   |
| shown in a scale set                             |                                               |
| forget it                                        | none: absence never suffices (laws S3, S5)    |

`planning.evidence` has the proofs of the other kind: that a VM is out of a pool, or back in it.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Existence(Enum):
    """What the newest reply about a thing proves."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"
    """There was no reply about it yet."""


class Source(Enum):
    """What kind of reply showed a thing, or did not."""

    READ = "read"
    """The thing itself was read: its body, or 404."""
    LIST = "list"
    """What contains it was read: a list, or a load balancer with its pools."""
    PARENT = "parent"
    """What contains it was not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What the replies about one thing prove so far. All replies counted here agree."""

    existence: Existence = Existence.UNKNOWN
    since: datetime | None = None
    """The first reply of the unbroken run of replies that agree; None if there was no reply."""
    seen_at: datetime | None = None
    """The newest of these replies."""
    replies: int = 0
    """How many they are."""
    sources: frozenset[Source] = frozenset()
    """Of which kinds they were."""

    @property
    def lasts_s(self) -> float:
        """Seconds between the first and the newest of the replies that agree."""
        if self.since is None or self.seen_at is None:
            return 0.0
        return (self.seen_at - self.since).total_seconds()

    def after(self, existence: Existence, *, at: datetime, source: Source) -> "Presence":
        """Return what is proven after one more reply.

        Args:
            existence: what the reply shows.
            at: when it arrived. A reply of before the newest one changes nothing, except that
                what was newer and differs stays.
            source: what kind of reply it is.
        """
        if self.seen_at is not None and at < self.seen_at:
            return self
        if existence is not self.existence or self.since is None:
            return Presence(
                existence=existence, since=at, seen_at=at, replies=1, sources=frozenset({source})
            )
        return Presence(
            existence=existence,
            since=self.since,
            seen_at=at,
            replies=self.replies + 1,
            sources=self.sources | {source},
        )


UNKNOWN = Presence()
"""There was no reply yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsenceProof:
    """How much a step needs before it treats a thing as absent."""

    replies: int
    """At least this many replies in a row did not show it."""
    lasting_s: float = 0.0
    """At least this many seconds lie between the first and the newest of these replies."""

    def holds(self, presence: Presence) -> bool:
        """Return whether the replies prove absence as this step needs it."""
        return (
            presence.existence is Existence.ABSENT
            and presence.replies >= self.replies
            and presence.lasts_s >= self.lasting_s
        )


ONE_REPLY = AbsenceProof(replies=1)
"""Enough to change the order of what is done anyway."""
LASTING = AbsenceProof(replies=2, lasting_s=120.0)
"""Enough to go on without a thing while it stays recorded. Azure answered 404 for existing
resources for more than a minute; a thing that is shown again is used again at once."""
