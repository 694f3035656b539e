"""Identities: what is created again under an old name is another resource."""

from collections.abc import Mapping

import pytest

from controller.simulator.world.history import Change
from tests.simulation.runner import Simulation
from tests.simulation.scenario import Act, Scenario

POLICY: Mapping[str, object] = {"connection_drain_s": 2, "restore_settle_s": 3}


def play(*acts: Act, ip: bool = False) -> Simulation:
    """Drain web-2 on request for a while, and do something to it while it is out."""
    return Simulation(
        Scenario(
            seed=4,
            pools=() if ip else ("app",),
            ip_pools=("app",) if ip else (),
            policy=POLICY,
            acts=(
                Act(20.0, "ask", {"vm": "web-2", "for_s": 60.0, "request_id": "R-1"}),
                *acts,
            ),
            calm_at_s=90.0,
            patience_s=10.0,
            converge_within_s=700.0,
            idle_s=1.0,
        )
    )


def moves(history: tuple[Change, ...]) -> list[str]:
    return [each.kind for each in history if each.kind in {"member_out", "member_in"}]


@pytest.mark.parametrize("ip", [False, True], ids=["NIC pool", "IP pool"])
def test_an_entry_names_the_very_vm(ip: bool) -> None:
    """K3: the identities are in the ledger before the removal, and the VM comes back."""
    simulation = play(ip=ip)
    recorded: list[dict[str, str]] = []
    simulation.loop.call_at(
        60.0, lambda: recorded.extend(simulation.stage.ledger()["entries"][0]["memberships"])
    )
    assert moves(simulation.run().history) == ["member_out", "member_in"]
    (membership,) = recorded
    vm = simulation.world.vm("web-2")
    assert membership["vm_guid"] == vm.vm_id
    if not ip:
        nic = simulation.world.nic(vm.nic_ids[0])
        assert membership["nic_guid"] == nic["properties"]["resourceGuid"]


@pytest.mark.parametrize("nics", ["keep", "recreate"])
def test_a_vm_that_is_created_again_is_not_put_into_the_pools_of_the_old_one(nics: str) -> None:
    """S3: the old memberships are kept as lost, visibly; the new VM is the operator's."""
    simulation = play(Act(50.0, "recreate_vm", {"vm": "web-2", "nics": nics}))
    history = simulation.run().history
    assert moves(history) == ["member_out"]
    ledger = simulation.stage.ledger()
    (entry,) = ledger["entries"]
    assert (entry["vm"], entry["memberships"], len(entry["lost"])) == ("web-2", [], 1)
    assert [hold["reason"] for hold in ledger["holds"]] == ["lost"]
    assert "the VM was created again" in ledger["holds"][0]["message"]


def test_a_nic_that_is_created_again_is_not_put_into_the_pools_of_the_old_one() -> None:
    """S3: the ipConfiguration of the same name is another place."""
    simulation = play(Act(50.0, "recreate_nic", {"vm": "web-2"}))
    assert moves(simulation.run().history) == ["member_out"]
    (hold,) = simulation.stage.ledger()["holds"]
    assert "the NIC was created again" in hold["message"]
