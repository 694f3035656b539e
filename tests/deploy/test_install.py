"""`deploy/install.sh`, run for real into a scratch root: install, upgrade, roll back, remove.

The agent is a stand-in of a few lines, so that versions which become ready, and one which does not,
are made in no time; `systemctl` is a small one that really starts and stops what was installed.
Hashes, environments and links are real. `test_the_real_agent` takes the real wheels from the index
and runs where TEST_FROM_INDEX is set, as in `.ci/run`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.machine import Machine, running_machine
from tests.deploy.stand_ins import make_wheel
from tests.support.ports import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(DEPLOY.glob("*.sh"))


STARTED = [
    "daemon-reload",
    "enable --quiet lb-drain",
    "stop lb-drain",
    "reset-failed lb-drain",
    "start --no-block lb-drain",
]
RESPONDER_STARTED = [
    "enable --quiet lb-drain-probe",
    "reset-failed lb-drain-probe",
    "restart --no-block lb-drain-probe",
]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A root where systemd runs."""
    with running_machine(tmp_path) as found:
        yield found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script: Path) -> None:
    """shellcheck has nothing to say about a script."""
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian package shellcheck)")
    reported = subprocess.run(
        ["shellcheck", "-x", script], capture_output=True, text=True, check=False
    )
    assert (reported.returncode, reported.stdout) == (0, "")
    assert os.access(script, os.X_OK) == script.read_text().startswith("#!")


def test_from_the_first_version_to_the_last(machine: Machine) -> None:
    """Install, again, upgrade, a version that does not become ready, roll back, remove."""
    config = machine.configure()
    first, second = machine.bundle("1.0"), machine.bundle("2.0")
    bad = machine.bundle("3.0", ready=False)

    reported = machine.install(first)
    assert (reported.returncode, machine.said()) == (0, []), reported.stderr
    assert "not started" in reported.stdout
    assert "bin/lb-drain init" in reported.stdout
    reported = machine.install(first, "--config", config)
    assert (reported.returncode, reported.stderr) == (0, "")
    assert machine.version() == "1.0"
    assert machine.said() == STARTED
    assert (machine.root / "etc/lb-drain/config.toml").read_text() == Path(config).read_text()

    before = machine.tree()
    reported = machine.install(first, "--config", config)
    assert (reported.returncode, machine.said(), machine.tree()) == (0, [], before), reported.stderr
    assert "nothing was changed" in reported.stdout

    reported = machine.install(second)
    assert (reported.returncode, machine.version(), machine.said()) == (0, "2.0", STARTED), (
        reported.stderr
    )

    reported = machine.install(bad, timeout_s="20")  # the one before has to be ready again in it
    assert (reported.returncode, machine.version()) == (1, "2.0")
    assert machine.said() == STARTED * 2
    assert "2.0" in reported.stderr
    assert "runs again" in reported.stderr

    reported = machine.run(first, "--rollback")
    assert (reported.returncode, machine.version(), machine.said()) == (0, "1.0", STARTED), (
        reported.stderr
    )

    typed: list[str | Path] = [machine.root / "usr/local/bin/lb-drain", "--version"]
    assert subprocess.run(typed, capture_output=True, text=True, check=True).stdout == "1.0\n"
    reported = machine.run(first, "--uninstall")
    assert reported.returncode == 0, reported.stderr
    left = [path for path in (machine.root / "usr").rglob("*") if not path.is_dir()]
    assert left == []
    assert machine.said() == ["disable --now --quiet lb-drain", "daemon-reload"]
    assert not machine.home.exists()
    assert not [*machine.systemd.iterdir()]
    assert not machine.catalog.exists()
    assert (machine.root / "etc/lb-drain/config.toml").exists()
    assert machine.run(first, "--uninstall", "--purge").returncode == 0
    assert not (machine.root / "etc/lb-drain").exists()


