"""The probe responder on real sockets of loopback: what it answers, to which sources, and when."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from controller.probe import application_check, flag_file
from controller.probe.responder import Responder, serve
from controller.probe.settings import ProbeSettings
from controller.vm_side.responder_client import refused_probes

BALANCER = "127.0.0.2"
"""Probes of the load balancer come from another address than questions of this VM."""
OWN = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply."""

    status: int
    headers: dict[str, str]
    body: str


class Bench:
    """A responder that listens, and a flag file that can be set."""

    def __init__(self, directory: Path) -> None:
        self.flag = directory / "draining"
        self.settings = ProbeSettings(
            host=OWN,
            port=0,
            path="/health",
            check="",
            allow=("127.0.0.0/8",),
            flag_file=str(self.flag),
            open_after_s=3600,
        )
        self.stack = AsyncExitStack()
        self.port = 0

    async def start(self, **changes: object) -> None:
        """Start a responder with changed settings."""
        server = await Responder(replace(self.settings, **changes)).listen()  # type: ignore[arg-type]
        await self.stack.enter_async_context(server)
        self.port = server.sockets[0].getsockname()[1]

    def close_vm(self, **document: object) -> None:
        """Set the flag, as the agent does."""
        self.flag.write_text(json.dumps(document))

    async def raw(self, request: bytes, source: str = BALANCER) -> bytes:
        """Send bytes, and return everything that comes back."""
        reader, writer = await asyncio.open_connection(OWN, self.port, local_addr=(source, 0))
        writer.write(request)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def ask(self, line: str = "GET /health", source: str = BALANCER) -> Reply:
        """Send a request, and return the reply."""
        data = await self.raw(f"{line} HTTP/1.1\r\nHost: vm\r\n\r\n".encode(), source)
        head, _, body = data.decode().partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        headers = dict(each.split(": ", 1) for each in lines)
        return Reply(int(first.split()[1]), headers, body)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench; nothing listens yet."""
    bench = Bench(tmp_path)
    async with bench.stack:
        yield bench


async def test_an_open_vm_without_a_check_is_healthy(bench: Bench) -> None:
    """Without flag and check the answer is 200, with one line that states why."""
    await bench.start()
    reply = await bench.ask()
    assert (reply.status, reply.body) == (200, "open; no check is configured\n")
    assert reply.headers["Connection"] == "close"


async def test_a_closed_vm_answers_503_with_the_reason(bench: Bench) -> None:
    """While the flag file exists every probe gets 503, and opens again with its removal."""
    await bench.start()
    bench.close_vm(since="2026-01-01T00:00:00+00:00", event_type="Reboot")
    reply = await bench.ask()
    assert (reply.status, reply.body) == (503, "closed: drain for Reboot\n")
    bench.flag.unlink()
    assert (await bench.ask()).status == 200


@pytest.mark.parametrize("content", ["", "garbage", "[]", '{"event_type": 7}', "\x00" * 9000])
async def test_a_flag_file_with_any_content_closes(bench: Bench, content: str) -> None:
    """The file counts, not what is in it: an operator can create it with `touch`."""
    await bench.start()
    bench.flag.write_text(content)
    reply = await bench.ask()
    assert (reply.status, reply.body) == (503, "closed: drain\n")


async def test_the_flag_of_a_dead_agent_does_not_count(bench: Bench) -> None:
    """A flag that nothing renewed for open_after_s belongs to a dead agent: the VM opens (S9)."""
    await bench.start(open_after_s=60)
    bench.close_vm()
    status = bench.flag.stat()
    os.utime(bench.flag, (status.st_atime, status.st_mtime - 61))
    assert (await bench.ask()).status == 200


async def test_a_closed_vm_stays_closed_while_its_agent_restarts(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd removes the directory of a service that stops: for a moment that opens nothing."""
    directory = tmp_path / "run"
    directory.mkdir()
    path = directory / "draining"
    await bench.start(flag_file=str(path))
    path.write_text("")
    assert (await bench.ask()).status == 503
    path.unlink()
    directory.rmdir()
    assert (await bench.ask()).status == 503
    monkeypatch.setattr(flag_file, "RESTART_S", 0.0)
    assert (await bench.ask()).status == 200
    directory.mkdir()
    assert (await bench.ask()).status == 200


