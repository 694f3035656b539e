"""One line and one exit code about a set, for Nagios, Icinga and what understands their plugins.

The form is that of the Monitoring Plugins: `SERVICE STATE - text | label=value`, and the exit code
is the state.

Pure: no I/O, no clock.
"""

from dataclasses import dataclass
from enum import IntEnum

from controller.core.azure_names import short
from controller.status.overview_schema import Overview
from controller.status.problems import AWAY

CRITICAL_KINDS = frozenset({"in_rotation", "held", "write_failed", "no_leader", "storage"})
"""The kinds of problem that can cost requests at the next event; the others are warnings."""


class State(IntEnum):
    """The state of a service; the values are the exit codes of the plugins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check."""

    state: State
    text: str
    counts: str = ""
    """The performance data; empty where nothing was read."""

    @property
    def line(self) -> str:
        """The line that a plugin prints."""
        line = f"LB-DRAIN {self.state.name} - {' '.join(self.text.split()).replace('|', '/')}"
        return f"{line} | {self.counts}" if self.counts else line


def check(shown: Overview, *, incomplete: str = "") -> Check:
    """Return the state of a set.

    Args:
        shown: the overview of the set.
        incomplete: why the overview is only what one agent knows; empty for a complete one.
    """
    found = shown["problems"]
    out = sum(vm["phase"] in AWAY for vm in shown["vms"])
    counts = f"vms={len(shown['vms'])} out={out} problems={len(found)}"
    agent = shown["agent"]
    name = f"{short(agent['availability_set'] or '')} ({agent['resource_group']})"
    if found:
        critical = any(each["kind"] in CRITICAL_KINDS for each in found)
        more = f"; {len(found) - 1} more" if len(found) > 1 else ""
        state = State.CRITICAL if critical else State.WARNING
        return Check(state=state, text=f"{name}: {found[0]['title']}{more}", counts=counts)
    if incomplete:
        return Check(state=State.WARNING, text=f"{name}: {incomplete}", counts=counts)
    leader = shown["lease"]["leader"] or "no agent"
    text = f"{name}: {leader} leads, {out} of {len(shown['vms'])} VMs out of rotation"
    return Check(state=State.OK, text=text, counts=counts)
