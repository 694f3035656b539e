"""The doctor against the simulated Azure: it says what is wrong, and what mends it."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from controller.doctor.findings import Verdict
from controller.simulator.fleet import CONTAINER
from controller.simulator.server import ACCOUNT
from controller.simulator.wire import Service

from .clinic import GROUP, NETWORK, PROVIDERS, SUBNET, consult, may_see_subnets, not_well, of
from .conftest import OpenBench
from .in_process import Bench


async def test_a_healthy_set_is_all_green_and_untouched(open_set: OpenBench) -> None:
    """Nothing is missing in a set with pools of both kinds, and looking leaves no trace."""
    async with open_set(ip_pools=("cache",)) as bench:
        may_see_subnets(bench)
        bench.config("web-1")
        before = len(bench.world.history)
        etags = {nic_id: nic["etag"] for nic_id, nic in bench.world.nics.items()}
        report = await consult(bench)
        assert not_well(report) == []
        assert (report.failed, report.vm) == (False, "web-1")
        assert "3 tried" in of(report, "write-nics").what
        assert "1 tried" in of(report, "write-pools").what
        assert bench.world.history[before:] == []
        assert {nic_id: nic["etag"] for nic_id, nic in bench.world.nics.items()} == etags
        assert bench.world.blobs.find(bench.ledger_path) is None


def events_unreadable(bench: Bench) -> None:
    bench.fault(Service.IMDS, path_contains="scheduledevents", status=500)


def no_identity(bench: Bench) -> None:
    body = '{"error":"invalid_request","error_description":"Identity not found"}'
    bench.fault(Service.IMDS, path_contains="/identity/", status=400, body=body)


def no_write(bench: Bench) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Network/networkInterfaces/write")


def no_join(bench: Bench) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Network/networkSecurityGroups/join/action")


def no_way_back(bench: Bench) -> None:
    action = "Microsoft.Network/loadBalancers/backendAddressPools/join/action"
    bench.world.roles.revoke("web-1", action)


def no_network_join(bench: Bench) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Network/virtualNetworks/joinLoadBalancer/action")


def no_operations(bench: Bench) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Network/locations/operations/read")


def no_machines(bench: Bench) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Compute/virtualMachines/read")


def basic(bench: Bench) -> None:
    balancer = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert balancer is not None
    balancer["sku"] = {"name": "Basic", "tier": "Regional"}


def no_probe(bench: Bench) -> None:
    balancer = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert balancer is not None
    del balancer["properties"]["loadBalancingRules"][0]["properties"]["probe"]


def no_blob_role(bench: Bench) -> None:
    bench.world.blobs.denied_writes.add("web-1")


def firewall(bench: Bench) -> None:
    headers = (("x-ms-error-code", "AuthorizationFailure"),)
    bench.fault(Service.BLOB, method="PUT", status=403, headers=headers)


def approves(bench: Bench) -> None:
    bench.world.scheduled_events_policy = {"userInitiatedReboot": {"automaticallyApprove": True}}


def left_out(bench: Bench) -> None:
    bench.world.remove_membership(bench.world.pool_id("app"), "web-2-nic")


def stopped(bench: Bench) -> None:
    bench.world.set_vm_state("web-3", "deallocated")


def nothing(_bench: Bench) -> None:
    """Leave Azure as it is."""


@pytest.mark.parametrize(
    ("plant", "edit", "check", "verdict", "mends"),
    [
        (events_unreadable, None, "scheduled-events", Verdict.FAIL, ["scheduledevents", "web-1"]),
        (
            no_identity,
            None,
            "identity",
            Verdict.FAIL,
            [f"az vm identity assign --ids {PROVIDERS}/Microsoft.Compute/virtualMachines/web-1"],
        ),
        (
            no_write,
            None,
            "write-nics",
            Verdict.FAIL,
            ['"Microsoft.Network/networkInterfaces/write"', f"--scope {GROUP}", "object-id web-1"],
        ),
        (
            no_join,
            None,
            "write-nics",
            Verdict.FAIL,
            [
                '"Microsoft.Network/networkSecurityGroups/join/action"',
                f"--scope {NETWORK}/networkSecurityGroups/web-nsg",
            ],
        ),
        (
            no_way_back,
            None,
            "write-nics",
            Verdict.FAIL,
            [f"--scope {NETWORK}/loadBalancers/web-lb/backendAddressPools/app"],
        ),
        (
            no_network_join,
            None,
            "write-pools",
            Verdict.FAIL,
            [f"--scope {NETWORK}/virtualNetworks/web-vnet"],
        ),
        (
            no_operations,
            None,
            "follow-operations",
            Verdict.FAIL,
            [
                '"Microsoft.Network/locations/operations/read"',
                "--scope /subscriptions/11111111-2222-4333-8444-555555555555",
            ],
        ),
        (
            no_machines,
            None,
            "availability-set",
            Verdict.FAIL,
            ['"Microsoft.Compute/virtualMachines/read"', f"--scope {GROUP}"],
        ),
        (
            nothing,
            ("backendAddressPools/app", "backendAddressPools/ap"),
            "pool",
            Verdict.FAIL,
            [f'id = "{NETWORK}/loadBalancers/web-lb/backendAddressPools/app"'],
        ),
        (
            nothing,
            ("loadBalancers/web-lb", "loadBalancers/web-ib"),
            "pool",
            Verdict.FAIL,
            ["az network lb list --resource-group web-rg", "loadBalancers/web-ib"],
        ),
        (
            basic,
            None,
            "pool",
            Verdict.FAIL,
            ["-ResourceGroupName web-rg -BasicLoadBalancerName web-lb"],
        ),
        (
            no_probe,
            None,
            "probe",
            Verdict.FAIL,
            ["rule update --resource-group web-rg --lb-name web-lb --name app-rule --probe-name"],
        ),
        (
            nothing,
            ("min_in_service = 1", "min_in_service = 3"),
            "floor",
            Verdict.FAIL,
            [f"min_in_service = 2 in [[backend_pools]] of {NETWORK}/loadBalancers/web-lb"],
        ),
        (
            nothing,
            ("min_in_service = 1", 'min_in_service = "90%"'),
            "floor",
            Verdict.FAIL,
            ['min_in_service = "66%"'],
        ),
        (
            nothing,
            (f"/{ACCOUNT}/{CONTAINER}", f"/{ACCOUNT}/missing"),
            "read-ledger",
            Verdict.FAIL,
            [f"container create --account-name {ACCOUNT} --name missing"],
        ),
        (
            no_blob_role,
            None,
            "write-ledger",
            Verdict.FAIL,
            [
                "--role 'Storage Blob Data Contributor'",
                f"--name {ACCOUNT} ",
                f"/blobServices/default/containers/{CONTAINER}",
                "object-id web-1",
            ],
        ),
        (
            firewall,
            None,
            "write-ledger",
            Verdict.FAIL,
            [f"network-rule add --account-name {ACCOUNT} --subnet {SUBNET}"],
        ),
        (
            approves,
            None,
            "approval",
            Verdict.WARN,
            [
                f"{PROVIDERS}/Microsoft.Compute/availabilitySets/web?",
                '"userInitiatedReboot": {"automaticallyApprove": false}',
            ],
        ),
        (
            left_out,
            None,
            "left-out",
            Verdict.WARN,
            [
                "--nic-name web-2-nic --ip-config-name ipconfig1",
                f"--address-pool {NETWORK}/loadBalancers/web-lb/backendAddressPools/app",
            ],
        ),
        (
            stopped,
            None,
            "vms",
            Verdict.WARN,
            [f"az vm start --ids {PROVIDERS}/Microsoft.Compute/virtualMachines/web-3"],
        ),
        (
            nothing,
            ("[policy]", "[policy]\ndry_run = true"),
            "configuration",
            Verdict.WARN,
            ["fals"],
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
async def test_what_is_wrong_is_named_with_what_mends_it(
    open_set: OpenBench,
    plant: Callable[[Bench], None],
    edit: tuple[str, str] | None,
    check: str,
    verdict: Verdict,
    mends: list[str],
) -> None:
    """One thing wrong is one finding, and its advice names the very resource."""
    pools: dict[str, Any] = {"ip_pools": ("cache",)} if plant is no_network_join else {}
    async with open_set(**pools) as bench:
        may_see_subnets(bench)
        plant(bench)
        report = await consult(bench, edit=lambda text: text.replace(*edit) if edit else text)
    found = of(report, check)
    assert found.verdict is verdict, found
    told = "\n".join(found.mend)
    assert all(part.casefold() in told.casefold() for part in mends), told
    assert report.failed is (verdict is Verdict.FAIL)
    worse = [each for each in report.findings if each.verdict is Verdict.FAIL]
    assert len(worse) <= 1, worse


@pytest.mark.parametrize(
    ("ahead_s", "verdict"),
    [(0.9, Verdict.PASS), (-20, Verdict.WARN), (20, Verdict.WARN), (-90, Verdict.FAIL)],
)
async def test_a_wrong_clock(bench: Bench, ahead_s: float, verdict: Verdict) -> None:
    """A clock some seconds off is a warning, a minute off a failure; the way to set it is told."""
    began = time.monotonic()
    found = of(await consult(bench, ahead_s=ahead_s), "clock")
    # The reply names a whole second and was under way for a while: that much may be read into it.
    slack_s = 1 + time.monotonic() - began
    assert found.verdict is verdict, found
    if verdict is Verdict.PASS:
        assert found.mend == ()
        return
    assert found.mend[-1] == "chronyc makestep"
    told = re.match(r"(\d+) s (ahead of|behind) the clock of Azure", found.what)
    assert told, found.what
    assert (told[2] == "ahead of") is (ahead_s > 0)
    assert abs(int(told[1]) - abs(ahead_s)) <= slack_s, found.what


async def test_captives(open_set: OpenBench) -> None:
    """VMs whose only way out is the pool are told, and how their subnet gets another."""
    async with open_set(settings={"outbound_needs_public_pool": True}) as bench:
        may_see_subnets(bench)
        report = await consult(bench)
        found = of(report, "way-out")
        assert (found.verdict, report.failed) == (Verdict.FAIL, True)
        assert "web-1, web-2, web-3" in found.what
        assert (
            "subnet update --resource-group web-rg --vnet-name web-vnet --name default "
            in found.mend[-1]
        )


async def test_the_way_out_cannot_be_told_of_a_pool_that_is_not_found(bench: Bench) -> None:
    """A pool whose id is mistyped may be the only way out of some VM."""
    may_see_subnets(bench)
    report = await consult(bench, edit=lambda text: text.replace("/app", "/ap"))
    assert of(report, "way-out").verdict is Verdict.SKIP


async def test_a_subnet_that_cannot_be_read_is_a_warning(bench: Bench) -> None:
    """With an agent's rights alone the way out cannot be seen, and what to look at is named."""
    found = of(await consult(bench), "way-out")
    assert found.verdict is Verdict.WARN
    assert f"az network vnet subnet show --ids {SUBNET} " in found.mend[0]


async def test_an_address_of_its_own_is_a_way_out(open_set: OpenBench) -> None:
    """A VM with a public address on its NIC is no captive; its neighbours are."""
    async with open_set(settings={"outbound_needs_public_pool": True}) as bench:
        may_see_subnets(bench)
        properties = bench.world.nic("web-1-nic")["properties"]["ipConfigurations"][0]["properties"]
        properties["publicIPAddress"] = {"id": f"{NETWORK}/publicIPAddresses/web-1-ip"}
        assert "web-2, web-3:" in of(await consult(bench), "way-out").what


async def test_without_imds_the_rest_is_still_looked_at(bench: Bench) -> None:
    """What needs the failed answer is said to be unchecked; what does not need it is checked."""
    bench.fault(Service.IMDS, path_contains="/metadata/instance", status=503)
    report = await consult(bench)
    assert of(report, "imds").verdict is Verdict.FAIL
    assert of(report, "availability-set").verdict is Verdict.SKIP
    assert of(report, "members").verdict is Verdict.SKIP
    assert of(report, "pool").verdict is Verdict.PASS
    assert of(report, "read-ledger").verdict is Verdict.PASS
