"""The demo in a terminal: the set, its events, the requests, and the summary."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from controller.simulator.app.demo import EventResult, Result
from controller.simulator.app.demo import Progress as DemoProgress
from controller.simulator.traffic.load import Kind, KindCounts
from controller.simulator.world.events import EventState

KINDS = {
    Kind.SHORT: "one request per connection",
    Kind.POOLED: "keep-alive, given up after seconds",
    Kind.PERSISTENT: "keep-alive for ever",
    Kind.SLOW: "slow answers",
    Kind.UPLOAD: "uploads",
    Kind.STREAM: "streams (WebSocket)",
}
STATE_STYLE = {"running": "green", "rebooting": "red", "frozen": "blue"}
TITLE = "lb-drain demo: a simulated availability set during maintenance"
EXPLANATION = (
    "Real agents drain each VM before its simulated maintenance. Clients send requests through the "
    "load balancer; a second set without agents has the same maintenance."
)
NEXT_STEPS = (
    "Next: `lb-drain simulate` serves a set for your own tests; its README.md has examples. The "
    "README of lb-drain shows how to install the agent on Azure."
)
LOSSES = {
    "drop": "lost: with --flows drop the load balancer ends all connections of a VM when it is "
    "removed, without a notice to either side",
    "reset": "lost: with --flows reset the load balancer resets all connections of a VM when it is "
    "removed",
    "keep": "lost: with --flows keep connections outlive the removal of their VM, and maintenance "
    "ends them",
}
"""Why requests are lost although a VM is removed in time, by the fate of its connections."""


class Screen:
    """Shows the demo while it runs. Without a terminal it prints one line for each headline."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=5, transient=True)
        self._bar = Progress(
            TextColumn("maintenance"),
            BarColumn(complete_style="green"),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("maintenance", total=None)
        self._headline = ""

    def __enter__(self) -> Self:
        self._console.print(Text(TITLE, "bold"))
        self._console.print(Text(EXPLANATION))
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
        """Show the present state."""
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


def summarise(console: Console, result: Result, *, with_controller: bool) -> None:
    """Print the results and the next step."""
    table = Table(title="Maintenance of every VM", title_justify="left")
    for heading in ("event", "VM", "was leader", "notice", "lead time", "out of rotation", "ack"):
        table.add_column(heading)
    for event in result.events:
        table.add_row(*_row(event))
    console.print(table)
    console.print(_by_kind(result, with_controller=with_controller))
    requests, without = result.requests, result.requests_without
    if not with_controller:
        console.print(
            f"without the controller: {requests.lost} of {requests.sent} requests lost; run the "
            "demo without --without-controller to compare"
        )
        return
    console.print(
        f"with the controller:    {requests.lost} of {requests.sent} requests lost\n"
        f"without the controller: {without.lost} of {without.sent} requests lost "
        "in the same maintenance\n"
        f"saved:                  {without.lost - requests.lost} requests\n"
        f"memberships restored:   {'yes, all' if result.memberships_restored else 'NO'}\n"
        f"leader changes:         {result.leader_changes}\n"
        f"{_conversion(result)}"
        "lead time: from the moment the VM was out of every pool to NotBefore\n"
        "ack: whether the leader acknowledged the event, so that Azure could start it early"
    )
    if requests.lost:
        console.print(LOSSES[result.flows])
    console.print(Text(NEXT_STEPS))


def _conversion(result: Result) -> str:
    """Return the line about the conversion of the set; empty without one."""
    if result.converted is None:
        return ""
    outcome = "the agents continued in it" if result.converted else "the agents did NOT continue"
    return f"converted to scale set: {outcome}\n"


def _by_kind(result: Result, *, with_controller: bool) -> Table:
    """Return the lost requests of each kind of client."""
    table = Table(title=f"Requests lost, --clients {result.clients}", title_justify="left")
    table.add_column("clients")
    if with_controller:
        table.add_column("with the controller")
    table.add_column("without it")
    for kind, counts in result.requests.by_kind.items():
        without = result.requests_without.by_kind.get(kind, KindCounts())
        shown = (counts, without) if with_controller else (counts,)
        table.add_row(KINDS[kind], *(f"{each.lost} of {each.sent}" for each in shown))
    return table


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
