"""`lb-drain update-watch` as a process against a simulated Hub: success, failure, and an outage."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller.cli.update_watch import EXIT_IN_PROGRESS, EXIT_UNKNOWN, EXIT_UPDATE_FAILED
from controller.simulator.services.faults import Effect
from tests.support.hub import SimulatedHub, simulated_hub
from tests.support.lb_drain import LB_DRAIN, environment
from tests.support.patience import PATIENCE_S
from tests.support.receivers import CANARY, Hook, open_hook

COMPLETED = "print(\"<Action Status='Completed'/>\")"
ENDPOINTS = ["ercs01", "ercs02"]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[SimulatedHub]:
    async with simulated_hub(tmp_path) as hub:
        yield hub


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async with open_hook() as opened:
        yield opened


@asynccontextmanager
async def running(config: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *LB_DRAIN,
        "update-watch",
        *arguments,
        "--config",
        str(config),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**environment(), "NO_PROXY": "*"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Return the exit code and the output of a process."""
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def once(config: Path) -> tuple[int, str]:
    async with running(config, "--once") as process:
        return await ended(process)


@pytest.mark.parametrize(
    ("result", "kind", "code"),
    [("succeeds", "update_succeeded", 0), ("fails", "update_failed", EXIT_UPDATE_FAILED)],
)
async def test_the_end_of_a_run_is_announced(
    rig: SimulatedHub, hook: Hook, result: str, kind: str, code: int
) -> None:
    """Success as plainly as failure; the watch ends with the run, and its code is the outcome."""
    rig.start(run_s=3600)
    async with running(rig.config(url=hook.url)) as process:
        await hook.until(lambda: hook.kinds() == ["update_started"])
        rig.end(result=result)  # type: ignore[arg-type]
        await hook.until(lambda: hook.kinds() == ["update_started", kind])
        assert (await ended(process))[0] == code
    assert hook.bodies[1]["level"] == ("info" if code == 0 else "warning")
    assert "update M1 has" in hook.bodies[1]["text"]


async def test_an_outage_for_good_raises_the_alarm_and_asks_the_endpoints(
    rig: SimulatedHub, hook: Hook
) -> None:
    """After the configured polls the state is unknown; then the second endpoint answers."""
    rig.start(run_s=3600)
    text = f"import sys\nsys.exit(1) if sys.argv[1] == 'ercs01' else {COMPLETED}"
    config = rig.config(
        url=hook.url, command=rig.pep(text), privileged_endpoints=ENDPOINTS, failed_polls=3
    )
    expected = ["update_started", "update_unknown", "update_succeeded"]
    async with running(config) as process:
        await hook.until(lambda: hook.kinds() == expected[:1])
        rig.hub.take_down(at=rig.server.world.now, for_s=None)
        gone_at = time.monotonic()
        await hook.until(lambda: hook.kinds() == expected[:2])
        alarmed_at = time.monotonic()
        await hook.until(lambda: hook.kinds() == expected)
        process.send_signal(signal.SIGTERM)
        code, output = await ended(process)
    assert code == 143, output
    # Not before the third failed poll; the bound of the second is that of the command.
    assert alarmed_at - gone_at >= 1.0
    assert time.monotonic() - alarmed_at < 2 * 30
    assert "3 polls in a row have failed" in hook.bodies[1]["text"]
    assert "ercs02 reports Completed" in hook.bodies[2]["text"]


async def test_an_outage_for_a_while_ends_with_what_happened_in_it(
    rig: SimulatedHub, hook: Hook
) -> None:
    """The endpoint answers again, and the success is not lost."""
    rig.start(run_s=3600)
    async with running(rig.config(url=hook.url)) as process:
        await hook.until(lambda: hook.kinds() == ["update_started"])
        rig.hub.take_down(at=rig.server.world.now, for_s=None)
        await hook.until(lambda: "update_unknown" in hook.kinds())
        rig.end()
        rig.hub.bring_back()
        assert (await ended(process))[0] == 0
    assert hook.kinds() == [
        "update_started",
        "update_unknown",
        "update_known",
        "update_succeeded",
    ]


async def test_single_polls_remember_what_was_reported(rig: SimulatedHub, hook: Hook) -> None:
    """As a timer starts them: each change once, failed polls in a row count."""
    text = "import sys\nprint('garbage')"
    config = rig.config(url=hook.url, command=rig.pep(text), privileged_endpoints=ENDPOINTS)
    codes = [(await once(config))[0]]
    rig.start(run_s=3600)
    codes += [(await once(config))[0], (await once(config))[0]]
    rig.hub.take_down(at=rig.server.world.now, for_s=None)
    codes += [(await once(config))[0], (await once(config))[0], (await once(config))[0]]
    rig.hub.bring_back()
    rig.end(result="fails")
    codes.append((await once(config))[0])
    assert codes == [
        0,
        EXIT_IN_PROGRESS,
        EXIT_IN_PROGRESS,
        1,
        EXIT_UNKNOWN,
        EXIT_UNKNOWN,
        EXIT_UPDATE_FAILED,
    ]
    assert hook.kinds() == [
        "update_started",
        "update_unknown",
        "update_unknown",
        "update_known",
        "update_failed",
    ]
    assert "no privileged endpoint has an answer" in hook.bodies[2]["text"]


