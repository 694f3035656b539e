"""The .deb and the .rpm: built, installed, upgraded, removed and purged in a scratch root.

The agent and its libraries are stand-ins of a few lines, and so is `systemctl`: no systemd runs in
the root. dpkg runs the scripts of the package itself. rpm would need a whole system in the root for
that, so the test runs them, in the order of rpm. `test_release.py` builds the real packages.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.release import deb, rpm, tree
from deploy.release.source import Source
from tests.deploy.stand_ins import AGENT, SYSTEMCTL, digest, make_wheel
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
PYTHONS = [Path(f"/usr/bin/python3.{minor}") for minor in range(11, 15)]
PYTHON = next((path.name.removeprefix("python") for path in PYTHONS if path.exists()), "")
EPOCH = 1_750_000_000
STARTED = [
    "daemon-reload",
    "enable --quiet lb-drain",
    "stop lb-drain",
    "reset-failed lb-drain",
    "start --no-block lb-drain",
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="there is no Python 3.11 or newer in /usr/bin"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root installs packages"),
]


def needs(program: str, package: str) -> None:
    """Skip the test where a program is missing."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian package {package})")


def make_source(directory: Path, version: str) -> Source:
    """Make the sources of a version: the real ones, with another number."""
    directory.mkdir(parents=True)
    shutil.copytree(ROOT / "deploy", directory / "deploy")
    for name in ("LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, directory)
    (directory / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    return Source(directory, "0" * 40, EPOCH)


def make_files(directory: Path, version: str) -> tuple[Path, Source, tree.Target]:
    """Put together the files of a package with a stand-in agent."""
    source = make_source(directory / "source", version)
    code = AGENT.format(version=version, ready=200)
    script = "lb-drain=controller:main"
    wheel = make_wheel(directory / "wheels", "lb_drain_controller", version, code, script)
    greeting = make_wheel(directory / "wheels", "greeting", "1.0", "")
    lock = directory / "requirements.lock"
    lock.write_text(f"greeting==1.0 --hash=sha256:{digest(greeting)}\n")
    texts = {name: f"{version} {name}\n" for name in ("bash", "zsh", "fish")}
    # What lintian accepts as a manual page.
    texts["manual"] = f'.TH LB-DRAIN 8 "" "{version}"\n.SH NAME\nlb\\-drain \\- drains VMs\n'
    parts = tree.Parts(wheel, lock, directory / "wheels", texts)
    target = tree.Target(PYTHON)
    tree.build(directory / "files", source, parts, target)
    return directory / "files", source, target


@dataclass(frozen=True)
class Built:
    """The packages of two versions."""

    directory: Path
    sources: tuple[Source, Source]
    debs: tuple[Path, ...] = ()
    rpms: tuple[Path, ...] = ()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both kinds of packages of two versions, as far as their tools are installed."""
    directory = tmp_path_factory.mktemp("packages")
    made = [make_files(directory / version, version) for version in ("1.0", "2.0")]
    (out := directory / "out").mkdir()
    has_rpm = shutil.which("rpmbuild") is not None
    return Built(
        directory,
        (made[0][1], made[1][1]),
        tuple(deb.build(*each, out) for each in made),
        tuple(rpm.build(*each, out) for each in made) if has_rpm else (),
    )


@dataclass(frozen=True)
class System:
    """A root with a dpkg and an rpm database, and a stand-in for systemd."""

    directory: Path
    port: int

    @property
    def root(self) -> Path:
        """Where packages are installed."""
        return self.directory / "root"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the package manager."""
        return {**os.environ, "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}"}

    @property
    def config(self) -> Path:
        """The configuration of the agent."""
        return self.root / "etc/lb-drain/config.toml"

    def configure(
        self,
        out: tuple[str, ...] | None = (),
        *,
        refused_by: tuple[str, ...] = (),
        probe_port: int = 0,
    ) -> None:
        """Write the configuration; the stand-in agent reads there which VMs are out, and which
        versions refuse the file."""
        text = "" if out is None else f"out = {list(out)}\n"
        text += f"refused_by = {list(refused_by)}\n" if refused_by else ""
        text += f'[server]\nlisten = "127.0.0.1:{self.port}"\n'
        text += f'[probe]\nlisten = "127.0.0.1:{probe_port}"\n' if probe_port else ""
        self.config.write_text(text)

    def runs(self, unit: str = "lb-drain") -> str:
        """Return which environment a unit runs in, below /opt/lb-drain; empty if it does not."""
        pid = self.root / f"{unit}.pid"
        path = Path(f"/proc/{pid.read_text()}/cmdline") if pid.exists() else None
        deadline = time.monotonic() + 10
        while path is not None and time.monotonic() < deadline:
            words = path.read_text().split("\0") if path.exists() else [""]
            if words == [""]:
                return ""
            program = Path(words[0])
            if program.name == "python":
                return str(program.parent.parent.relative_to(self.root / "opt/lb-drain"))
            time.sleep(0.05)  # a shell chooses the version, and becomes it
        return ""

    def run(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command with variables."""
        return subprocess.run(
            command,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    def dpkg(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run dpkg in the root, and the scripts outside of it."""
        forced = ("--force-script-chrootless", "--force-depends")
        return self.run("dpkg", f"--root={self.root}", *forced, *arguments, **more)

    def rpm(self, *arguments: str | Path) -> None:
        """Run rpm in the root without scripts."""
        command = ("rpm", "--root", self.root, "--nodeps", "--noscripts", *arguments)
        done = self.run(*command)
        assert done.returncode == 0, done.stderr

    def script(
        self, source: Source, name: str, left: int, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of an .rpm as rpm does: with the number of versions that are left."""
        text = tree.scripts(source, rpm.CALLS)[name]
        return self.run("bash", "-c", text, name, str(left), DPKG_ROOT=str(self.root), **more)

    def version(self) -> str:
        """Return the version of the installed program."""
        done = self.run(self.root / "opt/lb-drain/bin/lb-drain", "--version")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def verbs(self) -> list[str]:
        """Return what systemctl was asked to do since the last time."""
        log = self.root / "systemctl.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith(("is-", "show"))]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A root where systemd runs, and nothing is installed."""
    found = System(tmp_path, free_port())
    for name in ("run/systemd/system", "var/lib/dpkg/info", "var/lib/dpkg/updates", "etc"):
        (found.root / name).mkdir(parents=True)
    for name in ("status", "available"):
        (found.root / "var/lib/dpkg" / name).touch()
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin/systemctl"
    systemctl.write_text(SYSTEMCTL.format(python=sys.executable, root=str(found.root)))
    systemctl.chmod(0o755)
    yield found
    for pid in found.root.glob("*.pid"):
        with suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_deb_from_installation_to_purge(built: Built, system: System) -> None:
    """Install, configure, upgrade, remove, install again: only a purge ends the configuration."""
    first, second = built.debs
    done = system.dpkg("-i", first)
    assert done.returncode == 0, done.stderr
    assert "lb-drain init" in done.stdout
    assert (system.version(), system.verbs()) == ("1.0", ["daemon-reload"])
    assert [*system.root.glob("opt/lb-drain/lib/python*/site-packages/__pycache__/*.pyc")]

    system.configure()
    done = system.dpkg("-i", second)  # not enabled: not started
    assert (done.returncode, system.version()) == (0, "2.0"), done.stderr
    assert system.verbs() == ["stop lb-drain", "daemon-reload"]
    system.run(system.directory / "bin/systemctl", "enable", "lb-drain")
    system.verbs()
    done = system.dpkg("-i", first)  # back to the older version
    assert (done.returncode, system.version()) == (0, "1.0"), done.stderr
    assert system.verbs() == ["stop lb-drain", *STARTED]

    done = system.dpkg("-r", "lb-drain")
    assert done.returncode == 0, done.stderr
    assert system.verbs() == ["disable --now --quiet lb-drain", "daemon-reload"]
    assert not (system.root / "opt/lb-drain").exists()
    assert not (system.root / "usr/lib/systemd/system/lb-drain.service").exists()
    assert system.config.exists()

    assert system.dpkg("-i", second).returncode == 0
    assert system.verbs() == STARTED  # it has its configuration already
    assert system.dpkg("--purge", "lb-drain").returncode == 0
    assert not (system.root / "etc/lb-drain").exists()


@pytest.mark.parametrize("out", [("web-1",), None])
def test_a_deb_stays_while_a_vm_is_out(
    built: Built, system: System, out: tuple[str, ...] | None
) -> None:
    """While a VM is out, or it is unknown whether one is, only a variable removes the package."""
    assert system.dpkg("-i", built.debs[0]).returncode == 0
    system.configure(out)
    system.verbs()
    done = system.dpkg("-r", "lb-drain")
    assert done.returncode != 0
    assert "REMOVE_WHILE_OUT=yes" in done.stderr
    assert (out or ("storage does not answer",))[0] in done.stderr
    assert (system.version(), system.verbs()) == ("1.0", [])
    done = system.dpkg("-r", "lb-drain", REMOVE_WHILE_OUT="yes")
    assert done.returncode == 0, done.stderr


def test_a_deb_does_not_replace_what_install_sh_installed(built: Built, system: System) -> None:
    """The package states how to change over, and touches nothing."""
    (system.root / "opt/lb-drain/versions").mkdir(parents=True)
    done = system.dpkg("-i", built.debs[0])
    assert done.returncode != 0
    assert "install.sh --uninstall" in done.stderr
    assert [path.name for path in (system.root / "opt/lb-drain").iterdir()] == ["versions"]


def test_a_deb_that_refuses_the_configuration(built: Built, system: System) -> None:
    """The version before runs on, and the responder too, until the file is corrected."""
    first, second = built.debs
    assert system.dpkg("-i", first).returncode == 0
    system.configure(refused_by=("2.0",), probe_port=free_port())
    systemctl = system.directory / "bin/systemctl"
    for unit in ("lb-drain", "lb-drain-probe"):
        system.run(systemctl, "enable", unit)
        system.run(systemctl, "start", unit)
    responder = (system.root / "lb-drain-probe.pid").read_text()

    done = system.dpkg("-i", second)
    assert done.returncode != 0
    assert "this key is refused by 2.0" in done.stderr
    assert "systemctl restart lb-drain" in done.stderr
    assert (system.version(), system.runs()) == ("2.0", "before")
    assert (system.root / "lb-drain-probe.pid").read_text() == responder
    system.run(systemctl, "restart", "lb-drain-probe")
    assert system.runs("lb-drain-probe") == "before"

    system.configure(probe_port=free_port())
    system.run(systemctl, "restart", "lb-drain")
    assert system.runs() == "."  # the installed version
    assert system.dpkg("--configure", "lb-drain").returncode == 0
    assert (system.runs(), system.runs("lb-drain-probe")) == (".", ".")
    assert not (system.root / "opt/lb-drain/before").exists()
    assert not [*(system.root / "etc/systemd").rglob("*.conf")]


def test_the_version_that_runs_is_kept_over_a_second_refusal(built: Built, system: System) -> None:
    """Another package that refuses the file changes nothing; removal leaves nothing of it."""
    first, second = built.debs
    assert system.dpkg("-i", first).returncode == 0
    system.configure(refused_by=("2.0",))
    system.run(system.directory / "bin/systemctl", "enable", "lb-drain")
    for _ in range(2):
        assert system.dpkg("-i", second).returncode != 0
        assert system.runs() == "before"
    system.configure()
    done = system.dpkg("-r", "lb-drain")
    assert done.returncode == 0, done.stderr
    assert not (system.root / "opt/lb-drain").exists()
    assert not [*(system.root / "etc/systemd").rglob("*.conf")]


def test_a_file_that_both_versions_refuse(built: Built, system: System) -> None:
    """The upgrade is no reason for it: the package is installed, and states the problem."""
    first, second = built.debs
    system.root.joinpath("etc/lb-drain").mkdir()
    system.configure(refused_by=("1.0", "2.0"))
    done = system.dpkg("-i", first)
    assert (done.returncode, "refused by 1.0" in done.stdout) == (0, True), done.stderr
    assert system.dpkg("-i", second).returncode == 0


def test_an_rpm_from_installation_to_removal(built: Built, system: System) -> None:
    """Install, upgrade and remove, with the scripts in the order of rpm."""
    needs("rpm", "rpm")
    (first, second), (old, new) = built.rpms, built.sources
    (system.root / "var/lib/rpm").mkdir(parents=True)
    assert system.script(old, "pre", 1).returncode == 0
    system.rpm("-U", first)
    system.configure()
    done = system.script(old, "posttrans", 1)
    assert (done.returncode, system.version(), system.verbs()) == (0, "1.0", STARTED)

    assert system.script(new, "pre", 2).returncode == 0
    system.rpm("-U", second)
    assert system.script(old, "preun", 1).returncode == 0
    assert system.script(old, "postun", 1).returncode == 0
    assert system.script(new, "posttrans", 1).returncode == 0
    assert (system.version(), system.verbs()) == ("2.0", ["stop lb-drain", *STARTED])
    assert not (system.root / "opt/lb-drain/before").exists()

    system.configure(("web-2",))
    done = system.script(new, "preun", 0)
    assert (done.returncode, "web-2" in done.stderr, system.verbs()) == (1, True, [])
    assert system.script(new, "preun", 0, REMOVE_WHILE_OUT="yes").returncode == 0
    system.rpm("-e", "lb-drain")
    assert system.script(new, "postun", 0).returncode == 0
    assert not (system.root / "opt/lb-drain").exists()
    assert system.config.exists()
    shown = system.run("rpm", "-qp", "--scripts", first).stdout
    for call in rpm.CALLS.values():
        assert call.strip() in shown


def test_the_same_files_make_the_same_packages(built: Built, tmp_path: Path) -> None:
    """Neither directory nor umask nor time changes a package."""
    before = os.umask(0o077)
    try:
        made = make_files(tmp_path / "elsewhere", "1.0")
        again = [deb.build(*made, tmp_path)]
        if built.rpms:
            again.append(rpm.build(*made, tmp_path))
    finally:
        os.umask(before)
    for one, other in zip((built.debs[0], *built.rpms[:1]), again, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()


def test_lintian_accepts_the_deb(built: Built) -> None:
    """lintian finds no error and no warning that the package does not explain."""
    needs("lintian", "lintian")
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", str(built.debs[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("calls", [deb.CALLS, rpm.CALLS], ids=["deb", "rpm"])
def test_shellcheck_accepts_the_scripts(
    built: Built, tmp_path: Path, calls: dict[str, str]
) -> None:
    """shellcheck finds nothing in the script of a package, put together from its parts."""
    needs("shellcheck", "shellcheck")
    for name, text in tree.scripts(built.sources[0], calls).items():
        script = tmp_path / name
        script.write_text(text)
        # The parts are used by different scripts: not each uses everything.
        done = subprocess.run(
            ["shellcheck", "--exclude=SC2034,SC2317,SC2329", script],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "")
