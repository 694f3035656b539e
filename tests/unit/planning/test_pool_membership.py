"""The join of VMs, NICs and pools: the newer of two views is believed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.observation import Observation
from controller.core.planning.pool_membership import PoolMembership
from controller.core.resources import (
    AddressMembership,
    IpConfiguration,
    Nic,
    NicMembership,
    Pool,
    PoolKind,
    PoolMember,
    Vm,
)
from tests.support.planner_scenario import lasting_absence

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
POOL = "/lb/web/backendAddressPools/app"
NIC = "/nics/a"
WEB1 = Vm(name="web-1", vm_id="/vms/web-1", nic_ids=(NIC,))


def nic(*pools: str, seen: float = 0, failed: bool = False, vm_id: str = "", ip: str = "") -> Nic:
    configuration = IpConfiguration(name="c", pool_ids=pools, private_ip=ip)
    return Nic(
        nic_id=NIC,
        vm_id=vm_id,
        etag="1",
        ip_configurations=(configuration,),
        failed=failed,
        observed_at=T0 + timedelta(seconds=seen),
    )


def pool(*members: str | AddressMembership, seen: float = 0) -> Pool:
    listed = tuple(
        PoolMember(ip_configuration_id=each) if isinstance(each, str) else PoolMember(address=each)
        for each in members
    )
    return Pool(
        pool_id=POOL,
        kind=PoolKind.NIC,
        members=listed,
        observed_at=T0 + timedelta(seconds=seen),
    )


def inventory(
    *, nics: tuple[Nic, ...] = (), pools: tuple[Pool, ...] = (), vms: tuple[Vm, ...] = (WEB1,)
) -> PoolMembership:
    observed = Observation(document=None, vms=vms, nics=nics, pools=pools)
    return PoolMembership(observed, [POOL.upper()])


MEMBER = f"{NIC.upper()}/ipConfigurations/C"
INSIDE = (NicMembership(pool_id=POOL, nic_id=NIC, ip_configuration="c", position=1),)


def test_newer_nic_is_believed() -> None:
    """A NIC read after the pool decides, in both directions."""
    out = inventory(nics=(nic("other", seen=1),), pools=(pool(MEMBER),))
    assert out.memberships(WEB1) == ()
    inside = inventory(nics=(nic("other", POOL, seen=1),), pools=(pool(),))
    assert inside.memberships(WEB1) == INSIDE


def test_newer_pool_is_believed() -> None:
    """A pool read after the NIC decides, in both directions; the NIC's spelling is kept."""
    out = inventory(nics=(nic("other", POOL),), pools=(pool(seen=1),))
    assert out.memberships(WEB1) == ()
    inside = inventory(nics=(nic("other", POOL),), pools=(pool(MEMBER, seen=1),))
    assert inside.memberships(WEB1) == INSIDE
    unknown = inventory(nics=(nic("other"),), pools=(pool(MEMBER, seen=1),))
    assert [m.key for m in unknown.memberships(WEB1)] == [INSIDE[0].key]


def test_only_relevant_pools_count() -> None:
    """What a NIC says of pools that nobody manages is not looked at."""
    assert inventory(nics=(nic("/lb/x/backendAddressPools/y"),)).memberships(WEB1) == ()


def test_nic_that_names_its_vm() -> None:
    """A NIC the VM does not list is matched by the VM id it carries."""
    bare = Vm(name="web-1", vm_id="/VMS/web-1", nic_ids=())
    found = inventory(nics=(nic("other", POOL, vm_id="/vms/WEB-1"),), vms=(bare,))
    assert found.memberships(bare) == INSIDE


def test_addresses() -> None:
    """An address belongs to the VM whose NIC has it, in any spelling."""
    entry = AddressMembership(pool_id=POOL, name="a", ip_address="FD00:0::1", body="{}")
    found = inventory(nics=(nic(ip="fd00::1"),), pools=(pool(entry),))
    assert found.memberships(WEB1) == (entry,)
    assert found.healthy_members(POOL, frozenset()) == {"web-1"}
    foreign = inventory(nics=(nic(ip="fd00::2"),), pools=(pool(entry),))
    assert foreign.memberships(WEB1) == ()
    assert foreign.healthy_members(POOL, frozenset()) == {"fd00::1"}


