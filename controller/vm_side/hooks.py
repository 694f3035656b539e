"""Runs the command of a hook: no shell, a deadline, bounded output. Never raises."""

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.core.blob_limits import cut
from controller.core.vm_report import HookOutcome
from controller.system.pipes import read_pipe
from controller.system.processes import GROUPS

MAX_OUTPUT_BYTES = 4096
"""Of the end of the output that is kept; a command may print megabytes."""
LAST_OUTPUT_S = 1.0
"""How long the output of a command is read after its end."""
KILL_AFTER_S = 2.0
"""A command that is asked to stop has that many seconds."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    outcome: HookOutcome
    problem: str = ""
    output: str = ""
    """The end of what it printed."""


async def run_command(
    command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float
) -> Ended:
    """Run a command in a process group of its own, until it ends or its time is over."""
    # Not a pipe of asyncio: its `wait` lasts until every child that the command left has closed it.
    try:
        output, for_command = os.pipe()
    except OSError as error:
        return _not_started(command, error, "look for what holds so many open files")
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=for_command,
            stderr=for_command,
            env=dict(environment),
            **GROUPS.options,
        )
    except (OSError, ValueError) as error:
        os.close(output)
        return _not_started(command, error, "correct its path and permissions")
    finally:
        os.close(for_command)
    tail = bytearray()
    reading = asyncio.create_task(_keep_tail(output, tail))
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError:
        await _stop(process)
        problem = f"the hook {command[0]} did not end within {timeout_s:g} s and was stopped"
        return Ended(HookOutcome.TIMED_OUT, problem, _text(tail))
    except asyncio.CancelledError:
        await GROUPS.kill(process)
        raise
    finally:
        # The end of the output may still be in the pipe.
        await asyncio.wait({reading}, timeout=LAST_OUTPUT_S)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    if code != 0:
        last = _text(tail)
        problem = f"the hook {command[0]} ended with {code}" + (f": {last}" if last else "")
        return Ended(HookOutcome.FAILED, cut(problem), last)
    return Ended(HookOutcome.DONE, output=_text(tail))


def _not_started(command: Sequence[str], error: OSError | ValueError, remedy: str) -> Ended:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    problem = f"the hook {command[0]} cannot be started ({reason}): {remedy}"
    return Ended(HookOutcome.FAILED, problem)


async def _keep_tail(output: int, tail: bytearray) -> None:
    """Read everything from the pipe `output`, keep the end, and close it."""

    def keep(read: bytes) -> None:
        tail.extend(read)
        del tail[:-MAX_OUTPUT_BYTES]

    await read_pipe(output, keep)


def _text(tail: bytearray) -> str:
    lines = tail.decode(errors="replace").strip().splitlines()
    return cut(lines[-1]) if lines else ""


async def _stop(process: asyncio.subprocess.Process) -> None:
    GROUPS.ask_to_end(process)
    try:
        async with asyncio.timeout(KILL_AFTER_S):
            await process.wait()
    except TimeoutError:
        pass
    await GROUPS.kill(process)
    await process.wait()