@pytest.mark.parametrize("stays_closed", [True, False])
async def test_a_closed_vm_stays_closed_until_its_agent_has_read_the_ledger(
    bench: Bench, tmp_path: Path, stays_closed: bool
) -> None:
    """The directory of a service that starts again is empty before the agent knows anything."""
    directory = tmp_path / "run"
    path, known = directory / "draining", directory / "draining.known"
    await bench.start(flag_file=str(path))
    directory.mkdir()
    path.write_text("")
    known.touch()
    assert (await bench.ask()).status == 503
    for each in (path, known):
        each.unlink()
    directory.rmdir()
    assert (await bench.ask()).status == 503
    directory.mkdir()
    assert (await bench.ask()).status == 503
    if stays_closed:
        path.write_text("")
    known.touch()
    assert (await bench.ask()).status == (503 if stays_closed else 200)


async def test_no_agent_that_reads_the_ledger_keeps_a_vm_closed_for_long(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S9: an agent that starts and reads no ledger leaves the VM closed for seconds only."""
    await bench.start()
    known = tmp_path / "draining.known"
    bench.close_vm()
    known.touch()
    assert (await bench.ask()).status == 503
    bench.flag.unlink()
    known.unlink()
    assert (await bench.ask()).status == 503
    monkeypatch.setattr(flag_file, "RESTART_S", 0.0)
    assert (await bench.ask()).status == 200


async def test_a_flag_from_the_future_does_not_count(bench: Bench) -> None:
    """A clock that was set back by a day must not keep the VM closed for a day (S9)."""
    await bench.start()
    bench.close_vm()
    status = bench.flag.stat()
    os.utime(bench.flag, (status.st_atime, status.st_mtime + 86_400))
    assert (await bench.ask()).status == 200


async def test_a_directory_in_the_place_of_the_flag_does_not_count(bench: Bench) -> None:
    """Only a regular file closes the VM."""
    await bench.start()
    bench.flag.mkdir()
    assert (await bench.ask()).status == 200


async def test_only_probes_of_the_load_balancer_are_counted(bench: Bench) -> None:
    """The reply counts the refused probes since the VM closed, without this VM's own questions."""
    await bench.start()
    bench.close_vm()
    await bench.ask(source=OWN)
    for _ in range(3):
        await bench.ask()
    counted = (await bench.ask(source=OWN)).headers["LB-Drain-Refused-Probes"]
    assert counted == "3"
    bench.flag.unlink()
    await bench.ask()
    bench.close_vm()
    assert (await bench.ask(source=OWN)).headers["LB-Drain-Refused-Probes"] == "0"


@pytest.mark.parametrize(
    ("source", "counted"),
    [("168.63.129.16", 1), ("fe80::1234%eth0", 1), ("::ffff:168.63.129.16", 1), ("10.0.0.5", 0)],
)
async def test_an_allowed_monitor_is_no_load_balancer(
    tmp_path: Path, source: str, counted: int
) -> None:
    """S1: the count is evidence that the load balancer has noticed; a monitor proves nothing."""
    bench = Bench(tmp_path)
    bench.close_vm()
    allow = ("168.63.129.16", "fe80::/10", "10.0.0.0/24")
    responder = Responder(replace(bench.settings, allow=allow))
    assert responder.allows(source)
    assert (await responder.answer("GET", "/health", source)).status == 503
    assert responder.refused == counted


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /other", 404),
        ("POST /health", 405),
        ("DELETE /health", 405),
        ("GET /health?from=azure", 200),
        ("HEAD /health", 200),
    ],
)
async def test_only_get_and_head_of_one_path(bench: Bench, line: str, status: int) -> None:
    """Everything else is refused with the reason; HEAD has no body."""
    await bench.start()
    reply = await bench.ask(line)
    assert reply.status == status
    assert bool(reply.body) is not line.startswith("HEAD")


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"a b c\n\n"]
)
async def test_what_is_no_http_request_gets_400(bench: Bench, request_: bytes) -> None:
    """Garbage is answered, not followed by a traceback."""
    await bench.start()
    assert (await bench.raw(request_)).startswith(b"HTTP/1.1 400 ")


