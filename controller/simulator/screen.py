"""What the demo shows in a terminal: the set, its events, the requests, and the summary."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from controller.simulator.demo import EventResult, Result
from controller.simulator.demo import Progress as DemoProgress
from controller.simulator.events import EventState

STATE_STYLE = {"running": "green", "rebooting": "red", "frozen": "blue"}


class Screen:
    """Draws the demo while it runs. Without a terminal it prints a line per headline instead."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=5, transient=True)
        self._bar = Progress(
            TextColumn("maintenance"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("maintenance", total=None)
        self._headline = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, progress: DemoProgress) -> None:
        """Draw the present state."""
        if not self._console.is_terminal:
            if progress.headline != self._headline:
                self._headline = progress.headline
                sent, lost = progress.counts.sent, progress.counts.lost
                self._console.print(f"{self._headline} (sent {sent}, lost {lost})")
            return
        self._bar.update(self._task, completed=progress.done, total=progress.groups)
        self._live.update(Group(_vms(progress), _events(progress), _requests(progress), self._bar))


def _vms(progress: DemoProgress) -> Table:
    world = progress.world
    pools = world.pool_ids()
    table = Table(title=progress.headline, title_justify="left", expand=False)
    table.add_column("VM", min_width=10)
    table.add_column("state", min_width=10)
    for pool_id in pools:
        table.add_column(f"pool {pool_id.rsplit('/', 1)[-1]}", min_width=16)
    table.add_column("agent", min_width=8)
    rotation = {pool_id: world.rotation(pool_id) for pool_id in pools}
    for vm in world.peers():
        inside = [
            Text("in rotation", "green") if vm.name in rotation[pool_id] else Text("out", "yellow")
            for pool_id in pools
        ]
        role = Text("leader", "bold") if vm.name == progress.leader else Text("standby", "dim")
        table.add_row(vm.name, Text(vm.state, STATE_STYLE.get(vm.state, "")), *inside, role)
    return table


def _events(progress: DemoProgress) -> Table:
    table = Table("event", "VMs", "status", "NotBefore in", "acknowledged by", box=None)
    for event in progress.world.events.events:
        if event.state is EventState.SCHEDULED or event.state is EventState.STARTED:
            left_s = event.not_before - time.time()
            countdown = f"{left_s:.0f} s" if event.state is EventState.SCHEDULED else ""
            table.add_row(
                event.event_type,
                ", ".join(event.resources),
                event.state.value,
                countdown,
                ", ".join(event.acknowledged_by),
            )
    return table


def _requests(progress: DemoProgress) -> Table:
    table = Table("client requests", "sent", "lost", box=None)
    rows = (
        ("with the controller", progress.counts),
        ("without it, same maintenance", progress.counts_without),
    )
    for name, counts in rows:
        style = "bold red" if counts.lost else "green"
        table.add_row(name, str(counts.sent), Text(str(counts.lost), style))
    return table


def summarise(console: Console, result: Result, *, with_controller: bool, flows: str) -> None:
    """Print what came of it."""
    table = Table(title="maintenance of every VM", title_justify="left")
    for heading in ("event", "VM", "was leader", "notice", "lead time", "out of rotation", "ack"):
        table.add_column(heading)
    for event in result.events:
        table.add_row(*_row(event))
    console.print(table)
    if not with_controller:
        console.print(
            f"without the controller: {result.lost} of {result.sent} requests lost; run the demo "
            "without --without-controller to see the difference"
        )
        return
    console.print(
        f"with the controller:    {result.lost} of {result.sent} requests lost\n"
        f"without the controller: {result.lost_without} of {result.sent_without} requests lost "
        "in the same maintenance\n"
        f"saved:                  {result.lost_without - result.lost} requests\n"
        f"memberships restored:   {'yes, all of them' if result.memberships_restored else 'NO'}\n"
        f"leader changes:         {result.leader_changes}\n"
        "lead time is NotBefore minus the moment the VM was out of every pool; ack is whether "
        "Azure was told to go ahead"
    )
    if result.lost and flows != "keep":
        console.print(
            f"lost with --flows {flows}: the load balancer itself broke requests that were under "
            "way at the moment of removal, which no controller can prevent"
        )


def _row(event: EventResult) -> tuple[str, ...]:
    return (
        event.event_type,
        event.vm,
        "yes" if event.was_leader else "",
        f"{event.notice_s:.0f} s",
        "" if event.lead_time_s is None else f"{event.lead_time_s:.1f} s",
        f"{event.out_of_rotation_s:.1f} s",
        "yes" if event.acknowledged else "no",
    )
