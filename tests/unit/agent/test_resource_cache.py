"""What one agent knows of the set: newest views win, and one 404 proves nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.agent.resource_cache import ResourceCache, forget_deleted_vms
from controller.core.azure_names import fold
from controller.core.deleted_vms import KEPT
from controller.core.ledger import Entry, Ledger
from controller.core.presence import LASTING, Existence
from controller.core.resources import (
    AddressMembership,
    AdminMembership,
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
)
from controller.core.vm_report import SeenReport

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NOTHING = Ledger()
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


def missing(cache: ResourceCache) -> set[str]:
    """Return the ids of what has been absent for long."""
    return {key for key, each in cache.presence.items() if LASTING.holds(each)}


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
def views() -> ResourceCache:
    return ResourceCache([APP, ADMIN])


def test_a_vm_that_left_the_set_is_not_listed(views: ResourceCache) -> None:
    """The newest inventory is the set."""
    views.put_vms([vm("web-2"), vm("web-1")], NOW)
    assert [each.name for each in views.vms] == ["web-1", "web-2"]
    views.put_vms([vm("web-1")], later(1))
    assert [each.name for each in views.vms] == ["web-1"]
    assert views.inventory_at == later(1)


@pytest.mark.parametrize(
    ("listed_at", "expected"),
    [(None, PowerState.NOT_RUNNING), (NOW, PowerState.NOT_RUNNING), (later(9), PowerState.RUNNING)],
)
def test_the_newer_power_state_counts(
    views: ResourceCache, listed_at: datetime | None, expected: PowerState
) -> None:
    """A power state read singly stays until a list brings a newer one."""
    views.put_vms([vm("web-1")], NOW)
    views.put_power(vm("web-1"), PowerState.NOT_RUNNING, later(5))
    views.put_vms([vm("web-1", PowerState.RUNNING, listed_at)], later(9))
    assert [each.power for each in views.vms] == [expected]


def test_a_vm_that_is_set_aside_keeps_the_nics_last_seen(views: ResourceCache) -> None:
    """A body that cannot be used takes nothing away from what is known of the VM."""
    known = replace(vm("web-1"), nic_ids=("nic-1",))
    views.put_vms([known], NOW)
    odd = replace(known, nic_ids=(), problem="without networkProfile")
    views.put_vms([odd], later(1))
    assert views.vms == (replace(known, problem="without networkProfile"),)
    views.put_vms([known], later(2))
    assert views.vms == (known,)


def test_a_vm_outside_the_set_is_kept_apart(views: ResourceCache) -> None:
    """The power of a former peer is known without making it a peer again."""
    views.put_vms([vm("web-1")], NOW)
    views.put_power(vm("web-9"), PowerState.GONE, NOW)
    assert [(each.name, each.power) for each in views.former] == [("web-9", PowerState.GONE)]
    assert [each.name for each in views.vms] == ["web-1"]
    assert views.presence[fold(vm("web-9").vm_id)].existence is Existence.ABSENT
    views.put_power(vm("web-9"), PowerState.RUNNING, later(1))
    assert views.presence[fold(vm("web-9").vm_id)].existence is Existence.PRESENT


def test_a_list_never_replaces_a_newer_nic(views: ResourceCache) -> None:
    """A list that was under way while a NIC was read singly does not undo what was read."""
    views.put_nic(nic("web-1", later(5), body={"a": 1}))
    views.put_nics([nic("web-1", NOW), nic("web-2", NOW)])
    known = views.nic(nic_id("web-1").upper())
    assert known is not None
    assert known.body == {"a": 1}
    assert len(views.nics) == 2
    views.put_nics([nic("web-1", later(6))])
    assert views.nics[0].body is None


def test_since_when_a_nic_is_updating(views: ResourceCache) -> None:
    """The first of the views counts that all show an operation, and never one of the future."""
    changing = replace(nic("web-1"), updating=True)
    for view, since in (
        (replace(changing, observed_at=later(5)), later(5)),
        (replace(changing, observed_at=later(9)), later(5)),
        (replace(changing, observed_at=later(3)), later(3)),
        (nic("web-1", later(12)), None),
        (replace(changing, observed_at=later(20)), later(20)),
    ):
        views.put_nic(view)
        assert views.nics[0].updating_since == since


def test_ids_are_one_in_every_case(views: ResourceCache) -> None:
    """Azure's changes of case make no second view."""
    views.put_pool(pool(APP.upper(), "web-1"))
    views.put_pool(pool(APP, "web-1", "web-2"))
    assert [len(each.members) for each in views.pools] == [2]


def test_unmanaged_pools_are_ignored(views: ResourceCache) -> None:
    """Only configured pools are known, whatever else the load balancer has."""
    views.put_load_balancer(load_balancer(pool(APP), pool(f"{LB}/backendAddressPools/other")))
    assert [each.pool_id for each in views.pools] == [APP]


