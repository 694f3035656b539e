"""A scratch root with a stand-in for systemd, and bundles of stand-in agents to install there."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.stand_ins import AGENT, SYSTEMCTL, digest, make_wheel
from tests.support.ports import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = ("lb-drain.service", "lb-drain-probe.service")
EXTRAS = {
    "bash": "bash-completion/completions/lb-drain",
    "zsh": "zsh/site-functions/_lb-drain",
    "fish": "fish/vendor_completions.d/lb-drain.fish",
    "manual": "man/man8/lb-drain.8",
}


@dataclass(frozen=True)
class Machine:
    """A scratch root with a systemd of a kind, and bundles to install there."""

    directory: Path
    port: int

    @property
    def root(self) -> Path:
        """Where it is installed."""
        return self.directory / "root"

    @property
    def home(self) -> Path:
        """Where the agent is."""
        return self.root / "opt/lb-drain"

    @property
    def wheels(self) -> Path:
        """Where what the agent needs comes from."""
        return self.directory / "wheels"

    def bundle(self, version: str, *, ready: bool = True) -> Path:
        """Make what `bundle.sh` makes, with a stand-in agent; return its directory."""
        directory = self.directory / f"bundle-{version}"
        code = AGENT.format(version=version, ready=200 if ready else 503)
        name, script = "lb_drain_controller", "lb-drain=controller:main"
        wheel = make_wheel(directory, name, version, code, script)
        greeting = make_wheel(self.wheels, "greeting", "1.0", "")
        lock = f"greeting==1.0 --hash=sha256:{digest(greeting)}\n"
        (directory / "requirements.lock").write_text(lock)
        (directory / "SHA256SUMS").write_text(f"{digest(wheel)}  {wheel.name}\n")
        for name in ("install.sh", "service.sh"):
            shutil.copy(DEPLOY / name, directory)
        catalog = (DEPLOY / "lb-drain.catalog").read_text()
        (directory / "lb-drain.catalog").write_text(f"{catalog}# {version}\n")
        for name in UNITS:
            unit = (DEPLOY / name).read_text()
            (directory / name).write_text(f"{unit}# {version}\n")
        return directory

    def run(self, bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run install.sh."""
        path = f"{self.directory / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [bundle / "install.sh", "--root", self.root, *arguments],
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def install(
        self, bundle: Path, *arguments: str, timeout_s: str = "120"
    ) -> subprocess.CompletedProcess[str]:
        """Install a bundle without an index; give up an agent that is not ready in time."""
        given = ("--python", sys.executable, "--wheels", str(self.wheels), "--timeout", timeout_s)
        return self.run(bundle, *given, *arguments)

    def version(self) -> str:
        """Return what the installed program says; units and catalog have to be of that version."""
        program = self.home / "bin/lb-drain"
        reported = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True
        )
        version = reported.stdout.strip()
        for name in UNITS:
            assert (self.systemd / name).read_text().endswith(f"# {version}\n")
        for what, path in EXTRAS.items():
            assert (self.root / "usr/local/share" / path).read_text() == f"{version} {what}\n"
        assert self.catalog.read_text().endswith(f"# {version}\n")
        return version

    @property
    def systemd(self) -> Path:
        """Where units are."""
        return self.root / "etc/systemd/system"

    def configure(
        self,
        *,
        probe_port: int = 0,
        out: tuple[str, ...] | None = (),
        refused_by: tuple[str, ...] = (),
    ) -> str:
        """Write a configuration, with a responder if a port is given, and return its path. The
        stand-in agent reads there which VMs are out, and which versions refuse the file; without
        `out` its `status` fails."""
        text = "" if out is None else f"out = {list(out)}\n"
        text += f"refused_by = {list(refused_by)}\n" if refused_by else ""
        text += f'[server]\nlisten = "127.0.0.1:{self.port}"\n'
        if probe_port:
            text += f'[probe]\nlisten = "127.0.0.1:{probe_port}"\n'
        path = self.directory / "config.toml"
        path.write_text(text)
        return str(path)

    def running(self, unit: str) -> int:
        """Return the process of a unit; 0 if it does not run."""
        pid = self.root / f"{unit}.pid"
        return int(pid.read_text()) if pid.exists() else 0

    @property
    def catalog(self) -> Path:
        """Where journalctl looks for explanations."""
        return self.root / "usr/local/lib/systemd/catalog/lb-drain.catalog"

    def said(self) -> list[str]:
        """Return what systemctl was asked to do since the last time."""
        log = self.root / "systemctl.log"
        verbs = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [verb for verb in verbs if not verb.startswith(("is-", "show"))]

    def tree(self) -> list[str]:
        """Return the path of everything below the root, and where links lead."""
        return sorted(
            f"{path} {path.readlink() if path.is_symlink() else ''}"
            for path in self.root.rglob("*")
            if path.name != "systemctl.log"
        )


@contextmanager
def running_machine(tmp_path: Path) -> Iterator[Machine]:
    """Make a root where systemd runs; end what still runs there afterwards."""
    found = Machine(tmp_path, free_port())
    (found.root / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin/systemctl"
    systemctl.write_text(SYSTEMCTL.format(python=sys.executable, root=str(found.root)))
    systemctl.chmod(0o755)
    found.configure()
    try:
        yield found
    finally:
        for pid in found.root.glob("*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)
