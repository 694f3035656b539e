"""The systemd unit in `deploy/`, judged by systemd's own tools and by what the agent needs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.agent.agent import STOP_WITHIN_S
from controller.agent.reconciler import PASS_AT_LEAST_EVERY_S
from controller.cli.command import EXIT_CONFIG
from controller.cli.update_watch import EXIT_IN_PROGRESS
from controller.config.loader import DEFAULT_CONFIG
from controller.config.update_watch import UpdateWatch
from controller.config.vm_side import Drain
from controller.system.boot_id import BOOT_ID_VARIABLE

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "lb-drain.service"
PROBE = ROOT / "deploy" / "lb-drain-probe.service"
WATCH = ROOT / "deploy" / "lb-drain-update-watch.service"
both_units = pytest.mark.parametrize("unit", [UNIT, PROBE], ids=lambda unit: unit.stem)
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
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=240
    )


def settings(name: str, unit: Path = UNIT) -> list[str]:
    """Return the values of a setting of a unit, in order."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


@both_units
def test_exposure(unit: Path) -> None:
    """systemd counts the service among the least exposed: below 2.0 of 10."""
    release = int(re.findall(r"systemd (\d+)", analyze("--version").stdout)[0])
    if release < OFFLINE_SINCE:
        pytest.skip(f"systemd {release} cannot judge a file; {OFFLINE_SINCE} and newer can")
    reported = analyze("security", "--offline=yes", "--no-pager", str(unit))
    pattern = rf"Overall exposure level for {re.escape(unit.name)}: (\d+\.\d+)"
    found = re.search(pattern, reported.stdout)
    assert found, reported.stdout + reported.stderr
    assert float(found[1]) < EXPOSURE_BELOW, reported.stdout


@both_units
def test_nothing_in_it_is_unknown_or_wrong(unit: Path, tmp_path: Path) -> None:
    """systemd loads the unit without a word about it; only the program is another, that exists."""
    copy = tmp_path / unit.name
    (command,) = settings("ExecStart", unit)
    program = command.split()[0]
    copy.write_text(unit.read_text().replace(program, str(shutil.which("true"))))
    reported = analyze("verify", "--man=no", str(copy))
    assert [line for line in reported.stderr.splitlines() if unit.name in line] == []
    assert reported.returncode == 0, reported.stderr


@both_units
def test_azure_is_not_locked_out(unit: Path) -> None:
    """Both have a network, IP of both kinds, the sockets of systemd, and no list of addresses."""
    assert settings("PrivateNetwork", unit) == settings("IPAddressDeny", unit) == []
    (families,) = settings("RestrictAddressFamilies", unit)
    assert families.split() == ["AF_UNIX", "AF_INET", "AF_INET6"]


def test_the_agent_and_its_unit_agree() -> None:
    """What the unit says of the agent is what the agent does."""
    assert settings("ExecStart") == [f"/opt/lb-drain/bin/lb-drain run --config {DEFAULT_CONFIG}"]
    check, signal_agent = settings("ExecReload")
    assert check == f"/opt/lb-drain/bin/lb-drain check-config --quiet --config {DEFAULT_CONFIG}"
    assert signal_agent == "/bin/kill -HUP $MAINPID"
    assert settings("RestartPreventExitStatus") == [str(EXIT_CONFIG)]
    assert settings("Type") == ["notify"]
    (watchdog_s,) = settings("WatchdogSec")
    assert float(watchdog_s) > 2 * PASS_AT_LEAST_EVERY_S
    assert settings("TimeoutStopSec") == []
    assert 2 * STOP_WITHIN_S < STOP_BY_DEFAULT_S


