"""The output of `lb-drain plan` and `lb-drain status`. Tables and text only; decides nothing."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from controller.core.azure_names import fold, short
from controller.core.drain_history import step_text
from controller.core.event_record import MISSED, verdict_text
from controller.core.events import EventStatus
from controller.core.ledger import Entry, Ledger
from controller.core.printable import printable
from controller.core.vm_phase import phase_by
from controller.status.closing_view import texts as closing_texts
from controller.status.ledger_view import (
    LeaseStatus,
    PlanPreview,
    out_at,
    planned_steps,
    reasons,
    why_phase,
)

SHOWN_VERDICTS = 10
MISSED_STYLE = "bold red"
DRY_RUN = "dry run: the agent on this VM writes nothing (dry_run in [policy])"


def print_plan(console: Console, preview: PlanPreview, *, dry_run: bool) -> None:
    """Print a plan; `dry_run` is the setting of the agent on this VM."""
    if dry_run:
        _print(console, DRY_RUN)
    leader = preview.lease.leader or "none"
    _print(
        console, f"this VM: {preview.vm}   leader: {leader}   epoch: {preview.lease.ledger.epoch}"
    )
    if preview.unread:
        _print(console, preview.unread, highlight=False)
        _print_events(console, preview)
        _print_holds(console, preview)
        return
    _print_pools(console, preview)
    _print_vms(console, preview)
    _print_events(console, preview)
    _print_holds(console, preview)
    wake_at = preview.plan.wake_at
    next_check = f"next check by {wake_at:%H:%M:%S} UTC" if wake_at else ""
    actions = planned_steps(preview.plan, preview.lease.ledger)
    if not actions:
        _print(console, "; ".join(filter(None, ("planned actions: none", next_check))))
        return
    _print(console, "planned actions:")
    for action in actions:
        _print(console, f"  {action}", highlight=False)
    if next_check:
        _print(console, next_check)


def _print_pools(console: Console, preview: PlanPreview) -> None:
    table = Table("pool", "kind", "members in rotation", title="pools", title_justify="left")
    for pool in preview.pools:
        name = _pool_name(preview.pool_names, pool.pool_id)
        _row(table, name, pool.kind.value, str(len(pool.members)))
    console.print(table)
    for pool_id in preview.pools_without_peers:
        _print(console, f"No VM of this availability set is in {pool_id}.", highlight=False)


def _print_vms(console: Console, preview: PlanPreview) -> None:
    table = Table("VM", "power", "phase", "reason", title="VMs", title_justify="left")
    power = {fold(vm.name): vm.power.value for vm in preview.vms}
    for each in preview.plan.phases:
        why = each.why or why_phase(preview, each.vm)
        _row(table, each.vm, power.get(fold(each.vm), ""), _words(each.phase.value), why)
    console.print(table)


def _print_holds(console: Console, preview: PlanPreview) -> None:
    if not preview.plan.holds:
        _print(console, "holds: none")
        return
    _print(console, "holds:")
    for hold in preview.plan.holds:
        _print(console, f"  {hold.message} ({hold.reason})", highlight=False)


def _print_events(console: Console, preview: PlanPreview) -> None:
    events = preview.document.events if preview.document else ()
    if not events:
        _print(console, "scheduled events: none")
        return
    table = Table(
        Column("event", overflow="fold"),
        "type",
        "status",
        "VMs",
        "NotBefore (UTC)",
        "source",
        title="scheduled events",
        title_justify="left",
    )
    for event in events:
        not_before = f"{event.not_before:%Y-%m-%d %H:%M:%S}" if event.not_before else ""
        status = "" if event.status is EventStatus.UNKNOWN else event.status.value
        vms = ", ".join(event.resources)
        _row(table, event.event_id, event.event_type, status, vms, not_before, event.source.value)
    console.print(table)


def print_watch(
    console: Console,
    status: LeaseStatus | None,
    *,
    pool_names: Mapping[str, str],
    now: datetime,
    problem: str,
    dry_run: bool,
) -> None:
    """Print the time, the problem of the latest read, and the latest status that was read."""
    _print(console, f"{_time(now)} UTC")
    if problem:
        age = f"; the following is the state at {_time(status.at)}" if status else ""
        _print(console, f"read failed: {problem}{age}", highlight=False)
    if status is not None:
        print_status(console, status, pool_names=pool_names, dry_run=dry_run)


def print_status(
    console: Console, status: LeaseStatus, *, pool_names: Mapping[str, str], dry_run: bool
) -> None:
    """Print leader, drains, requests, holds and transitions.

    Args:
        pool_names: short name of each managed pool, by folded id.
        dry_run: the setting of the agent on this VM.
    """
    if dry_run:
        _print(console, DRY_RUN)
    age_s = status.lease_age_s
    since = f", for {age_s:.0f} s" if age_s is not None else ""
    _print(
        console,
        f"leader: {status.leader or 'none'}{since}   lease: {status.lease_state}   "
        f"epoch: {status.ledger.epoch}",
    )
    _print_drains(console, status, pool_names)
    _print_requests(console, status)
    for hold in status.ledger.holds:
        _print(console, f"on hold since {_time(hold.since)}: {hold.message} ({hold.reason})")
    _print_verdicts(console, status.ledger)
    transitions = status.ledger.transitions[-10:]
    if transitions:
        _print(console, "recent history (UTC):")
    for line in transitions:
        detail = f" ({line.detail})" if line.detail else ""
        text = f"  {_time(line.at)}  {line.vm}: {step_text(line.step)}{detail}"
        _print(console, text, highlight=False)


def _print_verdicts(console: Console, ledger: Ledger) -> None:
    """Print the events that are announced, and the last verdicts."""
    for event in ledger.events:
        vms = ", ".join(each.vm for each in event.vms)
        begins = f", not before {event.not_before:%Y-%m-%d %H:%M:%S}" if event.not_before else ""
        state = f", started {_time(event.started_at)}" if event.started_at else begins
        ignored = f", ignored: {event.ignored}" if event.ignored else ""
        text = f"announced (UTC): {event.event_type} of {vms}{state}{ignored}"
        _print(console, text, highlight=False, markup=False)
    if ledger.verdicts:
        _print(console, "events and their verdicts (UTC):")
    for found in ledger.verdicts[-SHOWN_VERDICTS:]:
        text = (
            f"  {found.at:%Y-%m-%d %H:%M:%S}  {found.vm}: {found.event_type}: {verdict_text(found)}"
        )
        style = MISSED_STYLE if found.verdict in MISSED else None
        _print(console, text, highlight=False, markup=False, style=style)


def _print_drains(console: Console, status: LeaseStatus, pool_names: Mapping[str, str]) -> None:
    ledger = status.ledger
    if not ledger.entries:
        _print(console, "No VM is drained.")
        return
    table = Table(
        *("VM", "phase", "pools", "started", "out at", "restored", "reason"),
        title="drains (UTC)",
        title_justify="left",
    )
    for entry in ledger.entries:
        phase = phase_by(ledger, entry.vm)
        _row(
            table,
            entry.vm + (" (deleted)" if entry.gone else ""),
            _words(phase.phase.value) if phase else "",
            _pools(entry, pool_names),
            _time(entry.recorded_at),
            _time(out_at(ledger, entry)),
            _time(entry.restored_at),
            reasons(entry),
        )
    console.print(table)
    for vm, text in closing_texts(ledger, status.reports).items():
        _print(console, f"{vm}: {text}", highlight=False)


def _pools(entry: Entry, names: Mapping[str, str]) -> str:
    """Return the pools of an entry; those of lost memberships are marked."""
    pools = sorted({_pool_name(names, m.pool_id) for m in entry.memberships})
    lost = sorted({_pool_name(names, m.pool_id) for m in entry.lost})
    return ", ".join((*pools, *(f"{pool} (lost)" for pool in lost)))


def _print_requests(console: Console, status: LeaseStatus) -> None:
    for request in status.requests.active(status.at):
        kind = "TEST" if request.is_test else "manual"
        reason = f" ({request.reason})" if request.reason else ""
        _print(
            console,
            f"{kind} drain requested: {request.vm} until {request.until:%Y-%m-%d %H:%M} UTC, "
            f"by {request.by}{reason}",
            highlight=False,
        )
    run = status.requests.roll
    if run is not None and run.ended_at is None:
        state = f"stopped, {run.failed}" if run.failed else "in progress"
        _print(
            console,
            f"rolling run by {run.by} ({run.what}): {state}; "
            f"remaining: {', '.join(run.remaining) or 'none'}",
            highlight=False,
        )


def _pool_name(names: Mapping[str, str], pool_id: str) -> str:
    return names.get(fold(pool_id), short(pool_id))


def _words(value: str) -> str:
    return value.replace("_", " ")


def _time(at: datetime | None) -> str:
    return f"{at:%H:%M:%S}" if at else ""


def _print(console: Console, text: str, *, highlight: bool = True, **style: Any) -> None:
    """Print text that may hold anything: a container's writer must not reach the terminal."""
    console.print(printable(text), highlight=highlight, **style)


def _row(table: Table, *cells: str) -> None:
    """Add a row of text that may hold anything."""
    table.add_row(*map(printable, cells))
