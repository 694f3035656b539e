"""Calls that a system does not have: a clock of the boot, Unix sockets, `poll`, process groups."""

import asyncio
import io
import os
import select
import socket
import sys
import time
from pathlib import Path

import pytest

from controller.observability import logs
from controller.observability.journald import Journal
from controller.observability.systemd_notify import SystemdNotifier
from controller.simulator.app import started_agents
from controller.system.processes import PosixGroups
from controller.system.unix_sockets import datagram_socket
from controller.system.uptime import up_s


def test_the_clock_of_the_boot_is_used() -> None:
    """On Linux it counts suspended time, which the monotonic clock does not."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= up_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("missing", ["CLOCK_BOOTTIME", "clock_gettime"])
def test_without_it_the_monotonic_clock_is_used(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """On Windows that one counts from the start of the machine."""
    monkeypatch.delattr(time, missing)
    before = time.monotonic()
    assert before <= up_s() <= time.monotonic()


def test_a_unix_socket_is_not_inherited() -> None:
    """A hook must not hold the agent's connection to the journal."""
    found = datagram_socket()
    assert found is not None
    with found:
        assert not found.get_inheritable()


def test_without_unix_sockets_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """sd_notify and the journal report that there is no receiver, and raise nothing."""
    monkeypatch.delattr(socket, "AF_UNIX")
    assert datagram_socket() is None
    assert not SystemdNotifier({"NOTIFY_SOCKET": "/run/systemd/notify"}).ready()
    journal = Journal(tmp_path / "socket")
    assert not journal.send({"MESSAGE": "x"})
    journal.close()


def test_without_poll_a_stream_is_taken_as_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that the journal does not take is then written, not dropped."""
    monkeypatch.delattr(select, "poll")
    assert logs._takes_a_line(io.StringIO())


async def test_without_process_groups_nothing_is_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that is missing raises nothing: the caller goes on to wait."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    try:
        monkeypatch.delattr(os, "killpg")
        PosixGroups().ask_to_end(process)
        await PosixGroups().kill(process)
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()


def test_without_user_ids_no_agent_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The simulator then stops no process at all."""
    monkeypatch.delattr(os, "getuid")
    assert started_agents.agent_processes(tmp_path / "web-1.toml") == []