def test_one_absence_is_no_proof(views: ResourceCache) -> None:
    """A resource is missing when it was absent for two minutes, and not before."""
    views.put_nic(nic("web-1"))
    views.mark_absent(nic_id("web-1"), NOW)
    views.mark_absent(nic_id("web-1"), later(119))
    assert missing(views) == set()
    assert views.nic(nic_id("web-1")) is not None
    views.mark_absent(nic_id("web-1").upper(), later(120))
    assert missing(views) == {fold(nic_id("web-1"))}
    assert views.nic(nic_id("web-1")) is None
    views.put_nic(nic("web-1", later(121)))
    assert missing(views) == set()


def test_being_seen_starts_the_proof_again(views: ResourceCache) -> None:
    """Absences count only in a row."""
    views.mark_absent(nic_id("web-1"), NOW)
    views.put_nic(nic("web-1"))
    views.mark_absent(nic_id("web-1"), later(5))
    assert missing(views) == set()


def test_a_pool_not_listed_is_absent(views: ResourceCache) -> None:
    """A load balancer that lists one pool speaks about all configured pools below it."""
    views.put_load_balancer(load_balancer(pool(APP), pool(ADMIN)))
    for seconds in (1, 121):
        views.put_load_balancer(load_balancer(pool(APP), at=later(seconds)))
    assert [each.pool_id for each in views.pools] == [APP]
    assert missing(views) == {fold(ADMIN)}


def test_a_lost_load_balancer_takes_its_pools_along(views: ResourceCache) -> None:
    """A load balancer that is gone for minutes is gone with each of its pools."""
    views.put_load_balancer(load_balancer(pool(APP), pool(ADMIN)))
    views.mark_load_balancer_absent(LB.upper(), NOW)
    views.mark_load_balancer_absent(LB, later(120))
    assert views.pools == ()
    assert missing(views) == {fold(APP), fold(ADMIN)}


def test_a_refused_body_is_not_used_again(views: ResourceCache) -> None:
    """After a conditional write failed the body is dropped, what it showed is not."""
    views.put_nic(nic("web-1", body={"etag": "old"}))
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
    views: ResourceCache, members: tuple[str, ...], without: bool
) -> None:
    """A pool is ours when a NIC or an address of a peer is in it."""
    newest = NOW + timedelta(seconds=1)  # the pool is read after the NICs, which list no pools
    views.put_pool(replace(pool(APP, *members), observed_at=newest))
    assert views.pools_without_peers(Ledger()) == ()
    views.put_nics([nic("web-1", ip="10.0.0.4"), nic("web-2", ip="10.0.0.5")])
    views.put_nics([nic("other-1", ip="10.0.0.9")])
    views.put_vms([vm("web-1"), vm("web-2")], NOW)
    assert views.pools_without_peers(Ledger()) == ((APP,) if without else ())


def test_a_pool_we_emptied_is_ours(views: ResourceCache) -> None:
    """What the ledger says we took out of a pool counts as being in it."""
    views.put_vms([vm("web-1")], NOW)
    views.put_pool(pool(APP))
    out = NicMembership(pool_id=APP.upper(), nic_id=nic_id("web-1"), ip_configuration="ipconfig1")
    assert views.pools_without_peers(ledger(out)) == ()


def test_a_recorded_pool_that_is_not_configured_is_nobodys_mistake(views: ResourceCache) -> None:
    """A pool that only an old entry names is followed, and never called a wrong setting."""
    other = f"{LB}/backendAddressPools/other"
    views.watch([other])
    views.put_vms([vm("web-1")], NOW)
    views.put_pool(pool(other))
    assert [each.pool_id for each in views.pools] == [other]
    assert views.pools_without_peers(Ledger()) == ()


def test_what_a_wrong_clock_saw_gives_way_to_every_view(views: ResourceCache) -> None:
    """A view, a power state, an absence and an inventory of the future block nothing."""
    ahead = later(3600)
    views.put_vms([vm("web-1", PowerState.NOT_RUNNING, ahead)], ahead)
    views.put_nic(nic("web-1", ahead))
    views.put_load_balancer(load_balancer(pool(APP, at=ahead), at=ahead))
    views.forget_future(later(5))
    views.put_vms([vm("web-1", PowerState.RUNNING, NOW)], NOW)
    views.put_nics([nic("web-1", NOW, ip="10.0.0.9")])
    views.mark_absent(APP, NOW)
    views.put_load_balancer(load_balancer(pool(ADMIN)))
    (seen,), (listed,) = views.vms, views.nics
    assert (seen.power, listed.observed_at, views.inventory_at) == (PowerState.RUNNING, NOW, NOW)
    assert views.presence[fold(APP)].existence is Existence.ABSENT
    assert views.presence[fold(ADMIN)].existence is Existence.PRESENT


def test_what_was_seen_lately_is_kept(views: ResourceCache) -> None:
    """Clocks differ by a few seconds, which is no reason to read everything again."""
    views.put_vms([vm("web-1", PowerState.RUNNING, later(4))], later(4))
    views.put_nic(nic("web-1", later(4)))
    before = views.vms, views.nics, views.inventory_at, dict(views.presence)
    views.forget_future(later(5))
    assert (views.vms, views.nics, views.inventory_at, views.presence) == before