async def test_a_quiet_poll_prints_nothing(rig: SimulatedHub) -> None:
    """cron sends mail for every line."""
    config = rig.config()
    rig.start()
    code, output = await once(config)
    assert code == 0
    assert "update M1 has succeeded" in output
    assert await once(config) == (0, "")


async def test_a_notice_that_the_receiver_refuses_is_sent_with_the_next_poll(
    rig: SimulatedHub, hook: Hook
) -> None:
    """A success is not lost because a chat service had a bad minute."""
    config = rig.config(url=hook.url)
    rig.start()
    hook.script = [403]
    code, output = await once(config)
    assert (code, hook.bodies) == (0, [])
    assert "was not delivered" in output
    await once(config)
    await once(config)
    assert hook.kinds() == ["update_succeeded"]


async def test_a_hanging_hub_and_a_hanging_command_end_in_time(rig: SimulatedHub) -> None:
    """Both have a deadline, and the exit code is that of an unknown state."""
    rig.fault(Effect.HANG, path_contains="updateLocations")
    config = rig.config(
        command=rig.pep("import time\ntime.sleep(600)"),
        privileged_endpoints=ENDPOINTS,
        timeout_s=1,
        failed_polls=1,
        command_timeout_s=1,
    )
    code, output = await once(config)
    assert code == EXIT_UNKNOWN
    assert "no complete answer" in output
    assert output.count("did not end within 1 s") == 2


async def test_the_secret_is_in_no_output(rig: SimulatedHub) -> None:
    """Neither when the identity provider refuses it, nor when the Hub fails."""
    rig.secret.write_text(CANARY)
    code, output = await once(rig.config())
    assert code == 1
    assert "was refused" in output
    assert CANARY not in output


async def test_problems_of_the_configuration_are_known_before_a_poll(rig: SimulatedHub) -> None:
    """Exit code 78 and no request, for a wrong key, a missing secret and a missing table."""
    asked = len(rig.server.world.request_counts)
    wrong = rig.config(failed_polls=0)
    code, output = await once(wrong)
    assert (code, "update_watch.failed_polls: must be at least 1" in output) == (78, True)
    rig.secret.unlink()
    code, output = await once(rig.config())
    assert (code, "update_watch.secret_file" in output) == (78, True)
    code, output = await once(rig.config(ca_file=str(rig.directory / "hub.toml")))
    assert (code, "cannot be used" in output) == (78, True)
    wrong.write_text("[policy]\n")
    code, output = await once(wrong)
    assert (code, "update_watch: is required" in output) == (78, True)
    assert len(rig.server.world.request_counts) == asked


async def test_a_state_file_that_cannot_be_written_is_a_failure(rig: SimulatedHub) -> None:
    """The update succeeded, but the next poll would report it again: that has to be noticed."""
    rig.start()
    code, output = await once(rig.config(state_file=str(rig.directory / "none" / "state.json")))
    assert code == 1
    assert "update M1 has succeeded" in output
    assert "Create its directory" in output


async def test_two_watches_do_not_share_a_state_file(rig: SimulatedHub, hook: Hook) -> None:
    """The second one ends at once, with the reason."""
    rig.start(run_s=3600)
    config = rig.config(url=hook.url)
    async with running(config):
        await hook.until(lambda: hook.kinds() == ["update_started"])
        code, output = await once(config)
    assert code == 1
    assert "another `lb-drain update-watch` uses" in output


async def test_the_simulation_can_be_watched(tmp_path: Path) -> None:
    """The files that `lb-drain simulate` writes work as its README shows."""
    directory = str(tmp_path / "sim")
    simulation = await asyncio.create_subprocess_exec(
        *LB_DRAIN,
        "simulate",
        "--vms",
        "1",
        "--directory",
        directory,
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert simulation.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            await simulation.stdout.readline()
        control = ("simulate", "update", "M1", "--directory", directory)
        await _printed(*control, "--run", "3600", "--outage-after", "0")
        config = tmp_path / "sim" / "update-watch.toml"
        for _ in range(3):
            code, output = await once(config)
        assert code == EXIT_UNKNOWN
        assert "ercs01 reports InProgress" in output
    finally:
        simulation.terminate()
        await simulation.communicate()


async def _printed(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *LB_DRAIN, *arguments, stdout=asyncio.subprocess.PIPE, env=environment()
    )
    code, output = await ended(process)
    assert code == 0
    return output