def test_the_responder_runs_where_it_is_configured(machine: Machine) -> None:
    """It is started after the agent works, again with every version, and kept by one that fails."""
    config = machine.configure(probe_port=free_port())
    assert machine.install(machine.bundle("1.0"), "--config", config).returncode == 0
    assert machine.said() == STARTED + RESPONDER_STARTED
    first = machine.running("lb-drain-probe")

    done = machine.install(machine.bundle("2.0"))
    assert (done.returncode, machine.said()) == (0, STARTED + RESPONDER_STARTED), done.stderr
    assert machine.running("lb-drain-probe") not in (0, first)

    done = machine.install(machine.bundle("3.0", ready=False), timeout_s="20")
    assert (done.returncode, machine.version()) == (1, "2.0")
    assert machine.said() == STARTED * 2 + RESPONDER_STARTED


def test_a_responder_that_is_configured_later(machine: Machine) -> None:
    """A configuration that gains a responder starts it; without one its unit is only installed."""
    bundle = machine.bundle("1.0")
    assert machine.install(bundle, "--config", machine.configure()).returncode == 0
    assert machine.said() == STARTED
    config = machine.configure(probe_port=free_port())
    assert machine.install(bundle, "--config", config).returncode == 0
    assert machine.said() == STARTED + RESPONDER_STARTED


def test_a_responder_that_answers_is_never_ended(machine: Machine) -> None:
    """The load balancer would take the VM out: what would end it is refused, with the remedy."""
    config = machine.configure(probe_port=free_port())
    for version in ("1.0", "2.0"):
        assert machine.install(machine.bundle(version), "--config", config).returncode == 0
    (older,) = machine.home.glob("versions/1.0-*")
    (older / "lb-drain-probe.service").unlink()  # a version from before there was a responder
    machine.said()
    bundle, responder = machine.bundle("2.0"), machine.running("lb-drain-probe")
    for done in (
        machine.run(bundle, "--rollback"),
        machine.run(bundle, "--uninstall"),
        machine.install(bundle, "--config", machine.configure()),
    ):
        assert done.returncode == 1
        assert "systemctl disable --now lb-drain-probe" in done.stderr
        assert (machine.version(), machine.said()) == ("2.0", [])
        assert machine.running("lb-drain-probe") == responder

    systemctl = machine.directory / "bin/systemctl"
    subprocess.run([systemctl, "disable", "--now", "lb-drain-probe"], check=True)
    assert machine.run(bundle, "--rollback").returncode == 0
    assert not (machine.systemd / "lb-drain-probe.service").exists()
    assert machine.run(bundle, "--uninstall").returncode == 0
    assert not [*machine.systemd.iterdir()]


@pytest.mark.parametrize(
    ("out", "message"),
    [(("web-1", "web-2"), "web-1, web-2"), (None, "(error: storage does not answer)")],
)
def test_the_agent_stays_while_a_vm_is_out(
    machine: Machine, out: tuple[str, ...] | None, message: str
) -> None:
    """While a VM is out, or it is unknown whether one is, only --force removes the agent."""
    bundle = machine.bundle("1.0")
    assert machine.install(bundle, "--config", machine.configure(out=out)).returncode == 0
    machine.said()
    installer = machine.home / "current/install.sh"
    done = machine.run(installer.parent, "--uninstall", "--purge")
    assert done.returncode == 1
    assert message in done.stderr
    assert "--force" in done.stderr
    assert (machine.version(), machine.said()) == ("1.0", [])
    assert (machine.root / "etc/lb-drain/config.toml").exists()
    done = machine.run(installer.parent, "--uninstall", "--purge", "--force")
    assert (done.returncode, machine.home.exists()) == (0, False), done.stderr


def test_only_the_configuration_changes(machine: Machine) -> None:
    """The installer names what changed: a version that stays does not take its own place."""
    bundle = machine.bundle("1.0")
    assert machine.install(bundle, "--config", machine.configure()).returncode == 0
    done = machine.install(bundle, "--config", machine.configure(out=("web-1",)))
    assert done.returncode == 0
    assert "is kept; the configuration was changed" in done.stdout
    assert "in place of" not in done.stdout
    (machine.systemd / "lb-drain.service").write_text("changed")
    done = machine.install(bundle)
    assert "is kept; its units were installed" in done.stdout


