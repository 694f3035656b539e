"""Asks the privileged endpoints of a Hub through a command of the operator, one after the other.

The machines behind the endpoints restart during a full update, so each is tried until one answers
(Microsoft docs, "Monitor updates in Azure Stack Hub using the privileged endpoint"). The command
gets the endpoint as its last argument. No shell, a deadline, bounded output.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from controller.config.update_watch import UpdateWatch
from controller.core.hub_status import EndpointStatus, read_status
from controller.core.printable import excerpt
from controller.errors import ContractViolation
from controller.system.processes import GROUPS

MAX_OUTPUT_BYTES = 8 * 1024 * 1024
"""The XML of a full update has some hundred kilobytes."""
SHOWN_CHARACTERS = 150
"""Of the last line of stderr in a message."""
LAST_WAIT_S = 2.0
"""How long a stopped command may take to be gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the privileged endpoints report."""

    endpoint: str = ""
    """The endpoint that has answered."""
    status: EndpointStatus | None = None
    problems: tuple[str, ...] = ()
    """Why each endpoint before it has not answered."""


async def ask(settings: UpdateWatch) -> Answer:
    """Return the answer of the first endpoint that has one. Never raises a ControllerError."""
    problems: list[str] = []
    for endpoint in settings.privileged_endpoints:
        command = (*settings.command, endpoint)
        try:
            output = await _output_of(command, settings.command_timeout_s)
            status = read_status(output)
        except ContractViolation as error:
            problems.append(f"{endpoint}: {error}")
            continue
        return Answer(endpoint=endpoint, status=status, problems=tuple(problems))
    return Answer(problems=tuple(problems))


async def _output_of(command: Sequence[str], timeout_s: float) -> bytes:
    """Run a command in a process group of its own; return what it prints.

    Raises:
        ContractViolation: it cannot be started, does not end in time, fails, or prints too much.
    """
    process = await _start(command)
    try:
        async with asyncio.timeout(timeout_s):
            output, errors, code = await asyncio.gather(
                _read(process.stdout), _read(process.stderr), process.wait()
            )
    except TimeoutError:
        raise ContractViolation(
            f"{command[0]} did not end within {timeout_s:g} s and was stopped"
        ) from None
    finally:
        await _stop(process)
    if code != 0:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        shown = f": {excerpt(last, limit=SHOWN_CHARACTERS)}" if last else ""
        raise ContractViolation(f"{command[0]} ended with {code}{shown}")
    if len(output) > MAX_OUTPUT_BYTES:
        raise ContractViolation(f"{command[0]} printed more than {MAX_OUTPUT_BYTES} bytes")
    return output


async def _start(command: Sequence[str]) -> asyncio.subprocess.Process:
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            **GROUPS.options,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # A start that is cancelled would wait until every child has closed the pipes.
        with contextlib.suppress(OSError, ValueError):
            await _stop(await starting)
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ContractViolation(
            f"{command[0]} cannot be started ({reason}): correct update_watch.command, or the "
            "permissions of the file"
        ) from None


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """Read to the end; of more than the limit, keep enough to notice that."""
    kept = bytearray()
    while stream is not None and (block := await stream.read(65_536)):
        kept += block[: MAX_OUTPUT_BYTES + 1 - len(kept)]
    return bytes(kept)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the process group: the command, and everything that it has started."""
    await GROUPS.kill(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WAIT_S):
            await process.communicate()  # the pipes are closed only when they are read to the end
