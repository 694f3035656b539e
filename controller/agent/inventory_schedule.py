"""How often the inventory is read: the larger the set, the less often, and soon after a hole."""

from dataclasses import dataclass

IDLE_READS_PER_HOUR = 48
"""Inventories of an idle set stay below this many ARM reads an hour, however large it is."""
INVENTORY_S = 300.0
"""Seconds between two inventories of a small set."""
HOLE_S = 15.0
"""An inventory with holes is read again after this many seconds, then after twice as many, …"""
MOST_DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class InventorySchedule:
    """When the next inventory is due, and how many in a row had holes."""

    period_s: float = INVENTORY_S
    holes_in_a_row: int = 0

    def after(self, *, reads: int, complete: bool) -> "InventorySchedule":
        """Return the schedule after an inventory.

        Args:
            reads: how many ARM reads a complete inventory takes.
            complete: every part was read, and every VM understood.
        """
        period_s = max(INVENTORY_S, reads * 3600 / IDLE_READS_PER_HOUR)
        if complete:
            return InventorySchedule(period_s)
        holes = self.holes_in_a_row + 1
        soon_s = HOLE_S * 2.0 ** min(holes - 1, MOST_DOUBLINGS)
        return InventorySchedule(min(period_s, soon_s), holes)
