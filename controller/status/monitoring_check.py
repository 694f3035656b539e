"""One line and one exit code about a set, for Nagios, Icinga and what understands their plugins.

The form is that of the Monitoring Plugins: `SERVICE STATE - text | label=value`, and the exit code
is the state.

Pure: no I/O, no clock.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from controller.core.azure_names import short
from controller.core.event_record import length_text
from controller.core.printable import printable
from controller.status.overview_schema import Overview
from controller.status.problems import AWAY

TOO_OLD = timedelta(minutes=1)
"""What an agent knows alone is no judgement of the set after this time. An agent that reaches its
services answers with reads of the last seconds."""


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
        text = printable(" ".join(self.text.split()).replace("|", "/"))
        line = f"LB-DRAIN {self.state.name} - {text}"
        return f"{line} | {self.counts}" if self.counts else line


def check(shown: Overview, *, incomplete: str = "") -> Check:
    """Return the state of a set.

    Args:
        shown: the overview of the set.
        incomplete: why the overview is only what one agent knows; empty for a complete one.
    """
    name = _name(shown)
    found = shown["problems"]
    if incomplete and (why := _too_old(shown)):
        # That storage fails is what this agent finds now, and keeps the whole set from working.
        failing = next((each["title"] for each in found if each["kind"] == "storage"), "")
        if failing:
            return Check(state=State.CRITICAL, text=f"{name}: {failing}: {why}")
        return Check(state=State.UNKNOWN, text=f"{name}: {why}: {incomplete}")
    out = sum(vm["phase"] in AWAY for vm in shown["vms"])
    critical = [each for each in found if each["severity"] == "critical"]
    wrong = [*critical, *(each for each in found if each["severity"] == "warning")]
    counts = f"vms={len(shown['vms'])} out={out} problems={len(wrong)}"
    if wrong:
        more = f"; {len(wrong) - 1} more" if len(wrong) > 1 else ""
        state = State.CRITICAL if critical else State.WARNING
        return Check(state=state, text=f"{name}: {wrong[0]['title']}{more}", counts=counts)
    if incomplete:
        return Check(state=State.WARNING, text=f"{name}: {incomplete}", counts=counts)
    leader = shown["lease"]["leader"] or "no agent"
    text = f"{name}: {leader} leads, {out} of {len(shown['vms'])} VMs out of rotation"
    return Check(state=State.OK, text=text, counts=counts)


def _name(shown: Overview) -> str:
    agent = shown["agent"]
    if not agent["availability_set"]:
        return "the set of this VM"
    return f"{short(agent['availability_set'])} ({agent['resource_group']})"


def _too_old(shown: Overview) -> str:
    """Return why an agent cannot judge the set by what it knows; empty if it can.

    During the maintenance of its own VM an agent can be cut off, and afterwards it starts again:
    the holds and events that it knows may have ended long ago.
    """
    as_of, document_s = shown["ledger"]["as_of"], shown["document"]["age_s"]
    if as_of is None:
        return "the agent on this VM has not read the ledger yet"
    if document_s is None:
        return "the agent on this VM has not read the scheduled events yet"
    of_ledger = datetime.fromisoformat(shown["at"]) - datetime.fromisoformat(as_of)
    age = max(of_ledger, timedelta(seconds=document_s))
    return f"what this VM knows of the set is {length_text(age)} old" if age > TOO_OLD else ""
