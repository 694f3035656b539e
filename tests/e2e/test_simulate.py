"""`lb-drain simulate`: a simulated set that is steered by hand, from another terminal."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller import cli

FAULT = '{"effect": "reply", "service": "arm", "method": "PUT", "status": 429, "times": 3}'


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Path]:
    """Serve a set of two VMs; it ends in good order."""
    directory = tmp_path / "sim"
    command = ["simulate", "--vms", "2", "--directory", str(directory)]
    with subprocess.Popen(
        [sys.executable, "-m", "controller", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("2 VMs behind a load balancer")
        yield directory
        process.terminate()
        assert process.wait(30) == 0
    assert not (directory / "control.url").exists()


def command(directory: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["simulate", *arguments, "--directory", str(directory)])
    return int(ended.value.code or 0)


def test_a_set_is_steered_by_commands(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Events are announced, cancelled and ended, faults come and go, and the state shows it."""

    def steer(*arguments: str) -> Any:
        code = command(simulated, *arguments)
        said = capsys.readouterr()
        assert code == 0, said.err
        return json.loads(said.out)

    announced = steer("event", "Reboot", "web-1", "--notice", "600")["id"]
    started = steer("event", "Freeze", "web-2", "--started-first", "--impact", "0")["id"]
    state = steer("state")
    assert {each["id"]: each["status"] for each in state["events"]} == {
        announced: "Scheduled",
        started: "Started",
    }
    assert [vm["name"] for vm in state["vms"]] == ["web-1", "web-2"]
    assert steer("cancel", announced) == steer("complete", started) == {}
    assert steer("state")["events"] == []
    assert len(steer("fault", FAULT)["faults"]) == 1
    assert steer("fault")["faults"] == []


def test_what_cannot_be_done_is_said_in_one_line(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A VM or event that is not there, a directory in use, and one where nothing runs."""
    for arguments, told in (
        (("event", "Reboot", "web-9"), "there is no VM web-9; there are web-1, web-2"),
        (("cancel", "E-9"), "no event E-9 is scheduled or started"),
        (("--vms", "2"), "a simulation already runs in"),
    ):
        assert command(simulated, *arguments) == 1
        assert told in capsys.readouterr().err
    assert command(tmp_path, "state") == 1
    assert "no simulation runs in" in capsys.readouterr().err
    (tmp_path / "control.url").write_text("http://127.0.0.1:9/\n")
    assert command(tmp_path, "state") == 1
    assert "does not answer" in capsys.readouterr().err


def test_the_directory_holds_what_an_agent_needs(simulated: Path) -> None:
    """A configuration per VM that check-config accepts, the certificate, and what to do next."""
    for name in ("web-1", "web-2"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["check-config", str(simulated / f"{name}.toml")])
        assert ended.value.code == 0
    assert (simulated / "ca.pem").exists()
    readme = (simulated / "README.md").read_text()
    assert f"run --config {simulated}/web-1.toml" in readme
    assert f"simulate event Reboot web-1 --notice 60 --directory {simulated}" in readme
