"""The output of `lb-drain fleet`: one row for each set. Decides nothing."""

from datetime import datetime, timedelta

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from controller.core.event_record import WatchedEvent
from controller.core.fleet import Attention, SetSummary
from controller.core.printable import printable
from controller.fleet.reader import Fleet

STYLES = {
    Attention.CRITICAL: "bold red",
    Attention.WARNING: "yellow",
    Attention.NOTICE: "cyan",
    Attention.NONE: "",
}
NAMES_SHOWN = 2
"""How many VMs a cell names; with more it has their number."""
LINES_BESIDE_ROWS = 6
"""Lines of the screen that hold no set."""
WIDE_COLUMNS = 140
"""A screen with so many columns has space for the problem beside the set."""
UNITS = (("d", 86_400), ("h", 3600), ("min", 60))


def print_fleet(console: Console, fleet: Fleet, *, rows: int | None = None) -> None:
    """Print the sets, the most urgent one first.

    Args:
        rows: how many sets are printed at most, as on a screen that is not scrolled.
    """
    for container in fleet.containers:
        if container.problem:
            text = f"{container.url} cannot be listed: {container.problem}"
            console.print(_safe(text), style="bold red")
        if container.not_shown:
            text = f"{container.url}: {container.not_shown} more blobs are not shown"
            console.print(_safe(text), style="yellow")
    shown = fleet.sets[:rows]
    wide = console.width >= WIDE_COLUMNS
    for row in shown if not wide else ():
        if row.problems:
            console.print(_safe(f"{row.name}: {_problems(row)}"), style=STYLES[row.attention])
    if shown:
        console.print(_table(fleet, shown, wide=wide))
    console.print(_safe(_totals(fleet, hidden=len(fleet.sets) - len(shown))))


def screen_rows(console: Console) -> int | None:
    """Return how many sets fit on the screen; None if the output is not a screen."""
    if not console.is_terminal:
        return None
    lines = max(2, console.height - LINES_BESIDE_ROWS)
    return lines if console.width >= WIDE_COLUMNS else lines // 2


def _table(fleet: Fleet, rows: tuple[SetSummary, ...], *, wide: bool) -> Table:
    """Return the rows; on a narrow screen, the problems are above the table."""
    names = ["set", "leader", "agents", "out", "holds", "next event", "written"]
    if wide:
        names += ["last verdict", "needs attention"]
    columns = [Column(each, overflow="fold") for each in names]
    columns[names.index("holds")].justify = "right"
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        out = [each.vm for each in row.drained]
        cells = [
            str(row.name),
            _leader(row),
            _agents(row),
            ", ".join(out) if len(out) <= NAMES_SHOWN else f"{len(out)} VMs",
            str(len(row.ledger.holds) or ""),
            _event(row.next_event, fleet.at),
            _ago(row.written_at, fleet.at),
        ]
        if wide:
            cells += [_verdict(row, fleet.at), _problems(row)]
        table.add_row(*map(_safe, cells), style=STYLES[row.attention])
    return table


def _leader(row: SetSummary) -> str:
    if not row.readable:
        return "unreadable"
    return row.leader or "none"


def _agents(row: SetSummary) -> str:
    """Return how many agents run, of those that are known; empty without any presence."""
    known = len(row.agents_seen) + len(row.agents_silent)
    return f"{len(row.agents_seen)} of {known}" if known else ""


def _event(event: WatchedEvent | None, now: datetime) -> str:
    if event is None:
        return ""
    vms = [each.vm for each in event.vms]
    names = ", ".join(vms) if len(vms) <= NAMES_SHOWN else f"{len(vms)} VMs"
    if event.started_at is not None:
        when = "started"
    elif event.not_before is None:
        when = "at any time"
    elif event.not_before <= now:
        when = "due"
    else:
        when = f"in {_length(event.not_before - now)}"
    return f"{event.event_type} {names} {when}"


def _verdict(row: SetSummary, now: datetime) -> str:
    found = row.last_verdict
    if found is None:
        return ""
    return f"{found.verdict.replace('_', ' ')} {found.vm} {_ago(found.at, now)}"


def _ago(at: datetime | None, now: datetime) -> str:
    """Return how long ago an instant was; 0 s for one that another clock puts into the future."""
    return "" if at is None else f"{_length(now - at)} ago"


def _length(length: timedelta) -> str:
    """Return a duration in one unit, so that a column of durations can be compared."""
    seconds = max(0, int(length.total_seconds()))
    unit, unit_s = next((each for each in UNITS if seconds >= 2 * each[1]), ("s", 1))
    return f"{seconds // unit_s} {unit}"


def _problems(row: SetSummary) -> str:
    """Return the most urgent problem, and the number of the others."""
    texts = [each.text for each in row.problems]
    more = f" (+{len(texts) - 1})" if len(texts) > 1 else ""
    return texts[0] + more if texts else ""


def _totals(fleet: Fleet, *, hidden: int) -> str:
    counts = {
        level: sum(each.attention is level for each in fleet.sets)
        for level in (Attention.CRITICAL, Attention.WARNING, Attention.NOTICE)
    }
    parts = [f"{number} {level.name.casefold()}" for level, number in counts.items() if number]
    if unread := sum(bool(each.problem) for each in fleet.containers):
        parts.append(f"{unread} container{'' if unread == 1 else 's'} not read")
    state = ", ".join(parts) or "no set needs attention"
    noun = "set" if len(fleet.sets) == 1 else "sets"
    text = f"{len(fleet.sets)} {noun}: {state}; read at {fleet.at:%H:%M:%S} UTC"
    return f"{text}; not shown: {hidden} less urgent" if hidden else text


def _safe(text: str) -> Text:
    """Return text that may hold anything: a container's writer must not reach the terminal."""
    return Text(printable(text))
