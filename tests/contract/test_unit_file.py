"""The systemd unit in `deploy/`, judged by systemd's own tools and by what the agent needs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.agent import STOP_WITHIN_S
from controller.cli import DEFAULT_CONFIG, EXIT_CONFIG
from controller.reconciler import PASS_AT_LEAST_EVERY_S

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "lb-drain.service"
EXPOSURE_BELOW = 2.0
OFFLINE_SINCE = 250
"""The first systemd whose `systemd-analyze security` reads a file instead of asking a manager."""
STOP_BY_DEFAULT_S = 90
"""DefaultTimeoutStopSec of systemd."""


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian package systemd)")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def settings(name: str) -> list[str]:
    """Return the values of a setting of the unit, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_exposure() -> None:
    """systemd counts the service among the least exposed: below 2.0 of 10."""
    release = int(re.findall(r"systemd (\d+)", analyze("--version").stdout)[0])
    if release < OFFLINE_SINCE:
        pytest.skip(f"systemd {release} cannot judge a file; {OFFLINE_SINCE} and newer can")
    told = analyze("security", "--offline=yes", "--no-pager", str(UNIT))
    found = re.search(r"Overall exposure level for lb-drain\.service: (\d+\.\d+)", told.stdout)
    assert found, told.stdout + told.stderr
    assert float(found[1]) < EXPOSURE_BELOW, told.stdout


def test_nothing_in_it_is_unknown_or_wrong(tmp_path: Path) -> None:
    """systemd loads the unit without a word about it; only the program is another, that exists."""
    copy = tmp_path / UNIT.name
    (command,) = settings("ExecStart")
    program = command.split()[0]
    copy.write_text(UNIT.read_text().replace(program, str(shutil.which("true"))))
    told = analyze("verify", "--man=no", str(copy))
    assert [line for line in told.stderr.splitlines() if UNIT.name in line] == []
    assert told.returncode == 0, told.stderr


def test_azure_is_not_locked_out() -> None:
    """The agent has a network, IP of both kinds, the notify socket, and no list of addresses."""
    assert settings("PrivateNetwork") == settings("IPAddressDeny") == []
    (families,) = settings("RestrictAddressFamilies")
    assert families.split() == ["AF_UNIX", "AF_INET", "AF_INET6"]


def test_the_agent_and_its_unit_agree() -> None:
    """What the unit says of the agent is what the agent does."""
    assert settings("ExecStart") == [f"/opt/lb-drain/bin/lb-drain run --config {DEFAULT_CONFIG}"]
    assert settings("RestartPreventExitStatus") == [str(EXIT_CONFIG)]
    assert settings("Type") == ["notify"]
    (watchdog_s,) = settings("WatchdogSec")
    assert float(watchdog_s) > 2 * PASS_AT_LEAST_EVERY_S
    assert settings("TimeoutStopSec") == []
    assert 2 * STOP_WITHIN_S < STOP_BY_DEFAULT_S


def test_there_is_one_unit() -> None:
    """No document repeats the unit: what it says would soon be another."""
    for path in (ROOT / "README.md", *(ROOT / "deploy").glob("**/*.md")):
        assert "[Service]" not in path.read_text(), path