def test_failed_and_unhealthy_members_do_not_serve() -> None:
    """S2: they are members all the same."""
    failed = inventory(nics=(nic(POOL, failed=True),))
    assert failed.healthy_members(POOL, frozenset()) == set()
    assert failed.members(POOL) == {"web-1"}
    fine = inventory(nics=(nic(POOL),))
    assert fine.healthy_members(POOL, frozenset()) == {"web-1"}
    assert fine.healthy_members(POOL, frozenset({"web-1"})) == set()


def test_strangers_serve_once_per_nic() -> None:
    """S2: a foreign machine with two ipConfigurations is one machine."""
    found = inventory(pools=(pool("/nics/X/ipConfigurations/a", "/nics/x/ipConfigurations/b"),))
    assert found.healthy_members(POOL, frozenset()) == {"/nics/x"}
    assert found.members(POOL) == {"/nics/x"}


def test_standing_needs_no_owner() -> None:
    """S3: whether a membership is there does not depend on who owns the NIC."""
    orphan = inventory(nics=(nic(POOL),), vms=())
    assert orphan.is_member(NicMembership(pool_id=POOL, nic_id=NIC, ip_configuration="C"))
    assert not orphan.is_member(NicMembership(pool_id=POOL, nic_id=NIC, ip_configuration="d"))


FOREIGN = "/nics/x"


def foreign_nic(*pools: str, ip: str = "") -> Nic:
    return replace(nic(*pools, ip=ip), nic_id=FOREIGN, vm_id="/vms/foreign")


def test_a_nic_of_nobody_we_know_is_a_stranger() -> None:
    """S2: a NIC or address that is read but belongs to no peer serves as a stranger."""
    member = f"{FOREIGN}/ipConfigurations/c"
    found = inventory(nics=(nic(POOL), foreign_nic(POOL)), pools=(pool(MEMBER, member),))
    assert found.healthy_members(POOL, frozenset()) == {"web-1", FOREIGN}
    assert found.members(POOL) == {"web-1", FOREIGN}
    entry = AddressMembership(pool_id=POOL, name="a", ip_address="10.0.0.9", body="{}")
    found = inventory(nics=(nic(), foreign_nic(ip="10.0.0.9")), pools=(pool(entry),))
    assert found.healthy_members(POOL, frozenset()) == {"10.0.0.9"}
    assert found.memberships(WEB1) == ()


def test_an_address_in_the_ledger_is_that_of_its_vm() -> None:
    """S2: what the ledger says whose address it is holds, also when the VM and its NIC are gone."""
    entry = AddressMembership(pool_id=POOL, name="a", ip_address="10.0.0.9", body="{}")
    observed = Observation(document=None, pools=(pool(entry),))
    found = PoolMembership(observed, (POOL,), (), {"10.0.0.9": "web-9"})
    assert found.healthy_members(POOL, frozenset()) == {"web-9"}
    assert found.healthy_members(POOL, frozenset({"web-9"})) == set()


def test_an_address_serves_nobody_while_a_nic_of_the_set_is_unseen() -> None:
    """S2: an address that may be that of a peer whose NIC was never read is not counted on."""
    entry = AddressMembership(pool_id=POOL, name="a", ip_address="10.0.0.9", body="{}")
    found = inventory(nics=(), pools=(pool(entry),))
    assert found.healthy_members(POOL, frozenset()) == set()
    assert found.members(POOL) == {"10.0.0.9"}


def test_one_unseen_nic_is_enough_and_one_that_was_deleted_is_seen() -> None:
    """S2: one NIC that was never read may have the address; one that is gone may not."""
    entry = AddressMembership(pool_id=POOL, name="a", ip_address="10.0.0.9", body="{}")
    two = replace(WEB1, nic_ids=(NIC, "/nics/B"))
    observed = Observation(document=None, vms=(two,), nics=(nic(),), pools=(pool(entry),))
    assert PoolMembership(observed, [POOL]).healthy_members(POOL, frozenset()) == set()
    deleted = replace(observed, presence=lasting_absence("/nics/B"))
    assert PoolMembership(deleted, [POOL]).healthy_members(POOL, frozenset()) == {"10.0.0.9"}


