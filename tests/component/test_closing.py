"""Agents whose VMs close before they leave: two agents against the simulated Azure, real files."""

import json
from pathlib import Path
from typing import Any

from controller.simulator.services.http_values import Service
from tests.support.in_process_set import NEVER_S, QUICK, InProcessSet

CLOSE = {
    **QUICK,
    "policy": {**QUICK["policy"], "close": True},
    "watch": {**QUICK["watch"], "standby_poll_s": 0.5},
}


def flag(bench: InProcessSet, vm: str) -> Path:
    """Return the flag file of a VM."""
    return bench.server.ca_file.with_name(f"{vm}.draining")


def report(bench: InProcessSet, vm: str) -> dict[str, Any]:
    """Return the report of a VM; empty without one."""
    blob = bench.world.blobs.find(bench.ledger_path.replace(".json", f".vms/{vm}.json"))
    return dict(json.loads(blob.body)) if blob else {}


async def test_a_standby_closes_before_it_leaves(bench: InProcessSet) -> None:
    """Record, close, remove, acknowledge; restore, open, forget."""
    await bench.lead("web-1", overrides=CLOSE)
    await bench.stand_by("web-2", overrides=CLOSE)
    await bench.until("reported", lambda: report(bench, "web-2").get("state") == "open")
    event = await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("closed", flag(bench, "web-2").exists)
    await bench.until("out", lambda: not bench.inside("web-2"))
    assert flag(bench, "web-2").exists()
    assert json.loads(flag(bench, "web-2").read_text())["event_type"] == "Reboot"
    assert report(bench, "web-2")["state"] == "closed"
    assert not flag(bench, "web-1").exists()
    bench.world.events.complete(event)
    await bench.server.notify()
    await bench.until("over", lambda: not bench.ledger()["entries"])
    assert bench.inside("web-2")
    await bench.until("open", lambda: not flag(bench, "web-2").exists())
    assert report(bench, "web-2")["state"] == "open"


async def test_the_leader_closes_its_own_vm(bench: InProcessSet) -> None:
    """A set of one agent: it records, closes and removes its own VM."""
    await bench.lead("web-1", overrides=CLOSE)
    event = await bench.announce("web-1", started_s=NEVER_S)
    await bench.until("closed", flag(bench, "web-1").exists)
    await bench.until("out", lambda: not bench.inside("web-1"))
    bench.world.events.complete(event)
    await bench.server.notify()
    await bench.until("open", lambda: not flag(bench, "web-1").exists())


async def test_a_vm_without_agent_is_removed_as_before(bench: InProcessSet) -> None:
    """No report: the removal waits some seconds and no longer."""
    await bench.lead("web-1", overrides=CLOSE)
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("recorded", lambda: bench.ledger()["entries"])
    bench.clock.ahead_s += 10
    await bench.until("out", lambda: not bench.inside("web-2"))
    assert not flag(bench, "web-2").exists()


async def test_reports_that_cannot_be_read_delay_nothing(bench: InProcessSet) -> None:
    """Storage fails for the report alone: the VM is removed as one without an agent."""
    await bench.lead("web-1", overrides=CLOSE)
    bench.fault(Service.BLOB, path_contains=".vms/", status=503)
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("recorded", lambda: bench.ledger()["entries"])
    bench.clock.ahead_s += 10
    await bench.until("out", lambda: not bench.inside("web-2"))
