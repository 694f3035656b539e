"""What `lb-drain support-bundle` reads on this VM: versions, the journal, and the local agent."""

import asyncio
import json
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import distributions, version

import aiohttp
from yarl import URL

from controller.config.base import listen_address
from controller.core.drain_history import step_text
from controller.core.event_record import verdict_text
from controller.core.ledger import Ledger
from controller.errors import NotDone
from controller.system.service_manager import MANAGER

LOG_LINES = 1000
UNITS = ("lb-drain", "lb-drain-probe")
JOURNAL_WITHIN_S = 60.0
AGENT_WITHIN_S = 15.0
LONGEST_ANSWER = 16_000_000
"""Bytes of an answer of the local agent that are kept."""


def versions_text() -> str:
    """Return the versions of lb-drain, Python, the system and the installed packages as JSON."""
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        system = ""
    found = {
        "lb-drain": version("lb-drain-controller"),
        "python": platform.python_version(),
        "system": system or platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "packages": {each.name: each.version for each in sorted(distributions(), key=_name)},
    }
    return json.dumps(found, indent=2)


def history_text(ledger: Ledger) -> str:
    """Return the verdicts and the history of the ledger, oldest first."""
    return "\n".join(
        (
            "events and their verdicts (UTC):",
            *(_verdicts(ledger) or ("none",)),
            "",
            "history (UTC):",
            *(_transitions(ledger) or ("none",)),
        )
    )


async def journal_text() -> str:
    """Return the last lines of the journal of the units.

    Raises:
        NotDone: there is no journal, or this user must not read it.
    """
    program = shutil.which("journalctl")
    if program is None:
        raise NotDone("journalctl is not installed; the log is where the service manager writes it")
    units = [f"--unit={unit}" for unit in UNITS]
    options = (f"--lines={LOG_LINES}", "--output=short-iso-precise", "--no-pager", "--quiet")
    process = await asyncio.create_subprocess_exec(
        program,
        *units,
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(JOURNAL_WITHIN_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NotDone(f"journalctl did not answer within {JOURNAL_WITHIN_S:.0f} s") from None
    reported = err.decode(errors="replace").strip()
    if process.returncode:
        raise NotDone(f"journalctl failed with exit code {process.returncode}: {reported}")
    if not out.strip():
        units_text = " and ".join(UNITS)
        why = (
            reported or f"run this command {MANAGER.as_superuser}, on the VM where the service runs"
        )
        raise NotDone(f"the journal has no lines of {units_text}; {why}")
    return out.decode(errors="replace")


async def agent_answer(listen: str, path: str) -> str:
    """Return what the agent on this VM answers.

    Args:
        listen: `server.listen` of its configuration.
        path: such as "/metrics".

    Raises:
        NotDone: it does not answer.
    """
    if not listen:
        raise NotDone("server.listen is empty: the agent on this VM has no server")
    host, port = listen_address(listen)
    url = URL.build(scheme="http", host=host, port=port, path=path)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=AGENT_WITHIN_S)) as session,
            session.get(url, allow_redirects=False) as reply,
        ):
            body = await reply.content.read(LONGEST_ANSWER)
            while not reply.content.at_eof() and len(body) < LONGEST_ANSWER:
                body += await reply.content.read(LONGEST_ANSWER - len(body))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        why = getattr(error, "strerror", "") or str(error) or "no answer in time"
        raise NotDone(
            f"the agent on this VM does not answer at {url} ({why}); "
            f"`{MANAGER.status}` shows whether it runs"
        ) from None
    text = body.decode(errors="replace")
    return text if reply.status == 200 else f"HTTP {reply.status}\n{text}"


def _name(each: object) -> str:
    return str(getattr(each, "name", "")).casefold()


def _verdicts(ledger: Ledger) -> tuple[str, ...]:
    def lines() -> Iterator[str]:
        for each in ledger.verdicts:
            text = f"{each.event_type} {each.event_id}: {verdict_text(each)}"
            yield f"{each.at:%Y-%m-%d %H:%M:%S}  {each.vm}: {text}"

    return tuple(lines())


def _transitions(ledger: Ledger) -> tuple[str, ...]:
    def lines() -> Iterator[str]:
        for line in ledger.transitions:
            detail = f" ({line.detail})" if line.detail else ""
            yield f"{line.at:%Y-%m-%d %H:%M:%S}  {line.vm}: {step_text(line.step)}{detail}"

    return tuple(lines())
