"""After a reboot a VM that was closed stays closed until its agent has read the ledger (law S9)."""

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.config.loader import parse
from controller.config.schema import Settings
from controller.probe import boot_memory
from controller.probe.boot_memory import UP_AT_MOST_S
from controller.probe.flag_file import FlagFile
from controller.vm_side.closing_side import found_flag
from controller.vm_side.flag import Flag, FlagStore
from controller.vm_side.machine import LocalMachine
from tests.unit.vm_side.test_closing_side import CONFIG

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
UP_S = 60.0
BOOT = "2d6b26ab-cc16-4f40-a1f1-5f2f4a1cfbd8"
EARLIER = "0e7fdcc2-0000-4000-8000-000000000001"
OPEN_AFTER_S = 3600.0


@dataclass
class Vm:
    """The directories of one VM, and responders that start on it."""

    run: Path
    state: Path
    boot_id: str = BOOT

    @property
    def flag(self) -> Path:
        return self.run / "draining"

    @property
    def memory(self) -> Path:
        return self.state / "closed"

    def responder(self) -> FlagFile:
        return FlagFile(
            str(self.flag),
            open_after_s=OPEN_AFTER_S,
            state_directory=str(self.state),
            boot_id=self.boot_id,
        )

    def closed_ago(self, seconds: float) -> None:
        """Let a responder have seen the flag for the last time so long ago."""
        self.memory.write_bytes(b"")
        at = time.time() - seconds
        os.utime(self.memory, (at, at))


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vm:
    """A VM that is up for a minute, and whose agent has not started."""
    up_for(monkeypatch, UP_S)
    found = Vm(run=tmp_path / "run", state=tmp_path / "state")
    found.state.mkdir()
    return found


