"""Which of the histories belong to the quick tests: one file; each history takes seconds."""

import pytest

QUICK = "test_refused_writes.py"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the histories of the other files as slow."""
    for item in items:
        if item.path.parent.name == "faults" and item.path.name != QUICK:
            item.add_marker(pytest.mark.slow)
