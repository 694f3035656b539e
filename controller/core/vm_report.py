"""What the agent of one VM reports about its own side of a drain; one small blob per VM.

The leader plans by it. The report names the drain that it is about (`drain`, the instant at which
the entry was recorded): a report of another drain is no evidence. Neither is one from before a
restart of the VM, which the leader learns from the events (`restarts`).

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from controller.core.blob_limits import shorten
from controller.core.resources import NOTHING_EXTRA, Extra

MINOR = 0
"""The minor version of the format that this agent writes."""


class VmState(StrEnum):
    """Whether a VM takes new work; the values are stored."""

    OPEN = "open"
    """Its health endpoint answers healthy."""
    CLOSED = "closed"
    """It asks for no new work: flag set, probe answers 503."""
    OPENING = "opening"
    """Its drain is over, and it is not ready yet."""


class HookOutcome(StrEnum):
    """How a hook ended; the values are stored."""

    NONE = ""
    """There is no hook, or it has not begun."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmReport:
    """One report."""

    vm: str
    boot_id: str
    """Identifies the boot of the machine."""
    state: VmState
    since: datetime
    """Since when it is in that state."""
    at: datetime
    """When the report was made."""
    drain: datetime | None = None
    """`recorded_at` of the entry because of which the VM closed or opens; None without one."""
    quiet_since: datetime | None = None
    """Since when it has no connection on its service ports; None while it has one."""
    connections: int = 0
    """Established connections on its service ports."""
    counted: bool = False
    """Whether the connections could be counted."""
    refused_probes: int = 0
    """Probes of the load balancer that got a 503 since the VM closed."""
    probe_port: int = 0
    """The port on which its responder answers; 0 without one."""
    hook: HookOutcome = HookOutcome.NONE
    """How the newest hook ended."""
    problem: str = ""
    """What does not work on this side, or why the VM is not ready yet."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "problem")

    @property
    def quiet(self) -> bool:
        """Whether no connection is left."""
        return self.counted and self.quiet_since is not None

    @property
    def left(self) -> int:
        """How many connections are known to be left on a VM that has closed."""
        return self.connections if self.counted and self.state is VmState.CLOSED else 0


def left_text(report: VmReport) -> str:
    """Return in words which connections a VM still has."""
    if report.quiet:
        return "quiet"
    if not report.counted:
        return "connections not counted"
    return f"{report.connections} connection{'' if report.connections == 1 else 's'} left"


def report_text(report: VmReport) -> str:
    """Return a report in one line for people."""
    parts = [f"{report.state.value} since {report.since:%H:%M:%S} UTC"]
    if report.state is VmState.CLOSED:
        parts.append(left_text(report))
        if report.probe_port:
            parts.append(f"{report.refused_probes} probes refused")
    if report.hook is not HookOutcome.NONE:
        parts.append(f"hook {report.hook.value}")
    if report.problem:
        parts.append(report.problem)
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class SeenReport:
    """A report as the leader read it."""

    report: VmReport | None
    """None while there is no report, or none that can be used."""
    observed_at: datetime
