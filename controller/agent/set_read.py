"""Whether the set itself can be read: only it shows VMs that are added to it."""

from controller.errors import ControllerError, NotFound

REPORTED_AFTER = 2
"""Of inventories in a row that cannot read the set, this one reports it."""


class SetRead:
    """Counts the inventories that could not read the set."""

    def __init__(self) -> None:
        self._failures = 0
        self.problem = ""
        """Why the set cannot be read; empty if it can, and if it was not found."""

    def after(self, error: ControllerError | None) -> None:
        """Note how the read of the set ended."""
        if error is None or isinstance(error, NotFound):
            self._failures, self.problem = 0, ""
            return
        self._failures += 1
        if self._failures >= REPORTED_AFTER and not self.problem:
            self.problem = str(error)
