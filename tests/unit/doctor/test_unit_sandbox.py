"""What the unit of the agent forbids, although root, who runs the doctor, may do it; and sets."""

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller.cli import drain_session
from controller.doctor import unit_sandbox, vm_side
from controller.doctor.report import Result
from controller.doctor.unit_environment import differing, parse_environment
from controller.doctor.unit_sandbox import UnitSandbox, parse_properties
from tests.support.doctor_facts import judged
from tests.unit.doctor.test_doctor_closing import configured

UNIT = Path(__file__).parents[3] / "deploy" / "lb-drain.service"
SHIPPED = "LoadState=loaded\n" + "\n".join(
    line
    for line in UNIT.read_text().splitlines()
    if line.partition("=")[0] in unit_sandbox.PROPERTIES
)


def sandbox(*changes: str) -> UnitSandbox:
    """Return the sandbox of the unit that is shipped, with other properties."""
    found = parse_properties("\n".join((SHIPPED, *changes)))
    assert found is not None
    return found


def hook(path: Path, mode: int) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def install_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str) -> None:
    """Put a systemctl first in PATH that shows these properties."""
    systemctl = hook(tmp_path / "systemctl", 0o755)
    systemctl.write_text(f"#!/bin/sh\ncat <<'END'\n{shown}\nEND\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(unit_sandbox, "BOOTED", tmp_path)


def test_the_agent_is_not_the_owner_of_a_hook(tmp_path: Path) -> None:
    """A script that root has created with umask 077 runs for root only."""
    unit = sandbox("PrivateTmp=no")
    assert "the agent is another user" in unit.why_not_run(hook(tmp_path / "a", 0o700))
    assert "the agent is another user" in unit.why_not_run(hook(tmp_path / "b", 0o750))
    assert unit.why_not_run(hook(tmp_path / "c", 0o755)) == ""
    grouped = sandbox("PrivateTmp=no", "SupplementaryGroups=web")
    assert grouped.why_not_run(tmp_path / "b") == ""


@pytest.mark.parametrize("path", ["/home/admin/finish", "/run/user/1000/finish", "/var/tmp/finish"])
def test_a_hook_in_a_directory_that_the_unit_hides(path: str) -> None:
    """The agent finds no such file."""
    assert "which the unit of the agent does not see" in sandbox().why_not_run(Path(path))


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("/run/lb-drain", ""),
        ("/etc", "cannot write to /etc"),
        ("/tmp", "another /tmp than other programs"),
        ("/root", "another /root than"),
    ],
)
def test_where_the_unit_can_create_the_flag_file(folder: str, problem: str) -> None:
    """In the directory that systemd creates for it, and where a drop-in lets it."""
    found = sandbox().why_not_write(Path(folder))
    assert problem in found if problem else not found


def test_a_drop_in_lets_the_unit_write(tmp_path: Path) -> None:
    """The user of the agent also needs write access to the directory."""
    unit = sandbox("PrivateTmp=no", f"ReadWritePaths=-{tmp_path}")
    tmp_path.chmod(0o755)
    assert "the agent is another user" in unit.why_not_write(tmp_path)
    tmp_path.chmod(0o777)
    assert unit.why_not_write(tmp_path) == ""
    tmp_path.chmod(0o770)
    grouped = sandbox("PrivateTmp=no", f"ReadWritePaths={tmp_path}", "SupplementaryGroups=web")
    assert grouped.why_not_write(tmp_path) == ""


def test_a_host_without_the_unit_forbids_nothing() -> None:
    assert parse_properties("LoadState=not-found\nDynamicUser=no\n") is None
    assert parse_properties("") is None


