"""Runs the product in a process that lacks what Windows lacks: `python -m ... COMMAND` or `import`.

Hidden are modules, attributes of `os`, `signal`, `socket`, `select` and `time`, and calls of the
event loop; `sys.platform` is `win32`, and `os.path` is that of Windows. The libraries are imported
before, with all that their Linux builds need. Files and processes stay those of Linux: this is no
Windows, and proves only that nothing in the product depends on what is hidden.
"""

import asyncio
import functools
import importlib
import json
import ntpath
import os
import select
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

EVENT_LOG = "WITHOUT_POSIX_EVENT_LOG"
"""The variable that names the file of the event log; without it there is no pywin32."""
LIBRARIES = (
    "aiohttp.web",
    "azure.core.pipeline.transport",
    "azure.identity.aio",
    "azure.mgmt.compute.aio",
    "azure.mgmt.network.aio",
    "azure.storage.blob.aio",
    "concurrent.futures.thread",
    "getpass",
    "prometheus_client",
    "pydantic.deprecated.decorator",
    "rich.console",
    "rich.live",
    "rich.table",
    "shtab",
    "tempfile",
    "trustme",
)
MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
ATTRIBUTES = (
    (os, ("chown", "chroot", "fchmod", "fchown", "fork", "geteuid", "getgid", "getpgid", "getuid",
          "killpg", "mkfifo", "setsid", "setuid", "uname", "getloadavg")),
    (signal, ("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP",
              "SIGUSR1", "SIGUSR2", "alarm", "pause", "setitimer")),
    (socket, ("AF_UNIX", "SOCK_CLOEXEC", "SOCK_NONBLOCK")),
    (select, ("epoll", "poll")),
    (time, ("CLOCK_BOOTTIME", "clock_gettime")),
)  # fmt: skip
LOOP = ("add_reader", "add_signal_handler", "add_writer", "connect_read_pipe", "remove_reader")
"""What the loop of Windows refuses: `connect_read_pipe` for a pipe of `os.pipe`."""


def hide() -> None:
    """Hide everything. The process cannot be used for anything else afterwards."""
    for name in LIBRARIES:
        importlib.import_module(name)
    # The loop needs a pair of sockets, which Windows makes of TCP sockets.
    pair = functools.partial(socket.socketpair, socket.AF_UNIX)
    socket.socketpair = pair
    # As if the stores of Windows were empty.
    ssl.enum_certificates = lambda _: []  # type: ignore[attr-defined]
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in ATTRIBUTES:
        for name in names:
            if hasattr(module, name):
                delattr(module, name)

    def refuse(*_: object) -> None:
        raise NotImplementedError

    for name in LOOP:
        setattr(asyncio.SelectorEventLoop, name, refuse)
    os.path = ntpath  # a path with a drive is absolute; one of Linux stays so
    sys.platform = "win32"


def install_event_log(path: Path) -> None:
    """Install a `win32evtlog` that appends each event to a file as JSON, and refuses without it."""

    def report(*event: object) -> None:
        _, level, _, number, _, texts, _ = event
        with path.open("a") as file:
            file.write(json.dumps({"level": level, "number": number, "texts": texts}) + "\n")

    module: Any = ModuleType("win32evtlog")
    module.RegisterEventSource = lambda _, source: source
    module.ReportEvent = report
    module.DeregisterEventSource = lambda _: None
    sys.modules["win32evtlog"] = module


def import_everything() -> list[str]:
    """Import every module of the product; return their names."""
    root = Path(__file__).parents[2]
    paths = sorted((root / "controller").rglob("*.py"))
    found = [
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for path in paths
        if path.name != "__main__.py"
    ]
    for name in found:
        importlib.import_module(name)
    return found


if __name__ == "__main__":
    hide()
    if EVENT_LOG in os.environ:
        install_event_log(Path(os.environ[EVENT_LOG]))
    if sys.argv[1:] == ["import"]:
        print("\n".join(import_everything()))
    else:
        from controller.cli.main import main

        main(sys.argv[1:])
