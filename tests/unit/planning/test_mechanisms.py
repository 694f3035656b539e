"""The registered mechanisms: each membership has one, and all of them judge the rotation."""

from dataclasses import dataclass

from controller.core.azure_names import load_balancer_of
from controller.core.ledger import Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import ReadLoadBalancer
from controller.core.planning.address_pool import AddressPool
from controller.core.planning.admin_state import AdminState
from controller.core.planning.evidence import Evidence
from controller.core.planning.mechanism import Mechanisms
from controller.core.planning.mechanisms import MECHANISMS, pool_membership
from controller.core.planning.nic_pool import NicPool
from controller.core.planning.pool_membership import Rotation
from tests.support.planner_scenario import APP, T0, PlannerScenario, address, membership


def test_a_membership_is_changed_by_the_mechanism_of_its_type() -> None:
    """A NIC is changed by its own write, an address by the write of its pool."""
    registered = Mechanisms((AddressPool(), NicPool()))
    assert registered.of(membership("web-1")) == NicPool()
    assert registered.of(address("a", "10.0.0.1")) == AddressPool()
    assert list(registered) == [AddressPool(), NicPool()]


def test_what_is_registered() -> None:
    """This version removes NICs and addresses from pools, and sets the adminState of members."""
    assert list(MECHANISMS) == [NicPool(), AddressPool(), AdminState()]


def test_ledgers_name_the_mechanisms_like_this() -> None:
    """S5: a stored membership is read by its kind, so that the names never change."""
    names = (NicPool().name, AddressPool().name, AdminState().name)
    assert names == ("nic", "address", "admin-state")


def test_a_vm_in_a_pool_is_in_rotation(scene: PlannerScenario) -> None:
    """Neither mechanism changes what the NICs and the pools show."""
    joined = {"web-1": (membership("web-1"), address("a", "10.0.0.1"))}
    assert MECHANISMS.in_rotation(scene.observe(), scene.ledger, joined) == joined


@dataclass(frozen=True, slots=True)
class Without(NicPool):
    """A mechanism that takes one VM out of rotation without taking it out of its pools."""

    vm: str = ""

    def in_rotation(self, observed: Observation, ledger: Ledger, joined: Rotation) -> Rotation:
        return {name: places for name, places in joined.items() if name != self.vm}


def test_every_mechanism_judges_what_the_one_before_has_left(scene: PlannerScenario) -> None:
    """S2: a VM that any mechanism keeps out of rotation is not in rotation."""
    joined = {f"web-{n}": (membership(f"web-{n}"),) for n in (1, 2, 3)}
    registered = Mechanisms((Without(vm="web-1"), NicPool(), Without(vm="web-3")))
    assert registered.in_rotation(scene.observe(), scene.ledger, joined) == {
        "web-2": joined["web-2"]
    }


def test_the_planner_sees_the_rotation_as_the_mechanisms_do(scene: PlannerScenario) -> None:
    """S2: evidence and status judge rotation by the same mechanisms, not by the pools alone."""
    registered = Mechanisms((Without(vm="web-1"), AddressPool()))
    observed, ledger, pools = scene.observe(), scene.ledger, scene.policy.pools
    evidence = Evidence(observed, ledger, scene.policy, T0, registered)
    first, second, _ = observed.vms
    for found in (
        evidence.views.membership,
        pool_membership(observed, ledger, pools, registered),
    ):
        assert found.memberships(first) == ()
        assert found.memberships(second) == (membership("web-2"),)


def test_what_else_a_write_depends_on() -> None:
    """A NIC names its pools, which may be deleted meanwhile; a pool names nothing else."""
    pool_read = ReadLoadBalancer(load_balancer_of(APP))
    assert list(NicPool().refers_to(membership("web-1"))) == [pool_read]
    assert list(AddressPool().refers_to(address("a", "10.0.0.1"))) == []
