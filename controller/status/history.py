"""The history of a set: the steps of its drains, and the verdicts on its events.

Pure: no I/O, no clock.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.ledger import Ledger
from controller.status.overview_schema import Overview, TransitionView, VerdictView
from controller.status.state_json import instant, transition_json, verdict_json

VERSION = 1
"""Of the object of `lb-drain history --json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Newest first."""

    at: datetime
    """When it was read."""
    availability_set: str | None
    verdicts: tuple[VerdictView, ...]
    lines: tuple[TransitionView, ...]

    def of(self, vm: str, since: datetime | None) -> "History":
        """Return what concerns one VM, or any with an empty name, from an instant on."""

        def wanted(names: str, at: str) -> bool:
            # A step of an event names all its VMs.
            known = {fold(each) for each in names.split(", ")}
            return (not vm or fold(vm) in known) and (
                since is None or datetime.fromisoformat(at) >= since
            )

        return replace(
            self,
            verdicts=tuple(each for each in self.verdicts if wanted(each["vm"], each["at"])),
            lines=tuple(each for each in self.lines if wanted(each["vm"], each["at"])),
        )

    def as_json(self) -> dict[str, object]:
        """Return the object of `lb-drain history --json`."""
        return {
            "version": VERSION,
            "at": instant(self.at),
            "availability_set": self.availability_set,
            "verdicts": list(self.verdicts),
            "history": list(self.lines),
        }


def history_of(ledger: Ledger, *, at: datetime, availability_set: str) -> History:
    """Return the history that a ledger has."""
    return History(
        at=at,
        availability_set=availability_set or None,
        verdicts=tuple(verdict_json(found) for found in reversed(ledger.verdicts)),
        lines=tuple(transition_json(line) for line in reversed(ledger.transitions)),
    )


def history_in(shown: Overview) -> History:
    """Return the history that an overview has."""
    return History(
        at=datetime.fromisoformat(shown["at"]),
        availability_set=shown["agent"]["availability_set"],
        verdicts=tuple(shown["verdicts"]),
        lines=tuple(shown["history"]),
    )