@pytest.mark.parametrize("broken", [("web-1",), ("web-2",), ("web-1", "web-2")])
def test_one_vm_that_cannot_be_read_is_enough(broken: tuple[str, ...]) -> None:
    """S2: an address may be that of a NIC which an unreadable VM does not list."""
    entry = AddressMembership(pool_id=POOL, name="a", ip_address="10.0.0.9", body="{}")
    vms = (WEB1, Vm(name="web-2", vm_id="/vms/web-2", nic_ids=()))
    known = inventory(nics=(nic(),), pools=(pool(entry),), vms=vms)
    assert known.healthy_members(POOL, frozenset()) == {"10.0.0.9"}
    unread = tuple(replace(vm, problem="no body" if vm.name in broken else "") for vm in vms)
    found = inventory(nics=(nic(),), pools=(pool(entry),), vms=unread)
    assert found.healthy_members(POOL, frozenset()) == set()


def test_an_address_that_nobody_has_is_nobodys() -> None:
    """A NIC that has no private address yet does not own a member without one."""
    entry = AddressMembership(pool_id=POOL, name="a", ip_address="", body="{}")
    assert inventory(nics=(nic(),), pools=(pool(entry),)).memberships(WEB1) == ()


def test_members_are_of_one_pool() -> None:
    """S2: who stands in another pool is no member of this one."""
    found = inventory(nics=(nic(POOL),))
    assert found.members(POOL) == {"web-1"}
    assert found.members("/lb/web/backendAddressPools/api") == set()
    assert found.healthy_members("/lb/web/backendAddressPools/api", frozenset()) == set()


def test_who_stands_in_two_pools_is_a_member_of_both() -> None:
    """S2: one membership in a pool makes a member, whatever the others are in."""
    api = "/lb/web/backendAddressPools/api"
    found = PoolMembership(
        Observation(document=None, vms=(WEB1,), nics=(nic(POOL, api),)), [POOL, api]
    )
    for each in (POOL, api):
        assert found.members(each) == found.healthy_members(each, frozenset()) == {"web-1"}


def test_a_member_whose_nic_was_never_seen_serves() -> None:
    """S2: the pool lists it, and nothing is known against it."""
    found = inventory(pools=(pool(MEMBER),))
    assert found.healthy_members(POOL, frozenset()) == {"web-1"}


def test_only_the_named_ip_configuration_is_taken_from_the_nic() -> None:
    """S3: a member's position comes from its own ipConfiguration, not from the NIC's first one."""
    first = IpConfiguration(name="other", pool_ids=(POOL,))
    second = IpConfiguration(name="c", pool_ids=("x", "y", POOL))
    seen = replace(nic(), ip_configurations=(first, second))
    found = inventory(nics=(seen,), pools=(pool(MEMBER, seen=1),))
    assert found.memberships(WEB1) == (replace(INSIDE[0], position=2),)


def test_equally_old_views_are_told_by_the_nic() -> None:
    """Where both are of one instant the NIC's word counts, once."""
    inside = inventory(nics=(nic("other", POOL),), pools=(pool(),))
    assert inside.memberships(WEB1) == INSIDE
    both = inventory(nics=(nic("other", POOL),), pools=(pool(MEMBER),))
    assert both.memberships(WEB1) == INSIDE
    out = inventory(nics=(nic("other"),), pools=(pool(MEMBER),))
    assert out.memberships(WEB1) == ()


def test_memberships_come_in_the_order_of_ids() -> None:
    """The same world gives the same plan, in whatever order it was read."""
    second = replace(nic(POOL), nic_id="/nics/B")
    vm = replace(WEB1, nic_ids=("/nics/B", NIC))
    for nics in ((nic(POOL), second), (second, nic(POOL))):
        found = inventory(nics=nics, vms=(vm,))
        assert [m.key[1] for m in found.memberships(vm)] == ["/nics/a", "/nics/b"]


