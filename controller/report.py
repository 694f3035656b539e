"""What `lb-drain plan` and `lb-drain status` print. Tables and text only; decides nothing."""

from datetime import datetime

from rich.console import Console
from rich.table import Column, Table

from controller.core.model import EventStatus, fold, short
from controller.look import LeaseLook, PlanLook, out_at, reasons, would_do
from controller.timeline import phase_by

DRY_RUN = "dry run: the agent of this VM writes nothing (dry_run in [policy])"


def print_plan(console: Console, look: PlanLook, *, dry_run: bool) -> None:
    """Print a plan; `dry_run` is that of this VM's agent."""
    if dry_run:
        console.print(DRY_RUN)
    leader = look.lease.leader or "nobody"
    console.print(f"this VM: {look.vm}   leader: {leader}   epoch: {look.lease.ledger.epoch}")
    pools = Table("pool", "kind", "members in rotation", title="pools", title_justify="left")
    for pool in look.pools:
        name = look.pool_names.get(fold(pool.pool_id), short(pool.pool_id))
        pools.add_row(name, pool.kind.value, str(len(pool.members)))
    console.print(pools)
    for pool_id in look.pools_without_peers:
        console.print(f"no VM of this availability set is in {pool_id}", highlight=False)
    vms = Table("VM", "power", "phase", "why", title="VMs", title_justify="left")
    power = {fold(vm.name): vm.power.value for vm in look.vms}
    for phase in look.plan.phases:
        vms.add_row(phase.vm, power.get(fold(phase.vm), ""), phase.phase.value, phase.why)
    console.print(vms)
    _print_events(console, look)
    holds = look.plan.holds
    console.print("held: " + ("nothing" if not holds else ""))
    for hold in holds:
        console.print(f"  {hold.reason}: {hold.message}", highlight=False)
    lines = would_do(look.plan, look.lease.ledger)
    console.print("a leader would now: " + ("do nothing" if not lines else ""))
    for line in lines:
        console.print(f"  {line}", highlight=False)
    if look.plan.wake_at is not None:
        console.print(f"and look again at the latest at {look.plan.wake_at:%H:%M:%S} UTC")


def _print_events(console: Console, look: PlanLook) -> None:
    events = look.document.events if look.document else ()
    if not events:
        console.print("events: none")
        return
    table = Table(
        Column("event", overflow="fold"),
        "type",
        "status",
        "VMs",
        "NotBefore (UTC)",
        "source",
        title="scheduled events",
    )
    table.title_justify = "left"
    for event in events:
        not_before = f"{event.not_before:%Y-%m-%d %H:%M:%S}" if event.not_before else ""
        status = "" if event.status is EventStatus.UNKNOWN else event.status.value
        vms = ", ".join(event.resources)
        table.add_row(event.event_id, event.event_type, status, vms, not_before, event.source.value)
    console.print(table)


def print_watch(
    console: Console, look: LeaseLook | None, *, now: datetime, problem: str, dry_run: bool
) -> None:
    """Print one tick of a status that is repeated: the time, what went wrong, the newest look."""
    console.print(f"{_time(now)} UTC")
    if problem:
        old = f"; what follows is as of {_time(look.at)}" if look else ""
        console.print(f"not read: {problem}{old}", highlight=False)
    if look is not None:
        print_status(console, look, dry_run=dry_run)


def print_status(console: Console, look: LeaseLook, *, dry_run: bool) -> None:
    """Print leader, entries, holds and transitions; `dry_run` is that of this VM's agent."""
    if dry_run:
        console.print(DRY_RUN)
    age_s = look.lease_age_s
    since = f", for {age_s:.0f} s" if age_s is not None else ""
    console.print(
        f"leader: {look.leader or 'nobody'}{since}   lease: {look.lease_state}   "
        f"epoch: {look.ledger.epoch}"
    )
    if look.ledger.entries:
        table = Table("VM", "phase", "pools", "recorded", "out at", "restored", "because of")
        for entry in look.ledger.entries:
            phase = phase_by(look.ledger, entry.vm)
            table.add_row(
                entry.vm + (" (gone)" if entry.gone else ""),
                phase.phase.value.replace("_", " ") if phase else "",
                ", ".join(sorted({short(m.pool_id) for m in entry.memberships})),
                _time(entry.recorded_at),
                _time(out_at(look.ledger, entry)),
                _time(entry.restored_at),
                reasons(entry),
            )
        console.print(table)
    else:
        console.print("entries: none, nothing is out of rotation because of us")
    for request in look.requests.standing(look.at):
        why = f" ({request.reason})" if request.reason else ""
        console.print(
            f"asked for by hand: {request.vm} until {request.until:%Y-%m-%d %H:%M} UTC, "
            f"by {request.by}{why}",
            highlight=False,
        )
    roll = look.requests.roll
    if roll is not None and roll.ended_at is None:
        state = f"stopped, {roll.failed}" if roll.failed else "goes on"
        console.print(
            f"roll by {roll.by} ({roll.what}): {state}; left: {', '.join(roll.left) or 'nobody'}",
            highlight=False,
        )
    for hold in look.ledger.holds:
        console.print(f"held since {_time(hold.since)}: {hold.message} ({hold.reason})")
    lines = look.ledger.transitions[-10:]
    if lines:
        console.print("last transitions (UTC):")
    for line in lines:
        detail = f" ({line.detail})" if line.detail else ""
        console.print(f"  {_time(line.at)}  {line.vm}: {line.what}{detail}", highlight=False)


def _time(at: datetime | None) -> str:
    return f"{at:%H:%M:%S}" if at else ""
