"""What one agent knows of the set: newest views win, and one 404 proves nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.core.ledger import Entry, Ledger
from controller.core.model import (
    AddressMembership,
    IpConfiguration,
    LoadBalancer,
    Membership,
    Nic,
    NicMembership,
    Pool,
    PoolKind,
    PoolMember,
    PowerState,
    Vm,
    fold,
)
from controller.views import Deferrals, Views

NOW = datetime(2030, 1, 1, tzinfo=UTC)
GROUP = "/subscriptions/s/resourceGroups/g/providers"
LB = f"{GROUP}/Microsoft.Network/loadBalancers/web-lb"
APP, ADMIN = f"{LB}/backendAddressPools/app", f"{LB}/backendAddressPools/admin"


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def nic_id(vm: str) -> str:
    return f"{GROUP}/Microsoft.Network/networkInterfaces/{vm}-nic"


def vm(name: str, power: PowerState = PowerState.UNKNOWN, at: datetime | None = None) -> Vm:
    return Vm(
        name=name,
        vm_id=f"{GROUP}/Microsoft.Compute/virtualMachines/{name}",
        nic_ids=(nic_id(name),),
        power=power,
        power_observed_at=at,
    )


def nic(name: str, at: datetime = NOW, ip: str = "10.0.0.4", body: object = None) -> Nic:
    return Nic(
        nic_id=nic_id(name),
        vm_id=vm(name).vm_id,
        etag="1",
        ip_configurations=(IpConfiguration(name="ipconfig1", private_ip=ip),),
        observed_at=at,
        body=body,
    )


def pool(pool_id: str = APP, *members: str, at: datetime = NOW) -> Pool:
    """Return a pool of VMs by name, or of addresses."""
    return Pool(
        pool_id=pool_id,
        kind=PoolKind.NIC,
        members=tuple(
            PoolMember(
                address=AddressMembership(pool_id=pool_id, name=each, ip_address=each, body="{}")
            )
            if each[0].isdigit()
            else PoolMember(ip_configuration_id=f"{nic_id(each)}/ipConfigurations/ipconfig1")
            for each in members
        ),
        observed_at=at,
    )


def load_balancer(*pools: Pool, at: datetime = NOW) -> LoadBalancer:
    return LoadBalancer(load_balancer_id=LB, sku="Standard", pools=pools, observed_at=at)


def ledger(*memberships: Membership) -> Ledger:
    entry = Entry(
        vm="web-1",
        vm_id=vm("web-1").vm_id,
        events=(),
        memberships=memberships,
        recorded_at=NOW,
    )
    return Ledger(entries=(entry,))


@pytest.fixture
def views() -> Views:
    return Views([APP, ADMIN])


def test_a_vm_that_left_the_set_is_not_listed(views: Views) -> None:
    """The newest inventory is the set."""
    views.saw_vms([vm("web-2"), vm("web-1")], NOW)
    assert [each.name for each in views.vms] == ["web-1", "web-2"]
    views.saw_vms([vm("web-1")], later(1))
    assert [each.name for each in views.vms] == ["web-1"]
    assert views.inventory_at == later(1)


@pytest.mark.parametrize(
    ("listed_at", "expected"),
    [(None, PowerState.NOT_RUNNING), (NOW, PowerState.NOT_RUNNING), (later(9), PowerState.RUNNING)],
)
def test_the_newer_power_state_counts(
    views: Views, listed_at: datetime | None, expected: PowerState
) -> None:
    """A power state read singly stays until a list brings a newer one."""
    views.saw_vms([vm("web-1")], NOW)
    views.saw_power(vm("web-1"), PowerState.NOT_RUNNING, later(5))
    views.saw_vms([vm("web-1", PowerState.RUNNING, listed_at)], later(9))
    assert [each.power for each in views.vms] == [expected]


def test_a_vm_outside_the_set_is_kept_apart(views: Views) -> None:
    """The power of a former peer is known without making it a peer again."""
    views.saw_vms([vm("web-1")], NOW)
    views.saw_power(vm("web-9"), PowerState.GONE, NOW)
    assert [(each.name, each.power) for each in views.former] == [("web-9", PowerState.GONE)]
    assert [each.name for each in views.vms] == ["web-1"]
    assert views.missing == {fold(vm("web-9").vm_id)}
    views.saw_power(vm("web-9"), PowerState.RUNNING, later(1))
    assert views.missing == set()


def test_a_list_never_replaces_a_newer_nic(views: Views) -> None:
    """A list that was under way while a NIC was read singly does not undo what was read."""
    views.saw_nic(nic("web-1", later(5), body={"a": 1}))
    views.saw_nics([nic("web-1", NOW), nic("web-2", NOW)])
    known = views.nic(nic_id("web-1").upper())
    assert known is not None
    assert known.body == {"a": 1}
    assert len(views.nics) == 2
    views.saw_nics([nic("web-1", later(6))])
    assert views.nics[0].body is None


def test_ids_are_one_in_every_case(views: Views) -> None:
    """Azure's changes of case make no second view."""
    views.saw_pool(pool(APP.upper(), "web-1"))
    views.saw_pool(pool(APP, "web-1", "web-2"))
    assert [len(each.members) for each in views.pools] == [2]


def test_unmanaged_pools_are_ignored(views: Views) -> None:
    """Only configured pools are known, whatever else the load balancer has."""
    views.saw_load_balancer(load_balancer(pool(APP), pool(f"{LB}/backendAddressPools/other")))
    assert [each.pool_id for each in views.pools] == [APP]


