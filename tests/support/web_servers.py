"""Real web servers of Debian with the recipes of `deploy/recipes`, as processes on loopback."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "deploy" / "recipes"
FLAG_FILE = "/run/lb-drain/draining"
NOBODY = 65534
ENDS_WITHIN_S = 20.0
SBIN = "/usr/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server runs."""

    directory: Path
    """For its configuration, process id and logs; `public_directory` makes one."""
    port: int
    flag_file: Path
    application_port: int
    responder_port: int = 0
    """Port of `lb-drain probe`, for a server that asks it."""


def program(name: str) -> str | None:
    """Return the path of a server's program, None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), SBIN)))


@contextmanager
def public_directory(prefix: str) -> Iterator[Path]:
    """Make a directory that another user can read, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def recipe(path: str, replaced: Mapping[str, str]) -> str:
    """Return the text of a recipe with its addresses replaced; each one must occur."""
    text = (RECIPES / path).read_text()
    for old, new in replaced.items():
        assert old in text, f"{path} has no {old!r}"
        text = text.replace(old, new)
    return text


def nginx(place: Place) -> list[str]:
    """Write the configuration of nginx; return its command."""
    own = place.directory
    server = recipe(
        "nginx/lb-drain.conf",
        {
            "listen 80;": f"listen 127.0.0.1:{place.port};",
            "127.0.0.1:8080": f"127.0.0.1:{place.application_port}",
            FLAG_FILE: str(place.flag_file),
        },
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {own}/{kind};" for kind in kinds)
    config = (
        f"pid {own}/pid;\nworker_processes 1;\nevents {{ worker_connections 512; }}\n"
        f"http {{\naccess_log off;\n{paths}\n{server}}}\n"
    )
    (own / "nginx.conf").write_text(config)
    # fmt: off
    return ["nginx", "-p", str(own), "-e", f"{own}/error.log", "-c", f"{own}/nginx.conf",
            "-g", "daemon off;"]
    # fmt: on


def apache(place: Place) -> list[str]:
    """Write the configuration of Apache as a proxy before the application; return its command."""
    own = place.directory
    text = recipe("apache/lb-drain.conf", {FLAG_FILE: str(place.flag_file)})
    (own / "lb-drain.conf").write_text(text)
    modules = ("mpm_event", "authz_core", "setenvif", "rewrite", "proxy", "proxy_http")
    lines = [
        f"ServerRoot {own}",
        f"DefaultRuntimeDir {own}",
        f"PidFile {own}/pid",
        f"ErrorLog {own}/error.log",
        "ServerName localhost",
        f"Listen 127.0.0.1:{place.port}",
        *(f"LoadModule {each}_module /usr/lib/apache2/modules/mod_{each}.so" for each in modules),
        f"<VirtualHost 127.0.0.1:{place.port}>",
        f"Include {own}/lb-drain.conf",
        f"ProxyPass / http://127.0.0.1:{place.application_port}/",
        "</VirtualHost>",
    ]
    (own / "apache.conf").write_text("\n".join(lines) + "\n")
    return ["apache2", "-f", f"{own}/apache.conf", "-DFOREGROUND"]


def haproxy(place: Place) -> list[str]:
    """Write the configuration of HAProxy as the proxy on the VM; return its command."""
    text = recipe(
        "haproxy/lb-drain.cfg",
        {
            "bind :80": f"bind 127.0.0.1:{place.port}",
            "127.0.0.1:8080": f"127.0.0.1:{place.application_port}",
            "127.0.0.1:9810": f"127.0.0.1:{place.responder_port}",
        },
    )
    (place.directory / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", f"{place.directory}/haproxy.cfg"]


SERVERS: Mapping[str, Callable[[Place], list[str]]] = {
    "nginx": nginx,
    "apache2": apache,
    "haproxy": haproxy,
}


def start(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
    """Start a server without privileges, as the leader of a process group.

    Its output goes to `log` in the directory.
    """
    found = program(command[0])
    assert found is not None, f"{command[0]} is not installed"
    user = NOBODY if os.geteuid() == 0 else None
    if user is not None:
        os.chown(directory, user, user)
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [found, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a server, by force if it does not end."""
    process.terminate()
    try:
        process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def accepts(port: int) -> bool:
    """Return whether a port of loopback accepts connections."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
