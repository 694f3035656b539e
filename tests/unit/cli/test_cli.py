"""The command line: help, exit codes, and what each command prints.

Commands that talk to Azure run as a process against a simulated one on this host; those that must
not talk to anybody run with an audit hook that ends them when they try.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from controller.cli import main
from controller.cli.parser_tree import walk
from controller.cli.set_reads import Reading, SetReads
from controller.simulator.app.agent_processes import ACCELERATED, configuration
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.status.overview import overview
from controller.status.overview_check import checked_overview
from tests.support.in_process_set import QUICK
from tests.support.patience import PATIENCE_S
from tests.unit.cli.test_local_agent import answering
from tests.unit.status.test_overview import NOW, facts, leader

COMMANDS = tuple(path for path, _ in walk(main.build_parser()) if path)
POOL = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web-rg/providers"
    "/Microsoft.Network/loadBalancers/web-lb/backendAddressPools/app"
)
GOOD = f"""
[[backend_pools]]
id = "{POOL}"
[election]
container_url = "https://lbdrain.blob.core.windows.net/lb-drain"
renew_period_s = 7
"""
PATIENT = {**ACCELERATED, "election": QUICK["election"]}
"""An agent whose lease a busy machine does not end."""
BAD = """
[[backend_pools]]
id = "app"
min_in_service = -1
[election]
lease_duration_s = 5
[policy]
lead_time = 900
"""
OFFLINE = """
import sys

def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        print("TOUCHES THE NETWORK", event, arguments, file=sys.stderr, flush=True)
        import os
        os._exit(99)

sys.addaudithook(refuse)
from controller.cli.main import main
main(sys.argv[1:])
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LB_DRAIN_")}
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        kept.pop(name, None)
    return {**kept, "NO_PROXY": "*", **more}


