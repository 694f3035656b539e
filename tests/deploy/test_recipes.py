"""The recipes of `deploy/recipes`, with the real servers: closed while the flag file exists."""

import http.client
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from controller.probe.settings import ProbeSettings
from tests.deploy.test_unit_file import analyze
from tests.support import web_servers
from tests.support.patience import PATIENCE_S
from tests.support.ports import free_port

FLAG = '{"event_type": "Reboot"}\n'


class Application(ThreadingHTTPServer):
    """The application behind a server; the answer to /slow is due when `finish` is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.finish = threading.Event(), threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        application = self.server
        assert isinstance(application, Application)
        if self.path == "/slow":
            application.asked.set()
            application.finish.wait(PATIENCE_S)
        self.answer(f"answer to {self.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(f"{len(body)} bytes")

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- of the interface
        pass


class Vm:
    """A server with its recipe before an application."""

    def __init__(self, port: int, flag: Path, application: Application, log: Path) -> None:
        self.port, self.flag, self.application, self.log = port, flag, application, log

    def close(self) -> None:
        """Close it as the agent does."""
        new = self.flag.with_suffix(".new")
        new.write_text(FLAG)
        new.replace(self.flag)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def health(self) -> int:
        """Return the status of the health page, 0 if there is no answer."""
        connection = self.connect()
        try:
            connection.request("GET", "/healthz", headers={"Connection": "close"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def until_health(self, status: int) -> None:
        """Wait until the health page has this status."""
        until(f"health {status}; log: {self.log}", lambda: self.health() == status)


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}"
        threading.Event().wait(0.05)


def ask(
    connection: http.client.HTTPConnection, path: str = "/", body: bytes | None = None
) -> tuple[int, str, bool]:
    """Make a request; return the status, the body, and whether the connection ends."""
    connection.request("GET" if body is None else "POST", path, body=body)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.will_close


@contextmanager
def responder(flag: Path, port: int) -> Iterator[None]:
    """Run the responder of the probe."""
    settings = ProbeSettings(
        host="127.0.0.1",
        port=port,
        path="/",
        check="",
        allow=("127.0.0.0/8",),
        flag_file=str(flag),
        open_after_s=3600,
    )
    command = [sys.executable, "-m", "controller.probe", settings.to_json()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        web_servers.end(process)


@pytest.fixture(params=list(web_servers.SERVERS))
def vm(request: pytest.FixtureRequest) -> Iterator[Vm]:
    """A running server of each kind."""
    name = str(request.param)
    if web_servers.program(name) is None:
        pytest.skip(f"{name} is not installed (Debian packages nginx, apache2-bin, haproxy)")
    with ExitStack() as stack:
        shared = stack.enter_context(web_servers.public_directory("lb-drain-flag-"))
        own = stack.enter_context(web_servers.public_directory("lb-drain-server-"))
        application = stack.enter_context(Application())
        thread = threading.Thread(target=application.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(application.shutdown)
        stack.callback(application.finish.set)
        place = web_servers.Place(
            directory=own,
            port=free_port(),
            flag_file=shared / "draining",
            application_port=application.server_port,
            responder_port=free_port(),
        )
        if name == "haproxy":
            stack.enter_context(responder(place.flag_file, place.responder_port))
        command = web_servers.SERVERS[name](place)
        stack.callback(web_servers.end, web_servers.start(command, own))
        yield Vm(place.port, place.flag_file, application, own / "log")


@pytest.mark.slow
def test_a_closed_vm_asks_its_clients_to_leave_and_goes_on_serving(vm: Vm) -> None:
    """Open: keep-alive, health 200. Closed: the last answer on each connection, health 503."""
    vm.until_health(200)
    kept, slow = vm.connect(), vm.connect()
    assert ask(kept) == (200, "answer to /", False)
    assert ask(kept) == (200, "answer to /", False)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(ask, slow, "/slow")
        assert vm.application.asked.wait(PATIENCE_S)

        vm.close()
        vm.until_health(503)
        assert ask(kept) == (200, "answer to /", True), "an old connection"
        new = vm.connect()
        assert ask(new, "/page?a=b%20c") == (200, "answer to /page?a=b%20c", True)
        assert ask(vm.connect(), body=b"x" * 300_000) == (200, "300000 bytes", True)

        assert not under_way.done()
        vm.application.finish.set()
        status, text, _ = under_way.result(PATIENCE_S)
        assert (status, text) == (200, "answer to /slow")

    vm.flag.unlink()
    vm.until_health(200)
    again = vm.connect()
    assert ask(again) == ask(again) == (200, "answer to /", False)
    for connection in (kept, slow, new, again):
        connection.close()


@pytest.mark.slow
def test_haproxy_without_a_responder_is_open() -> None:
    """The responder is not started, or has died: clients are served, and keep their connections."""
    if web_servers.program("haproxy") is None:
        pytest.skip("haproxy is not installed")
    with ExitStack() as stack:
        own = stack.enter_context(web_servers.public_directory("lb-drain-server-"))
        application = stack.enter_context(Application())
        thread = threading.Thread(target=application.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(application.shutdown)
        place = web_servers.Place(
            directory=own,
            port=free_port(),
            flag_file=own / "draining",
            application_port=application.server_port,
            responder_port=free_port(),
        )
        process = web_servers.start(web_servers.haproxy(place), own)
        stack.callback(web_servers.end, process)
        vm = Vm(place.port, place.flag_file, application, own / "log")
        vm.until_health(200)
        until("HAProxy misses it", lambda: (own / "log").read_text().count("is DOWN") >= 2)
        connection = vm.connect()
        assert ask(connection) == ask(connection) == (200, "answer to /", False)
        assert vm.health() == 200
        connection.close()


# --- systemd ---

UNITS = ("lb-drain-closed.path", "lb-drain-closed.service")


def test_systemd_knows_everything_in_the_units(tmp_path: Path) -> None:
    """systemd loads both units without a word about them; the operator's commands are `true`."""
    for unit in UNITS:
        text = (web_servers.RECIPES / "systemd" / unit).read_text()
        (tmp_path / unit).write_text(re.sub(r"/usr/local/sbin/[a-z-]+", "/bin/true", text))
    reported = analyze("verify", "--man=no", *(str(tmp_path / unit) for unit in UNITS))
    assert [line for line in reported.stderr.splitlines() if "lb-drain" in line] == []
    assert reported.returncode == 0, reported.stderr


