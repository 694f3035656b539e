"""A simulated set for scenes: commands as a reader types them, and waits for what they need."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.docs.samples import SHOWN_ID, samples
from tests.support.lb_drain import environment
from tests.support.patience import PATIENCE_S

WRAPPER = """#!/bin/sh
# lb-drain, as it is installed: without --config it reads the file of the VM it runs on.
case "$1 $*" in
    simulate*|*--config*|check-config*|*--help*) exec {python} -m controller "$@" ;;
    *) exec {python} -m controller "$@" --config {directory}/lb-drain-sim/web-1.toml ;;
esac
"""


class Stage:
    """One terminal in a directory of its own, and what was shown in it so far."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.outputs = directory, dict[str, str]()
        self.event_id = ""
        self._samples = samples()
        self._background: list[subprocess.Popen[str]] = []
        programs = directory / "bin"
        programs.mkdir()
        wrapper = programs / "lb-drain"
        wrapper.write_text(
            WRAPPER.format(
                python=shlex.quote(sys.executable), directory=shlex.quote(str(directory))
            )
        )
        wrapper.chmod(0o755)
        self._environment = environment() | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "COLUMNS": "100",
        }

    # --- what a reader does ---

    def show(self, name: str) -> None:
        """Run the commands of a sample."""
        shown = ""
        for given in self._samples[name].commands:
            command = SHOWN_ID.sub(lambda found: self.event_id or found[0], given)
            shown += f"$ {command}\n{self.run(command)}"
        self._note(name, shown)

    def run(self, command: str) -> str:
        """Run a command to its end; return what it prints."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if found := SHOWN_ID.search(done.stdout) if " event " in command else None:
            self.event_id = found[0]
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command that runs until the stage is left."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._background.append(process)
        return process

    def serve(self, command: str) -> str:
        """Serve a simulated set; return what is printed when it can be used."""
        process = self.start(command)
        assert process.stdout is not None
        return "".join(process.stdout.readline() for _ in range(3))

    def show_serving(self, name: str) -> None:
        """Run the sample that serves the set."""
        (command,) = self._samples[name].commands
        self._note(name, f"$ {command}\n{self.serve(command)}")

    def show_started(self, name: str) -> None:
        """Start the agents of a sample, as fast as a person types: the first one leads."""
        commands = self._samples[name].commands
        self.start_agents(*(command.removesuffix(" &") for command in commands))
        self._note(name, "".join(f"$ {command}\n" for command in commands))

    def start_agents(self, *commands: str) -> list[subprocess.Popen[str]]:
        """Start agents one after the other: the first one leads."""
        started: list[subprocess.Popen[str]] = []
        for command in commands:
            started.append(self.start(command))
            self.until("an agent leads", lambda: any(self._holders()))
        return started

    def _note(self, name: str, shown: str) -> None:
        """Keep what a reader sees, who has a directory of their own."""
        text = shown.replace(str(self.directory), "/home/ada")
        self.outputs[name] = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)

    def _holders(self) -> list[str]:
        return [str(each["holder"] or "") for each in self.state()["leases"]]

    # --- waiting ---

    def state(self) -> dict[str, Any]:
        """Return the state of the simulated Azure."""
        return dict(json.loads(self.run("lb-drain simulate state")))

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds; each check takes as long as its command."""
        deadline = time.monotonic() + 2 * PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"{what}; status:\n{self.run('lb-drain status')}"

    def until_printed(self, command: str, text: str) -> None:
        """Wait until a command prints a text."""
        self.until(f"{command} prints {text!r}", lambda: text in self.run(command))

    def stop(self) -> None:
        """End what runs in the background."""
        for process in reversed(self._background):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self._background:
            try:
                process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Open a stage; afterwards end what it started."""
    opened = Stage(directory)
    try:
        yield opened
    finally:
        opened.stop()