def offline(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that ends when it touches the network."""
    return subprocess.run(
        [sys.executable, "-c", OFFLINE, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environment(**environ),
    )


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    return caught.value.code


def test_a_check_of_a_monitor_that_cannot_read_is_unknown(tmp_path: Path) -> None:
    """A monitor reads one line and the exit code; 1 or 78 would mean another state."""
    result = offline("status", "--check", "--config", str(tmp_path / "config.toml"))
    assert (result.returncode, result.stderr) == (3, "")
    assert result.stdout.startswith("LB-DRAIN UNKNOWN - ")
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [KeyError("vms"), OSError(24, "Too many open files"), ExceptionGroup("tasks", [ValueError()])],
    ids=lambda error: type(error).__name__,
)
def test_a_check_of_a_monitor_that_fails_unexpectedly_is_unknown(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A traceback would exit with 1, which a monitor reads as a warning."""

    async def read(_: SetReads) -> Reading:
        raise error

    monkeypatch.setattr(SetReads, "read", read)
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    assert exit_code("status", "--check", "--config", str(path)) == 3
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    assert out.startswith(f"LB-DRAIN UNKNOWN - the check failed: {type(error).__name__}: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--check", "--no-such-option"),
        ("status", "--config", "--check"),
        ("status", "--watch", "--check"),
        ("status", "--chec", "--availability-set", "web"),
    ],
)
def test_a_check_of_a_monitor_with_wrong_arguments_is_unknown(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 of a usage error would be CRITICAL."""
    assert exit_code(*arguments) == 3
    out, err = capsys.readouterr()
    assert out == "LB-DRAIN UNKNOWN - wrong arguments: see lb-drain status --help\n"
    assert "usage: " in err


def test_a_check_of_a_monitor_that_cannot_print_is_unknown(tmp_path: Path) -> None:
    """A line that is lost on a full disk leaves the exit code, which must not be a warning."""
    command = [sys.executable, "-m", "controller", "status", "--check", "--config"]
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [*command, str(tmp_path / "config.toml")],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
            env=environment(),
        )
    assert found.returncode == 3


# --- help and arguments --------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example_and_the_exit_codes(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command explains itself: what it does, an example, and its exit codes."""
    assert exit_code(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert f"example: lb-drain {' '.join(command)} " in shown
    assert "exit codes: 0 done; 1 " in shown
    assert "78 the configuration must be changed" in shown


def test_the_help_of_a_hold_states_its_longest_time(capsys: pytest.CaptureFixture[str]) -> None:
    """It is no hold for ever: the leader acknowledges an event that begins later."""
    assert exit_code("hold", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Do not acknowledge an event, for 7 days at most." in shown
    assert "never acknowledge" not in shown
    assert "(default: 7d); 90s, 30m, 2h or 1d, from 1m to 7d" in shown


def test_the_first_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`lb-drain --help` lists the commands and the exit codes."""
    assert exit_code("--help") == 0
    shown = capsys.readouterr().out
    assert all(command[0] in shown for command in COMMANDS)
    assert "exit codes:" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "COMMAND"),
        (("stauts",), "did you mean 'status'?"),
        (("simulate", "evnt"), "did you mean 'event'?"),
        (("drane",), "invalid choice: 'drane'"),
        (("zzz",), "invalid choice: 'zzz'; lb-drain --help lists the commands"),
        (("check-config", "a.toml", "b.toml"), "unrecognized arguments: b.toml"),
        (("drain",), "required: VM"),
        (("maintenance", "stop"), "invalid choice: 'stop'"),
        (("maintenance", "start"), "one of the arguments VM --all --resume --abandon is required"),
        (("maintenance", "start", "web-1", "--all"), "not allowed with"),
        (("maintenance", "start", "--all", "--resume"), "not allowed with"),
        (("maintenance", "start", "--all", "--for", "59s"), "is not between 60s and 7d"),
        *(
            ((*each, "--for", "8d"), "'8d' is not between 60s and 7d")
            for each in (("hold", "E-1"), ("pause",), ("drain", "web-1"), ("acknowledge", "E-1"))
        ),
        (("demo", "--vms", "1"), "'1' is not a number from 2 to 12"),
        (("demo", "--vms", "13"), "'13' is not a number from 2 to 12"),
        (("demo", "--vms", "two"), "'two' is not a number from 2 to 12"),
        (("demo", "--flows", "close"), "invalid choice: 'close'"),
        (("demo", "--clients", "many"), "invalid choice: 'many'"),
        (("simulate", "--vms", "0"), "'0' is not a number from 1 to 200"),
        (("simulate", "--vms", "-3"), "from 1 to 200"),
        (("simulate", "event", "Reboot"), "VM"),
        (("simulate", "event", "Restart", "web-1"), "invalid choice: 'Restart'"),
        (("simulate", "event", "Reboot", "web-1", "--notice", "soon"), "--notice"),
        (("simulate", "cancel"), "EVENT_ID"),
        (("simulate", "fault", "{effect: hang}"), "is not JSON"),
        (("simulate", "fault", "null"), "is not a JSON object"),
        (("completion", "csh"), "invalid choice: 'csh'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_arguments(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong arguments end with exit code 2, and the message names them."""
    assert exit_code(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [("pause",), ("status",), ("maintenance", "start", "--all"), ("config", "show")]
)
@pytest.mark.parametrize("value", ["", " ", "web", "/subscriptions/s/resourceGroups/rg"])
def test_what_is_no_id_of_a_set(
    command: tuple[str, ...], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty variable must not select the set of this VM instead."""
    assert exit_code(*command, "--availability-set", value) == 2
    assert "is not the resource id of an availability set" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["availabilitySets", "virtualMachineScaleSets"])
def test_an_id_of_a_set_has_no_slash_at_its_end(kind: str) -> None:
    """The agents write it without one into the blobs, and refuse another."""
    set_id = f"/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/{kind}/web"
    options = main.build_parser().parse_args(["pause", "--availability-set", f"{set_id}/"])
    assert options.availability_set == set_id
    assert main.build_parser().parse_args(["pause"]).availability_set == ""


def test_without_arguments_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`lb-drain` alone prints its whole help on stderr and ends with exit code 2."""
    assert exit_code() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(command[0] in captured.err for command in COMMANDS)
    assert "exit codes:" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("drain", "web-1", "--force"), "--force needs --reason TEXT"),
        (("drain", "web-1", "--force", "--reason", " "), "--force needs --reason TEXT"),
        (("drain", "web-1", "--timeout", "5m"), "--timeout limits --wait: add --wait"),
        (("restore", "web-1", "--timeout", "5m"), "--timeout limits --wait: add --wait"),
        (("forget", "web-1", "--timeout", "5m"), "--timeout limits --wait: add --wait"),
        (("restore", "web-1", "web-2", "--id", "R"), "name the one VM that it is for"),
        (("roll", "--abandon", "web-1"), "leave out VMs and --resume"),
        (("roll", "--abandon", "--resume"), "leave out VMs and --resume"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_options_that_need_another_one(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names what to add, and nothing is read or requested."""
    assert exit_code(*arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "code"), [("y", 78), ("Yes ", 78), ("", 1), ("n", 1)])
def test_a_forced_drain_is_confirmed(
    answer: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a clear yes nothing is requested; with it the command reads the configuration."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: print(question) or answer)
    forced = ("drain", "web-1", "--force", "--reason", "x", "--config", "/nonexistent.toml")
    assert exit_code(*forced) == code
    shown = capsys.readouterr()
    assert "Drain web-1 even if fewer members than min_in_service stay?" in shown.out
    assert ("nothing is requested" in shown.err) == (code == 1)


def test_a_forced_drain_without_a_terminal_needs_yes(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the option; with it the command goes on to the configuration."""
    forced = ("drain", "web-1", "--force", "--reason", "x", "--config", "/nonexistent.toml")
    assert exit_code(*forced) == 1
    assert "Confirm with --yes." in capsys.readouterr().err
    assert exit_code(*forced, "--yes") == 78


def test_a_question_is_seen_although_stdout_is_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the command waits for an answer to a question that only the file has."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    assert exit_code("drain", "web-1", "--force", "--reason", "x") == 1
    assert "than min_in_service stay?" in capsys.readouterr().err


def no_answer(_question: str) -> str:
    raise EOFError


@pytest.mark.parametrize("terminal", [True, False])
def test_no_answer_is_no_confirmation(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """^D at the question, or a command that was started without stdin: nothing is requested."""
    if terminal:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("builtins.input", no_answer)
    else:
        monkeypatch.setattr("sys.stdin", None)
    assert exit_code("drain", "web-1", "--force", "--reason", "x") == 1
    assert "nothing is requested" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["simulate", "maintenance"])
def test_optional_commands_are_optional_in_the_usage(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The usage shows that the command also works without one of the commands below it."""
    assert exit_code(command, "--help") == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == f"usage: lb-drain {command} [options]"
    assert second == f"       lb-drain {command} COMMAND ..."


@pytest.mark.parametrize("command", [(), ("drain",), ("maintenance", "start")], ids=" ".join)
def test_help_as_a_command(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """`help COMMAND` prints what `COMMAND --help` prints."""
    assert exit_code("help", *command) == exit_code(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("drian",), "did you mean 'drain'?"),
        (("maintenance", "strat"), "did you mean 'start'?"),
        (("drain", "web-1"), "lb-drain drain has no commands"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_help_of_an_unknown_command(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The nearest command is suggested, as for the command itself."""
    assert exit_code("help", *words) == 2
    assert message in capsys.readouterr().err


def test_version_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`version` prints what `--version` prints."""
    assert exit_code("version") == exit_code("--version") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


@pytest.mark.parametrize("width", ["80", "120"])
@pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
def test_help_fits_the_terminal(
    command: tuple[str, ...],
    width: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only lines of an example, which a user copies, can be wider than the terminal."""
    monkeypatch.setenv("COLUMNS", width)
    assert exit_code(*command, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    wide = [line for line in lines if len(line) > int(width) and "lb-drain " not in line]
    assert wide == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("event", "Reboot", "web-1"),
        ("cancel", "some-id"),
        ("complete", "some-id"),
        ("fault",),
        ("state",),
    ],
    ids=lambda value: value[0],
)
def test_control_without_a_simulation(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a running simulation one line shows how to start one; exit code 1."""
    assert exit_code("simulate", *arguments, "--directory", str(tmp_path)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"lb-drain: no simulation runs in {tmp_path}")
    assert f"lb-drain simulate --directory {tmp_path}" in line


def test_control_of_a_simulation_that_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a simulation that was killed there is one line; exit code 1."""
    (tmp_path / "control.url").write_text("http://127.0.0.1:9\n")
    assert exit_code("simulate", "state", "--directory", str(tmp_path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not answer" in line


# --- the configuration ---------------------------------------------------------------------------


def test_check_config_prints_values_and_origins(tmp_path: Path) -> None:
    """Every effective value is shown with where it comes from, without touching the network."""
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    done = offline("check-config", str(path), LB_DRAIN_POLICY_LEAD_TIME_S="600")
    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()[1:]]
    rows = {line.split()[0]: re.split(r"\s{2,}", line.strip())[1:] for line in lines}
    assert rows["election.renew_period_s"] == ["file", "7.0"]
    assert rows["policy.lead_time_s"] == ["environment LB_DRAIN_POLICY_LEAD_TIME_S", "600.0"]
    assert rows["policy.connection_drain_s"] == ["default", "30.0"]
    assert rows["backend_pools[0].id"] == ["file", POOL]


def test_check_config_shows_no_empty_key_of_a_channel(tmp_path: Path) -> None:
    """A channel has the keys of every kind; those that it does not use are not shown."""
    path = tmp_path / "config.toml"
    path.write_text(GOOD + '[[notifications]]\nkind = "slack"\nurl_env = "SLACK"\n')
    done = offline("check-config", str(path), SLACK="https://127.0.0.1/x")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if "notifications[" in line]
    assert ["notifications[0].url_env", "file", "SLACK"] in rows
    assert [row for row in rows if len(row) < 3] == []


def test_check_config_takes_its_file_as_other_commands_do(tmp_path: Path) -> None:
    """The file is the first word or --config, and shows the same either way."""
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    shown = [offline("check-config", *named, str(path)) for named in ((), ("--config",))]
    assert [done.returncode for done in shown] == [0, 0]
    assert shown[0].stdout == shown[1].stdout
    assert POOL in shown[0].stdout


def test_check_config_can_be_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A valid file prints nothing, which suits the reload of the unit; problems are printed."""
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    assert exit_code("check-config", "--quiet", str(path)) == 0
    assert capsys.readouterr().out == ""
    path.write_text(BAD)
    assert exit_code("check-config", "--quiet", str(path)) == 78
    assert "lead_time" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check-config", "run", "plan", "doctor", "status"])
def test_every_problem_of_a_configuration_is_printed(command: str, tmp_path: Path) -> None:
    """Every problem at once, exit code 78, and not a single connection."""
    path = tmp_path / "config.toml"
    path.write_text(BAD)
    named = [str(path)] if command == "check-config" else ["--config", str(path)]
    done = offline(command, *named, LB_DRAIN_POLICY_LEADTIME="5")
    assert done.returncode == 78, done.stderr
    for problem in (
        "backend_pools[0].id",
        "backend_pools[0].min_in_service",
        "election.container_url: is required",
        "election.lease_duration_s: must be at least 15",
        "policy.lead_time: is not a setting; did you mean lead_time_s?",
        "LB_DRAIN_POLICY_LEADTIME is not a setting",
    ):
        assert problem in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "plan", "doctor", "status"])
def test_a_missing_configuration_shows_a_minimal_one(command: str, tmp_path: Path) -> None:
    """For a missing file the message contains a minimal one."""
    done = offline(command, "--config", str(tmp_path / "none.toml"))
    assert done.returncode == 78
    assert "none.toml: does not exist" in done.stderr
    assert "[[backend_pools]]" in done.stderr


# --- against a simulated set ---------------------------------------------------------------------


class Set:
    """A simulated set and the command beside it."""

    def __init__(self, server: SimulatorServer, directory: Path) -> None:
        self.server, self.world, self._directory = server, server.world, directory

    def config(self, vm: str = "web-1", listen: str = "") -> Path:
        path = self._directory / f"{vm}.toml"
        path.write_text(configuration(self.server, vm, overrides=PATIENT, listen=listen))
        return path

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "controller",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command to its end; return exit code, stdout and stderr."""
        process = await self.start(*arguments)
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[Set]:
    """Serve a set that never had a leader."""
    world = build_world(
        now=time.time(),
        # Commands that follow each other at once must not meet the limit of requests.
        settings=WorldSettings(operation_latency_s=0.1, lro_retry_after_s=None, imds_limit=False),
        pools=("app", "admin"),
    )
    async with SimulatorServer(world, tmp_path / "pki") as server:
        yield Set(server, tmp_path)


async def test_a_directory_serves_one_simulation(simulated: Set, tmp_path: Path) -> None:
    """A second simulation in a directory is refused in one line and leaves the first as it was."""
    directory, control = str(tmp_path / "sim"), tmp_path / "sim" / "control.url"
    first = await simulated.start("simulate", "--directory", directory)
    assert first.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert b"behind a load balancer" in await first.stdout.readline()
        url = control.read_text()
        code, out, err = await simulated.run("simulate", "--directory", directory)
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith(f"lb-drain: a simulation already runs in {directory}: stop it first")
        assert control.read_text() == url
    finally:
        first.terminate()
        await first.communicate()
    assert not control.exists()


async def test_status_of_a_set_that_never_had_a_leader(simulated: Set) -> None:
    """Before the first agent runs, every agent is missing: in words, and as an overview."""
    path = str(simulated.config("web-2"))
    code, out, err = await simulated.run("status", "--config", path)
    assert (code, err) == (0, "")
    assert "availability set web in web-rg, read at " in out
    assert "leader: none   lease: available   epoch: 0" in out
    assert "web-1: the agent does not run, never seen" in out
    assert "history: none" in out
    code, out, _ = await simulated.run("status", "--config", path, "--json")
    assert code == 0
    shown = checked_overview(json.loads(out))
    assert (shown["agent"]["role"], shown["lease"]["leader"]) == ("command", None)
    assert [each["role"] for each in shown["agents"]] == ["not running"] * 3
    assert {(vm["phase"], vm["recorded"]) for vm in shown["vms"]} == {("in_service", False)}
    code, out, err = await simulated.run("history", "--config", path)
    assert (code, out, err) == (0, "history: none\n", "")
    assert simulated.world.history == []


async def test_plan_shows_what_a_leader_would_do_and_does_nothing(simulated: Set) -> None:
    """The plan shows pools, VMs, events and next steps, and leaves no trace in Azure."""
    path = str(simulated.config("web-3"))
    code, out, err = await simulated.run("plan", "--config", path)
    assert (code, err) == (0, "")
    assert "leader: none   lease: available   epoch: 0" in out
    assert "scheduled events: none" in out
    assert "holds: none" in out
    assert "planned actions: none; next check by " in out
    event = simulated.world.events.schedule("Reboot", "web-1", notice_s=600)
    await simulated.server.notify()
    before = len(simulated.world.history)
    code, out, err = await simulated.run("plan", "--config", path)
    assert (code, err) == (0, "")
    assert event.event_id in out
    assert "record web-1 and remove it from admin, app, because of Reboot" in out
    assert "drain due" in out
    assert simulated.world.history[before:] == []


@pytest.mark.parametrize("status", [429, 503])
async def test_a_plan_without_the_event_document(simulated: Set, status: int) -> None:
    """Events that cannot be read are not none; without them the plan is no plan."""
    fault = Fault(
        service=Service.IMDS, path_contains="/scheduledevents", effect=Effect.REPLY, status=status
    )
    simulated.server.faults.add(fault)
    path = str(simulated.config("web-3"))
    code, out, err = await simulated.run("plan", "--config", path)
    why = "unknown, because the metadata service cannot be read on web-3"
    assert (code, f" {status}" in err) == (1, True)
    assert f"scheduled events: {why}\n" in out
    assert f"planned actions: {why}; next check by " in out
    _, out, _ = await simulated.run("status", "--config", path)
    assert f"scheduled events: {why}\n" in out


async def test_a_plan_of_a_set_that_cannot_be_read(simulated: Set) -> None:
    """Without an inventory the plan gives the reason in place of empty tables, and exits with 1."""
    for path, after in (("/availabilitySets/", 1), ("/virtualMachines", 1), ("/networkInt", 0)):
        fault = Fault(service=Service.ARM, path_contains=path, effect=Effect.REPLY, after=after)
        simulated.server.faults.add(fault)
    code, out, _ = await simulated.run("plan", "--config", str(simulated.config()))
    assert code == 1
    assert "the VMs of the set cannot be read: availability set read: 503" in out
    assert "inventory_unread" in out
    assert not [
        each for each in ("members in rotation", "planned actions", "holds: none") if each in out
    ]


@pytest.mark.parametrize("command", ["plan", "status"])
async def test_a_dry_run_is_printed_first(simulated: Set, command: str) -> None:
    """On a VM whose agent writes nothing, the output begins with that note."""
    path = simulated.config("web-3")
    path.write_text(path.read_text().replace("[policy]\n", "[policy]\ndry_run = true\n"))
    code, out, err = await simulated.run(command, "--config", str(path))
    assert (code, err) == (0, "")
    assert out.startswith("dry run: the agent on this VM writes nothing")


@pytest.mark.parametrize("command", [("drain", "web-1"), ("roll", "--command", "true")])
async def test_a_drain_in_a_dry_run_leaves_nothing_behind(
    simulated: Set, command: tuple[str, ...]
) -> None:
    """The command says that no agent would act, and writes no request; a restore still works."""
    path = simulated.config("web-3")
    path.write_text(path.read_text().replace("[policy]\n", "[policy]\ndry_run = true\n"))
    code, out, err = await simulated.run(*command, "--config", str(path))
    assert (code, out) == (1, "")
    assert f"dry run: {path} has dry_run = true in [policy]" in err
    real = simulated.config("web-2")
    code, out, _ = await simulated.run("restore", "web-1", "--config", str(path))
    assert (code, out) == (0, "web-1 has no manual drain to end.\n")
    code, out, _ = await simulated.run("status", "--config", str(real))
    assert "drain requested" not in out


async def test_a_running_agent_reloads_on_sighup(simulated: Set) -> None:
    """The signal ends nothing: a bad file is refused with its problems, a good one is applied."""
    path = simulated.config("web-1")
    agent = await simulated.start("run", "--config", str(path))
    assert agent.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            await line_with(agent.stderr, "agent_started")
            good = path.read_text()
            path.write_text(good.replace("lead_time_s = ", "lead_time_s = -"))
            agent.send_signal(signal.SIGHUP)
            assert "lead_time_s: must be" in await line_with(agent.stderr, "config_not_reloaded")
            path.write_text(good.replace("lead_time_s = ", "lead_time_s = 1"))
            agent.send_signal(signal.SIGHUP)
            shown = await line_with(agent.stderr, "config_reloaded")
            assert "applied: policy.lead_time_s" in shown
    finally:
        agent.terminate()
        await agent.communicate()
    assert agent.returncode == 0


async def line_with(stream: asyncio.StreamReader, text: str) -> str:
    """Return the next line that contains a text."""
    while line := (await stream.readline()).decode():
        if text in line:
            return line
    raise AssertionError(f"the log ends without {text}")


async def test_status_during_a_drain(simulated: Set) -> None:
    """While an agent drains, any VM's status names leader, entry, pools and history."""
    agent = await simulated.start("run", "--config", str(simulated.config("web-1")))
    try:
        simulated.world.events.schedule("Reboot", "web-2", notice_s=600, started_s=600)
        app = simulated.world.pool_id("app")
        await simulated.server.wait_until(lambda: "web-2" not in simulated.world.rotation(app))
        other = str(simulated.config("web-3"))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                code, out, err = await simulated.run("status", "--config", other, "--json")
                assert (code, err) == (0, "")
                (line,) = out.splitlines()
                found = checked_overview(json.loads(line))
                (drained,) = [vm for vm in found["vms"] if vm["vm"] == "web-2"]
                if drained["phase"] in ("out", "acknowledged"):
                    break
        assert (found["lease"]["leader"], found["lease"]["epoch"]) == ("web-1", 1)
        assert found["lease"]["state"] == "leased"
        assert drained["recorded"]
        assert [pool["inside"] for pool in drained["pools"]] == [False, False]
        roles = {each["vm"]: each["role"] for each in found["agents"]}
        assert roles == {"web-1": "leader", "web-2": "not running", "web-3": "not running"}
        assert [each["release"] is None for each in found["agents"]] == [False, True, True]
        assert [line["what"] for line in found["history"]][-3:] == [
            "recorded",
            "announced",
            "leads",
        ]
        code, out, _ = await simulated.run("status", "--config", other)
        assert code == 0
        assert "leader: web-1, for " in out
        assert "out of rotation: web-2" in out
        assert "web-2 is out of rotation: the Reboot finds no client on it" in out
        code, out, _ = await simulated.run(
            "history", "--config", other, "--vm", "web-2", "--since", "1h", "--json"
        )
        assert "out" in [line["what"] for line in json.loads(out)["history"]]
    finally:
        agent.terminate()
        _, log = await agent.communicate()
    assert agent.returncode == 0, log.decode()


@pytest.mark.parametrize("command", ["status", "plan", "history"])
async def test_without_storage_the_agent_on_the_vm_answers(simulated: Set, command: str) -> None:
    """What it knows is shown, stated as such, and the exit code is 1."""
    simulated.server.faults.add(Fault(service=Service.BLOB, effect=Effect.REPLY, status=503))
    shown = overview(leader())
    async with answering(json.dumps(shown)) as listen:
        path = str(simulated.config("web-1", listen=listen))
        code, out, _ = await simulated.run(command, "--config", path)
        assert code == 1
        assert out.startswith("the set cannot be read: blob read: 503")
        assert "This is what the agent on web-1 (leader) knows" in out
        assert "web-2: drain started" in out or command == "plan"
        if command == "status":
            code, out, err = await simulated.run(command, "--config", path, "--json")
            assert (code, json.loads(out)) == (1, shown)
            assert "the set cannot be read: blob read: 503" in err


async def test_an_agent_without_a_ledger_has_no_history(simulated: Set) -> None:
    """An empty history of an agent that has just been started would look like a quiet set."""
    simulated.server.faults.add(Fault(service=Service.BLOB, effect=Effect.REPLY, status=503))
    async with answering(json.dumps(overview(facts()))) as listen:
        path = str(simulated.config("web-1", listen=listen))
        code, out, err = await simulated.run("history", "--config", path, "--json")
    assert (code, out) == (1, "")
    assert "blob read: 503" in err


async def test_a_check_by_an_old_view_is_unknown(simulated: Set) -> None:
    """A VM in maintenance that is cut off reports no hold of an hour ago to the monitor."""
    simulated.server.faults.add(Fault(service=Service.BLOB, effect=Effect.REPLY, status=503))
    old = leader(ledger_at=NOW - timedelta(hours=1))
    async with answering(json.dumps(overview(old))) as listen:
        path = str(simulated.config("web-1", listen=listen))
        code, out, err = await simulated.run("status", "--check", "--config", path)
    assert (code, err) == (3, "")
    assert "LB-DRAIN UNKNOWN - " in out
    assert "what this VM knows of the set is 1 h 0 min old: the set cannot be read: blob" in out


async def test_without_storage_and_agent_the_error_is_shown(simulated: Set) -> None:
    """An address at which something else answers adds why that does not help."""
    simulated.server.faults.add(Fault(service=Service.BLOB, effect=Effect.REPLY, status=503))
    async with answering("<html>") as listen:
        path = str(simulated.config("web-1", listen=listen))
        code, out, err = await simulated.run("status", "--config", path)
    assert (code, out) == (1, "")
    assert "blob read: 503" in err
    assert f"what answers at {listen}/api/v1/overview is no agent" in err


async def test_watch_continues_after_a_failure(simulated: Set) -> None:
    """A repeated status prints an error in one line, and continues."""
    simulated.server.faults.add(Fault(service=Service.BLOB, effect=Effect.REPLY, status=503))
    path = str(simulated.config())
    watching = await simulated.start("status", "--config", path, "--json", "--watch")
    assert watching.stdout is not None
    assert watching.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for line in watching.stderr:
                if b"blob read: 503" in line:
                    break
            simulated.server.faults.clear()
            assert json.loads(await watching.stdout.readline())["lease"]["leader"] is None
    finally:
        watching.terminate()
        await watching.communicate()


async def test_watch_shows_that_a_read_failed(simulated: Set) -> None:
    """On a screen the error is at the top, with the time, and disappears when it is over."""
    simulated.server.faults.add(Fault(service=Service.BLOB, effect=Effect.REPLY, status=503))
    watching = await simulated.start("status", "--config", str(simulated.config()), "--watch")
    assert watching.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert b"read failed: blob read: 503" in await watching.stdout.readline()
            simulated.server.faults.clear()
            async for line in watching.stdout:
                if line.startswith(b"leader: none"):
                    break
    finally:
        watching.terminate()
        await watching.communicate()


async def test_commands_fail_in_one_line_where_azure_refuses(simulated: Set) -> None:
    """What Azure refuses is one line on stderr and exit code 1, never a traceback."""
    action = "Microsoft.Compute/virtualMachines/read"
    simulated.world.roles.revoke("web-1", action)
    for command in ("plan", "status"):
        code, out, err = await simulated.run(command, "--config", str(simulated.config()))
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith("lb-drain: ")
        assert action in line


@pytest.mark.parametrize(
    ("key", "scheme", "next_step"),
    [
        ("azure.imds_endpoint", "http", "run this on a VM of the set"),
        ("azure.resource_manager_endpoint", "https", "lb-drain doctor --config "),
        ("election.container_url", "https", "lb-drain doctor --config "),
    ],
)
@pytest.mark.parametrize("command", ["plan", "status"])
async def test_an_endpoint_without_an_answer_is_named(
    simulated: Set, command: str, key: str, scheme: str, next_step: str
) -> None:
    """Without an answer the last line has the address, its setting, and what to do next."""
    with socket.socket() as deaf:  # bound, and never listening
        deaf.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{deaf.getsockname()[1]}"
        url += "/account/lb-drain" if key == "election.container_url" else ""
        path = simulated.config()
        name = key.split(".")[1]
        path.write_text(re.sub(f'{name} = ".*"', f'{name} = "{url}"', path.read_text()))
        code, out, err = await simulated.run(command, "--config", str(path))
    assert (code, out) == (1, "")
    line = err.splitlines()[-1]
    assert line.startswith("lb-drain: ")
    assert f"No answer from {url}, which is {key} (file); " in line
    assert next_step in line


async def test_a_deleted_pool_is_reported_and_the_others_are_managed(simulated: Set) -> None:
    """One of two pools that does not exist is an error message, and no reason to do nothing."""
    path = simulated.config()
    path.write_text(path.read_text().replace("backendAddressPools/app", "backendAddressPools/ap"))
    code, out, err = await simulated.run("plan", "--config", str(path))
    assert code == 0
    assert "not found in Azure" in err
    assert "backendAddressPools/ap." in err
    assert "admin" in out


async def test_plan_fails_for_pools_of_which_none_exists(simulated: Set) -> None:
    """Exit code 78 is for the configuration file alone: what Azure answers may change."""
    path = simulated.config()
    path.write_text(path.read_text().replace("backendAddressPools/", "backendAddressPools/no-"))
    code, _, err = await simulated.run("plan", "--config", str(path))
    assert code == 1
    assert "not found in Azure" in err
    assert "Traceback" not in err


async def test_run_refuses_a_port_in_use(simulated: Set) -> None:
    """A taken status port ends the agent with exit code 78 and names the key."""
    listen = simulated.server.control_url.removeprefix("http://")
    code, _, err = await simulated.run("run", "--config", str(simulated.config(listen=listen)))
    assert code == 78
    assert "server.listen: cannot listen on" in err


# --- the support bundle ---------------------------------------------------------------------------


def bundle_files(path: Path) -> dict[str, str]:
    """Return the files of a support bundle, by name without the directory."""
    with tarfile.open(path) as archive:
        found = {each.name: archive.extractfile(each) for each in archive.getmembers()}
        return {Path(name).name: file.read().decode() for name, file in found.items() if file}


async def test_a_support_bundle(simulated: Set, tmp_path: Path) -> None:
    """It has every part that can be read, a reason for each other one, and no secret."""
    canary = "c4n4ryC4N4RYc4n4ry"
    said = (
        f"denied: Authorization: Bearer {canary} for https://a.blob.core.windows.net/c?sig={canary}"
    )
    body = json.dumps({"error": {"code": "AuthorizationFailed", "message": said}})
    simulated.server.faults.add(
        Fault(
            service=Service.ARM,
            effect=Effect.REPLY,
            path_contains="/networkInt",
            status=403,
            body=body,
        )
    )
    bundle, config = tmp_path / "b.tar.gz", str(simulated.config(listen="127.0.0.1:9"))
    code, out, err = await simulated.run("support-bundle", str(bundle), "--config", config)
    assert (code, err) == (0, "")
    assert "not read: metrics.txt: the agent on this VM does not answer at http://127" in out
    files = bundle_files(bundle)
    assert {"versions.json", "configuration.txt", "doctor.json", "status.json"} <= files.keys()
    assert {"history.txt", "metrics.not-read.txt", "overview.not-read.txt"} <= files.keys()
    assert {"log.txt", "log.not-read.txt"} & files.keys()
    assert json.loads(files["versions.json"])["lb-drain"]
    assert "election.renew_period_s = " in files["configuration.txt"]
    assert "(file)" in files["configuration.txt"]
    assert json.loads(files["status.json"])["lease"]["state"] == "available"
    assert "AuthorizationFailed" in files["doctor.json"]
    assert canary not in "".join(files.values()) + out
    assert simulated.world.changes("write") == []
    code, out, err = await simulated.run("support-bundle", str(bundle), "--config", config)
    assert (code, out) == (1, "")
    assert err == f"lb-drain: {bundle} exists and is not overwritten; name another file\n"
    assert bundle_files(bundle) == files


def test_a_support_bundle_without_a_valid_configuration(tmp_path: Path) -> None:
    """The problems of the configuration are a part, and what needs none is read all the same."""
    config, bundle = tmp_path / "c.toml", tmp_path / "b.tar.gz"
    config.write_text(BAD)
    found = offline("support-bundle", str(bundle), "--config", str(config))
    assert (found.returncode, found.stderr) == (0, "")
    files = bundle_files(bundle)
    assert "lead_time" in files["configuration.not-read.txt"]
    assert "the configuration is not valid" in files["doctor.not-read.txt"]
    assert json.loads(files["versions.json"])["python"]
