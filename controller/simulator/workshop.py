"""`lb-drain simulate`: a simulated set to run agents against by hand, and the means to steer it."""

import asyncio
import json
import shlex
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from controller.simulator.access import MAINTENANCE
from controller.simulator.clients import Counts, Load
from controller.simulator.fleet import ACCELERATED, CONTAINER, Overrides, configuration
from controller.simulator.server import SimulatorServer
from controller.simulator.settings import WorldSettings
from controller.simulator.sockets import HOST
from controller.simulator.traffic import Probe, Traffic
from controller.simulator.world import build_world

CONTROL_FILE = "control.url"
FIRST_PORT = 9811
"""Where the page of the first VM is, or the next free port: the same one every time, mostly."""
OVERRIDES: Overrides = {
    **ACCELERATED,
    "policy": {"lead_time_s": 900, "connection_drain_s": 5, "restore_settle_s": 5},
}


PATIENCE_S = 5.0
"""A request of a client without its whole answer after so long is lost."""
SHOWN_LOSSES = 10


class BusyDirectoryError(Exception):
    """Another simulation uses the directory. Says which, and what to do."""


async def serve(directory: Path, *, vms: int, load: int, stopping: asyncio.Event) -> None:
    """Serve a set of `vms` VMs until `stopping`; write everything an agent needs to `directory`.

    With a `load`, clients send so many requests per second through the load balancer.
    """
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    directory = await asyncio.to_thread(directory.resolve)
    running, _ = await steer(directory, "GET", "/state", None)
    if running:
        raise BusyDirectoryError(
            f"a simulation already runs in {directory}: end it first, or name another --directory"
        )
    settings = WorldSettings(operation_latency_s=3.0, ack_starts_event_after_s=5.0)
    world = build_world(now=time.time(), vms=vms, settings=settings)
    for vm in world.peers():
        # Nobody can log in here as the person who may start maintenance: the VMs may.
        world.roles.assign(vm.name, MAINTENANCE, f"/subscriptions/{world.subscription}")
    async with SimulatorServer(world, directory) as server:
        pages = await asyncio.to_thread(_write, directory, server)
        print(f"{vms} VMs behind a load balancer, until ^C", flush=True)
        print(f"what to do next: {directory / 'README.md'}", flush=True)
        name, listen = next(iter(pages.items()))
        print(f"the page of {name}, once its agent runs: http://{listen}/", flush=True)
        async with _clients(server, load):
            await stopping.wait()
    await asyncio.to_thread((directory / CONTROL_FILE).unlink, missing_ok=True)


@asynccontextmanager
async def _clients(server: SimulatorServer, load: int) -> AsyncGenerator[None]:
    """Send requests through the load balancer, and tell what became of them."""
    if not load:
        yield
        return
    traffic = Traffic(
        server.world,
        server.world.pool_id("app"),
        load=Load(rate_per_s=load, timeout_s=PATIENCE_S),
        probe=Probe(interval_s=1, timeout_s=3),
    )
    server.traffic = lambda: _told(traffic.counts())
    async with traffic:
        yield
    counts = traffic.counts()
    print(f"{counts.sent} requests, {counts.lost} lost", flush=True)


def _told(counts: Counts) -> dict[str, object]:
    return {
        "sent": counts.sent,
        "ok": counts.ok,
        "lost": counts.lost,
        "ok_by_vm": dict(sorted(counts.ok_by_backend.items())),
        "newest_losses": [
            {"at": lost.at, "reason": lost.reason.value, "vm": lost.backend}
            for lost in counts.losses[-SHOWN_LOSSES:]
        ],
    }


def _write(directory: Path, server: SimulatorServer) -> dict[str, str]:
    """Write everything; return where the agent of each VM will listen."""
    names = [vm.name for vm in server.world.peers()]
    pages = dict(zip(names, _free_addresses(len(names)), strict=True))
    for name, listen in pages.items():
        text = configuration(server, name, overrides=OVERRIDES, listen=listen)
        (directory / f"{name}.toml").write_text(text)
    (directory / CONTROL_FILE).write_text(server.control_url + "\n")
    (directory / "README.md").write_text(_readme(directory, pages, server))
    return pages


def _free_addresses(count: int) -> list[str]:
    """Return so many addresses on which nobody listens now."""
    found: list[str] = []
    for port in range(FIRST_PORT, 2**16):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((HOST, port))
            except OSError:
                continue
        found.append(f"{HOST}:{port}")
        if len(found) == count:
            break
    return found


