"""What the unit of the agent forbids, although root, who runs the doctor, may do it."""

from pathlib import Path

import pytest

from controller.doctor import unit_sandbox, vm_side
from controller.doctor.unit_sandbox import UnitSandbox, parse_properties
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
    systemctl = hook(tmp_path / "systemctl", 0o755)
    systemctl.write_text(f"#!/bin/sh\ncat <<'END'\n{SHIPPED}\nPrivateTmp=no\nEND\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(unit_sandbox, "BOOTED", tmp_path)
    program = str(hook(tmp_path / "finish", 0o700))
    settings = configured(
        listen="",
        drain={"flag_file": str(tmp_path / "draining")},
        hooks=[{"on": "closing", "command": [program]}],
    )
    side = await vm_side.read_vm_side(settings)
    assert side.flag_problem == f"the unit of the agent cannot write to {tmp_path}"
    assert "the agent is another user" in side.hook_problems[program]
