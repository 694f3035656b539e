"""What `lb-drain status`, `plan` and `history` print of an overview. Text only; decides nothing.

An overview comes from this command or from an agent: every text in it may hold anything, and passes
`printable` on its way to the terminal.
"""

from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from controller.cli.set_reads import Reading
from controller.core.azure_names import SetKind, fold, short
from controller.core.event_record import MISSED, length_text
from controller.core.printable import printable
from controller.status.overview_schema import (
    EventView,
    Overview,
    SetAgentView,
    TransitionView,
    VerdictView,
    VmView,
)

ALARM = "bold red"
DRY_RUN = "dry run: the agent on this VM writes nothing (dry_run in [policy])"
OVER = frozenset({"Gone", "Cancelled"})
MANUAL = "Manual"
SHOWN_LINES = 10
NONE = "-"
READ_LATELY_S = 60.0
"""An agent reads scheduled events every few seconds; what is older may lack an event."""


def print_origin(console: Console, reading: Reading) -> None:
    """Print that the agent on this VM writes nothing, and why it is only its view that follows."""
    if reading.dry_run:
        show_line(console, DRY_RUN)
    if reading.problem:
        show_line(console, reading.problem, style=ALARM)


def print_head(console: Console, shown: Overview) -> None:
    """Print which set it is, who leads it, and when that was read."""
    agent, lease = shown["agent"], shown["lease"]
    set_id = agent["availability_set"] or ""
    name, kind = short(set_id) or "unknown", SetKind.of(set_id).value
    group = f" in {agent['resource_group']}" if agent["resource_group"] else ""
    show_line(console, f"{kind} {name}{group}, read at {clock(shown['at'])} UTC")
    since = lease["since"]
    age = f", for {length_text(instant(shown['at']) - instant(since))}" if since else ""
    epoch = NONE if lease["epoch"] is None else lease["epoch"]
    none = "none" if lease["state"] else "unknown"  # the state comes with every read of the ledger
    show_line(
        console,
        f"leader: {lease['leader'] or none}{age}   lease: {lease['state'] or 'unknown'}   "
        f"epoch: {epoch}",
    )
    _print_controls(console, shown)


def _print_controls(console: Console, shown: Overview) -> None:
    """Print the controls of the set that are in force."""
    for each in shown["controls"]:
        show_line(console, f"control: {each['text']}", style="bold")
    if shown["controls_problem"]:
        problem = f"the controls of the set cannot be read: {shown['controls_problem']}"
        show_line(console, problem, style=ALARM)


