"""`lb-drain simulate`: a simulated set to run agents against, and the requests that control it."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from controller.simulator.app.agent_processes import (
    ACCELERATED,
    Overrides,
    configuration,
)
from controller.simulator.app.flag_files import FlagFiles
from controller.simulator.app.guide import guide
from controller.simulator.app.hub_files import write_hub_files
from controller.simulator.app.server import SimulatorServer
from controller.simulator.app.started_agents import StartedAgents
from controller.simulator.traffic.balancer import Traffic
from controller.simulator.traffic.load import Counts, Load
from controller.simulator.traffic.sockets import HOST
from controller.simulator.world.access import MAINTENANCE
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings

CONTROL_FILE = "control.url"
FIRST_PORT = 9811
"""Port of the status page of the first VM, or the next free port: usually the same one."""
OVERRIDES: Overrides = {
    **ACCELERATED,
    "policy": {"lead_time_s": 900, "connection_drain_s": 5, "restore_settle_s": 5},
}


FASTER = 5.0
"""Clients and health probes are this many times faster than in reality."""
PATIENCE_S = 5.0
"""A request counts as lost if its answer is not complete after this time."""
SHOWN_LOSSES = 10


class BusyDirectoryError(Exception):
    """Another simulation uses the directory. The message names it, and what to do."""


async def serve(directory: Path, *, vms: int, load: int, stopping: asyncio.Event) -> None:
    """Serve a set of `vms` VMs until `stopping`; write all files for the agents to `directory`.

    With a `load`, clients send this many requests per second through the load balancer.
    """
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    directory = await asyncio.to_thread(directory.resolve)
    running, _ = await send_control(directory, "GET", "/state", None)
    if running:
        raise BusyDirectoryError(
            f"a simulation already runs in {directory}: stop it first, or name another --directory"
        )
    settings = WorldSettings(
        operation_latency_s=3.0, ack_starts_event_after_s=5.0, lro_retry_after_s=1
    )
    world = build_world(now=time.time(), vms=vms, settings=settings, probe_threshold=2)
    for vm in world.peers():
        # There is no other identity in a simulation: the VMs can start their maintenance.
        world.roles.assign(vm.name, MAINTENANCE, f"/subscriptions/{world.subscription}")
    async with SimulatorServer(world, directory) as server:
        pages = await asyncio.to_thread(_write, directory, server)
        print(f"A set of {vms} VMs behind a load balancer runs. Stop it with Ctrl+C.", flush=True)
        print(f"Next steps: {directory / 'README.md'}", flush=True)
        name, listen = next(iter(pages.items()))
        print(f"Status page of {name}, when its agent runs: http://{listen}/", flush=True)
        followers = [
            asyncio.create_task(StartedAgents(server, directory).follow()),
            asyncio.create_task(FlagFiles(world, directory).follow()),
        ]
        try:
            async with _clients(server, load):
                await stopping.wait()
        finally:
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)
    await asyncio.to_thread((directory / CONTROL_FILE).unlink, missing_ok=True)


@asynccontextmanager
async def _clients(server: SimulatorServer, load: int) -> AsyncGenerator[None]:
    """Send requests through the load balancer, and report the results."""
    if not load:
        yield
        return
    traffic = Traffic(
        server.world,
        server.world.pool_id("app"),
        load=Load(rate_per_s=load, timeout_s=PATIENCE_S).accelerated(FASTER),
        faster=FASTER,
    )
    server.traffic = lambda: _traffic_report(traffic.counts())
    async with traffic:
        yield
    counts = traffic.counts()
    print(f"{counts.sent} requests, {counts.lost} lost", flush=True)


def _traffic_report(counts: Counts) -> dict[str, object]:
    return {
        **counts.as_json(),
        "ok": counts.ok,
        "ok_by_vm": dict(counts.ok_by_backend),
        "newest_losses": [
            {
                "at": lost.at,
                "kind": lost.kind.value,
                "reason": lost.reason.value,
                "vm": lost.backend,
            }
            for lost in counts.losses[-SHOWN_LOSSES:]
        ],
    }


def _write(directory: Path, server: SimulatorServer) -> dict[str, str]:
    """Write all files; return the listen address of the agent of each VM."""
    names = [vm.name for vm in server.world.peers()]
    pages = dict(zip(names, free_addresses(len(names)), strict=True))
    for name, listen in pages.items():
        text = configuration(server, name, overrides=OVERRIDES, listen=listen)
        (directory / f"{name}.toml").write_text(text)
    write_hub_files(directory, server)
    (directory / CONTROL_FILE).write_text(server.control_url + "\n")
    (directory / "README.md").write_text(guide(directory, pages, server))
    return pages


def free_addresses(count: int) -> list[str]:
    """Return this many addresses with free ports."""
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


async def send_control(
    directory: Path, method: str, path: str, body: object
) -> tuple[bool, object]:
    """Send one request to the control endpoint of the simulation in `directory`."""
    try:
        url = (await asyncio.to_thread((directory / CONTROL_FILE).read_text)).strip()
    except OSError:
        return False, {
            "error": f"no simulation runs in {directory}: start it with "
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