async def test_a_request_without_end_is_cut(bench: Bench) -> None:
    """A head of more than 8 kB closes the connection."""
    await bench.start()
    assert await bench.raw(b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 4000) == b""


async def test_other_sources_get_no_answer(bench: Bench) -> None:
    """A source that is not allowed is cut off before it sends anything."""
    await bench.start(allow=("127.0.0.2/32", "fe80::/10"))
    assert await bench.raw(b"GET /health HTTP/1.1\r\n\r\n", source="127.0.0.3") == b""
    assert (await bench.ask()).status == 200


async def test_this_vm_always_gets_an_answer(bench: Bench) -> None:
    """With `listen` on the address of its interface, the agent asks from that address too."""
    await bench.start(host="127.0.0.4", allow=("168.63.129.16",))
    bench.close_vm()
    reader, writer = await asyncio.open_connection(
        "127.0.0.4", bench.port, local_addr=("127.0.0.4", 0)
    )
    writer.write(b"GET /health HTTP/1.1\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    writer.close()


# --- the application's own check ---


Answers = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


async def application(bench: Bench, reply: bytes) -> tuple[int, list[bytes]]:
    """Start an application that sends the same bytes to every request; return port and requests."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, OWN, 0)
    await bench.stack.enter_async_context(server)
    return server.sockets[0].getsockname()[1], requests


@pytest.mark.parametrize(
    ("reply", "status", "text"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 200, "answers 200"),
        (b"HTTP/1.0 200\r\n\r\n", 200, "answers 200"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 503, "answers 204"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", 503, "answers 302"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 503, "answers 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 503, "did not answer with HTTP"),
        (b"\r\n", 503, "did not answer with HTTP"),
        (b"", 503, "did not answer with HTTP"),
        (b"x" * 100_000, 503, "did not answer with HTTP"),
    ],
)
async def test_an_open_vm_answers_as_its_application(
    bench: Bench, reply: bytes, status: int, text: str
) -> None:
    """Only 200 is healthy, as for the load balancer; a redirect is not followed."""
    port, _ = await application(bench, reply)
    await bench.start(check=f"http://{OWN}:{port}/healthz")
    answer = await bench.ask()
    assert answer.status == status
    assert text in answer.body


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_the_status_of_a_check_is_known(bench: Bench, status: int) -> None:
    """A 503 can be the answer to the flag file; without an HTTP answer there is none."""
    port, _ = await application(bench, f"HTTP/1.1 {status} X\r\n\r\n".encode())
    found = await application_check.ApplicationCheck(f"http://{OWN}:{port}/").readiness()
    assert (found.status, found.ready) == (status, status == 200)
    other, _ = await application(bench, b"no HTTP")
    found = await application_check.ApplicationCheck(f"http://{OWN}:{other}/").readiness()
    assert (found.status, found.ready) == (0, False)


async def test_a_tcp_check(bench: Bench) -> None:
    """A tcp:// check is healthy while the port accepts connections."""
    with socket.create_server((OWN, 0)) as listening:
        port = listening.getsockname()[1]
        await bench.start(check=f"tcp://{OWN}:{port}")
        assert (await bench.ask()).status == 200
    await bench.start(check=f"tcp://{OWN}:{port}")
    answer = await bench.ask()
    assert (answer.status, answer.body) == (503, f"tcp://{OWN}:{port} refuses connections\n")


async def test_a_check_that_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check has bounded time; the probe gets an answer within it."""
    monkeypatch.setattr(application_check, "CHECK_TIMEOUT_S", 0.05)
    with socket.create_server((OWN, 0)) as listening:
        port = listening.getsockname()[1]
        await bench.start(check=f"http://{OWN}:{port}/")
        answer = await bench.ask()
    assert answer.status == 503
    assert "did not answer within" in answer.body


async def test_many_probes_are_one_check(bench: Bench) -> None:
    """The application is asked once for all probes of the same second."""
    port, requests = await application(bench, b"HTTP/1.1 200 OK\r\n\r\n")
    await bench.start(check=f"http://{OWN}:{port}/healthz?full=1")
    answers = await asyncio.gather(*(bench.ask() for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert len(requests) <= 2  # a second may have passed
    assert requests[0].startswith(b"GET /healthz?full=1 HTTP/1.1\r\nHost: ")


async def test_a_closed_vm_does_not_ask_its_application(bench: Bench) -> None:
    """The flag decides alone, so that a hanging application cannot keep the VM in rotation."""
    port, requests = await application(bench, b"HTTP/1.1 200 OK\r\n\r\n")
    await bench.start(check=f"http://{OWN}:{port}/")
    bench.close_vm()
    assert (await bench.ask()).status == 503
    assert requests == []


async def test_a_check_that_answers_byte_by_byte(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is that of the whole answer: a slow one is none."""
    monkeypatch.setattr(application_check, "CHECK_TIMEOUT_S", 0.3)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.01)

    server = await asyncio.start_server(drip, OWN, 0)
    await bench.stack.enter_async_context(server)
    await bench.start(check=f"http://{OWN}:{server.sockets[0].getsockname()[1]}/")
    answer = await bench.ask()
    assert answer.status == 503
    assert "did not answer within" in answer.body


