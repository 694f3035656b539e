"""The agent in a process that lacks what Windows lacks: it imports, starts, leads, drains and ends.

See `tests.support.without_posix` for what is hidden, and what this does not prove.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.observability.message_ids import KINDS
from controller.observability.windows_event_log import NO_KIND, event_number
from controller.simulator.app.agent_processes import configuration
from controller.simulator.app.server import SimulatorServer
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from tests.support.lb_drain import environment
from tests.support.patience import PATIENCE_S
from tests.support.process_set import QUICK

ROOT = Path(__file__).parents[2]
WITHOUT_POSIX = (sys.executable, "-m", "tests.support.without_posix")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SimulatorServer]:
    """Serve a simulated set."""
    settings = WorldSettings(operation_latency_s=0.1, lro_retry_after_s=None, imds_limit=False)
    world = build_world(now=time.time(), settings=settings)
    async with SimulatorServer(world, tmp_path / "pki") as found:
        yield found


async def started(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    """Start a command, with further variables."""
    return await asyncio.create_subprocess_exec(
        *WITHOUT_POSIX,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment(), **variables},
        cwd=ROOT,
    )


async def logged(process: asyncio.subprocess.Process, event: str) -> dict[str, object]:
    """Return the next line of the log with this event."""
    assert process.stderr is not None
    seen: list[str] = []
    while line := (await process.stderr.readline()).decode():
        seen.append(line)
        if f'"event": "{event}"' in line:
            return dict(json.loads(line))
    raise AssertionError(f"the log ends without {event}:\n{''.join(seen)}")


def test_every_module_imports() -> None:
    """No module needs a POSIX-only module, attribute or path to be imported."""
    done = subprocess.run(
        (*WITHOUT_POSIX, "import"), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    product = [each for each in (ROOT / "controller").rglob("*.py") if each.stem != "__main__"]
    assert len(done.stdout.splitlines()) == len(product) > 400


async def test_an_agent_leads_drains_and_ends_on_ctrl_c(
    server: SimulatorServer, tmp_path: Path
) -> None:
    """^C is what a service wrapper of Windows sends: the agent ends with 0 and gives up the lease.

    Its log goes to stderr as JSON, because pywin32 is not installed here. Connections cannot be
    counted without psutil; the drain goes on all the same.
    """
    path = tmp_path / "web-1.toml"
    closing = {**QUICK, "policy": {**QUICK["policy"], "close": True}}
    path.write_text(configuration(server, "web-1", overrides=closing))
    agent = await started("run", "--config", str(path))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await logged(agent, "agent_started")
            await logged(agent, "leader_elected")
            server.world.events.schedule("Reboot", "web-1", notice_s=300)
            await server.notify()
            await logged(agent, "vm_closed")
            assert (tmp_path / "pki" / "web-1.draining").exists()
            app = server.world.pool_id("app")
            await server.wait_until(lambda: "web-1" not in server.world.rotation(app))
            agent.send_signal(signal.SIGINT)
            await agent.communicate()
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.communicate()
    assert agent.returncode == 0


@pytest.mark.parametrize("takes", [True, False])
async def test_an_agent_writes_the_event_log(
    server: SimulatorServer, tmp_path: Path, takes: bool
) -> None:
    """With pywin32 its lines are events with numbers; stderr has those that are refused."""
    path, events = tmp_path / "web-1.toml", tmp_path / "events"
    path.write_text(configuration(server, "web-1", overrides=QUICK))
    if not takes:
        events.mkdir()
    agent = await started("run", "--config", str(path), WITHOUT_POSIX_EVENT_LOG=str(events))
    try:
        async with asyncio.timeout(PATIENCE_S):
            server.world.events.schedule("Reboot", "web-2", notice_s=300)
            app = server.world.pool_id("app")
            await server.wait_until(lambda: "web-2" not in server.world.rotation(app))
            agent.send_signal(signal.SIGINT)
            _, err = await agent.communicate()
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.communicate()
    assert agent.returncode == 0
    numbers = {event_number(kind.message_id) for kind in KINDS}
    if takes:
        written = [json.loads(line) for line in events.read_text().splitlines()]
        assert err == b""
        assert {"agent_started", "leader_elected", "recorded", "agent_stopping"} <= {
            kind.name
            for kind in KINDS
            if event_number(kind.message_id) in {each["number"] for each in written}
        }
        assert {each["number"] for each in written} <= numbers | {NO_KIND}
        return
    lines = [json.loads(line) for line in err.decode().splitlines()]
    notices = [each for each in lines if "the event log refuses lines" in each["message"]]
    assert len(notices) == 1
    assert {"agent_started", "leader_elected", "recorded"} <= {each.get("event") for each in lines}


async def test_the_responder_answers_and_ends_on_ctrl_c(
    server: SimulatorServer, tmp_path: Path
) -> None:
    """It serves in its own process: one that replaces itself would be a stopped service."""
    path = tmp_path / "web-1.toml"
    path.write_text(configuration(server, "web-1") + '\n[probe]\nlisten = "127.0.0.1:0"\n')
    responder = await started("probe", "--config", str(path))
    assert responder.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = (await responder.stdout.readline()).decode()
            assert "answers on 127.0.0.1:" in line, (await responder.communicate())[1].decode()
            port = int(line.split("127.0.0.1:")[1].split("/")[0])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await reader.read()
            writer.close()
            responder.send_signal(signal.SIGINT)
            await responder.communicate()
    finally:
        if responder.returncode is None:
            responder.kill()
            await responder.communicate()
    assert responder.returncode == 0


async def test_a_missing_file_is_reported_with_the_path_of_windows() -> None:
    """The message names the default below ProgramData, and the exit code is 78."""
    command = await started("check-config")
    _, err = await command.communicate()
    assert command.returncode == 78
    assert "\\ProgramData\\lb-drain\\config.toml: does not exist" in err.decode()
