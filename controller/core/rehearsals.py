"""Rehearsals: drains and events that `lb-drain test` requests on the real set.

The id of such a request or event begins with `test-`. Ledger, history, verdicts and notifications
keep ids, so that all show a test as a test. An older agent reads an ordinary drain.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from typing import Protocol

from controller.core.azure_names import fold

TEST = "Test"
"""The type of a rehearsal in metrics, so that no alert and no rate counts it."""
TEST_PREFIX = "test-"
"""How the id of a rehearsal begins; the ids of Azure are GUIDs."""


class Reason(Protocol):
    """Why a VM is out: an event or a drain request."""

    @property
    def event_id(self) -> str:
        """The id of the event or request."""
        ...


def is_test(event_id: str) -> bool:
    """Return whether a request or event with this id is a rehearsal."""
    return fold(event_id).startswith(TEST_PREFIX)


def only_tests(reasons: Iterable[Reason]) -> bool:
    """Return whether a VM is out for rehearsals alone; False without any reason."""
    ids = [each.event_id for each in reasons]
    return bool(ids) and all(map(is_test, ids))