def _readme(directory: Path, pages: dict[str, str], server: SimulatorServer) -> str:
    installed = Path(sys.executable).with_name("lb-drain")
    python = f"{shlex.quote(sys.executable)} -m controller"
    command = shlex.quote(str(installed)) if installed.exists() else python
    names = list(pages)
    first, last = names[0], names[-1]
    here = shlex.quote(str(directory))
    config = {name: shlex.quote(str(directory / f"{name}.toml")) for name in names}
    becomes = f'{command} simulate vm --directory {here} "$ROLL_VM"'
    reboot = f"{becomes} rebooting && sleep 5 && {becomes} running"
    runs = "\n    ".join(f"{command} run --config {config[name]}" for name in names)
    shown = "\n".join(f"- {name}: http://{listen}/" for name, listen in pages.items())
    return f"""# A simulated availability set

{len(names)} VMs in the availability set `web`, behind the load balancer `web-lb`. Everything
listens on 127.0.0.1 and ends with the command that serves it.

See what a configuration says, and where each value comes from:

    {command} check-config {config[first]}

Check all that an agent needs, as on Azure before the first start:

    {command} doctor --config {config[first]}

Run one agent per VM, each in a terminal of its own:

    {runs}

Look at the set in a browser; each agent serves a page of its own:

{shown}

See who leads, and what is out of rotation (from a VM that the next step does not reboot):

    {command} status --config {config[last]} --watch

Announce a reboot of {first}, 60 seconds ahead:

    {command} simulate event Reboot {first} --notice 60 --directory {here}

Take {last} out by hand for ten minutes, and put it back before they are over:

    {command} drain {last} --for 10m --reason "a try" --config {config[last]}
    {command} restore {last} --config {config[last]}

Reboot all of them, one after the other, each out of rotation meanwhile:

    {command} roll --config {config[last]} --command {shlex.quote(reboot)}

Write a configuration as on a first run, from what the simulated Azure says (on Azure without the
variables):

    LB_DRAIN_AZURE_IMDS_ENDPOINT={server.imds_url(first)} \\
    LB_DRAIN_AZURE_RESOURCE_MANAGER_ENDPOINT={server.arm_url} \\
    LB_DRAIN_AZURE_CA_FILE={shlex.quote(str(server.ca_file))} \\
      {command} init --config {here}/first.toml \\
      --container-url {server.container_url(CONTAINER)}

See what a leader would do, without doing anything:

    {command} plan --config {config[last]}

Watch VMs, pools, events and leases as the simulated Azure has them; and, if the simulation was
started with --load, how many requests of its clients were lost:

    {command} simulate state --directory {here}
    {command} simulate traffic --directory {here}

While a VM reboots or freezes its agent cannot reach anything; a real reboot would also end the
agent's process and start it again. The maintenance begins soon after the leader has acknowledged
the event, which is what the acknowledgement is for; `acknowledge = false` in [policy] waits for
NotBefore instead. Cancel an announced event, or end one that has started, by the id that announcing
it printed:

    {command} simulate cancel ID --directory {here}
    {command} simulate complete ID --directory {here}

Plan maintenance that its owner may start within an hour, see it, and start it, one VM at a time:

    {command} simulate maintenance {" ".join(names)} --window 3600 --directory {here}
    {command} maintenance --config {config[last]}
    {command} maintenance start --all --config {config[last]}

A simulation that is started again has other ports: start the agents again too.

Inject a fault, for example Resource Manager refusing the next three writes:

    {command} simulate fault --directory {here} \\
      '{{"effect":"reply","service":"arm","method":"PUT","status":429,"times":3}}'

`simulate fault` without a rule removes all faults. The certificate authority is `ca.pem`; the
control endpoint, JSON over HTTP, is {server.control_url}.
"""


async def steer(directory: Path, method: str, path: str, body: object) -> tuple[bool, object]:
    """Send one request to the control endpoint of the simulation in `directory`."""
    try:
        url = (await asyncio.to_thread((directory / CONTROL_FILE).read_text)).strip()
    except OSError:
        return False, {
            "error": f"no simulation runs in {directory}: start one with "
            f"`lb-drain simulate --directory {directory}`"
        }
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.request(method, url + path, data=json.dumps(body or {})) as reply,
        ):
            answer: object = await reply.json(content_type=None)
            return reply.status == 200, answer
    except (aiohttp.ClientError, TimeoutError) as error:
        return False, {"error": f"the simulation in {directory} does not answer: {error}"}
