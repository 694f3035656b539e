"""F6: the log at 2 a.m."""

import re

from controller.simulator.services.http_values import Service
from tests.component.operator_scenes.conftest import DENIED
from tests.support.in_process_set import InProcessSet


async def test_f6_the_last_line_of_a_failing_removal_is_its_failure(bench: InProcessSet) -> None:
    """Azure denies every write of a NIC: one line begins the removal, and each other one fails."""
    await bench.lead("web-1")
    bench.fault(
        Service.ARM, method="PUT", path_contains="networkInterfaces", status=403, body=DENIED
    )
    await bench.announce("web-2")
    await bench.requests(4, "networkInterfaces/web-2-nic", "PUT")
    lines = bench.logged("remove web-2-nic (app)")
    assert lines[0] == "remove web-2-nic (app)"
    assert lines.count(lines[0]) == 1
    assert "lacks Microsoft.Network/networkInterfaces/write" in lines[-1]


async def test_f6_a_drain_is_logged_from_its_announcement_on(bench: InProcessSet) -> None:
    """The journal of an ordinary Reboot: what Azure did, what the agent did, and the lead time."""
    await bench.lead("web-1")
    await bench.announce("web-2")
    await bench.until("judged", lambda: bench.ledger().get("verdicts"))
    await bench.until("in service", lambda: bench.logged("web-2: in service"))
    lines = bench.logged("web-2: ")
    assert [re.split(r" \(|,| 10 min| 9 min", line)[0] for line in lines] == [
        "web-2: event announced",
        "web-2: drain started",
        "web-2: out of rotation",
        "web-2: event acknowledged",
        "web-2: event started",
        "web-2: event completed",
        "web-2: restore started",
        "web-2: Reboot: drained",
        "web-2: restored to its pools",
        "web-2: in service",
    ]
    assert lines[2].endswith("s before NotBefore")
