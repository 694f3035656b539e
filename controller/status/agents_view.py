"""Which agents of the set run, from what they publish and from the lease.

Pure: no I/O, no clock.
"""

from collections.abc import Iterable
from datetime import datetime

from controller.core.agent_presence import AgentState, SeenAgent
from controller.core.azure_names import fold
from controller.core.event_record import length_text
from controller.status.overview_schema import AgentRole, SetAgentView
from controller.status.state_json import instant_or_none

NEVER = "never seen: not installed, of an older version, or a dry run"


def agents_view(
    seen: Iterable[SeenAgent], *, leader: str, now: datetime, dry_run: str = ""
) -> list[SetAgentView]:
    """Return the agents in the order of their VMs' names.

    Args:
        seen: what they publish.
        leader: the VM that leads now.
        now: wall clock.
        dry_run: the VM whose agent is known to be in a dry run.
    """
    views: list[SetAgentView] = []
    for each in sorted(seen, key=lambda each: fold(each.vm)):
        view = _agent(each, leads=fold(each.vm) == fold(leader), now=now)
        if fold(each.vm) == fold(dry_run):
            view["role"], view["text"] = "dry run", "dry run"
        views.append(view)
    return views


def _agent(seen: SeenAgent, *, leads: bool, now: datetime) -> SetAgentView:
    known = seen.presence
    return SetAgentView(
        vm=seen.vm,
        role=_role(seen, leads=leads, now=now),
        release=known.release if known else None,
        configuration=known.configuration if known else None,
        started_at=instant_or_none(known.started_at if known else None),
        seen_at=instant_or_none(known.at if known else None),
        problem=seen.problem or (known.problem if known else ""),
        text=_text(seen, now),
    )


def _role(seen: SeenAgent, *, leads: bool, now: datetime) -> AgentRole:
    """Return the role; the lease proves more than a presence: it ends within a minute."""
    if leads:
        return "leader"
    if seen.problem:
        return "unknown"
    return "standby" if seen.state(now) is AgentState.RUNNING else "not running"


def _text(seen: SeenAgent, now: datetime) -> str:
    known = seen.presence
    if seen.problem:
        return seen.problem
    if known is None:
        return NEVER
    if known.stopped_at is not None:
        return f"stopped {_ago(known.stopped_at, now)}"
    return f"seen {_ago(known.at, now)}"


def _ago(at: datetime, now: datetime) -> str:
    return f"{length_text(now - at)} {'ago' if at <= now else 'from now'}"
