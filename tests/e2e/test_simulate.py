"""`lb-drain simulate`: a simulated set that is steered by hand, from another terminal."""

import json
import re
import shlex
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller import cli
from controller.config import load
from controller.settings import listen_address
from controller.simulator.workshop import _free_addresses

FAULT = '{"effect": "reply", "service": "arm", "method": "PUT", "status": 429, "times": 3}'


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Path]:
    """Serve a set of two VMs; it ends in good order."""
    directory = tmp_path / "a set"
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
    """Events and maintenance come and go, and so do faults; the state shows it."""

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
    assert steer("maintenance", "web-1", "web-2", "--window", "60") == {"vms": ["web-1", "web-2"]}
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
    """A configuration per VM that check-config accepts, and the certificate."""
    for name in ("web-1", "web-2"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["check-config", str(simulated / f"{name}.toml")])
        assert ended.value.code == 0
    assert (simulated / "ca.pem").exists()


def commands(directory: Path, verb: str) -> list[list[str]]:
    """Return the commands of the README that begin so, as a shell would read them."""
    lines = (directory / "README.md").read_text().replace("\\\n", "").splitlines()
    found = [shlex.split(line) for line in lines if line.startswith("    ")]
    return [words for words in found if verb in words]


def test_what_to_do_next_can_be_pasted(simulated: Path) -> None:
    """Paths of the README are quoted; it leads by way of check-config and doctor to the agents."""
    (check,) = commands(simulated, "check-config")
    assert subprocess.run(check, capture_output=True, timeout=60, check=False).returncode == 0
    assert [words[-1] for words in commands(simulated, "doctor")] == [str(simulated / "web-1.toml")]
    assert [words[-1] for words in commands(simulated, "run")] == [
        str(simulated / "web-1.toml"),
        str(simulated / "web-2.toml"),
    ]
    (roll,) = commands(simulated, "roll")
    assert shlex.split(roll[-1])[4:6] == [str(simulated), "$ROLL_VM"]
    for words in commands(simulated, "simulate"):
        assert words[words.index("--directory") + 1] == str(simulated)


def test_the_page_is_where_the_readme_says(simulated: Path) -> None:
    """Each VM has an address of its own, and an agent that runs serves its page there."""
    readme = (simulated / "README.md").read_text()
    pages = dict(re.findall(r"^- (web-\d): (http://127\.0\.0\.1:\d+/)$", readme, re.MULTILINE))
    assert len(set(pages.values())) == len(pages) == 2
    (command,) = [words for words in commands(simulated, "run") if words[-1].endswith("web-1.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stderr is not None
        try:
            assert any(pages["web-1"].rstrip("/") in line for line in agent.stderr)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(pages["web-1"], timeout=10) as reply:
                assert "<title>lb-drain</title>" in reply.read().decode()
        finally:
            agent.terminate()
            agent.communicate(timeout=30)


def test_an_address_in_use_is_passed_over() -> None:
    """Where somebody listens already no page is promised."""
    (taken,) = _free_addresses(1)
    with socket.create_server(listen_address(taken)):
        following = _free_addresses(2)
    assert taken not in following
    assert len(set(following)) == 2


def test_a_first_run_as_the_directory_says(simulated: Path) -> None:
    """What its README says of `init` works as it stands there, and writes what an agent loads."""
    readme = (simulated / "README.md").read_text()
    told = readme[readme.index("LB_DRAIN_AZURE_IMDS_ENDPOINT=") : readme.index("See what a leader")]
    subprocess.run(["bash", "-c", told], check=True, timeout=60, stdin=subprocess.DEVNULL)
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
        timeout=60,
        check=False,
    )


def test_the_doctor_finds_what_is_planted_and_its_advice_mends_it(simulated: Path) -> None:
    """A fresh set passes; a misspelt pool and a floor too high fail until the advice is taken."""
    config = simulated / "web-1.toml"
    good = config.read_text()
    done = doctor(config)
    assert (done.returncode, done.stderr) == (0, "")
    assert " FAIL " not in done.stdout
    assert done.stdout.rstrip().endswith("the service can be started; look at the warnings")
    config.write_text(good.replace("backendAddressPools/app", "backendAddressPools/aap"))
    found = json.loads(doctor(config, "--json").stdout)
    assert (found["vm"], found["verdict"]) == ("web-1", "fail")
    (pool,) = [each for each in found["findings"] if each["verdict"] == "fail"]
    assert pool["check"] == "pool"
    assert f'id = "{_pool(good)}" in [[backend_pools]]' in pool["mend"][0]
    config.write_text(good.replace("min_in_service = 1", "min_in_service = 2"))
    done = doctor(config)
    assert done.returncode == 1
    assert f"    min_in_service = 1 in [[backend_pools]] of {_pool(good)}\n" in done.stdout
    assert "mend what failed before the service is started" in done.stdout
    config.write_text("")
    done = doctor(config)
    assert (done.returncode, done.stdout) == (78, "")


def _pool(config: str) -> str:
    (line,) = [line for line in config.splitlines() if line.startswith("id = ")]
    return str(json.loads(line.removeprefix("id = ")))
