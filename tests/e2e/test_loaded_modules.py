"""What real agents have loaded: the large modules only where they are needed."""

import signal
from pathlib import Path

import pytest

from tests.support.process_set import ProcessSet, open_process_set

LARGE = frozenset({"azure.mgmt.compute", "azure.mgmt.network", "cryptography"})
"""What `controller.azure.http.sdk` names. Each takes 9 to 40 MB."""
LISTING = """
import atexit, os, pathlib, sys
target = pathlib.Path(__file__).with_name(f"{os.getpid()}.modules")
atexit.register(lambda: target.write_text("\\n".join(sys.modules)))
"""


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let every process that is started list its modules at its end; return the directory."""
    directory = tmp_path / "listing"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(LISTING)
    monkeypatch.setenv("PYTHONPATH", str(directory))
    return directory


async def large_modules(rig: ProcessSet, vm: str, listing: Path) -> frozenset[str]:
    """Stop the agent of a VM, and return which large modules it had loaded."""
    process_id = rig.fleet.process_id(vm)
    rig.fleet.signal(vm, signal.SIGTERM)
    await rig.fleet.ended(vm)
    modules = (listing / f"{process_id}.modules").read_text().split()
    assert "controller.agent.agent" in modules
    return LARGE.intersection(modules)


async def test_an_idle_set_has_loaded_nothing_large(tmp_path: Path, listing: Path) -> None:
    """Neither a standby nor a leader that has read the whole set has loaded any of it."""
    async with open_process_set(tmp_path / "set") as rig:
        leader = await rig.leader()
        arm = ("arm", leader, "GET")
        await rig.until("the first inventory", lambda: rig.world.request_counts[arm] > 5)
        for vm in (*rig.others(leader), leader):
            assert await large_modules(rig, vm, listing) == frozenset(), vm


async def test_a_drain_loads_the_sdk_into_the_leader_alone(tmp_path: Path, listing: Path) -> None:
    """The leader has loaded what it writes with, and nothing else; a standby has loaded nothing."""
    async with open_process_set(tmp_path / "set") as rig:
        leader = await rig.leader()
        victim, other = rig.others(leader)
        await rig.schedule("Reboot", victim)
        await rig.until_in(victim)
        await rig.settled()
        assert rig.leading() == leader
        assert await large_modules(rig, other, listing) == frozenset()
        assert await large_modules(rig, leader, listing) == {"azure.mgmt.network"}


# --- a damaged installation ---

DAMAGE = """
import pathlib, sys

class Damage:
    def find_spec(self, name, path=None, target=None):
        files = [pathlib.Path(each) for each in sys.orig_argv if each.endswith(".toml")]
        if name == "azure.mgmt.network" and any(f.with_suffix(".damaged").exists() for f in files):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Damage())
"""


async def test_another_agent_drains_when_the_leader_cannot_load_its_sdk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader says what is wrong with its installation, and hands over in time."""
    (tmp_path / "sitecustomize.py").write_text(DAMAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with open_process_set(tmp_path / "set") as rig:
        leader = await rig.leader()
        rig.fleet.config(leader).with_suffix(".damaged").touch()
        victim, _other = rig.others(leader)
        event = await rig.schedule("Reboot", victim)
        await rig.until_out(victim)
        assert rig.leading() != leader
        assert "azure.mgmt.network.aio cannot be loaded" in rig.log(leader)
        assert "install the service again on this VM" in rig.log(leader)
        await rig.until_event("event_gone", event)
        await rig.settled()
