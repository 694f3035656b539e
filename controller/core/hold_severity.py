"""How urgent a hold is: for the check of monitors, the status page, the fleet and the alert rules.

`deploy/prometheus/lb-drain.rules.yml` and `deploy/azure-monitor/alerts.json` report the same holds.

Pure: standard library only, no I/O, no clock.
"""

from enum import IntEnum

from controller.core.planning.actions import HoldReason


class Severity(IntEnum):
    """What a problem asks of an operator; the alert rules use the same words."""

    NONE = 0
    """Nothing: it ends by itself, or an operator has decided it."""
    INFO = 1
    """It has no effect now: clean up."""
    WARNING = 2
    """The controller works with a reduced margin: act today."""
    CRITICAL = 3
    """Requests are lost now, or will be at the next maintenance: act now."""


_SEVERITIES = {
    HoldReason.EVENT_PENDING.value: Severity.NONE,
    HoldReason.ACKNOWLEDGEMENT_HELD.value: Severity.NONE,
    HoldReason.VM_GONE.value: Severity.INFO,
    HoldReason.EVENT_UNSEEN.value: Severity.CRITICAL,
    HoldReason.NO_ABLE_AGENT.value: Severity.CRITICAL,
    HoldReason.UNREADABLE_EVENT.value: Severity.CRITICAL,
    HoldReason.WRITE_FAILED.value: Severity.CRITICAL,
}
"""Every other reason is a warning, also one of a newer version."""


def severity(reason: str) -> Severity:
    """Return how urgent a hold for this reason is, as long as no event is announced for its VM."""
    return _SEVERITIES.get(reason, Severity.WARNING)
