"""What one leader has recorded, sent and seen the end of: the facts behind laws S3 and S5.

An operator removed what is gone although this leader recorded its removal and never sent it. A
write that was sent may take effect late, until its end was seen.

Pure: standard library only, no I/O, no clock.
"""

from collections import deque
from collections.abc import Iterable
from datetime import datetime

from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold
from controller.core.ledger import Entry, Ledger
from controller.core.resources import Membership, MembershipKey

RECENT_WRITES = 8
"""How many writes the estimate of their duration looks back on."""
FIRST_WRITE_S = 15.0
"""The estimate before the first write: operations of NICs and pools take 5 to 12 s."""


class WriteLog:
    """The account of one tenure; a new one starts from nothing."""

    def __init__(self) -> None:
        self.sent_at: dict[str, datetime] = {}
        """When a write to a NIC or pool (folded id) was last sent."""
        self.ended_at: dict[str, datetime] = {}
        """When the end of such a write was last seen."""
        self._durations_s: deque[float] = deque((FIRST_WRITE_S,), maxlen=RECENT_WRITES)
        self._recorded: set[MembershipKey] = set()
        self._sent: set[MembershipKey] = set()
        self._first: dict[ActionKey, set[MembershipKey]] = {}
        """What the write under way to a target sent for the first time."""

    @property
    def unsent(self) -> frozenset[MembershipKey]:
        """Memberships recorded here that no write has taken out."""
        return frozenset(self._recorded - self._sent)

    def recorded(self, before: Ledger, written: Ledger) -> None:
        """Record what a ledger write recorded, and forget memberships of entries that are over.

        Recorded again after a maintenance whose removal was seen to take effect, a membership is
        new; before that a late removal of ours may still take it out.
        """
        for entry in written.entries:
            old = before.entry(entry.vm)
            again = (
                old is not None
                and old.restored_at is not None
                and old.removed
                and entry.recorded_at > old.recorded_at
            )
            for membership in entry.memberships:
                if again or old is None or not _had(old, entry, membership.key):
                    self._recorded.add(membership.key)
                    self._sent.discard(membership.key)
        self._recorded &= {m.key for entry in written.entries for m in entry.memberships}

    @property
    def slowest_s(self) -> float:
        """The longest of the last writes, in seconds."""
        return max(self._durations_s)

    def took(self, duration_s: float) -> None:
        """Record how long a write took, its operation included."""
        self._durations_s.append(duration_s)

    def starting(self, target: ActionKey) -> None:
        """Record that an action on a target starts, and has sent nothing yet."""
        self._first.pop(target, None)

    def sending(
        self, target: ActionKey, resource_id: str, memberships: Iterable[Membership], at: datetime
    ) -> None:
        """Record that a write that changes these memberships is sent now."""
        keys = {membership.key for membership in memberships}
        self._first[target] = keys - self._sent
        self._sent |= keys
        self.sent_at[fold(resource_id)] = at

    def refused(self, target: ActionKey) -> None:
        """Take back what the service itself refused: as if it had never been sent."""
        self._sent -= self._first.pop(target, set())

    def ended(self, target: ActionKey, resource_id: str, seen_at: datetime) -> None:
        """Record the end of a write, as of the view that showed it.

        When nothing was sent, a write that was sent before may still be under way.
        """
        if target in self._first:
            self.ended_at[fold(resource_id)] = seen_at

    def forget_future(self, latest: datetime, now: datetime) -> None:
        """Correct what was recorded after `latest`, which is past `now`: the clock was wrong then.

        A write was sent before now, and when it ended is not known any more.
        """
        for key, at in self.sent_at.items():
            if at > latest:
                self.sent_at[key] = now
        self.ended_at = {key: at for key, at in self.ended_at.items() if at <= latest}


def _had(old: Entry, entry: Entry, key: MembershipKey) -> bool:
    """Return whether a membership is no new record: its entry had it, or it was lost meanwhile."""
    if old.unread_at and not entry.unread_at:
        return False
    was_lost = any(membership.key == key for membership in old.lost)
    return old.holds(key) or (was_lost and entry.recorded_at == old.recorded_at)
