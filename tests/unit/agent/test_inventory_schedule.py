"""How often the inventory is read."""

import pytest

from controller.agent.inventory_schedule import (
    HOLE_S,
    IDLE_READS_PER_HOUR,
    INVENTORY_S,
    InventorySchedule,
)


@pytest.mark.parametrize("reads", [1, 4, 40, 400])
def test_a_large_set_is_read_less_often(reads: int) -> None:
    """H1: reads of an idle set stay bounded, and a small set is read every five minutes."""
    schedule = InventorySchedule().after(reads=reads, complete=True)
    assert schedule.period_s >= INVENTORY_S
    assert reads * 3600 / schedule.period_s <= IDLE_READS_PER_HOUR


def test_an_inventory_with_holes_is_read_again_soon_and_then_less_often() -> None:
    """The period doubles up to the ordinary one, and a complete inventory starts over."""
    schedule, periods_s = InventorySchedule(), []
    for _ in range(20):
        schedule = schedule.after(reads=4, complete=False)
        periods_s.append(schedule.period_s)
    assert periods_s[:5] == [HOLE_S, 2 * HOLE_S, 4 * HOLE_S, 8 * HOLE_S, 16 * HOLE_S]
    assert set(periods_s[5:]) == {INVENTORY_S}
    complete = schedule.after(reads=4, complete=True)
    assert complete == InventorySchedule(INVENTORY_S)
    assert complete.after(reads=4, complete=False).period_s == HOLE_S