def test_an_old_reply_changes_no_view() -> None:
    """S5: it shows members that were removed meanwhile, and pools that are no proof either."""
    views = ResourceCache([APP, ADMIN])
    shown = [replace(pool(APP, "web-1"), etag="a"), replace(pool(ADMIN, "web-1"), etag="a")]
    assert views.put_load_balancer(load_balancer(*shown))
    removed = replace(pool(APP), etag="b", observed_at=later(5))
    assert views.put_pool(removed)
    assert not views.put_load_balancer(load_balancer(shown[0], at=later(6)))
    assert not views.put_pool(replace(shown[0], observed_at=later(6)))
    assert removed in views.pools
    assert views.presence[fold(ADMIN)].existence is Existence.PRESENT


def test_an_old_reply_about_a_nic_changes_no_view() -> None:
    """The list of NICs can lag behind the NIC itself."""
    views = ResourceCache([APP])
    old, new = nic("web-1"), replace(nic("web-1", later(5), ip="10.0.0.9"), etag="2")
    assert views.put_nic(old)
    assert views.put_nic(new)
    assert not views.put_nic(replace(old, observed_at=later(6)))
    views.put_nics([replace(old, observed_at=later(7))])
    assert views.nics == (new,)


OLD = NOW - KEPT - timedelta(seconds=1)
PLACE = NicMembership(pool_id=APP, nic_id=nic_id("web-1"), ip_configuration="ipconfig1")


@pytest.fixture
def left(views: ResourceCache) -> ResourceCache:
    """A VM that has left the set, whose NIC was seen last before that."""
    views.put_vms([vm("web-1"), vm("web-2")], OLD)
    views.put_nic(replace(nic("web-1", OLD - timedelta(seconds=1)), etag="0"))
    views.put_nics([nic("web-1", OLD), nic("web-2", OLD, ip="10.0.0.5")])
    views.put_vms([vm("web-2")], NOW)
    views.reports |= {name: SeenReport(None, OLD) for name in ("web-1", "web-2")}
    return views


def forget(views: ResourceCache, known: Ledger = NOTHING, *named: str) -> bool:
    """Return whether the NIC of web-1 is forgotten; that of web-2 never is."""
    forget_deleted_vms(views, known, named.__contains__, NOW)
    assert views.nic(nic_id("web-2"))
    assert "web-2" in views.reports
    return views.nic(nic_id("web-1")) is None


def test_a_deleted_vm_is_forgotten(left: ResourceCache) -> None:
    """Instances are replaced for ever: nothing of those that are gone is left after a while."""
    assert forget(left)
    assert left.presence.keys() == {fold(vm("web-2").vm_id), fold(nic_id("web-2"))}
    assert left.reports.keys() == {"web-2"}
    assert left.put_nic(replace(nic("web-1", OLD), etag="0")), "its ETags are forgotten, too"


@pytest.mark.parametrize(
    "place",
    [
        PLACE,
        AddressMembership(pool_id=APP, name="web-1", ip_address="10.0.0.4", body="{}"),
        AdminMembership(pool_id=APP, nic_id=nic_id("web-1"), ip_configuration="ipconfig1"),
    ],
)
@pytest.mark.parametrize("vm_id", ["", vm("other").vm_id])
def test_what_the_ledger_names_is_kept(left: ResourceCache, place: Membership, vm_id: str) -> None:
    """S3, S5: a NIC counts by its VM, its own id, or its address; so does what is lost."""
    entry = ledger(place).entries[0]
    assert not forget(left, Ledger(entries=(replace(entry, vm_id=vm_id or entry.vm_id),)))
    parked = replace(entry, memberships=(), lost=(place,), vm_id=vm_id or entry.vm_id)
    assert not forget(left, Ledger(entries=(parked,)))
    assert "web-1" in left.reports
    other = replace(PLACE, nic_id=nic_id("other"))
    assert not forget(left, Ledger(entries=(replace(entry, memberships=(other,)),)))


@pytest.mark.parametrize("member", ["web-1", "10.0.0.4"])
def test_the_nic_of_a_member_is_kept(left: ResourceCache, member: str) -> None:
    """S1: a pool that lists a NIC, or its address, may still send it connections."""
    left.put_pool(pool(APP, member))
    assert not forget(left)
    left.put_pool(pool(APP, "web-2", at=later(1)))
    assert forget(left)


def test_what_an_event_names_or_was_just_seen_is_kept(left: ResourceCache) -> None:
    """S1: an event is for the VM, or it may be created at this moment."""
    assert not forget(left, NOTHING, "web-1")
    left.put_power(vm("web-1"), PowerState.GONE, NOW)
    assert not forget(left)
    left.put_nic(nic("web-3", NOW - KEPT))
    forget(left)
    assert left.nic(nic_id("web-3"))
