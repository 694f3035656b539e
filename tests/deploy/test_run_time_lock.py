"""`deploy/requirements.lock`: a VM installs what was tested, without the tools for testing."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
HASH = re.compile(r"--hash=(\S+)")
NAME = re.compile(r"[a-z0-9-]+")


def pinned(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Return pin with marker, and hashes, of each package in a lock file."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    lines = [line for line in path.read_text().splitlines() if line and "#" not in line]
    for entry in re.split(r"\n(?=\S)", "\n".join(lines)):
        pin = entry.split("\\")[0].split(";")[0].strip()
        found[pin.split("==")[0]] = (pin, frozenset(HASH.findall(entry)))
    return found


def test_a_vm_runs_what_was_tested() -> None:
    """Every version, and every hash, for run time is one of those that the tests ran with."""
    tested, run_time = pinned(ROOT / "requirements.lock"), pinned(ROOT / "deploy/requirements.lock")
    assert run_time.items() <= tested.items()
    assert all(hashes for _, hashes in run_time.values())


def test_a_vm_gets_what_the_agent_needs_and_no_tools() -> None:
    """Every dependency of the project is in it, and nothing that only tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {NAME.match(each)[0] for each in project["dependencies"]}  # type: ignore[index]
    tools = {NAME.match(each)[0] for each in project["optional-dependencies"]["test"]}  # type: ignore[index]
    run_time = pinned(ROOT / "deploy/requirements.lock").keys()
    assert needed <= run_time
    assert not tools & run_time
