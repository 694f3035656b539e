"""F1, F2: what the set reports of a VM that Azure hits, or that cannot be removed."""

from controller.simulator.services.http_values import Service
from tests.component.operator_scenes.conftest import DENIED, Person, channel, floor
from tests.support.in_process_set import QUICK, InProcessSet
from tests.support.receivers import Hook

NOTICE_S = 30.0
"""Less than the lease: the clock is moved by as much."""
HELD = "web-2 stays in pool app: 2 healthy members would remain"


def steps(bench: InProcessSet) -> list[str]:
    """Return the steps of the history."""
    return [line["what"] for line in bench.ledger().get("transitions", [])]


async def test_f1_a_vm_that_is_hit_in_rotation_has_a_verdict_everywhere(
    bench: InProcessSet, person: Person, hook: Hook
) -> None:
    """The floor keeps web-2 in its pool, and Azure reboots it there.

    The log, `status`, `history`, the page, the metrics and the notifications say so, and why.
    """
    agent = await bench.lead("web-1", **floor(3), **channel(hook))
    await bench.announce("web-2", notice_s=2)
    await bench.until("judged", lambda: bench.ledger().get("verdicts"))
    await hook.until(lambda: "hit_in_rotation" in hook.kinds())

    [verdict] = bench.ledger()["verdicts"]
    assert (verdict["vm"], verdict["verdict"]) == ("web-2", "hit_in_rotation")
    assert verdict["why"].startswith(HELD)
    [error] = bench.logged("web-2: Reboot: hit in rotation", "ERROR")
    assert HELD in error
    for step in ("announced", "started", "completed"):
        assert bench.logged(f"web-2: event {step} (Reboot", "INFO"), step

    levels = {body["happening"]: body["level"] for body in hook.bodies}
    assert levels["started"] == levels["hit_in_rotation"] == "warning"
    texts = {body["happening"]: body["text"] for body in hook.bodies}
    assert texts["started"] == "Reboot of web-2 has started while in rotation: web-2"
    assert texts["hit_in_rotation"].startswith(f"Reboot of web-2: hit in rotation: {HELD}")

    metrics = agent.live_status.metrics().decode()
    assert 'lbdrain_events_total{type="Reboot",verdict="hit_in_rotation"} 1.0' in metrics
    [problem] = agent.live_status.overview()["problems"]
    assert problem["title"] == "web-2 was hit in rotation: Reboot"
    verdict_line = f"web-2: verdict on the Reboot: hit in rotation: {HELD}"
    assert verdict_line in await person("status")
    assert verdict_line in await person("history")


async def test_f1_the_leader_itself_is_hit(bench: InProcessSet) -> None:
    """An event names every VM, the leader included, and the floor spares one of them.

    Each VM has a verdict of its own: what was out in time, and what was not.
    """
    election = {**QUICK["election"], "yield_s": 0.5}
    await bench.lead("web-1", overrides={"election": election})
    await bench.announce("web-1", "web-2", "web-3", notice_s=NOTICE_S)
    await bench.until("two are out", lambda: steps(bench).count("out") == 2)
    polls = bench.world.request_counts["imds", "web-1", "GET"]
    await bench.until(
        "the document was read while two are out",
        lambda: bench.world.request_counts["imds", "web-1", "GET"] > polls + 1,
    )
    bench.clock.ahead_s += NOTICE_S
    await bench.server.notify()
    await bench.until("judged", lambda: len(bench.ledger().get("verdicts", [])) == 3)
    found = sorted(each["verdict"] for each in bench.ledger()["verdicts"])
    assert found == ["drained", "drained", "hit_in_rotation"]


async def test_f2_a_vm_that_cannot_be_removed_is_not_called_out_of_rotation(
    bench: InProcessSet, person: Person
) -> None:
    """Azure denies every write of a NIC: the headline says that web-2 is in rotation.

    Readiness, systemd, page, `status` and `plan` have the same words, from what is observed.
    """
    agent = await bench.lead("web-1")
    bench.fault(
        Service.ARM, method="PUT", path_contains="networkInterfaces", status=403, body=DENIED
    )
    await bench.announce("web-2")
    headline = "in rotation, cannot be removed: web-2"
    leads = (True, f"leader; {headline}")
    await bench.sees("the failure shows", agent.live_status.ready, leads)
    assert agent.live_status.health() == leads
    assert agent.live_status.overview()["agent"]["headline"] == f"leader; {headline}"
    status, plan = await person("status"), await person("plan")
    for shown in (status, plan):
        assert "lacks Microsoft.Network/networkInterfaces/write on /s" in shown
        assert "while the VM is in rotation; it is not acknowledged" in shown
        assert "remedy: grant the missing permission" in shown
        assert "out of rotation" not in shown
    assert f"\n{headline}\n" in status
    assert "web-lb/app   nic    3" in plan


async def test_f2_denied_writes_add_up_beside_good_reads(bench: InProcessSet) -> None:
    """Reads succeed between the writes, and the failures of the writes are counted alone."""
    agent = await bench.lead("web-1")
    bench.fault(
        Service.ARM, method="PUT", path_contains="networkInterfaces", status=403, body=DENIED
    )
    await bench.announce("web-2")

    def titles() -> list[str]:
        return [each["title"] for each in agent.live_status.overview()["problems"]]

    await bench.until("counted", lambda: "Requests to Resource Manager fail" in titles())
    assert "web-2-nic cannot be written: Azure refuses it" in titles()
    (line,) = (
        line
        for line in agent.live_status.metrics().decode().splitlines()
        if line.startswith("lbdrain_azure_consecutive_failures{") and 'operation="nic_put"' in line
    )
    assert float(line.split()[-1]) >= 3
