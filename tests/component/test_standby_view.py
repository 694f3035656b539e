"""What a standby shows of the set: as much as the leader, read only while it is asked for (H1)."""

import re

import pytest

from controller.agent.agent import Agent
from controller.simulator.services.http_values import Service
from controller.status.overview_schema import VmView
from tests.support.in_process_set import InProcessSet

pytestmark = pytest.mark.slow  # a standby reads once in ten seconds

REQUESTS = re.compile(
    r'^lbdrain_azure_requests_total\{.*service="(?:network|compute)".*\} (\S+)$', re.MULTILINE
)


def arm_requests(agent: Agent) -> float:
    """Return how many requests an agent has sent to Resource Manager."""
    return sum(map(float, REQUESTS.findall(agent.live_status.metrics().decode())))


def vms(agent: Agent) -> dict[str, VmView]:
    """Ask for what the page shows."""
    return {vm["vm"]: vm for vm in agent.live_status.overview()["vms"]}


async def shows(bench: InProcessSet, agent: Agent, vm: str, phase: str) -> None:
    """Wait until an agent shows a VM in a phase."""
    await bench.sees(f"{vm} {phase}", lambda: vms(agent)[vm]["phase"], phase)


async def drained(bench: InProcessSet) -> None:
    """Drain one VM and wait until its event has started."""
    await bench.announce("web-2", started_s=600)
    await bench.until("started", lambda: '"started_at": "' in str(bench.ledger()).replace("'", '"'))


async def test_without_a_page_a_standby_reads_nothing(bench: InProcessSet) -> None:
    """A drain of another VM costs a standby no request to Resource Manager; a page costs a few."""
    leader = await bench.lead("web-1")
    standby = await bench.stand_by("web-3")
    before = arm_requests(standby)
    assert before > 0, "it has read who it is"
    await drained(bench)
    assert arm_requests(standby) == before
    await standby.live_status.refresh()
    await shows(bench, standby, "web-2", "in_maintenance")
    asked = arm_requests(standby)
    assert asked > before
    for _ in range(20):
        await standby.live_status.refresh()
    assert arm_requests(standby) < asked + 20, "not with each answer"
    shown = vms(standby)
    assert shown["web-2"]["pools"] == [{"pool": "web-lb/app", "inside": False}]
    assert shown["web-1"]["pools"] == [{"pool": "web-lb/app", "inside": True}]
    assert shown == vms(leader)
    assert bench.writes() == [each for each in bench.writes() if each.detail.get("vm") != "web-3"]


async def test_a_standby_that_cannot_read_the_set(bench: InProcessSet) -> None:
    """Where Resource Manager does not answer, a standby shows what the ledger contains."""
    await bench.lead("web-1")
    standby = await bench.stand_by("web-3")
    await drained(bench)
    bench.fault(Service.ARM, status=503)
    await shows(bench, standby, "web-2", "in_maintenance")
    shown = vms(standby)
    assert (shown["web-1"]["phase"], shown["web-1"]["pools"]) == (None, [])
    assert shown["web-2"]["pools"] == [{"pool": "web-lb/app", "inside": False}]
    assert standby.live_status.ready() == (True, "standby")
