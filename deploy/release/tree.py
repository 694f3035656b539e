"""The files of a package: one environment from the run-time lock, units, scripts, documents.

The environment is put together without running anything in it, so one machine builds it for another
version of Python and another architecture. It is never moved: `/opt/lb-drain`.
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from deploy.release.source import ReleaseError, Source

HOME = Path("opt/lb-drain")
DOCUMENTS = Path("usr/share/doc/lb-drain")
# From the glibc of the oldest supported system (RHEL 8) to the first one that has wheels.
GLIBC_MINORS = range(28, 4, -1)
STARTER = """#!/bin/sh
# The environment belongs to this program: settings of a user's Python do not reach it.
exec "$(dirname "$(readlink -f "$0")")/python" -I -m controller "$@"
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What a package is built for."""

    python: str = "3.11"
    machine: str = "x86_64"

    @property
    def tag(self) -> str:
        """The part of a file name that names the Python."""
        return f"py{self.python.replace('.', '')}"

    @property
    def interpreter(self) -> str:
        """The Python of the system that the package runs with."""
        return f"/usr/bin/python{self.python}"

    def pip_options(self) -> list[str]:
        """Return the options with which pip takes wheels for it."""
        short = self.python.replace(".", "")
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in GLIBC_MINORS]
        options = ["--python-version", self.python, "--implementation", "cp"]
        for abi in (f"cp{short}", "abi3", "none"):
            options += ["--abi", abi]
        for platform in (*platforms, f"manylinux2014_{self.machine}", f"linux_{self.machine}"):
            options += ["--platform", platform]
        return options


@dataclass(frozen=True, slots=True)
class Parts:
    """What goes into a package besides the files of `deploy`."""

    wheel: Path
    lock: Path
    wheels: Path | None = None
    """Directory with all other wheels; without one they come from the index."""
    texts: dict[str, str] = field(default_factory=dict[str, str])
    """Completion for each shell and the manual page, by the name that the command gives them."""


def command_texts(source: Source) -> dict[str, str]:
    """Return completion scripts and manual page, from the program itself."""

    def printed(*arguments: str) -> str:
        command = [sys.executable, "-m", "controller", *arguments]
        done = subprocess.run(
            command, cwd=source.directory, capture_output=True, text=True, check=True
        )
        return done.stdout

    texts = {shell: printed("completion", shell) for shell in ("bash", "zsh", "fish")}
    return {**texts, "manual": printed("manual")}


def build(to: Path, source: Source, parts: Parts, target: Target) -> None:
    """Write all files of a package below a directory that does not exist yet."""
    _environment(to / HOME, source, parts, target)
    for name in ("lb-drain.service", "lb-drain-probe.service"):
        _copy(source.deploy / name, to / "usr/lib/systemd/system" / name)
    _copy(source.deploy / "lb-drain.catalog", to / "usr/lib/systemd/catalog/lb-drain.catalog")
    completions = {
        "bash": "usr/share/bash-completion/completions/lb-drain",
        "zsh": "usr/share/zsh/vendor-completions/_lb-drain",
        "fish": "usr/share/fish/vendor_completions.d/lb-drain.fish",
    }
    for shell, path in completions.items():
        _write(to / path, parts.texts[shell])
    compress(to / "usr/share/man/man8/lb-drain.8.gz", parts.texts["manual"])
    _copy(source.deploy / "README.md", to / DOCUMENTS / "runbook.md")
    _copy(source.deploy / "SECURITY.md", to / DOCUMENTS / "SECURITY.md")
    (to / "etc/lb-drain").mkdir(parents=True)
    (to / "usr/bin").mkdir()
    (to / "usr/bin/lb-drain").symlink_to("/opt/lb-drain/bin/lb-drain")


def _environment(home: Path, source: Source, parts: Parts, target: Target) -> None:
    packages = home / "lib" / f"python{target.python}" / "site-packages"
    packages.mkdir(parents=True)
    # Nothing may depend on the Python that builds: it can be another version.
    if unfit := re.findall(
        r"^(\S+) ;.*\bpython_(?:full_)?version", parts.lock.read_text(), re.MULTILINE
    ):
        raise ReleaseError(f"{parts.lock} has lines for one Python only: {', '.join(unfit)}")
    _install(packages, parts, target)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for record in packages.glob("*.dist-info/RECORD"):
        # It names the directory of the build.
        record.with_name("direct_url.json").unlink(missing_ok=True)
        lines = record.read_text().splitlines(keepends=True)
        left = [line for line in lines if (packages / line.split(",")[0].strip('"')).exists()]
        record.write_text("".join(left))
    _write(
        home / "pyvenv.cfg",
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {target.python}\n",
    )
    (home / "bin").mkdir()
    (home / "bin/python").symlink_to(target.interpreter)
    _write(home / "bin/lb-drain", STARTER)
    (home / "bin/lb-drain").chmod(0o755)
    # install.sh leaves an installation with this file to the package manager.
    _write(home / "package", f"lb-drain {source.version} for Python {target.python}\n")


def _install(packages: Path, parts: Parts, target: Target) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    command += ["--no-input", "install", "--no-compile", "--no-deps", "--only-binary", ":all:"]
    command += ["--target", str(packages), *target.pip_options()]
    if parts.wheels is not None:
        command += ["--no-index", "--find-links", str(parts.wheels)]
    wheel = packages.with_name("wheel.txt")
    digest = hashlib.sha256(parts.wheel.read_bytes()).hexdigest()
    wheel.write_text(f"{parts.wheel.absolute()} --hash=sha256:{digest}\n")
    command += ["--require-hashes", "-r", str(parts.lock), "-r", str(wheel)]
    failed = subprocess.run(command, check=False).returncode
    wheel.unlink()
    if failed:
        raise ReleaseError(f"no environment for Python {target.python}, {target.machine}")


def normalise(root: Path, epoch: int) -> None:
    """Give every file one time and mode: a package depends on nothing else of the machine."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def scripts(source: Source, calls: dict[str, str]) -> dict[str, str]:
    """Return the scripts of a package: what both kinds share, and the call at the end."""
    shared = "\n".join((source.deploy / name).read_text() for name in ("service.sh", "package.sh"))
    return {
        name: f"#!/bin/bash\nset -euo pipefail\n{shared}\n{call}" for name, call in calls.items()
    }


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def compress(path: Path, text: str) -> None:
    """Write a text compressed, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