def test_a_version_that_refuses_the_configuration(machine: Machine) -> None:
    """It ends no agent that runs: not by an upgrade without waiting, not by a rollback."""
    first, second = machine.bundle("1.0"), machine.bundle("2.0")
    path = machine.root / "etc/lb-drain/config.toml"
    assert machine.install(first, "--config", machine.configure()).returncode == 0
    path.write_text(Path(machine.configure(refused_by=("2.0",))).read_text())
    machine.said()
    done = machine.install(second, "--no-wait")
    assert (done.returncode, machine.version(), machine.said()) == (1, "1.0", [])
    assert "refused by 2.0" in done.stderr
    assert "nothing was changed" in done.stderr

    done = machine.install(second, "--config", machine.configure())
    assert (done.returncode, machine.version()) == (0, "2.0"), done.stderr
    path.write_text(Path(machine.configure(refused_by=("1.0",))).read_text())
    machine.said()
    done = machine.run(second, "--rollback", "--no-wait")
    assert (done.returncode, machine.version(), machine.said()) == (1, "2.0", [])
    assert "refused by 1.0" in done.stderr


def test_a_copy_of_another_time_is_never_restored(machine: Machine) -> None:
    """Only what this run has replaced comes back; what was kept before stays as it is."""
    etc = machine.root / "etc/lb-drain"
    etc.mkdir(parents=True)
    (etc / "config.toml.before").write_text("of another time\n")
    assert machine.install(machine.bundle("1.0")).returncode == 0
    bad = machine.bundle("2.0", ready=False)
    config = machine.configure()
    done = machine.install(bad, "--config", config, timeout_s="2")
    assert done.returncode == 3, done.stderr  # no agent ran before
    assert (etc / "config.toml").read_text() == Path(config).read_text()

    assert machine.install(machine.bundle("1.0")).returncode == 0
    before = (etc / "config.toml").read_text()
    done = machine.install(bad, "--config", machine.configure(out=("web-1",)), timeout_s="20")
    assert (done.returncode, "runs again" in done.stderr) == (1, True), done.stderr
    assert (etc / "config.toml").read_text() == before
    assert (etc / "config.toml.before").read_text() == "of another time\n"
    assert (etc / "config.toml.before.1").read_text() == before


def test_a_package_is_left_to_its_package_manager(machine: Machine) -> None:
    """What a package installed is not replaced or removed by the script."""
    machine.home.mkdir(parents=True)
    (machine.home / "package").touch()
    before = machine.tree()
    for arguments in ((), ("--uninstall",)):
        done = machine.run(machine.bundle("1.0"), *arguments)
        assert done.returncode == 1
        assert "package manager" in done.stderr
    assert machine.tree() == before


def test_a_command_of_somebody_else_is_left_alone(machine: Machine) -> None:
    """A file or link that is where the command would be linked to stays as it is."""
    command = machine.root / "usr/local/bin/lb-drain"
    command.parent.mkdir(parents=True)
    command.symlink_to("/somewhere/else")
    bundle = machine.bundle("1.0")
    assert machine.install(bundle).returncode == 0
    assert machine.run(bundle, "--uninstall").returncode == 0
    assert str(command.readlink()) == "/somewhere/else"


def test_back_to_a_version_from_before_there_was_a_catalog(machine: Machine) -> None:
    """A version that came without a catalog can still be gone back to."""
    for version in ("1.0", "2.0"):
        assert machine.install(machine.bundle(version)).returncode == 0
    (older,) = machine.home.glob("versions/1.0-*")
    (older / "lb-drain.catalog").unlink()
    reported = machine.run(machine.bundle("2.0"), "--rollback")
    assert (reported.returncode, reported.stderr) == (0, "")
    assert (machine.home / "current").resolve() == older


def test_what_was_exchanged_is_not_installed(machine: Machine) -> None:
    """A wheel, of the agent or of anything it needs, with another hash changes nothing."""
    bundle = machine.bundle("1.0")
    reported = machine.install(bundle, "--sha256", "0" * 64)
    assert reported.returncode == 1
    assert "nothing was changed" in reported.stderr
    make_wheel(machine.wheels, "greeting", "1.0", "print('exchanged')")
    reported = machine.install(bundle)
    assert reported.returncode == 1
    assert "nothing was changed" in reported.stderr
    (bundle / "SHA256SUMS").unlink()
    assert "--sha256" in machine.install(bundle).stderr
    assert not (machine.home / "current").exists()
    assert [*machine.home.glob("versions/*")] == []
    assert machine.said() == []