def up_for(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the machine have booted so long ago."""
    monkeypatch.setattr(boot_memory, "up_s", lambda: seconds)


def test_a_vm_that_was_closed_in_an_earlier_boot_stays_closed(vm: Vm) -> None:
    """/run is empty, and the agent has not started."""
    vm.closed_ago(UP_S + 30)
    assert vm.responder().current() is not None


@pytest.mark.parametrize(
    "seconds", [UP_S - 30, OPEN_AFTER_S + 1, -3600], ids=["this boot", "too old", "future"]
)
def test_another_time_does_not_count(vm: Vm, seconds: float) -> None:
    """In this boot the flag file says it all; after open_after_s a closed VM opens (S9)."""
    vm.closed_ago(seconds)
    assert vm.responder().current() is None


def test_a_machine_that_is_up_for_minutes_is_open(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    """S9: its agent does not start, and must not keep the VM closed."""
    vm.closed_ago(UP_AT_MOST_S + 30)
    responder = vm.responder()
    up_for(monkeypatch, UP_AT_MOST_S - 1)
    assert responder.current() is not None
    up_for(monkeypatch, UP_AT_MOST_S + 1)
    assert responder.current() is None


def test_the_agent_decides_as_soon_as_it_has_read_the_ledger(vm: Vm) -> None:
    """The drain may be over: then no flag is set, and the VM is open at once."""
    vm.closed_ago(UP_S + 30)
    responder = vm.responder()
    assert responder.current() is not None
    FlagStore(str(vm.flag)).note_known(BOOT)
    assert responder.current() is None
    assert not vm.memory.exists()


def test_the_flag_is_remembered_while_it_counts(vm: Vm) -> None:
    """Set and removed in this boot: nothing is left for the next one."""
    responder = vm.responder()
    assert responder.current() is None
    vm.run.mkdir()
    vm.flag.write_text("{}")
    assert responder.current() is not None
    assert vm.memory.exists()
    vm.flag.unlink()
    assert responder.current() is None
    assert not vm.memory.exists()


def test_the_content_of_the_memory_does_not_matter(vm: Vm) -> None:
    """Only its time is read."""
    vm.closed_ago(UP_S + 30)
    status = vm.memory.stat()
    vm.memory.write_bytes(b"\xff garbage")
    os.utime(vm.memory, (status.st_atime, status.st_mtime))
    assert vm.responder().current() is not None


@pytest.mark.parametrize("state", ["missing", "a directory", "a link to itself", "none"])
def test_a_memory_that_cannot_be_used_changes_nothing(vm: Vm, state: str) -> None:
    """It is open without a flag and closed with one, as without memory."""
    if state == "a directory":
        vm.memory.mkdir()
        at = time.time() - UP_S - 30
        os.utime(vm.memory, (at, at))
    elif state == "a link to itself":
        vm.memory.symlink_to(vm.memory)
    elif state == "missing":
        vm.state.rmdir()
    directory = "" if state == "none" else str(vm.state)
    responder = FlagFile(str(vm.flag), open_after_s=OPEN_AFTER_S, state_directory=directory)
    assert responder.current() is None
    vm.run.mkdir()
    vm.flag.write_text("{}")
    assert responder.current() is not None


def parsed(flag: Path) -> Settings:
    """Return a configuration with this flag file."""
    return parse(f'{CONFIG}flag_file = "{flag}"\n', {}, Path("config.toml")).settings


def closed_in_the_earlier_boot(vm: Vm, *, known: str = EARLIER) -> None:
    """Leave what a flag file in a directory that outlasts a reboot leaves."""
    store, at = FlagStore(str(vm.flag)), time.time() - UP_S - 30
    store.write(flag_of(EARLIER))
    store.note_known(known)
    os.utime(vm.flag, (at, at))
    vm.closed_ago(UP_S + 30)


def flag_of(boot_id: str) -> Flag:
    return Flag(since=NOW, event_type="Reboot", drain=NOW, boot_id=boot_id, renewed_at=NOW)


@pytest.mark.parametrize("asked_before_the_agent_starts", [0, 1, 5])
@pytest.mark.parametrize("named", [True, False])
def test_a_flag_file_that_outlasts_a_reboot_opens_nothing_early(
    vm: Vm, *, named: bool, asked_before_the_agent_starts: int
) -> None:
    """S9: the agent removes the flag of another boot; it is closed until the ledger was read."""
    closed_in_the_earlier_boot(vm)
    responder = vm.responder()
    for _ in range(asked_before_the_agent_starts):
        assert responder.current() is not None
    machine = LocalMachine(parsed(vm.flag))
    machine.boot_id = vm.boot_id
    assert found_flag(machine, "web-1") is None
    assert not vm.flag.exists()
    assert responder.current() is not None
    assert vm.responder().current() is not None, "nor does one that starts later"
    if named:
        machine.set_flag(flag_of(vm.boot_id))
    machine.note_known()
    assert (responder.current() is not None) is named
    machine.clear_flag()
    assert responder.current() is None


@pytest.mark.parametrize(
    ("known", "boot_id", "closed"),
    [
        (EARLIER, BOOT, True),
        (BOOT, BOOT, False),
        (BOOT.replace("-", ""), BOOT, False),
        ("", BOOT, False),
        (EARLIER, "", False),
    ],
    ids=["earlier", "this", "as systemd writes it", "of an older agent", "Windows"],
)
def test_what_an_agent_of_another_boot_knew_does_not_count(
    vm: Vm, known: str, boot_id: str, *, closed: bool
) -> None:
    """Where an id is not known, the agent of this boot may have decided: the VM is open (S9)."""
    closed_in_the_earlier_boot(vm, known=known)
    vm.flag.unlink()
    vm.boot_id = boot_id
    assert (vm.responder().current() is not None) is closed


def test_the_responder_may_read_what_the_agent_knows(vm: Vm) -> None:
    """Its user is another one, and the umask of the agent is 0077."""
    before = os.umask(0o077)
    try:
        FlagStore(str(vm.flag)).note_known(BOOT)
    finally:
        os.umask(before)
    known = vm.run / "draining.known"
    assert known.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in vm.run.iterdir()] == [known.name]