def test_one_absence_is_no_proof(views: Views) -> None:
    """A resource is missing when it was absent for two minutes, and not before."""
    views.saw_nic(nic("web-1"))
    views.did_not_see(nic_id("web-1"), NOW)
    views.did_not_see(nic_id("web-1"), later(119))
    assert views.missing == set()
    assert views.nic(nic_id("web-1")) is not None
    views.did_not_see(nic_id("web-1").upper(), later(120))
    assert views.missing == {fold(nic_id("web-1"))}
    assert views.nic(nic_id("web-1")) is None
    views.saw_nic(nic("web-1", later(121)))
    assert views.missing == set()


def test_being_seen_starts_the_proof_again(views: Views) -> None:
    """Absences count only in a row."""
    views.did_not_see(nic_id("web-1"), NOW)
    views.saw_nic(nic("web-1"))
    views.did_not_see(nic_id("web-1"), later(5))
    assert views.missing == set()


def test_a_pool_not_listed_is_absent(views: Views) -> None:
    """A load balancer that lists one pool speaks about all configured pools below it."""
    views.saw_load_balancer(load_balancer(pool(APP), pool(ADMIN)))
    for seconds in (1, 121):
        views.saw_load_balancer(load_balancer(pool(APP), at=later(seconds)))
    assert [each.pool_id for each in views.pools] == [APP]
    assert views.missing == {fold(ADMIN)}


def test_a_lost_load_balancer_takes_its_pools_along(views: Views) -> None:
    """A load balancer that is gone for minutes is gone with each of its pools."""
    views.saw_load_balancer(load_balancer(pool(APP), pool(ADMIN)))
    views.lost_load_balancer(LB.upper(), NOW)
    views.lost_load_balancer(LB, later(120))
    assert views.pools == ()
    assert views.missing == {fold(APP), fold(ADMIN)}


def test_a_refused_body_is_not_used_again(views: Views) -> None:
    """After a conditional write failed the body is dropped, what it showed is not."""
    views.saw_nic(nic("web-1", body={"etag": "old"}))
    views.forget_nic_body(nic_id("web-1"))
    views.forget_nic_body(nic_id("web-9"))
    known = views.nic(nic_id("web-1"))
    assert known is not None
    assert known.body is None
    assert known.etag == "1"


@pytest.mark.parametrize(
    ("members", "without"),
    [
        ((), True),
        (("other-1",), True),
        (("10.0.0.9",), True),
        (("other-1", "web-2"), False),
        (("10.0.0.9", "10.0.0.4"), False),
    ],
)
def test_pools_without_any_of_our_vms(
    views: Views, members: tuple[str, ...], without: bool
) -> None:
    """A pool is ours when a NIC or an address of a peer is in it."""
    views.saw_pool(pool(APP, *members))
    assert views.pools_without_peers(Ledger()) == ()
    views.saw_nics([nic("web-1", ip="10.0.0.4"), nic("web-2", ip="10.0.0.5")])
    views.saw_nics([nic("other-1", ip="10.0.0.9")])
    views.saw_vms([vm("web-1"), vm("web-2")], NOW)
    assert views.pools_without_peers(Ledger()) == ((APP,) if without else ())


def test_a_pool_we_emptied_is_ours(views: Views) -> None:
    """What the ledger says we took out of a pool counts as being in it."""
    views.saw_vms([vm("web-1")], NOW)
    views.saw_pool(pool(APP))
    out = NicMembership(pool_id=APP.upper(), nic_id=nic_id("web-1"), ip_configuration="ipconfig1")
    assert views.pools_without_peers(ledger(out)) == ()


def test_a_recorded_pool_that_is_not_configured_is_nobodys_mistake(views: Views) -> None:
    """A pool that only an old entry names is followed, and never called a wrong setting."""
    other = f"{LB}/backendAddressPools/other"
    views.watch([other])
    views.saw_vms([vm("web-1")], NOW)
    views.saw_pool(pool(other))
    assert [each.pool_id for each in views.pools] == [other]
    assert views.pools_without_peers(Ledger()) == ()


class StoppedClock:
    """Both clocks, moved by hand; the wall clock may be set besides."""

    def __init__(self) -> None:
        self.passed_s = self.set_by_s = 0.0

    def now(self) -> datetime:
        return later(self.passed_s + self.set_by_s)

    def monotonic(self) -> float:
        return 100 + self.passed_s


def test_a_wall_clock_that_is_set_makes_no_wait_shorter() -> None:
    """What Azure asked for is counted in seconds that passed; the instant moves with the clock."""
    clock = StoppedClock()
    deferrals = Deferrals(clock)
    deferrals.defer("write:a", wait_s=9, reason="Throttled")
    clock.passed_s, clock.set_by_s = 3, 6
    assert deferrals.active["write:a"].until == later(15)


def test_deferrals_count_failures_in_a_row() -> None:
    """Each target has its own count, which a success sets back."""
    deferrals = Deferrals(StoppedClock())
    assert [deferrals.attempts("write:a") for _ in range(3)] == [1, 2, 3]
    assert deferrals.attempts("write:b") == 1
    deferrals.clear("write:a")
    assert deferrals.attempts("write:a") == 1


def test_a_deferral_ends_when_it_is_due() -> None:
    """What is due again is forgotten, how often it failed is not."""
    clock = StoppedClock()
    deferrals = Deferrals(clock)
    deferrals.attempts("write:a")
    deferrals.defer("write:a", wait_s=5, reason="Busy", message="busy")
    clock.passed_s = 4.9
    assert deferrals.active["write:a"].message == "busy"
    clock.passed_s = 5
    assert deferrals.active == {}
    assert deferrals.attempts("write:a") == 2