def print_vms(console: Console, shown: Overview) -> None:
    """Print every VM with its agent, its pools, its phase, its event and its connections."""
    table = Table(
        Column("VM", no_wrap=True),
        Column("role", overflow="fold"),
        Column("agent", overflow="fold"),
        Column("pools", overflow="fold"),
        Column("phase", no_wrap=True),
        Column("event", overflow="fold"),
        Column("left", justify="right"),
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    agents = {fold(each["vm"]): each for each in shown["agents"]}
    for vm in shown["vms"]:
        agent = agents.get(fold(vm["vm"]))
        left = vm["closing"]["connections_left"] if vm["closing"] else None
        table.add_row(
            text(vm["vm"] + (" (deleted)" if vm["gone"] else "")),
            _role(agent),
            text(_seen(agent, shown["at"])),
            _pools(vm),
            text(phase_text(vm["phase"])),
            text(_event_of(vm["vm"], shown)),
            text(NONE if left is None else str(left)),
        )
    console.print(table)
    for vm in shown["vms"]:
        if vm["closing"] is not None:
            show_line(console, f"{vm['vm']}: {vm['closing']['text']}")
        if vm["not_covered"]:
            show_line(console, f"{vm['vm']}: {vm['not_covered']}")
    _print_agents(console, shown)


def _role(agent: SetAgentView | None) -> Text:
    role = agent["role"] if agent else "unknown"
    return text(role, style=ALARM if role == "not running" else "")


def _seen(agent: SetAgentView | None, at: str) -> str:
    """Return the version of an agent, and how long ago it was seen."""
    if agent is None or agent["seen_at"] is None:
        return NONE
    age = _age((instant(at) - instant(agent["seen_at"])).total_seconds())
    return f"{agent['release'] or ''}, {age} ago"


def _age(seconds: float) -> str:
    """Return an age in its largest unit, which shows whether an agent is alive."""
    for unit, unit_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _pools(vm: VmView) -> Text:
    if not vm["pools"]:
        return text(NONE)
    return text("\n".join(f"{p['pool']} {'in' if p['inside'] else 'out'}" for p in vm["pools"]))


def _print_agents(console: Console, shown: Overview) -> None:
    """Print what is wrong with agents: those that do not run, are not ready, or differ."""
    unknown: dict[str, list[str]] = {}
    for agent in shown["agents"]:
        if agent["role"] == "unknown":
            unknown.setdefault(agent["problem"], []).append(agent["vm"])
        elif agent["role"] == "not running":
            show_line(
                console, f"{agent['vm']}: the agent does not run, {agent['text']}", style=ALARM
            )
        elif agent["problem"]:
            show_line(
                console, f"{agent['vm']}: the agent is not ready: {agent['problem']}", style=ALARM
            )
    for problem, vms in unknown.items():
        names = ", ".join(vms)
        show_line(console, f"{names}: unknown whether the agent runs: {problem}", style=ALARM)
    running = [each for each in shown["agents"] if each["role"] != "not running"]
    for what, of_agents in (
        ("configurations", [(each["configuration"], each["vm"]) for each in running]),
        ("versions", [(each["release"], each["vm"]) for each in running]),
    ):
        found: dict[str, list[str]] = {}
        for value, vm in of_agents:
            if value:
                found.setdefault(value, []).append(vm)
        if len(found) > 1:
            parts = (f"{value} on {', '.join(vms)}" for value, vms in sorted(found.items()))
            show_line(console, f"the agents have different {what}: {'; '.join(parts)}", style=ALARM)


def _event_of(vm: str, shown: Overview) -> str:
    """Return the event of a VM that comes first, and how many others there are."""
    found = [
        each
        for each in shown["events"]
        if each["status"] not in OVER and fold(vm) in map(fold, each["vms"])
    ]
    if not found:
        return NONE
    first = min(found, key=lambda each: (not each["impacting"], each["not_before"] or ""))
    more = f" (+{len(found) - 1})" if len(found) > 1 else ""
    return f"{_name(first)} {_when(first, shown['at'])}{more}"


def _name(event: EventView) -> str:
    return "drain request" if event["status"] == MANUAL else event["event_type"]


def _when(event: EventView, at: str) -> str:
    """Return how far an event is, with the time that is left until NotBefore."""
    if event["ignored"]:
        return "ignored"
    if event["status"] == MANUAL:
        return "in force"
    if event["status"] == "Started":
        return "started"
    if event["not_before"] is None:
        return "at any moment"
    return countdown((instant(event["not_before"]) - instant(at)).total_seconds())


def countdown(seconds: float) -> str:
    """Return the time until an instant, as a clock shows it: in 12:04, in 1:02:03, in 3 d 4 h."""
    if seconds <= 0:
        return "due now"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"in {hours // 24} d {hours % 24} h"
    return f"in {hours}:{minutes:02}:{rest:02}" if hours else f"in {minutes}:{rest:02}"


def print_events(console: Console, shown: Overview) -> None:
    """Print the events that are announced or going on, and what happens to each VM."""
    events = [each for each in shown["events"] if each["status"] not in {*OVER, MANUAL}]
    why = why_events_unknown(shown)
    if not events:
        show_line(console, f"scheduled events: {f'unknown, because {why}' if why else 'none'}")
        return
    show_line(console, f"scheduled events{f' (maybe not all, because {why})' if why else ''}:")
    for event in events:
        not_before = f", NotBefore {day(event['not_before'])} UTC" if event["not_before"] else ""
        source = "" if event["source"] == "Unknown" else f", source {event['source']}"
        show_line(
            console,
            f"  {event['event_type']} of {', '.join(event['vms'])} {_when(event, shown['at'])}"
            f"{not_before}{source}, {event['event_id']}",
        )
        for line in event["outlook"]:
            show_line(console, f"    {line}", style=ALARM if "lose requests" in line else "")


def are_events_unread(shown: Overview) -> bool:
    """Return whether the metadata service was asked for events and has never answered."""
    document = shown["document"]
    return document["age_s"] is None and document["failed_polls"] > 0


def why_events_unknown(shown: Overview) -> str:
    """Return why there may be events that an overview does not show; empty if there are none."""
    document, agent = shown["document"], shown["agent"]
    if are_events_unread(shown):
        return f"the metadata service cannot be read on {agent['vm'] or 'this VM'}"
    if document["age_s"] is not None:
        old = document["age_s"] > READ_LATELY_S
        return f"they were last read {_age(document['age_s'])} ago" if old else ""
    if agent["role"] != "command":
        return "the agent has not read them yet"
    # On a machine outside the set there is no metadata service: the leader records them.
    return "" if shown["lease"]["leader"] else "no agent leads, and a leader records them"


def print_holds(console: Console, shown: Overview) -> None:
    """Print what is held, what follows from it, and what to do."""
    holds = shown["holds"]
    if not holds:
        show_line(console, f"holds: {none_text(shown)}")
        return
    show_line(console, "holds:")
    for hold in holds:
        since = f"{hold['reason']}, since {clock(hold['since'])} UTC"
        show_line(console, f"  {hold['message']} ({since})", style=ALARM)
        show_line(console, f"    result: {hold['consequence']}")
        show_line(console, f"    remedy: {hold['remedy']}")


def none_text(shown: Overview) -> str:
    """Return what an empty list from the ledger means: nothing, or that it was not read."""
    return "none" if shown["ledger"]["as_of"] else "unknown, because the ledger was not read yet"


def print_requests(console: Console, shown: Overview) -> None:
    """Print the manual drains and the rolling run."""
    for request in shown["drain_requests"]:
        reason = f" ({request['reason']})" if request["reason"] else ""
        kind = "TEST" if request["test"] else "manual"
        until = day(request["until"])[:-3]
        show_line(
            console,
            f"{kind} drain requested: {request['vm']} until {until} UTC, "
            f"by {request['by']}{reason}"
            f"{', below min_in_service if necessary (--force)' if request['forced'] else ''}",
        )
    if run := shown["rolling_run"]:
        state = f"stopped, {run['failed']}" if run["failed"] else "in progress"
        remaining = ", ".join(run["remaining"]) or "none"
        show_line(
            console,
            f"rolling run by {run['by']} ({run['what']}): {state}; remaining: {remaining}",
        )


def print_history(
    console: Console,
    verdicts: list[VerdictView],
    history: list[TransitionView],
    *,
    limit: int | None = None,
    none: str = "none",
) -> None:
    """Print the steps of drains and the verdicts, oldest first; the newest ones with a limit.

    Without any, print `none`.
    """
    lines = [(each["at"], _step_line(each), "") for each in reversed(history)]
    lines += [(each["at"], _verdict_line(each), _style(each)) for each in reversed(verdicts)]
    lines.sort(key=lambda line: instant(line[0]))
    if not lines:
        show_line(console, f"history: {none}")
        return
    left_out = 0 if limit is None else max(0, len(lines) - limit)
    more = f", the last {limit} lines; lb-drain history shows all" if left_out else ""
    show_line(console, f"history (UTC{more}):")
    for at, line, style in lines[left_out:]:
        show_line(console, f"  {day(at)}  {line}", style=style)


def _step_line(line: TransitionView) -> str:
    detail = f" ({line['detail']})" if line["detail"] else ""
    return f"{line['vm']}: {line['text']}{detail}"


def _verdict_line(found: VerdictView) -> str:
    return f"{found['vm']}: verdict on the {found['event_type']}: {found['text']}"


def _style(found: VerdictView) -> str:
    return ALARM if found["verdict"] in tuple(MISSED) else ""


# --- words and times ---


def phase_text(phase: str | None) -> str:
    """Return a phase as people read it; every view has the same words."""
    return NONE if phase is None else phase.replace("_", " ")


def instant(value: str) -> datetime:
    """Return an instant of an overview."""
    return datetime.fromisoformat(value)


def clock(value: str) -> str:
    """Return the time of day of an instant."""
    return f"{instant(value):%H:%M:%S}"


def day(value: str) -> str:
    """Return the date and the time of an instant."""
    return f"{instant(value):%Y-%m-%d %H:%M:%S}"


def text(value: str, *, style: str = "") -> Text:
    """Return a text that may hold anything as a cell: a line break in it is one of ours."""
    return Text("\n".join(map(printable, value.split("\n"))), style=style)


def show_line(console: Console, line: str, **style: Any) -> None:
    """Print a line that may hold anything: a container's writer must not reach the terminal."""
    console.print(printable(line), highlight=False, markup=False, **style)
