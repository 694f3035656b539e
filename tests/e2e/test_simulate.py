"""`lb-drain simulate`: a simulated set that commands in another terminal control."""

import json
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.cli import main
from controller.config.base import listen_address
from controller.config.loader import load
from controller.simulator.app.simulate import free_addresses
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.slow

FAULT = '{"effect": "reply", "service": "arm", "method": "PUT", "status": 429, "times": 3}'


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Path]:
    """Serve a set of two VMs until the test ends; it must stop with exit code 0."""
    directory = tmp_path / "a set"
    command = ["simulate", "--vms", "2", "--directory", str(directory)]
    with subprocess.Popen(
        [sys.executable, "-m", "controller", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("A set of 2 VMs behind a load balancer")
        yield directory
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert not (directory / "control.url").exists()


def command(directory: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main.main(["simulate", *arguments, "--directory", str(directory)])
    return int(ended.value.code or 0)


def test_commands_control_a_set(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands announce and end events, plan maintenance and set faults; the state shows them."""

    def control(*arguments: str) -> Any:
        code = command(simulated, *arguments)
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    announced = control("event", "Reboot", "web-1", "--notice", "600")["id"]
    started = control("event", "Freeze", "web-2", "--started-first", "--impact", "0")["id"]
    state = control("state")
    assert {each["id"]: each["status"] for each in state["events"]} == {
        announced: "Scheduled",
        started: "Started",
    }
    assert [vm["name"] for vm in state["vms"]] == ["web-1", "web-2"]
    assert control("cancel", announced) == control("complete", started) == {}
    assert control("state")["events"] == []
    assert control("maintenance", "web-1", "web-2", "--window", "60") == {"vms": ["web-1", "web-2"]}
    assert len(control("fault", FAULT)["faults"]) == 1
    assert control("fault")["faults"] == []
    assert control("settings", '{"flows_on_remove": "keep"}')["flows_on_remove"] == "keep"
    assert control("settings")["flows_on_remove"] == "keep"
    assert control("replace", "vm", "web-2") == {"kind": "vm", "name": "web-2"}


def test_a_flag_file_closes_an_application(
    simulated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The application of a VM is closed while its flag file exists; the state shows it."""
    flag = simulated / "web-1.draining"

    def becomes(*closed: bool) -> None:
        shown: tuple[bool, ...] = ()
        until = time.monotonic() + PATIENCE_S
        while shown != closed and time.monotonic() < until:
            assert command(simulated, "state") == 0
            shown = tuple(vm["closed"] for vm in json.loads(capsys.readouterr().out)["vms"])
        assert shown == closed

    becomes(False, False)
    flag.touch()
    becomes(True, False)
    flag.unlink()
    becomes(False, False)


def test_a_refused_command_prints_one_line(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown VMs and events, and directories with or without a simulation, are refused."""
    for arguments, problem in (
        (("event", "Reboot", "web-9"), "there is no VM web-9; the VMs are web-1, web-2"),
        (("cancel", "E-9"), "no event E-9 is scheduled or started"),
        (("--vms", "2"), "a simulation already runs in"),
    ):
        assert command(simulated, *arguments) == 1
        assert problem in capsys.readouterr().err
    assert command(tmp_path, "state") == 1
    assert "no simulation runs in" in capsys.readouterr().err
    (tmp_path / "control.url").write_text("http://127.0.0.1:9/\n")
    assert command(tmp_path, "state") == 1
    assert "does not answer" in capsys.readouterr().err


def test_the_directory_has_all_files_of_an_agent(simulated: Path) -> None:
    """Each VM has a configuration that check-config accepts, and the certificate exists."""
    for name in ("web-1", "web-2"):
        with pytest.raises(SystemExit) as ended:
            main.main(["check-config", str(simulated / f"{name}.toml")])
        assert ended.value.code == 0
    assert (simulated / "ca.pem").exists()


def commands(directory: Path, verb: str) -> list[list[str]]:
    """Return the commands of the README that contain `verb`, as a shell splits them."""
    lines = (directory / "README.md").read_text().replace("\\\n", "").splitlines()
    found = [shlex.split(line) for line in lines if line.startswith("    ")]
    return [words for words in found if verb in words]


def test_commands_of_the_readme_can_be_pasted(simulated: Path) -> None:
    """Paths in the README are quoted; its commands check the configuration and run the agents."""
    (check,) = commands(simulated, "check-config")
    assert (
        subprocess.run(check, capture_output=True, timeout=PATIENCE_S, check=False).returncode == 0
    )
    assert [words[-1] for words in commands(simulated, "doctor")] == [str(simulated / "web-1.toml")]
    assert [words[-1] for words in commands(simulated, "run")] == [
        str(simulated / "web-1.toml"),
        str(simulated / "web-2.toml"),
    ]
    (roll,) = commands(simulated, "roll")
    assert shlex.split(roll[-1])[4:6] == [str(simulated), "$ROLL_VM"]
    for words in commands(simulated, "simulate"):
        assert words[words.index("--directory") + 1] == str(simulated)


def test_status_pages_have_the_addresses_of_the_readme(simulated: Path) -> None:
    """Each VM has its own address, and a running agent serves its status page there."""
    readme = (simulated / "README.md").read_text()
    pages = dict(re.findall(r"^- (web-\d): (http://127\.0\.0\.1:\d+/)$", readme, re.MULTILINE))
    assert len(set(pages.values())) == len(pages) == 2
    (command,) = [words for words in commands(simulated, "run") if words[-1].endswith("web-1.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stderr is not None
        try:
            assert any(pages["web-1"].rstrip("/") in line for line in agent.stderr)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(pages["web-1"], timeout=PATIENCE_S) as reply:
                assert "<title>lb-drain</title>" in reply.read().decode()
        finally:
            agent.terminate()
            agent.communicate(timeout=PATIENCE_S)


def test_an_address_in_use_is_skipped() -> None:
    """A port that is in use is not given to a status page."""
    (taken,) = free_addresses(1)
    with socket.create_server(listen_address(taken)):
        following = free_addresses(2)
    assert taken not in following
    assert len(set(following)) == 2


def test_init_works_as_the_readme_shows(simulated: Path) -> None:
    """The `init` command of the README works as written, and writes a file that an agent loads."""
    readme = (simulated / "README.md").read_text()
    begins = readme.rindex("LB_DRAIN_AZURE_IMDS_ENDPOINT=", 0, readme.index("lb-drain init"))
    shown = readme[begins : readme.index("## Use the Azure CLI")]
    subprocess.run(["bash", "-c", shown], check=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    written, given = (load(simulated / name, {}) for name in ("first.toml", "web-1.toml"))
    assert written.settings.azure == given.settings.azure
    assert [pool.id for pool in written.settings.backend_pools] == [
        pool.id for pool in given.settings.backend_pools
    ]


def doctor(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller", "doctor", "--config", str(config), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_the_doctor_finds_planted_faults_and_its_fixes_work(simulated: Path) -> None:
    """A new set passes; a misspelt pool and a floor that is too high fail, each with its fix."""
    config = simulated / "web-1.toml"
    good = config.read_text()
    done = doctor(config)
    assert (done.returncode, done.stderr) == (0, "")
    assert " FAIL " not in done.stdout
    assert done.stdout.rstrip().endswith("you can start the service; read the warnings")
    config.write_text(good.replace("backendAddressPools/app", "backendAddressPools/aap"))
    found = json.loads(doctor(config, "--json").stdout)
    assert (found["vm"], found["result"]) == ("web-1", "fail")
    (pool,) = [each for each in found["findings"] if each["result"] == "fail"]
    assert pool["check"] == "pool"
    assert f'id = "{_pool(good)}" in [[backend_pools]]' in pool["fix"][0]
    config.write_text(good.replace("min_in_service = 1", "min_in_service = 2"))
    done = doctor(config)
    assert done.returncode == 1
    assert f"    min_in_service = 1 in [[backend_pools]] of {_pool(good)}\n" in done.stdout
    assert "fix the failures before you start the service" in done.stdout
    config.write_text("")
    done = doctor(config)
    assert (done.returncode, done.stdout) == (78, "")


def _pool(config: str) -> str:
    (line,) = [line for line in config.splitlines() if line.startswith("id = ")]
    return str(json.loads(line.removeprefix("id = ")))
