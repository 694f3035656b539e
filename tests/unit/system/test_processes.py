"""Ending a process with what it has started: by signals, and by `taskkill` on Windows.

`taskkill` is a script here: it gets the arguments of the real one.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.system import processes
from controller.system.pipes import read_by_thread
from controller.system.processes import GROUPS, PosixGroups, WindowsGroups, taskkill_of
from controller.vm_side import hooks

SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.fixture
async def process() -> AsyncIterator[asyncio.subprocess.Process]:
    found = await asyncio.create_subprocess_exec(*SLEEPS)
    yield found
    if found.returncode is None:
        found.kill()
    await found.wait()


def script(path: Path, text: str) -> Path:
    """Write a program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_linux_uses_process_groups() -> None:
    """The choice, and the argument that makes a group."""
    assert isinstance(GROUPS, PosixGroups)
    assert dict(GROUPS.options) == {"start_new_session": True}


def test_windows_uses_console_groups() -> None:
    """A group of its own is what Ctrl+Break can be sent to."""
    assert dict(WindowsGroups(Path("taskkill")).options) == {"creationflags": 0x200}


@pytest.mark.parametrize("root", ["", "D:\\Windows"])
def test_taskkill_is_that_of_the_system(root: str) -> None:
    """PATH could name another one."""
    path = str(taskkill_of({"SystemRoot": root}))
    assert path.startswith(root or "C:\\Windows")
    assert path.endswith("taskkill.exe")


async def test_taskkill_ends_the_tree(tmp_path: Path, process: asyncio.subprocess.Process) -> None:
    """It gets the process, its children, and the order to use force."""
    seen = tmp_path / "arguments"
    program = script(tmp_path / "taskkill", f'echo "$@" > {seen}; kill -9 "$4"')
    await WindowsGroups(program).kill(process)
    assert await process.wait() != 0
    assert seen.read_text().split() == ["/T", "/F", "/PID", str(process.pid)]


@pytest.mark.parametrize("kind", ["missing", "not executable", "fails", "hangs"])
async def test_a_taskkill_that_does_not_work(
    tmp_path: Path,
    process: asyncio.subprocess.Process,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """The process itself is ended all the same."""
    monkeypatch.setattr(processes, "KILL_WITHIN_S", 0.2 if kind == "hangs" else 60.0)
    program = tmp_path / "taskkill"
    if kind == "not executable":
        program.write_text("")
    elif kind != "missing":
        script(program, "exit 128" if kind == "fails" else "exec sleep 600")
    await WindowsGroups(program).kill(process)
    assert await process.wait() == -signal.SIGKILL


async def test_ctrl_break_asks_to_end(
    process: asyncio.subprocess.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal exists on Windows only; another one stands for it here."""
    groups = WindowsGroups(Path("taskkill"))
    groups.ask_to_end(process)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM, raising=False)
    groups.ask_to_end(process)
    assert await process.wait() == -signal.SIGTERM
    groups.ask_to_end(process)  # it has ended: nothing fails


async def test_a_hook_on_windows_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that hangs is asked, then ended, and its output is read by a thread."""
    program = script(tmp_path / "taskkill", 'kill -9 "$4"')
    groups = WindowsGroups(program)
    groups.options = {}  # Linux refuses the flag of Windows
    monkeypatch.setattr(hooks, "GROUPS", groups)
    monkeypatch.setattr(hooks, "read_pipe", read_by_thread)
    monkeypatch.setattr(hooks, "KILL_AFTER_S", 0.1)
    code = "import time; print('begun', flush=True); time.sleep(600)"
    ended = await hooks.run_command((sys.executable, "-c", code), {}, timeout_s=2.0)
    assert "was stopped" in ended.problem
    assert ended.output in {"begun", ""}  # a busy machine may not start it in time
