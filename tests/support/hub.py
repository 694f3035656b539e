"""A simulated Azure Stack Hub with the configuration of a watch."""

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.config.update_watch import UpdateWatch
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world
from controller.simulator.world.hub import AUDIENCE, CLIENT_ID, LOCATION, RunResult

PEP = "pep"
"""Name of the command that stands for a privileged endpoint."""


class SimulatedHub:
    """A server, and what a watch needs to reach it."""

    def __init__(self, server: SimulatorServer, directory: Path) -> None:
        self.server, self.directory = server, directory
        self.hub = server.world.hub
        self.secret = directory / "secret"
        self.secret.write_text(self.hub.secret + "\n")
        self.secret.chmod(0o600)

    def values(self, **more: object) -> dict[str, Any]:
        """Return the keys of `[update_watch]`."""
        given: dict[str, Any] = {
            "endpoint": self.server.hub_url,
            "subscription": self.server.world.subscription,
            "location": LOCATION,
            "authority": self.server.hub_url,
            "tenant": "adfs",
            "client_id": CLIENT_ID,
            "scope": f"{AUDIENCE}/.default",
            "secret_file": str(self.secret),
            "ca_file": str(self.server.ca_file),
            "poll_s": 1,
            "timeout_s": 30,
            "failed_polls": 2,
            "command_timeout_s": 30,
            "state_file": str(self.directory / "state.json"),
        }
        return {key: each for key, each in {**given, **more}.items() if each is not None}

    def settings(self, **more: object) -> UpdateWatch:
        """Return the settings of a watch."""
        return UpdateWatch.model_validate(self.values(**more), strict=False)

    def config(self, **more: object) -> Path:
        """Write the file of a watch; a `url` in `more` is that of a webhook."""
        url = more.pop("url", "")
        lines = ["[update_watch]"]
        lines += [f"{key} = {json.dumps(each)}" for key, each in self.values(**more).items()]
        if url:
            lines += ["[[notifications]]", 'kind = "webhook"', f"url = {json.dumps(url)}"]
        path = self.directory / "hub.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self, name: str = "M1", *, run_s: float = 0, result: RunResult = "succeeds") -> str:
        """Start a run of an update; by default it has ended at once. Return its id."""
        now = self.server.world.now
        return self.hub.start(name, now, run_s=run_s, result=result, resume=False).run_id

    def end(self, name: str = "M1", result: RunResult = "succeeds") -> None:
        """End the newest run of an update."""
        newest = self.hub.updates[name].runs[-1]
        newest.result, newest.ends_at = result, self.server.world.now

    def fault(self, effect: Effect = Effect.REPLY, **options: Any) -> None:
        """Let requests to the Hub fail."""
        self.server.faults.add(Fault(service=Service.HUB, effect=effect, **options))

    def pep(self, text: str) -> tuple[str, ...]:
        """Return a command that runs this Python text."""
        script = self.directory / PEP
        script.write_text(f"#!{sys.executable}\n{text}\n")
        script.chmod(0o700)
        return (str(script),)


@asynccontextmanager
async def simulated_hub(directory: Path) -> AsyncIterator[SimulatedHub]:
    """Serve a Hub without updates."""
    world = build_world(now=time.time(), vms=1)
    async with SimulatorServer(world, directory) as server:
        yield SimulatedHub(server, directory)