def test_pools_come_in_the_order_of_ids() -> None:
    """The same world gives the same plan, in whatever order its pools were read."""
    ids = [f"/lb/web/backendAddressPools/{name}" for name in ("e", "b", "d", "a", "c")]
    entries = [
        AddressMembership(pool_id=each, name="a", ip_address="10.0.0.1", body="{}") for each in ids
    ]
    pools = tuple(replace(pool(each), pool_id=each.pool_id) for each in entries)
    observed = Observation(document=None, vms=(WEB1,), nics=(nic(ip="10.0.0.1"),), pools=pools)
    found = PoolMembership(observed, ids)
    assert [m.pool_id for m in found.memberships(WEB1)] == sorted(ids)


def test_an_address_is_no_nic() -> None:
    """S3: a member is one thing or the other, and stands once."""
    entry = AddressMembership(pool_id=POOL, name="a", ip_address="10.0.0.1", body="{}")
    found = inventory(pools=(pool(entry),))
    assert found.is_member(entry)
    assert not found.is_member(NicMembership(pool_id=POOL, nic_id="", ip_configuration=""))


def test_the_nics_own_spelling_is_kept() -> None:
    """S3: what is recorded, and written back, is spelled as the NIC spells it."""
    loud = IpConfiguration(name="C", pool_ids=("x", POOL.upper()))
    seen = replace(nic(), ip_configurations=(loud,))
    member = f"{NIC.upper()}/ipConfigurations/c"
    found = inventory(nics=(seen,), pools=(pool(member, seen=1),))
    assert found.memberships(WEB1) == (
        NicMembership(pool_id=POOL.upper(), nic_id=NIC, ip_configuration="C", position=1),
    )


def test_a_vm_is_known_in_any_spelling() -> None:
    """Names and ids of a VM, its NICs and addresses are compared without case."""
    loud = Vm(name="WEB-1", vm_id="/VMS/WEB-1", nic_ids=())
    entry = AddressMembership(pool_id=POOL.upper(), name="a", ip_address="FD00::1", body="{}")
    found = inventory(
        nics=(nic(POOL, vm_id="/vms/web-1", ip="fd00:0::1"),),
        pools=(pool(entry, seen=-1),),
        vms=(loud,),
    )
    assert found.peer("web-1") is loud
    assert len(found.memberships(loud)) == 2
    assert found.healthy_members(POOL, frozenset()) == {"web-1"}
    assert found.is_member(replace(entry, ip_address="fd00:0:0::1"))
    listed = replace(loud, nic_ids=(NIC.upper(),))
    assert len(inventory(nics=(nic(POOL),), vms=(listed,)).memberships(listed)) == 1


def test_a_peer_owns_its_nic_before_a_vm_of_the_past() -> None:
    """A NIC that moved to another VM belongs to that one."""
    past = Vm(name="old", vm_id="/vms/old", nic_ids=(NIC,))
    observed = Observation(document=None, vms=(WEB1,), nics=(nic(POOL),))
    found = PoolMembership(observed, [POOL], (past, WEB1))
    assert found.memberships(past) == ()
    assert len(found.memberships(WEB1)) == 1


def test_look_ups_ignore_case() -> None:
    """Names and ids are found in any spelling."""
    found = inventory(nics=(nic(),), pools=(pool(),))
    assert found.nic(NIC.upper()) is not None
    assert found.pool(POOL.upper()) is not None
    assert found.peer("WEB-1") is WEB1
    assert found.peer("web-9") is None


def test_what_a_pool_has_is_found_in_any_spelling() -> None:
    """Every question about a pool is answered for its id in any case, and for no other pool."""
    listed = pool(MEMBER, f"{FOREIGN}/ipConfigurations/c")
    found = inventory(nics=(nic(POOL, failed=True),), pools=(listed,))
    foreign = NicMembership(pool_id=POOL, nic_id=FOREIGN, ip_configuration="c")
    assert found.pools == (listed,)
    for pool_id in (POOL, POOL.upper()):
        assert found.keys(pool_id) == {INSIDE[0].key, foreign.key}
        assert found.vms(pool_id) == {"web-1"}
    assert found.keys("/lb/web/backendAddressPools/api") == frozenset()
    assert found.vms("/lb/web/backendAddressPools/api") == frozenset()
