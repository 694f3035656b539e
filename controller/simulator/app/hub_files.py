"""The files for `lb-drain update-watch` of a simulation: its configuration, and the secret."""

import json
import sys
from pathlib import Path

from controller.simulator.app.server import SimulatorServer
from controller.simulator.app.tls import write_private
from controller.simulator.world.hub import AUDIENCE, CLIENT_ID, LOCATION

CONFIG, SECRET, STATE = "update-watch.toml", "hub-secret", "update-watch.json"
ENDPOINTS = ("ercs01", "ercs02", "ercs03")


def write_hub_files(directory: Path, server: SimulatorServer) -> None:
    """Write a configuration that polls every two seconds, with a status command of this program."""
    write_private(directory / SECRET, server.world.hub.secret.encode())
    (directory / STATE).unlink(missing_ok=True)  # of an earlier simulation, whose runs are gone
    command = (sys.executable, "-m", "controller", "simulate", "endpoint", "--directory")
    values: dict[str, object] = {
        "endpoint": server.hub_url,
        "subscription": server.world.subscription,
        "location": LOCATION,
        "authority": server.hub_url,
        "tenant": "adfs",
        "client_id": CLIENT_ID,
        "scope": f"{AUDIENCE}/.default",
        "secret_file": str(directory / SECRET),
        "ca_file": str(server.ca_file),
        "poll_s": 2,
        "timeout_s": 5,
        "failed_polls": 3,
        "command": (*command, str(directory)),
        "privileged_endpoints": ENDPOINTS,
        "command_timeout_s": 20,
        "state_file": str(directory / STATE),
    }
    lines = ["[update_watch]", *(f"{key} = {json.dumps(each)}" for key, each in values.items())]
    (directory / CONFIG).write_text("\n".join(lines) + "\n")