def test_an_image_is_made_without_a_service(machine: Machine) -> None:
    """Where no systemd runs nothing is started; and nothing that is installed can be written by
    group or others, whatever the umask was."""
    shutil.rmtree(machine.root / "run")
    before = os.umask(0)
    try:
        reported = machine.install(machine.bundle("1.0"))
    finally:
        os.umask(before)
    assert reported.returncode == 0, reported.stderr
    assert "not started" in reported.stdout
    assert machine.version() == "1.0"
    found = [path for path in machine.home.rglob("*") if not path.is_symlink()]
    assert [path for path in found if path.stat().st_mode & 0o022] == []
    assert machine.said() == []


def test_an_environment_made_by_hand_is_left_alone(machine: Machine) -> None:
    """What the script did not make it does not touch, and says what to do."""
    machine.home.mkdir(parents=True)
    (machine.home / "pyvenv.cfg").touch()
    before = machine.tree()
    for arguments in ((), ("--rollback",), ("--uninstall",)):
        reported = machine.run(machine.bundle("1.0"), *arguments)
        assert reported.returncode == 1
        assert "remove that directory" in reported.stderr
    assert machine.tree() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("--purge",),
        ("--rollback", "--uninstall"),
        ("--rollback", "--purge"),
        ("--rollback", "--force"),
        ("--uninstall", "--config", "f"),
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_is_refused(machine: Machine, arguments: tuple[str, ...]) -> None:
    """Whoever meant to remove something never installs it, or the other way round."""
    before = machine.tree()
    reported = machine.run(machine.bundle("1.0"), *arguments)
    assert (reported.returncode, "usage:" in reported.stderr) == (2, True)
    assert machine.tree() == before


@pytest.mark.parametrize("option", ["--wheel", "--wheels", "--config", "--python"])
def test_what_is_not_there(machine: Machine, option: str) -> None:
    """A file or directory that is not there is named, before anything is done."""
    reported = machine.run(machine.bundle("1.0"), "--python", sys.executable, option, "/not/there")
    assert reported.returncode == 1
    assert "/not/there" in reported.stderr
    assert [*machine.home.iterdir()] == [machine.home / ".lock"]


@pytest.mark.parametrize(
    "arguments", [("--wat",), ("--wheel",), ("--sha256", "abc"), ("--timeout", "soon")]
)
def test_wrong_usage(machine: Machine, arguments: tuple[str, ...]) -> None:
    """What cannot be meant is refused with code 2 and the usage."""
    reported = machine.run(machine.bundle("1.0"), *arguments)
    assert reported.returncode == 2
    assert "usage: install.sh" in reported.stderr


@pytest.mark.skipif(
    "TEST_FROM_INDEX" not in os.environ,
    reason="TEST_FROM_INDEX is not set: takes the real wheels from the index",
)
def test_the_real_agent(tmp_path: Path) -> None:
    """The bundle of this commit installs into a scratch root, and its agent runs from there."""
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([DEPLOY / "bundle.sh", tmp_path], env=environment, check=True)
    (bundle,) = tmp_path.glob("lb-drain-*.tar.gz")
    subprocess.run(["tar", "-xzf", bundle, "-C", tmp_path], check=True)
    (root := tmp_path / "root").mkdir()
    installer = tmp_path / "lb-drain/install.sh"
    command: list[str | Path] = [installer, "--root", root, "--python", sys.executable]
    subprocess.run(command, check=True)
    program = root / "opt/lb-drain/bin/lb-drain"
    reported = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(rf'^version = "{re.escape(reported.stdout.strip())}"$', project, re.MULTILINE)
    python: list[str | Path] = [root / "opt/lb-drain/current/bin/python", "-I", "-m", "pip"]
    subprocess.run([*python, "check"], check=True)
    listed = subprocess.run([*python, "list", "--format=json"], capture_output=True, check=True)
    names = {each["name"].casefold() for each in json.loads(listed.stdout)}
    assert {"lb-drain-controller", "aiohttp", "azure-identity"} <= names
    assert "pytest" not in names
    subprocess.run([installer, "--root", root, "--uninstall"], check=True)
    assert not (root / "opt/lb-drain").exists()