async def test_the_doctor_asks_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only root may do is a problem of the flag file, and of a hook."""
    install_systemctl(tmp_path, monkeypatch, f"{SHIPPED}\nPrivateTmp=no")
    program = str(hook(tmp_path / "finish", 0o700))
    settings = configured(
        listen="",
        drain={"flag_file": str(tmp_path / "draining")},
        hooks=[{"on": "closing", "command": [program]}],
    )
    side = await vm_side.read_vm_side(settings, {})
    assert side.flag_problem == f"the unit of the agent cannot write to {tmp_path}"
    assert "the agent is another user" in side.hook_problems[program]


# --- its environment ---

SETS = (
    "LoadState=loaded\n"
    "Environment=BOOT_ID=1 LB_DRAIN_POLICY_DRY_RUN=true HTTPS_PROXY=http://user:secret@proxy:3128"
)
NAMES = ("HTTPS_PROXY", "LB_DRAIN_POLICY_DRY_RUN")


@pytest.mark.parametrize(
    ("unit", "shell", "names"),
    [
        ({"LB_DRAIN_POLICY_DRY_RUN": "true"}, {}, ["LB_DRAIN_POLICY_DRY_RUN"]),
        ({}, {"LB_DRAIN_ELECTION_BLOB_NAME": "a"}, ["LB_DRAIN_ELECTION_BLOB_NAME"]),
        ({"LB_DRAIN_POLICY_DRY_RUN": "true"}, {"LB_DRAIN_POLICY_DRY_RUN": "true"}, []),
        ({"HTTPS_PROXY": "http://p"}, {"https_proxy": "http://p"}, []),
        ({"HTTPS_PROXY": "http://p"}, {"https_proxy": "http://q"}, ["HTTPS_PROXY"]),
        ({"BOOT_ID": "1"}, {"HOME": "/root", "LB_DRAIN_VM": "web-1", "http_proxy": ""}, []),
    ],
)
def test_only_settings_and_proxies_that_differ_are_named(
    unit: dict[str, str], shell: dict[str, str], names: list[str]
) -> None:
    """Hooks get variables with the same prefix, which are no settings."""
    assert list(differing(unit, shell)) == names


@pytest.mark.parametrize(
    ("shown", "value"),
    [("A=b", "b"), ('"A=b c"', "b c"), (r'"A=b \"\$c\" \\ d"', r'b "$c" \ d'), ('"A=b', None)],
)
def test_the_quotes_of_systemd_are_read(shown: str, value: str | None) -> None:
    assert parse_environment(f"B=1 {shown}").get("A") == value


async def test_the_doctor_warns_of_what_only_the_unit_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the variables, and no value."""
    install_systemctl(tmp_path, monkeypatch, SETS)
    settings = configured(listen="", drain={"flag_file": ""})
    found = judged("environment", vm_side=await vm_side.read_vm_side(settings, {}))
    assert found.result is Result.WARN
    assert all(name in found.message and name in " ".join(found.fix) for name in NAMES)
    assert "secret" not in f"{found}"


@pytest.mark.parametrize(
    ("systemctl", "set_id", "warned"),
    [
        (f"cat <<'END'\n{SETS}\nEND", "", True),
        (f"cat <<'END'\n{SETS}\nEND", "/set", False),
        ("exit 1", "", False),
        ("exec sleep 60", "", False),
    ],
)
def test_a_command_warns_in_one_line_and_never_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    systemctl: str,
    set_id: str,
    warned: bool,
) -> None:
    """Before it requests something of the set of this VM; another set has another unit."""
    install_systemctl(tmp_path, monkeypatch, "")
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\n{systemctl}\n")
    for name in list(os.environ):
        if name.startswith("LB_DRAIN_") or name.casefold().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(drain_session, "UNIT_WITHIN_S", 0.5)
    monkeypatch.setattr(drain_session, "connect", connected)
    monkeypatch.setattr("controller.observability.logs.setup", lambda *_, **__: None)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[[backend_pools]]\nid = "{configured().backend_pools[0].id}"\n'
        '[election]\ncontainer_url = "https://account.blob.core.windows.net/lb-drain"\n'
    )
    done: list[object] = []

    async def work(client: object) -> None:
        await asyncio.sleep(0)
        done.append(client)

    options = argparse.Namespace(config=config, availability_set=set_id)
    assert drain_session.run_with_client(options, work) == 0
    assert len(done) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (1 if warned else 0)
    assert all(name in line for line in lines for name in NAMES)
    assert "secret" not in "".join(lines)


@asynccontextmanager
async def connected(*_: object, **__: object) -> AsyncGenerator[object]:
    """Connect to nothing."""
    yield object()
