"""`lb-drain simulate`: a simulated set to run agents against by hand, and the means to steer it."""

import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp

from controller.simulator.fleet import ACCELERATED, CONTAINER, Overrides, configuration
from controller.simulator.server import SimulatorServer
from controller.simulator.settings import WorldSettings
from controller.simulator.world import build_world

CONTROL_FILE = "control.url"
OVERRIDES: Overrides = {
    **ACCELERATED,
    "policy": {"lead_time_s": 900, "connection_drain_s": 5, "restore_settle_s": 5},
}


class BusyDirectoryError(Exception):
    """Another simulation uses the directory. Says which, and what to do."""


async def serve(directory: Path, *, vms: int, stopping: asyncio.Event) -> None:
    """Serve a set of `vms` VMs until `stopping`; write everything an agent needs to `directory`."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    directory = await asyncio.to_thread(directory.resolve)
    running, _ = await steer(directory, "GET", "/state", None)
    if running:
        raise BusyDirectoryError(
            f"a simulation already runs in {directory}: end it first, or name another --directory"
        )
    settings = WorldSettings(operation_latency_s=3.0, ack_starts_event_after_s=5.0)
    world = build_world(now=time.time(), vms=vms, settings=settings)
    async with SimulatorServer(world, directory) as server:
        await asyncio.to_thread(_write, directory, server)
        print(
            f"{vms} VMs behind a load balancer, until ^C. What to do next: {directory}/README.md",
            flush=True,
        )
        await stopping.wait()
    await asyncio.to_thread((directory / CONTROL_FILE).unlink, missing_ok=True)


def _write(directory: Path, server: SimulatorServer) -> None:
    names = [vm.name for vm in server.world.peers()]
    for name in names:
        text = configuration(server, name, overrides=OVERRIDES, listen="127.0.0.1:0")
        (directory / f"{name}.toml").write_text(text)
    (directory / CONTROL_FILE).write_text(server.control_url + "\n")
    (directory / "README.md").write_text(_readme(directory, names, server))


def _readme(directory: Path, names: list[str], server: SimulatorServer) -> str:
    installed = Path(sys.executable).with_name("lb-drain")
    command = str(installed) if installed.exists() else f"{sys.executable} -m controller"
    first, last = names[0], names[-1]
    runs = "\n".join(f"{command} run --config {directory}/{name}.toml" for name in names)
    return f"""# A simulated availability set

{len(names)} VMs in the availability set `web`, behind the load balancer `web-lb`. Everything
listens on 127.0.0.1 and ends with the command that serves it.

Run one agent per VM, each in a terminal of its own:

    {runs.replace(chr(10), chr(10) + "    ")}

See who leads, and what is out of rotation (from a VM that the next step does not reboot):

    {command} status --config {directory}/{last}.toml --watch

Announce a reboot of {first}, 60 seconds ahead:

    {command} simulate event Reboot {first} --notice 60 --directory {directory}

Write a configuration as on a first run, from what the simulated Azure says (on Azure without the
variables):

    LB_DRAIN_AZURE_IMDS_ENDPOINT={server.imds_url(first)} \\
    LB_DRAIN_AZURE_RESOURCE_MANAGER_ENDPOINT={server.arm_url} \\
    LB_DRAIN_AZURE_CA_FILE={server.ca_file} \\
      {command} init --config {directory}/first.toml \\
      --container-url {server.container_url(CONTAINER)}

See what a leader would do, without doing anything:

    {command} plan --config {directory}/{last}.toml

Watch VMs, pools, events and leases as the simulated Azure has them:

    {command} simulate state --directory {directory}

While a VM reboots or freezes its agent cannot reach anything; a real reboot would also end the
agent's process and start it again. The maintenance begins soon after the leader has acknowledged
the event, which is what the acknowledgement is for; `acknowledge = false` in [policy] waits for
NotBefore instead. Cancel an announced event, or end one that has started, by the id that announcing
it printed:

    {command} simulate cancel ID --directory {directory}
    {command} simulate complete ID --directory {directory}

A simulation that is started again has other ports: start the agents again too.

Inject a fault, for example Resource Manager refusing the next three writes:

    {command} simulate fault --directory {directory} \\
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