@pytest.mark.slow
def test_the_commands_of_the_unit_run_once_each(tmp_path: Path) -> None:
    """In the order of systemd: closed when the flag appears, opened when it is gone."""
    flag, log = tmp_path / "draining", tmp_path / "log"
    log.touch()
    text = (web_servers.RECIPES / "systemd" / UNITS[1]).read_text()
    text = text.replace(web_servers.FLAG_FILE, str(flag))
    text = re.sub(r"/usr/local/sbin/application-([a-z]+)", rf"echo \1 >> {log}", text)
    commands = [
        re.findall(rf"^{name}=-?(.*)$", text, re.MULTILINE)[0]
        for name in ("ExecStartPre", "ExecStart", "ExecStopPost")
    ]
    flag.write_text(FLAG)
    ran = subprocess.Popen(["/bin/sh", "-c", " && ".join(commands)])
    try:
        until("the VM is closed", lambda: log.read_text() == "closed\n")
        assert ran.poll() is None, "the service is active while the flag file exists"
        flag.unlink()
        assert ran.wait(PATIENCE_S) == 0
        assert log.read_text() == "closed\nopened\n"
    finally:
        ran.kill()
        ran.wait()


def test_no_check_asks_a_page_that_looks_at_the_flag_file() -> None:
    """The flag file goes when the check succeeds: the VM would stay closed after a drain."""
    kestrel = (web_servers.RECIPES / "kestrel" / "README.md").read_text()
    pages = dict(re.findall(r'MapGet\("([^"]+)", \(\) => (.*)\);', kestrel))
    with_flag = {page for page, answer in pages.items() if "flag" in answer}
    runbook = (web_servers.RECIPES.parent / "README.md").read_text()
    for text in (kestrel, runbook):
        checks = re.findall(r'^ *check = "http://[^/]+(/[^"]*)"', text, re.MULTILINE)
        assert checks
        assert not with_flag & set(checks)
    assert set(re.findall(r"^check = .*8080(/\w+)", kestrel, re.MULTILINE)) <= set(pages)
