"""The role in `deploy/ansible`: judged by ansible-lint, and run in a scratch root.

`systemctl`, agent and bundle are stand-ins, as in `test_install.py`; Ansible
and install.sh are real.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.machine import Machine, running_machine

ROLE = Path(__file__).parents[2] / "deploy/ansible"
BIN = Path(sys.prefix) / "bin"
needs_ansible = pytest.mark.skipif(
    not (BIN / "ansible-lint").exists(), reason="ansible-lint is not installed (extra release)"
)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A root where systemd runs."""
    with running_machine(tmp_path) as found:
        yield found


def play(machine: Machine, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the play on this machine, in the scratch root."""
    given: dict[str, object] = {
        "lb_drain_hosts": "localhost",
        "lb_drain_become": False,
        "lb_drain_root": str(machine.root),
        "ansible_python_interpreter": sys.executable,
        **variables,
    }
    return subprocess.run(
        [
            BIN / "ansible-playbook",
            "-i",
            "localhost,",
            "-c",
            "local",
            "lb-drain.yml",
            "-e",
            json.dumps(given),
        ],
        cwd=ROLE,
        env={
            **os.environ,
            "PATH": f"{machine.directory / 'bin'}:{os.environ['PATH']}",
            "ANSIBLE_HOME": str(machine.directory / "ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "LC_ALL": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """Return how many tasks of a play that succeeded changed something."""
    assert done.returncode == 0, done.stdout + done.stderr
    (count,) = re.findall(r"changed=(\d+)", done.stdout)
    return int(count)


@needs_ansible
@pytest.mark.slow
def test_the_role_installs_and_removes(machine: Machine) -> None:
    """It installs a bundle with the right sha256, changes nothing the second time, and keeps an
    agent while a VM is out."""
    bundle = machine.directory / "lb-drain-1.0.tar.gz"
    with tarfile.open(bundle, "w:gz") as archive:
        archive.add(machine.bundle("1.0"), "lb-drain")
    config = machine.configure(out=("web-1",))
    given: dict[str, object] = {
        "lb_drain_bundle": str(bundle),
        "lb_drain_bundle_sha256": hashlib.sha256(bundle.read_bytes()).hexdigest(),
        "lb_drain_config_file": config,
        "lb_drain_install_options": ["--python", sys.executable, "--wheels", str(machine.wheels)],
    }
    wrong = play(machine, **(given | {"lb_drain_bundle_sha256": "0" * 64}))
    assert wrong.returncode != 0
    assert "nothing was changed" in wrong.stdout
    assert not machine.home.exists()

    assert changed(play(machine, **given)) == 1
    assert machine.version() == "1.0"
    assert (machine.root / "etc/lb-drain/config.toml").read_text() == Path(config).read_text()
    machine.said()
    assert changed(play(machine, **given)) == 0
    assert machine.said() == []

    kept = play(machine, lb_drain_state="absent", lb_drain_purge=True)
    assert kept.returncode != 0
    assert "out of rotation" in kept.stdout
    assert machine.version() == "1.0"
    assert changed(play(machine, lb_drain_state="absent", lb_drain_force=True)) == 1
    assert not machine.home.exists()
    assert (machine.root / "etc/lb-drain/config.toml").exists()


@needs_ansible
@pytest.mark.slow
def test_ansible_lint_accepts_the_role(tmp_path: Path) -> None:
    """ansible-lint finds nothing by its strictest profile."""
    done = subprocess.run(
        [BIN / "ansible-lint", "--offline", "--strict", "-q", "-c", ".ansible-lint.yml", "."],
        cwd=ROLE,
        env={**os.environ, "ANSIBLE_HOME": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_document_lists_every_variable() -> None:
    """Each variable of the role is in the table, and has its type."""
    shown = set(re.findall(r"^\| `(lb_drain_\w+)`", (ROLE / "README.md").read_text(), re.MULTILINE))
    role = ROLE / "roles/lb_drain"
    specified = set(
        re.findall(
            r"^      (lb_drain_\w+):", (role / "meta/argument_specs.yml").read_text(), re.MULTILINE
        )
    )
    defaults = set(
        re.findall(r"^(lb_drain_\w+):", (role / "defaults/main.yml").read_text(), re.MULTILINE)
    )
    assert shown == specified
    assert defaults == specified - {"lb_drain_bundle", "lb_drain_bundle_sha256"}