def test_every_user_sees_the_flag_file() -> None:
    """Its directory belongs to the agent and to nothing else, and others may search it.

    With DynamicUser a preserved runtime directory is in /run/private, where only root can look
    (exec_directory_is_private of systemd). A directory that outlives the agent would also keep the
    flag: law S9.
    """
    flag_file = Path(Drain().flag_file)
    assert settings("RuntimeDirectory") == [flag_file.parent.name]
    assert flag_file.parent.parent == Path("/run")
    assert settings("RuntimeDirectoryMode") == ["0755"]
    for unit in (UNIT, PROBE):
        assert settings("RuntimeDirectoryPreserve", unit) == []
    assert settings("RuntimeDirectory", PROBE) == []


def test_the_sandbox_shows_the_responder_the_flag_file() -> None:
    """It can read below /run, and write nothing there."""
    assert settings("ReadOnlyPaths", PROBE) == ["/run /dev/shm"]
    for hidden in ("InaccessiblePaths", "TemporaryFileSystem", "RootDirectory", "ReadWritePaths"):
        assert settings(hidden, PROBE) == []


def test_the_responder_and_its_unit_agree() -> None:
    """It always runs again, except where only a change of the configuration helps."""
    command = f"/opt/lb-drain/bin/lb-drain probe --config {DEFAULT_CONFIG}"
    assert settings("ExecStart", PROBE) == [command]
    assert settings("Restart", PROBE) == ["always"]
    assert settings("RestartPreventExitStatus", PROBE) == [str(EXIT_CONFIG)]
    assert settings("StartLimitIntervalSec", PROBE) == ["0"]


def test_the_responder_does_not_depend_on_the_agent() -> None:
    """It answers while the agent restarts or is dead: no setting of either names the other."""
    for setting in ("After", "Before", "Wants", "Requires", "BindsTo", "PartOf", "Conflicts"):
        assert not any("lb-drain" in value for value in settings(setting, PROBE))
        assert not any("lb-drain" in value for value in settings(setting, UNIT))


def test_the_responder_is_hardened_like_the_agent() -> None:
    """What restricts the agent restricts the responder."""
    directory = {"RuntimeDirectory", "RuntimeDirectoryMode"}
    own = {*directory, "WatchdogSec", "TimeoutStartSec"}
    both = {"Type", "ExecStart", "ExecReload", "RestartSec"}
    sections = [unit.read_text().split("[Service]")[1] for unit in (UNIT, PROBE)]
    agent, responder = (set(re.findall(r"^(\w+=.*)$", text, re.MULTILINE)) for text in sections)
    missing = {line.partition("=")[0] for line in agent - responder}
    assert missing == own | both


@both_units
def test_a_unit_passes_the_boot_id(unit: Path) -> None:
    """Its sandbox hides the file that has it; a flag of an earlier boot means nothing."""
    assert settings("Environment", unit) == [f"{BOOT_ID_VARIABLE}=%b"]
    assert settings("ProcSubset", unit) == ["pid"]


def test_no_document_repeats_a_unit() -> None:
    """What it states would soon be another."""
    for path in (ROOT / "README.md", *(ROOT / "deploy").glob("**/*.md")):
        assert "[Service]" not in path.read_text(), path


def test_the_units_of_the_update_watch_agree_with_the_command(tmp_path: Path) -> None:
    """Exit codes, the directory of the state file, and a timer that starts the service."""
    assert settings("SuccessExitStatus", WATCH) == [str(EXIT_IN_PROGRESS)]
    state_file = Path(str(UpdateWatch.model_fields["state_file"].default))
    assert state_file.parent == Path("/var/lib") / settings("StateDirectory", WATCH)[0]
    (command,) = settings("ExecStart", WATCH)
    assert (
        command == "/opt/lb-drain/bin/lb-drain update-watch --once --config /etc/lb-drain/hub.toml"
    )
    for unit in (WATCH, WATCH.with_suffix(".timer")):
        text = unit.read_text().replace(command.split()[0], str(shutil.which("true")))
        (tmp_path / unit.name).write_text(text)
    reported = analyze("verify", "--man=no", str(tmp_path / "lb-drain-update-watch.timer"))
    assert [line for line in reported.stderr.splitlines() if "update-watch" in line] == []
    assert reported.returncode == 0, reported.stderr
