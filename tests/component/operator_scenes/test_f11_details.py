"""F11: details that a new user stumbles over."""

from controller.simulator.services.http_values import Service
from tests.component.operator_scenes.conftest import Person
from tests.support.in_process_set import NEVER_S, InProcessSet


async def test_f11_a_second_drain_of_a_vm_keeps_the_reason_of_the_first(
    bench: InProcessSet, person: Person
) -> None:
    """Two people drain web-2: `status` and the page list both, each with its reason."""
    agent = await bench.lead("web-1")
    await person("drain", "web-2", "--reason", "kernel update")
    await person("drain", "web-2", "--reason", "new disk", "--wait")
    status = await person("status")
    assert status.count("manual drain requested: web-2 until ") == 2
    assert "(kernel update)" in status
    assert "(new disk)" in status
    listed = agent.live_status.overview()["drain_requests"]
    assert [each["reason"] for each in listed] == ["kernel update", "new disk"]


async def test_f11_several_vms_are_drained_by_one_command(
    bench: InProcessSet, person: Person
) -> None:
    """`drain web-2 web-3` requests both, and one command ends both."""
    await bench.lead("web-1")
    said = await person("drain", "web-2", "web-3", "--wait")
    assert "web-2 removed from web-lb/app" in said
    assert "web-3 removed from web-lb/app" in said
    assert "To end them now: lb-drain restore web-2 web-3" in said


async def test_f11_restore_names_the_event_that_keeps_a_vm_out(
    bench: InProcessSet, person: Person
) -> None:
    """No operator drained web-2, and a Reboot keeps it out: the answer states that, and until when.

    For a VM in service the answer is that there is nothing to end.
    """
    await bench.lead("web-1")
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("web-2 is out", lambda: "acknowledged" in str(bench.ledger()["transitions"]))
    said = await person("restore", "web-2")
    assert "web-2 stays out of rotation because of Reboot" in said
    assert "the leader restores it" in said
    assert await person("restore", "web-3") == "web-3 has no manual drain to end.\n"


async def test_f11_plan_without_a_terminal_prints_text(bench: InProcessSet, person: Person) -> None:
    """What goes wrong on the way is a line for people, not a JSON line of the log."""
    await bench.lead("web-1")
    bench.fault(Service.BLOB, path_contains="requests", status=503)
    plan = await person("plan")
    assert "the drain requests cannot be read" in plan
    assert "{" not in plan


async def test_f11_metrics_have_a_version_and_no_times_of_creation(bench: InProcessSet) -> None:
    """Prometheus learns the version, and stores no series about when a counter was created."""
    agent = await bench.lead("web-1")
    exposed = agent.live_status.metrics().decode()
    assert "lbdrain_build_info{" in exposed
    assert "_created" not in exposed
