"""The one change made to NIC and pool bodies, on shapes that Azure has sent."""

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import errors
from controller.azure import network_bodies
from controller.core.ledger import Entry, Ledger
from controller.core.resources import AddressMembership, NicMembership, PoolKind
from controller.storage.ledger_json import decode_ledger, encode_bounded

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/web-rg"
NIC = f"{GROUP}/providers/Microsoft.Network/networkInterfaces/testResource"
LB = f"{GROUP}/providers/Microsoft.Network/loadBalancers/web"
POOLS = [f"{LB}/backendAddressPools/{name}" for name in ("app", "admin", "api")]
SUBNET = f"{GROUP}/providers/Microsoft.Network/virtualNetworks/testVnet/subnets/testSubnet"


def nic_body(*pool_ids: str, second: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return a NIC as Azure answers it, after the recordings of cloud-provider-azure.

    (Apache-2.0, The Kubernetes Authors.) Without pools the key is absent, as recorded.
    """
    configurations = [configuration("ipConfig1", pool_ids)]
    if second is not None:
        configurations.append(configuration("ipConfig2", second))
    return {
        "name": "testResource",
        "id": NIC,
        "etag": 'W/"00000000-0000-0000-0000-000000000000"',
        "tags": {"owner": "web"},
        "properties": {
            "provisioningState": "Succeeded",
            "resourceGuid": "00000000-0000-0000-0000-000000000000",
            "ipConfigurations": configurations,
            "dnsSettings": {"dnsServers": [], "appliedDnsServers": []},
            "enableAcceleratedNetworking": True,
            "virtualMachine": {"id": f"{GROUP}/providers/Microsoft.Compute/virtualMachines/web-1"},
            "propertyOfTheFuture": {"deep": [1, {"x": None}]},
        },
        "type": "Microsoft.Network/networkInterfaces",
        "location": "eastus",
        "kind": "Regular",
    }


def configuration(name: str, pool_ids: tuple[str, ...]) -> dict[str, Any]:
    pools = {"loadBalancerBackendAddressPools": [{"id": p} for p in pool_ids]} if pool_ids else {}
    return {
        "name": name,
        "id": f"{NIC}/ipConfigurations/{name}",
        "etag": 'W/"00000000-0000-0000-0000-000000000000"',
        "type": "Microsoft.Network/networkInterfaces/ipConfigurations",
        "properties": {
            "provisioningState": "Succeeded",
            "privateIPAddress": "10.0.0.4",
            "subnet": {"id": SUBNET},
            "loadBalancerInboundNatRules": [{"id": f"{LB}/inboundNatRules/ssh"}],
        }
        | pools,
    }


def membership(pool_id: str, position: int = 0, name: str = "ipConfig1") -> NicMembership:
    return NicMembership(pool_id=pool_id, nic_id=NIC, ip_configuration=name, position=position)


def memberships_of(body: dict[str, Any]) -> tuple[NicMembership, ...]:
    nic = network_bodies.parse_nic(body, NOW)
    return tuple(
        membership(pool_id, position, entry.name)
        for entry in nic.ip_configurations
        for position, pool_id in enumerate(entry.pool_ids)
    )


def without_empty_lists(body: dict[str, Any]) -> dict[str, Any]:
    """Drop pool lists that are empty: Azure takes them for absent ones."""
    trimmed = copy.deepcopy(body)
    for entry in trimmed["properties"]["ipConfigurations"]:
        if not entry["properties"].get("loadBalancerBackendAddressPools", ["x"]):
            del entry["properties"]["loadBalancerBackendAddressPools"]
    return trimmed


# --- NIC ----------------------------------------------------------------------------------------


def test_nic_is_read() -> None:
    """Id, VM, etag, pools in order and addresses are parsed; the body is kept as received."""
    body = nic_body(POOLS[0], POOLS[1])
    nic = network_bodies.parse_nic(body, NOW)
    assert (nic.nic_id, nic.failed, nic.body) == (NIC, False, body)
    assert nic.vm_id.endswith("/virtualMachines/web-1")
    assert nic.ip_configurations[0].pool_ids == (POOLS[0], POOLS[1])
    assert nic.ip_configurations[0].private_ip == "10.0.0.4"


def test_failed_nic_without_vm() -> None:
    """A NIC without a VM in provisioningState Failed is parsed."""
    body = nic_body()
    body["properties"]["provisioningState"] = "Failed"
    del body["properties"]["virtualMachine"]
    nic = network_bodies.parse_nic(body, NOW)
    assert (nic.failed, nic.vm_id, nic.ip_configurations[0].pool_ids) == (True, "", ())


def test_removal_touches_one_list_only() -> None:
    """Only the named reference is removed; NAT rules, tags and unknown fields stay."""
    before = nic_body(*POOLS, second=(POOLS[0],))
    original = copy.deepcopy(before)
    edit = network_bodies.without_memberships(
        before, (membership(POOLS[1].upper(), name="IPCONFIG1"),)
    )
    assert edit.changed
    assert edit.absent == ()
    assert edit.body == nic_body(POOLS[0], POOLS[2], second=(POOLS[0],))
    assert before == original


def test_same_pool_on_another_ip_configuration_stays() -> None:
    """A membership is one ipConfiguration in one pool, not the NIC in the pool."""
    edit = network_bodies.without_memberships(
        nic_body(POOLS[0], second=(POOLS[0],)), (membership(POOLS[0], name="ipConfig2"),)
    )
    assert without_empty_lists(edit.body) == nic_body(POOLS[0], second=())


def test_removing_an_absent_membership_changes_nothing() -> None:
    """A reference that an operator removed before is absent, and the body stays as it is."""
    missing = (membership(POOLS[2]), membership(POOLS[0], name="ipConfig9"))
    edit = network_bodies.without_memberships(nic_body(POOLS[0]), missing)
    assert (edit.changed, edit.absent, edit.body) == (False, missing, nic_body(POOLS[0]))


def test_restore_uses_the_old_positions() -> None:
    """References are restored at their positions, also into an absent list, and only once."""
    edit = network_bodies.with_memberships(
        nic_body(POOLS[1]), (membership(POOLS[2], 2), membership(POOLS[0], 0))
    )
    assert edit.body == nic_body(*POOLS)
    again = network_bodies.with_memberships(edit.body, (membership(POOLS[0].upper(), 0),))
    assert (again.changed, again.body) == (False, edit.body)
    empty = network_bodies.with_memberships(nic_body(), (membership(POOLS[0], 7),))
    assert empty.body == nic_body(POOLS[0])


def test_restore_to_a_deleted_ip_configuration_is_absent() -> None:
    """A membership whose ipConfiguration no longer exists is reported, the others are restored."""
    gone = membership(POOLS[0], name="old")
    edit = network_bodies.with_memberships(nic_body(), (gone, membership(POOLS[1])))
    assert (edit.absent, edit.body) == ((gone,), nic_body(POOLS[1]))


@given(st.permutations(POOLS), st.permutations(POOLS), st.data())
def test_round_trip_is_the_identity(
    first: list[str], second: list[str], data: st.DataObject
) -> None:
    """Removing and restoring any subset yields the same body (S3 exact)."""
    body = nic_body(*first, second=tuple(second))
    chosen = tuple(data.draw(st.lists(st.sampled_from(memberships_of(body)), unique=True)))
    removed = network_bodies.without_memberships(body, chosen)
    assert removed.absent == ()
    assert network_bodies.with_memberships(removed.body, chosen).body == body


@pytest.mark.parametrize(
    "broken",
    [
        {"id": NIC, "properties": []},
        {"id": NIC, "properties": {"ipConfigurations": {}}},
        {"id": NIC, "properties": {"ipConfigurations": ["x"]}},
        {"id": NIC, "properties": {"ipConfigurations": [{"properties": {}}]}},
        {"properties": {}},
        {"id": 5},
    ],
)
def test_a_body_that_is_not_a_nic_is_a_violation(broken: dict[str, Any]) -> None:
    """A reply of another shape never counts as a NIC without pools."""
    with pytest.raises(errors.ContractViolation):
        network_bodies.parse_nic(broken, NOW)


# --- pools --------------------------------------------------------------------------------------


def address(name: str, ip: str, **extra: Any) -> dict[str, Any]:
    return {
        "name": name,
        "id": f"{POOLS[0]}/addresses/{name}",
        "etag": 'W/"1"',
        "properties": {
            "provisioningState": "Succeeded",
            "ipAddress": ip,
            "virtualNetwork": {"id": SUBNET.rsplit("/subnets", 1)[0]},
        }
        | extra,
    }


def pool_body(*entries: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {
        "name": "app",
        "id": POOLS[0],
        "etag": 'W/"1"',
        "properties": {
            "provisioningState": "Succeeded",
            "loadBalancerBackendAddresses": list(entries),
            "tunnelInterfaces": [{"port": 15000}],
        }
        | properties,
    }


def address_memberships(body: dict[str, Any]) -> tuple[AddressMembership, ...]:
    return tuple(
        member.address
        for member in network_bodies.parse_pool(body, NOW).members
        if member.address is not None
    )


@pytest.mark.parametrize(
    ("body", "kind", "members"),
    [
        (pool_body(), PoolKind.EMPTY, 0),
        ({"id": POOLS[0], "properties": {}}, PoolKind.EMPTY, 0),
        (pool_body(address("a", "10.0.0.4"), address("b", "10.0.0.5")), PoolKind.ADDRESS, 2),
        (pool_body(backendIPConfigurations=[{"id": f"{NIC}/ipConfigurations/x"}]), PoolKind.NIC, 1),
        (
            # Both views of one member, in different case; a synthetic address next to it.
            pool_body(
                address(
                    "a",
                    "10.0.0.4",
                    networkInterfaceIPConfiguration={"id": f"{NIC}/ipConfigurations/X"},
                ),
                backendIPConfigurations=[{"id": f"{NIC.upper()}/ipConfigurations/x"}],
            ),
            PoolKind.NIC,
            1,
        ),
    ],
)
def test_kind_of_a_pool(body: dict[str, Any], kind: PoolKind, members: int) -> None:
    """The kind follows from the members, and a member listed twice counts once."""
    pool = network_bodies.parse_pool(body, NOW)
    assert (pool.kind, len(pool.members)) == (kind, members)


def test_an_address_with_many_nat_ports_is_recorded_so_that_agents_can_read_it() -> None:
    """S3: a ledger with an address that has hundreds of inbound NAT ports is read again."""
    ports = [
        {
            "inboundNatRuleName": f"passive-ftp-{port}",
            "protocol": "Tcp",
            "frontendPort": port,
            "backendPort": port,
        }
        for port in range(50_000, 50_300)
    ]
    body = pool_body(
        address("a", "10.0.0.4", adminState="Up", inboundNatRulesPortMapping=ports),
        address("b", "10.0.0.5"),
    )
    (first, _) = address_memberships(body)
    entry = Entry(vm="web-1", vm_id="vm", events=(), memberships=(first,), recorded_at=NOW)
    _, written = encode_bounded(Ledger(entries=(entry,)))
    (read,) = decode_ledger(written).entries
    assert read.memberships == (first,)
    removed = network_bodies.without_addresses(body, (first,)).body
    restored = network_bodies.with_addresses(removed, (first,)).body
    entries = restored["properties"]["loadBalancerBackendAddresses"]
    assert entries[-1]["properties"]["adminState"] == "Up"
    assert "inboundNatRulesPortMapping" not in entries[-1]["properties"]


def test_an_address_that_no_ledger_can_hold_is_a_violation() -> None:
    """S5: what cannot be recorded is not removed."""
    body = pool_body(address("a", "10.0.0.4", surprise="x" * 20_000))
    with pytest.raises(errors.ContractViolation, match="characters"):
        network_bodies.parse_pool(body, NOW)


def test_address_round_trip_keeps_every_writable_property() -> None:
    """The entry is restored as it was, admin state included, without read-only properties."""
    body = pool_body(address("a", "10.0.0.4", adminState="Up"), address("b", "10.0.0.5"))
    (first, _) = address_memberships(body)
    removed = network_bodies.without_addresses(body, (first,))
    assert removed.body == pool_body(address("b", "10.0.0.5"))
    restored = network_bodies.with_addresses(removed.body, (first,)).body
    entry = restored["properties"]["loadBalancerBackendAddresses"][-1]
    assert entry == {
        "name": "a",
        "properties": {
            "ipAddress": "10.0.0.4",
            "virtualNetwork": {"id": SUBNET.rsplit("/subnets", 1)[0]},
            "adminState": "Up",
        },
    }
    assert json.loads(first.body)["etag"] == 'W/"1"'


def test_an_existing_address_stays_as_it_is() -> None:
    """Restoring an address that an operator restored already changes nothing, in any spelling."""
    body = pool_body(address("operators", "FD00::4"))
    entry = address_memberships(pool_body(address("a", "fd00:0::4")))
    edit = network_bodies.with_addresses(body, entry)
    assert (edit.changed, edit.absent) == (False, ())


def test_a_reused_name_is_not_overwritten() -> None:
    """If the name now belongs to another address, the entry is reported and not written."""
    body = pool_body(address("A", "10.0.0.9"))
    (entry,) = address_memberships(pool_body(address("a", "10.0.0.4")))
    edit = network_bodies.with_addresses(body, (entry,))
    assert (edit.changed, edit.absent) == (False, (entry,))
    (other,) = address_memberships(pool_body(address("b", "10.0.0.4")))
    assert network_bodies.with_addresses(body, (other,)).changed


@pytest.mark.parametrize(
    "remembered",
    [
        "",
        "no JSON",
        "[]",
        '{"name": "a", "name": "a", "properties": {"ipAddress": "10.0.0.4"}}',
        '{"name": "a", "properties": {"ipAddress": "10.0.0.5"}}',
        '{"name": "b", "properties": {"ipAddress": "10.0.0.4"}}',
        '{"name": "a"}',
    ],
)
def test_a_recorded_entry_of_another_address_is_never_written(remembered: str) -> None:
    """Only the entry that was recorded is restored (S3 exact)."""
    (entry,) = address_memberships(pool_body(address("a", "10.0.0.4")))
    with pytest.raises(errors.ContractViolation):
        network_bodies.with_addresses(pool_body(), (replace(entry, body=remembered),))


def test_an_empty_address_means_no_entry() -> None:
    """Entries without an address belong to NICs and are never removed as addresses."""
    body = pool_body({"name": "nic", "properties": {}}, address("a", "10.0.0.4"))
    (entry,) = address_memberships(body)
    edit = network_bodies.without_addresses(body, (replace(entry, ip_address=""),))
    assert not edit.changed


def without(body: dict[str, Any], *path: str | int) -> dict[str, Any]:
    bare = copy.deepcopy(body)
    at: Any = bare
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    return bare


FIRST = ("properties", "ipConfigurations", 0)
HALF_NICS = {
    "no properties": without(nic_body(POOLS[0]), "properties"),
    "no ipConfigurations": without(nic_body(POOLS[0]), "properties", "ipConfigurations"),
    "an empty list": without(nic_body(POOLS[0]), *FIRST),
    "one without properties": without(nic_body(POOLS[0]), *FIRST, "properties"),
    "one without name": without(nic_body(POOLS[0]), *FIRST, "name"),
}


@pytest.mark.parametrize("name", HALF_NICS)
def test_an_incomplete_nic_is_not_out_of_every_pool(name: str) -> None:
    """A NIC body without a required property is refused and never counts as out of rotation."""
    with pytest.raises(errors.ContractViolation):
        network_bodies.parse_nic(HALF_NICS[name], NOW)


@pytest.mark.parametrize("key", ["id", "etag"])
def test_a_body_with_a_very_long_name_is_refused_in_a_short_message(key: str) -> None:
    """An id that no resource can have is refused, and no message repeats it in full."""
    body = nic_body(POOLS[0])
    body[key] = "x" * 50_000
    body["properties"]["virtualMachine"] = []
    with pytest.raises(errors.ContractViolation) as caught:
        network_bodies.parse_nic(body, NOW)
    assert len(str(caught.value)) < 500


def test_a_duplicate_ip_configuration_is_refused() -> None:
    """Two ipConfigurations with one name cannot be distinguished."""
    body = nic_body(POOLS[0], second=(POOLS[1],))
    body["properties"]["ipConfigurations"][1]["name"] = "IPCONFIG1"
    with pytest.raises(errors.ContractViolation, match="twice"):
        network_bodies.parse_nic(body, NOW)


def test_an_incomplete_pool_is_not_an_empty_one() -> None:
    """K4: a pool without properties, or listed twice, is set aside; the other pools are used."""
    whole = {"id": POOLS[0], "properties": {}}
    other = {"id": POOLS[1], "properties": {}}
    for odd in (
        [{"id": POOLS[0]}],
        [whole, {"id": POOLS[0].upper(), "properties": {}}],
        [{"id": POOLS[0], "properties": {"backendIPConfigurations": 7}}],
    ):
        body = {"id": LB, "properties": {"backendAddressPools": [*odd, other]}}
        found = network_bodies.parse_load_balancer(body, NOW)
        assert [pool.pool_id for pool in found.pools] == [POOLS[1]]
        assert set(found.problems) == {POOLS[0].casefold()}
    nameless: list[Any] = [{"properties": {}}, {"id": 5, "properties": {}}, 7]
    for entry in nameless:
        body = {"id": LB, "properties": {"backendAddressPools": [entry, other]}}
        with pytest.raises(errors.ContractViolation):  # it may be any pool
            network_bodies.parse_load_balancer(body, NOW)
    with pytest.raises(errors.ContractViolation):
        network_bodies.parse_pool({"id": POOLS[0]}, NOW)
