"""The output of `lb-drain plan`. Tables and text only; decides nothing."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from controller.agent.inspection import Inspection
from controller.cli.overview_tables import (
    phase_text,
    print_events,
    print_head,
    print_holds,
    print_origin,
    print_requests,
    show_line,
    text,
    why_events_unknown,
)
from controller.cli.set_reads import Reading
from controller.core.azure_names import fold, short
from controller.core.ledger import Ledger
from controller.status.ledger_view import planned_steps
from controller.status.overview_schema import Overview


def print_plan(console: Console, reading: Reading) -> None:
    """Print a plan, and why each VM is where it is."""
    shown, found = reading.overview, reading.inspection
    print_origin(console, reading)
    print_head(console, shown)
    if found is not None and found.unread:
        show_line(console, found.unread)
        print_events(console, shown)
        print_holds(console, shown)
        return
    if found is not None:
        _print_pools(console, found)
    _print_vms(console, shown)
    print_events(console, shown)
    print_requests(console, shown)
    print_holds(console, shown)
    if found is None:
        show_line(console, "planned actions: unknown, because Azure or storage does not answer")
    else:
        _print_actions(console, found, why_events_unknown(shown))


def _print_actions(console: Console, found: Inspection, unknown: str) -> None:
    """Print the actions; without any, an event that is unknown may be the reason."""
    wake_at = found.plan.wake_at
    next_check = f"next check by {wake_at:%H:%M:%S} UTC" if wake_at else ""
    actions = planned_steps(found.plan, found.snapshot.ledger or Ledger())
    if not actions:
        none = f"planned actions: {f'unknown, because {unknown}' if unknown else 'none'}"
        show_line(console, "; ".join(filter(None, (none, next_check))))
        return
    show_line(console, "planned actions:")
    for action in actions:
        show_line(console, f"  {action}")
    if next_check:
        show_line(console, next_check)


def _print_pools(console: Console, found: Inspection) -> None:
    table = Table("pool", "kind", "members in rotation", box=SIMPLE_HEAD, pad_edge=False)
    names = found.snapshot.pool_names
    for pool in found.snapshot.pools:
        name = names.get(fold(pool.pool_id), short(pool.pool_id))
        table.add_row(text(name), text(pool.kind.value), text(str(len(pool.members))))
    console.print(table)
    for pool_id in found.snapshot.pools_without_peers:
        show_line(console, f"No VM of this set is in {pool_id}.")


def _print_vms(console: Console, shown: Overview) -> None:
    table = Table(
        Column("VM", no_wrap=True), "power", "phase", "reason", box=SIMPLE_HEAD, pad_edge=False
    )
    for vm in shown["vms"]:
        cells = (vm["vm"], vm["power"] or "", phase_text(vm["phase"]), vm["why"])
        table.add_row(*map(text, cells))
    console.print(table)
