"""The vocabulary of a plan: names that logs, metrics and status show, targets and keys."""

from dataclasses import replace

import pytest

from controller.core.planning.actions import (
    Acknowledge,
    Action,
    ChangeMembership,
    HoldReason,
    Phase,
    PublishShare,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
    ReadSharedPool,
    is_read,
)
from controller.core.planning.address_pool import AddressPool
from controller.core.planning.nic_pool import NicPool
from controller.core.resources import AddressMembership, NicMembership
from controller.core.shared_pools import PoolShares

LB = "/s/Microsoft.Network/loadBalancers/Web"
APP, API = f"{LB}/backendAddressPools/App", f"{LB}/backendAddressPools/Api"
NIC = "/s/Microsoft.Network/networkInterfaces/Web-1-nic"
VM = "/s/Microsoft.Compute/virtualMachines/Web-1"
PLACES = tuple(NicMembership(pool_id=pool, nic_id=NIC, ip_configuration="c") for pool in (APP, API))
ADDRESSES = tuple(
    AddressMembership(pool_id=APP, name=ip, ip_address=ip, body="{}")
    for ip in ("10.0.0.1", "10.0.0.2")
)


def change_nic(*, restore: bool) -> ChangeMembership:
    return ChangeMembership(method=NicPool(), memberships=PLACES, restore=restore)


def change_pool(*, restore: bool) -> ChangeMembership:
    return ChangeMembership(method=AddressPool(), memberships=ADDRESSES, restore=restore)


@pytest.mark.parametrize(
    ("action", "text", "target", "key"),
    [
        (ReadLoadBalancer(LB), "read Web", f"read:{LB}", f"read:{LB}"),
        (ReadNic(NIC), "read Web-1-nic", f"read:{NIC}", f"read:{NIC}"),
        (ReadPower(VM), "read the power state of Web-1", f"read:{VM}", f"read:{VM}"),
        (ReadInventory(), "read the inventory", "read:inventory", "read:inventory"),
        (
            change_nic(restore=False),
            "remove Web-1-nic (App, Api)",
            f"write:{NIC}",
            f"write:{NIC}",
        ),
        (
            change_nic(restore=True),
            "restore Web-1-nic (App, Api)",
            f"write:{NIC}",
            f"write:{NIC}",
        ),
        (
            change_pool(restore=False),
            "remove 10.0.0.1, 10.0.0.2 (App)",
            f"write:{LB}",
            f"remove:{APP}",
        ),
        (
            change_pool(restore=True),
            "restore 10.0.0.1, 10.0.0.2 (App)",
            f"write:{LB}",
            f"restore:{APP}",
        ),
        (Acknowledge("E-1"), "acknowledge event E-1", "acknowledge:e-1", "acknowledge:e-1"),
    ],
    ids=lambda each: type(each).__name__ if not isinstance(each, str) else "",
)
def test_what_an_action_says_occupies_and_is_deferred_by(
    action: Action, text: str, target: str, key: str
) -> None:
    """A line for people, one target at a time, and back-off per pool and direction (L2)."""
    keys = (str(action.target), str(action.key))
    assert (str(action), *keys) == (text, target.casefold(), key.casefold())


def test_spelling_does_not_split_a_target() -> None:
    """Two spellings of one id are one target: one write at a time."""
    place = replace(PLACES[0], nic_id=NIC.upper())
    shouted = ChangeMembership(method=NicPool(), memberships=(place,), restore=True)
    assert shouted.target == change_nic(restore=False).target
    address = replace(ADDRESSES[0], pool_id=APP.upper())
    pool = ChangeMembership(method=AddressPool(), memberships=(address,), restore=True)
    assert pool.target == change_pool(restore=False).target
    assert pool.key == change_pool(restore=True).key
    assert ReadLoadBalancer(LB.upper()).key == ReadLoadBalancer(LB).key
    assert ReadNic(NIC.upper()).key == ReadNic(NIC).key
    assert ReadPower(VM.upper()).key == ReadPower(VM).key
    assert Acknowledge("e-1").key == Acknowledge("E-1").key


def test_phases_are_a_closed_list() -> None:
    """Status and metrics show these words, and nobody's alert breaks by a new spelling."""
    assert [phase.value for phase in Phase] == [
        "in_service",
        "drain_due",
        "draining",
        "out",
        "acknowledged",
        "in_maintenance",
        "restore_due",
        "restoring",
        "held",
        "unmanaged",
    ]


def test_reasons_are_a_closed_list() -> None:
    """The ledger keeps these words, and metrics and alerts are labelled with them."""
    assert [reason.value for reason in HoldReason] == [
        "floor",
        "unmanaged_resource",
        "unknown_event_status",
        "unreadable_event",
        "unreadable_vm",
        "event_pending",
        "vm_not_running",
        "vm_not_ready",
        "vm_not_closed",
        "vm_gone",
        "lost",
        "not_in_set",
        "requests_unread",
        "request_lost",
        "ledger_recovered",
        "inventory_unread",
        "set_missing",
        "write_failed",
        "not_acknowledged",
        "no_able_agent",
        "paused",
        "acknowledgement_held",
        "not_out",
        "controls_unread",
        "shared_pool",
        "event_unseen",
        "nic_updating",
    ]


@pytest.mark.parametrize(
    ("action", "reads"),
    [
        (ReadInventory(), True),
        (ReadSharedPool(APP), True),
        (change_nic(restore=True), False),
        (Acknowledge("E"), False),
        (PublishShare(pool_id=APP, shares=PoolShares(pool_id=APP), etag=""), False),
    ],
)
def test_a_dry_run_knows_what_only_reads(action: Action, *, reads: bool) -> None:
    """What changes anything, in Azure or in storage, is no read."""
    assert is_read(action) is reads
