"""Which histories CI plays: a fixed share of those that a campaign plays (`pytest -m campaign`)."""

from zlib import crc32

import pytest

PLAYED_IN_CI = 4
"""CI plays one in so many histories."""
LISTED = "test_a_fixed_fault_stays_fixed"
"""The test with the list of seeds; every other campaign is a folder."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the histories that only the campaign plays. A name decides, so the share is fixed."""
    for item in items:
        history = item.path.parent.name == "faults" or item.name.startswith(LISTED)
        slow = item.get_closest_marker("slow")
        if history and slow and crc32(item.name.encode()) % PLAYED_IN_CI:
            item.add_marker(pytest.mark.campaign)
