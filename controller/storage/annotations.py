"""Fields that other parts keep in the ledger, beside what the planner decides.

A part queues its fields; whatever writes the ledger next merges them. So no part stands in the path
of a ledger write, and none can hold one up.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.core.ledger import Ledger


class LedgerAnnotations:
    """The newest value of every annotation, with the epoch it belongs to."""

    def __init__(self) -> None:
        self._queued: dict[str, tuple[int, Any]] = {}

    def queue(self, epoch: int, fields: Mapping[str, Any]) -> None:
        """Keep these fields in the ledger from its next write on.

        Args:
            epoch: the epoch of the ledger they describe; under another epoch they are not written.
            fields: by name in `Ledger.extra`, as JSON values.
        """
        self._queued.update({name: (epoch, value) for name, value in fields.items()})

    def merged_into(self, ledger: Ledger) -> Ledger:
        """Return the ledger with what is queued; the same object when it has that already."""
        missing = {
            name: value
            for name, (epoch, value) in self._queued.items()
            if epoch == ledger.epoch and ledger.extra.get(name) != value
        }
        return replace(ledger, extra={**ledger.extra, **missing}) if missing else ledger
