"""What a rolling run does with every VM."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controller.errors import NotDone


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a rolling run does with every VM.

    Args:
        what: shown to people; a run continues only with the same text.
        work: does the work on one drained VM, and returns when it is complete.
        wait_until_healthy: returns when the VM can take traffic again.
    """

    what: str
    work: Callable[[str], Awaitable[None]]
    wait_until_healthy: Callable[[str], Awaitable[None]]
    """Both raise NotDone."""
    checked: bool = True
    """Whether `wait_until_healthy` runs a check of the operator."""

    @property
    def health(self) -> str:
        """What is known of a VM after `wait_until_healthy`, as a clause."""
        return "the check succeeded" if self.checked else "its health was not checked"


class NothingStarted(NotDone):
    """Raised by the work if it did nothing to the VM, so that the VM can be restored."""
