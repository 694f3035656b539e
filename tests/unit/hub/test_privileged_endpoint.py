"""The second path: the command for each privileged endpoint, and everything it can do wrong."""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from controller.config.update_watch import UpdateWatch
from controller.hub import privileged_endpoint
from controller.hub.privileged_endpoint import Answer, ask
from tests.support.patience import PATIENCE_S
from tests.unit.config.test_update_watch import GUID

XML = "<Action Status='InProgress'/>"


def settings(command: Iterable[str], *endpoints: str, timeout_s: float = 60) -> UpdateWatch:
    return UpdateWatch(
        endpoint="https://adminmanagement.example",
        subscription=GUID,
        location="east",
        authority="https://adfs.example",
        tenant="adfs",
        client_id=GUID,
        scope="https://adminmanagement.example/1/.default",
        secret_file="/nonexistent",
        command=tuple(command),
        privileged_endpoints=endpoints or ("ercs01",),
        command_timeout_s=timeout_s,
    )


async def of_shell(script: str, *endpoints: str, timeout_s: float = 60) -> Answer:
    """Ask with a command that runs a shell script; $0 is the endpoint."""
    return await ask(settings(("/bin/sh", "-c", script), *endpoints, timeout_s=timeout_s))


async def test_the_endpoint_is_the_last_argument() -> None:
    """The command knows which endpoint to ask."""
    answer = await of_shell("echo \"<A Status='$0'/>\"", "ercs07")
    assert (answer.endpoint, answer.problems) == ("ercs07", ())
    assert answer.status is not None
    assert answer.status.status == "ercs07"


async def test_the_endpoints_are_tried_in_turn_until_one_answers() -> None:
    """Their machines restart during an update; those after the answer are left alone."""
    script = f'echo "$0" >&2; test "$0" = b || exit 3; echo "{XML}"'
    answer = await of_shell(script, "a", "b", "c")
    assert answer.endpoint == "b"
    assert answer.problems == ("a: /bin/sh ended with 3: a",)


async def test_no_endpoint_answers() -> None:
    """Each has its reason."""
    answer = await of_shell("echo no session >&2; exit 1", "a", "b")
    assert answer.status is None
    assert answer.problems == tuple(f"{each}: /bin/sh ended with 1: no session" for each in "ab")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("sleep 600", "did not end within 0.3 s and was stopped"),
        ("trap '' TERM HUP; sleep 600 & wait", "did not end within 0.3 s and was stopped"),
        ("sleep 600 & exit 0", "did not end within 0.3 s and was stopped"),
        ("while :; do echo yes; done", "did not end within 0.3 s and was stopped"),
    ],
    ids=["hangs", "ignores signals", "leaves a child", "prints without end"],
)
async def test_a_command_that_hangs_is_stopped(script: str, problem: str) -> None:
    """With everything that it has started, and soon."""
    async with asyncio.timeout(30):
        (found,) = (await of_shell(script, timeout_s=0.3)).problems
    assert problem in found


async def test_a_stopped_command_leaves_no_process(tmp_path: Path) -> None:
    """A session to a privileged endpoint must not stay open."""
    note = tmp_path / "pid"
    await of_shell(f"sleep 600 & echo $! > {note}; wait", timeout_s=1)
    assert await ended(int(note.read_text()))


async def ended(pid: int) -> bool:
    """Wait until a process that was killed is gone, or a zombie; return whether it is."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if _is_over(pid):
                return True
            await asyncio.sleep(0.01)


def _is_over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'Access is denied.'", "it printed no XML: Access is denied."),
        ("printf '\\001\\002<\\377'", "it printed no valid XML"),
        ("true", "it printed no XML: nothing"),
        (f'echo "{XML}"; exit 4', "ended with 4"),
        (f'echo "{XML}"; kill -9 $$', "ended with -9"),
    ],
    ids=["text", "noise", "nothing", "fails after its answer", "is killed"],
)
async def test_a_command_without_an_answer(script: str, problem: str) -> None:
    """Garbage, nothing, or an exit code that is not zero, whatever it printed before."""
    (found,) = (await of_shell(script)).problems
    assert problem in found
    assert found.isprintable()


@pytest.mark.parametrize("stream", ["", ">&2"])
async def test_megabytes_are_bounded(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    """Too much output is no answer; too much on stderr does not block the command."""
    monkeypatch.setattr(privileged_endpoint, "MAX_OUTPUT_BYTES", 1000)
    answer = await of_shell(f'head -c 3000000 /dev/zero {stream}; echo "{XML}"')
    if stream:
        assert answer.status is not None
    else:
        assert answer.problems == ("ercs01: /bin/sh printed more than 1000 bytes",)


@pytest.mark.parametrize("kind", ["missing", "not executable", "directory", "no program"])
async def test_a_command_that_cannot_be_started(tmp_path: Path, kind: str) -> None:
    """The message names the program and what to correct."""
    program = tmp_path / "status"
    if kind == "directory":
        program.mkdir()
    elif kind != "missing":
        program.write_bytes(b"\x7fELF no program")
        program.chmod(0o600 if kind == "not executable" else 0o700)
    (found,) = (await ask(settings((str(program),)))).problems
    assert f"{program} cannot be started" in found
    assert "update_watch.command" in found


async def test_the_command_has_the_environment_and_no_input() -> None:
    """It may need PATH, and must not wait for a password."""
    answer = await of_shell('read line; test -n "$PATH" && echo "<A Status=\'x$line\'/>"')
    assert answer.status is not None
    assert answer.status.status == "x"
    assert os.environ["PATH"]


@pytest.mark.parametrize("begun", [True, False])
async def test_a_watch_that_ends_ends_its_command(tmp_path: Path, begun: bool) -> None:
    """SIGTERM cancels the watch in the middle of a question, or of the start of the command."""
    note = tmp_path / "pid"
    os.mkfifo(note)
    asking = asyncio.create_task(of_shell(f"echo $$ > {note}; sleep 600 & wait"))
    if not begun:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({asking})
        return
    pid = int(await asyncio.to_thread(note.read_text))
    asking.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait({asking})
    assert await ended(pid)
