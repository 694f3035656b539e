"""Hooks: bounded in time and output, whatever their command does."""

import asyncio
import errno
import os
import sys
from pathlib import Path

import pytest

from controller.core.vm_report import HookOutcome
from controller.vm_side import hooks
from controller.vm_side.hooks import run_command

PLENTY_S = 60.0


def python(code: str) -> tuple[str, ...]:
    """Return a command that runs this code."""
    return (sys.executable, "-c", code)


async def test_a_command_that_succeeds() -> None:
    """Its variables arrive, and its last line is kept."""
    code = "import os; print('first'); print(os.environ['LB_DRAIN_VM'])"
    ended = await run_command(python(code), {"LB_DRAIN_VM": "web-1"}, timeout_s=PLENTY_S)
    assert (ended.outcome, ended.problem, ended.output) == (HookOutcome.DONE, "", "web-1")


async def test_a_command_that_fails() -> None:
    """The problem names the command, its exit code and what it printed last."""
    code = "import sys; print('no such queue', file=sys.stderr); sys.exit(3)"
    ended = await run_command(python(code), {}, timeout_s=PLENTY_S)
    assert ended.outcome is HookOutcome.FAILED
    assert "ended with 3: no such queue" in ended.problem


async def test_a_command_that_hangs_is_stopped(tmp_path: Path) -> None:
    """It and what it has started end after its time, also if it ignores SIGTERM."""
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN); "
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(600)"
    )
    ended = await run_command(python(code), {}, timeout_s=0.5)
    assert ended.outcome is HookOutcome.TIMED_OUT
    assert "did not end within 0.5 s and was stopped" in ended.problem


async def test_a_command_that_leaves_a_child_behind_ends() -> None:
    """A daemon that keeps the pipe open for longer than the time of the hook does not hold it."""
    code = (
        "import subprocess, sys; print('started', flush=True); "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(40)'])"
    )
    ended = await run_command(python(code), {}, timeout_s=30.0)
    assert (ended.outcome, ended.output) == (HookOutcome.DONE, "started")


async def test_a_command_for_which_no_file_descriptor_is_left_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """H2: the outcome of the hook would stay "running", and a VM whose hook runs never opens."""

    def no_pipe() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe", no_pipe)
    ended = await run_command(python(""), {}, timeout_s=PLENTY_S)
    assert ended.outcome is HookOutcome.FAILED
    assert "cannot be started (Too many open files)" in ended.problem


async def test_the_last_output_is_read_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command prints right before it ends explains why it failed."""
    ended, wait, keep = asyncio.Event(), asyncio.subprocess.Process.wait, hooks._keep_tail

    async def wait_and_note(process: asyncio.subprocess.Process) -> int:
        code = await wait(process)
        ended.set()
        return code

    async def keep_late(output: int, tail: bytearray) -> None:
        await ended.wait()
        await keep(output, tail)

    monkeypatch.setattr(asyncio.subprocess.Process, "wait", wait_and_note)
    monkeypatch.setattr(hooks, "_keep_tail", keep_late)
    monkeypatch.setattr(hooks, "LAST_OUTPUT_S", PLENTY_S)
    failed = await run_command(
        python("import sys; print('no'); sys.exit(3)"), {}, timeout_s=PLENTY_S
    )
    assert "ended with 3: no" in failed.problem


async def test_megabytes_of_output_are_not_kept() -> None:
    """The command is not blocked, and only the end is kept."""
    code = "import sys; sys.stdout.write('x' * 5_000_000 + '\\nlast line\\x1b[2J\\n')"
    ended = await run_command(python(code), {}, timeout_s=PLENTY_S)
    assert ended.outcome is HookOutcome.DONE
    assert ended.output.startswith("last line")
    assert "\x1b" not in ended.output


@pytest.mark.parametrize("kind", ["missing", "not executable", "a directory", "no program"])
async def test_a_command_that_cannot_be_started(tmp_path: Path, kind: str) -> None:
    """The problem names the path and what to correct."""
    path = tmp_path / "hook"
    if kind == "not executable":
        path.write_text("#!/bin/sh\n")
    elif kind == "a directory":
        path.mkdir()
    elif kind == "no program":
        path.write_bytes(b"\x00\x01\x02")
        path.chmod(0o755)
    ended = await run_command((str(path),), {}, timeout_s=PLENTY_S)
    assert ended.outcome is HookOutcome.FAILED
    assert str(path) in ended.problem
