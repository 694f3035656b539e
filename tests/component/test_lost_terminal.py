"""Commands whose terminal, reader or disk is gone while they work."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.operator.controls import pause
from tests.component.conftest import OpenClient
from tests.component.test_manual_drain import blob
from tests.support.in_process_set import InProcessSet
from tests.support.lb_drain import LB_DRAIN, environment
from tests.support.patience import PATIENCE_S


def with_terminal() -> None:
    """Take signals as a command of a terminal does, also where the tests run in the background."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


async def command(bench: InProcessSet, *arguments: str, stdout: Path) -> asyncio.subprocess.Process:
    with stdout.open("wb") as out:
        return await asyncio.create_subprocess_exec(
            *(*LB_DRAIN, *arguments, "--config", str(bench.config("web-1"))),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
            preexec_fn=with_terminal,
        )


async def ended(process: asyncio.subprocess.Process) -> int:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
async def test_a_rolling_run_whose_session_is_gone_ends_its_command(
    bench: InProcessSet, clients: OpenClient, tmp_path: Path
) -> None:
    """Without SSH the work would go on alone, and the drain would end under it."""
    await bench.lead("web-1")
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    work = f"echo $$ > {pipe}; exec sleep 600"
    rolling = await command(bench, "roll", "web-2", "--command", work, stdout=tmp_path / "out")
    shell = int(await asyncio.to_thread(pipe.read_text))
    rolling.send_signal(signal.SIGHUP)
    assert await ended(rolling) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(shell, 0)
    assert blob(bench)["roll"]["failed"] == "web-2: interrupted"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
async def test_a_rolling_run_goes_on_without_its_output(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """A full disk under the log of the command is a failure of the log alone."""
    await bench.lead("web-1")
    rolling = await command(
        bench, "roll", "web-2", "--command", "true", "--for", "1m", stdout=Path("/dev/full")
    )
    assert await ended(rolling) == 1
    assert blob(bench)["roll"]["done"] == ["web-2"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_is_lost_is_a_failure() -> None:
    """One line states it, without a trace, also if it shows only at the end of the process."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            (*LB_DRAIN, "version"),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
            timeout=PATIENCE_S,
        )
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("lb-drain: the output cannot be written completely: No space left")


async def test_a_reason_that_the_locale_does_not_have_is_printed_escaped(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """A traceback in the place of the output would hide what was done."""
    async with clients() as client:
        await pause(client, for_s=600, reason="été")
    process = await asyncio.create_subprocess_exec(
        *(*LB_DRAIN, "resume", "--config", str(bench.config("web-1"))),
        stdout=asyncio.subprocess.PIPE,
        env={**environment(), "PYTHONIOENCODING": "ascii"},
    )
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert b"(\\xe9t\\xe9) is ended" in output
