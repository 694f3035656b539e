"""What one leader has recorded, sent and seen the end of: the facts behind laws S3 and S5.

A removal that this leader recorded and never sent cannot be ours: what is gone all the same an
operator took out. What was sent may take effect late, until its end was seen.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from datetime import datetime

from controller.core.ledger import Ledger
from controller.core.model import Key, Membership, fold


class Sent:
    """The account of one tenure; a new one starts from nothing."""

    def __init__(self) -> None:
        self.at: dict[str, datetime] = {}
        """When a write to a NIC or pool (folded id) last left."""
        self.ended_at: dict[str, datetime] = {}
        """When the end of such a write was last seen."""
        self._recorded: set[Key] = set()
        self._sent: set[Key] = set()
        self._first: dict[str, set[Key]] = {}
        """What the write under way to a target sent for the first time."""

    @property
    def unsent(self) -> frozenset[Key]:
        """Memberships recorded here that no write has taken out."""
        return frozenset(self._recorded - self._sent)

    def recorded(self, before: Ledger, written: Ledger) -> None:
        """Note what a ledger write recorded, and forget memberships of entries that are over.

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
                if again or old is None or not old.holds(membership.key):
                    self._recorded.add(membership.key)
                    self._sent.discard(membership.key)
        self._recorded &= {m.key for entry in written.entries for m in entry.memberships}

    def begins(self, target: str) -> None:
        """Note that an action on a target begins, and has sent nothing yet."""
        self._first.pop(target, None)

    def leaves(
        self, target: str, resource_id: str, memberships: Iterable[Membership], at: datetime
    ) -> None:
        """Note that a write that changes these memberships leaves now."""
        keys = {membership.key for membership in memberships}
        self._first[target] = keys - self._sent
        self._sent |= keys
        self.at[fold(resource_id)] = at

    def refused(self, target: str) -> None:
        """Take back what the service itself refused: as if it had never left."""
        self._sent -= self._first.pop(target, set())

    def ended(self, target: str, resource_id: str, seen_at: datetime) -> None:
        """Note the end of a write, as of the view that showed it.

        When nothing was sent, a write that was sent before may still be under way.
        """
        if target in self._first:
            self.ended_at[fold(resource_id)] = seen_at