async def test_a_client_that_closes_its_side_gets_the_answer(bench: Bench) -> None:
    """`nc -N` and some monitors do so after the request; the application takes its time."""
    port, _ = await application(bench, b"HTTP/1.1 200 OK\r\n\r\n")
    await bench.start(check=f"http://{OWN}:{port}/")
    reader, writer = await asyncio.open_connection(OWN, bench.port)
    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
async def test_all_addresses_are_those_of_ipv4_too(bench: Bench) -> None:
    """`[::]` answers the load balancer over IPv6 and over IPv4, and the agent on this VM."""
    await bench.start(host="::", allow=("127.0.0.0/8", "::1"))
    for host in (OWN, "::1"):
        assert await refused_probes(host, bench.port, "/health") == 0
    bench.close_vm()
    assert (await bench.ask()).status == 503
    assert await refused_probes(OWN, bench.port, "/health") == 1


def test_a_name_that_is_not_found_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message states the reason in words."""

    async def listen(_: Responder) -> asyncio.Server:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(Responder, "listen", listen)
    settings = ProbeSettings(
        host="web", port=1, path="/", check="", allow=(), flag_file="", open_after_s=60
    )
    reason = r"listen on web:1 \(Name or service not known\); stop the"
    with pytest.raises(SystemExit, match=reason):
        serve(settings)


async def test_a_port_in_use_is_reported() -> None:
    """The process ends with a message that names the port and what to do."""
    with socket.create_server((OWN, 0)) as listening:
        port = listening.getsockname()[1]
        settings = ProbeSettings(
            host=OWN, port=port, path="/", check="", allow=(), flag_file="", open_after_s=60
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "controller.probe",
            settings.to_json(),
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await process.communicate()
    assert process.returncode == 1
    assert f"cannot listen on {OWN}:{port} (Address already in use)".encode() in error
    assert b"change [probe] listen" in error
