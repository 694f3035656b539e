"""The doctor against the simulated Azure: it reports every problem with its fix."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from controller.config.loader import load
from controller.doctor.collect import collect
from controller.doctor.report import Result
from controller.simulator.app.agent_processes import CONTAINER
from controller.simulator.app.server import ACCOUNT
from controller.simulator.services.http_values import Service
from tests.conftest import OpenSet
from tests.support.doctor_rig import (
    GROUP,
    NETWORK,
    PROVIDERS,
    SUBNET,
    allow_subnet_reads,
    not_passed,
    of,
    run_doctor,
)
from tests.support.in_process_set import InProcessSet

SUBSCRIPTION = GROUP.split("/")[2]


async def test_a_healthy_set_passes_and_is_unchanged(open_set: OpenSet) -> None:
    """A set with pools of both kinds passes every check, and the doctor changes nothing."""
    async with open_set(ip_pools=("cache",)) as bench:
        allow_subnet_reads(bench)
        bench.config("web-1")
        before = len(bench.world.history)
        etags = {nic_id: nic["etag"] for nic_id, nic in bench.world.nics.items()}
        report = await run_doctor(bench)
        assert not_passed(report) == []
        assert (report.failed, report.vm) == (False, "web-1")
        assert "3 tried" in of(report, "write-nics").message
        assert "1 tried" in of(report, "write-pools").message
        assert bench.world.history[before:] == []
        assert {nic_id: nic["etag"] for nic_id, nic in bench.world.nics.items()} == etags
        assert bench.world.blobs.find(bench.ledger_path) is None


def only_closes(text: str) -> str:
    """Return a configuration whose VMs leave rotation by closing alone."""
    return text.replace("close = false", 'mechanism = "probe"')


async def test_a_set_that_only_closes_needs_no_permission_to_write(open_set: OpenSet) -> None:
    """Without any permission to write to the network every check passes, and none asks for it."""
    async with open_set(ip_pools=("cache",)) as bench:
        allow_subnet_reads(bench)
        roles = bench.world.roles
        for action in (
            "Microsoft.Network/networkInterfaces/write",
            "Microsoft.Network/loadBalancers/backendAddressPools/write",
            "Microsoft.Network/locations/operations/read",
        ):
            roles.revoke("web-1", action)
        report = await run_doctor(bench, edit=only_closes)
        of_probes = [each for each in not_passed(report) if each.startswith("closing-probe ")]
        assert not_passed(report) == of_probes  # no responder is configured here
        assert roles.refused == set()
        assert not {"write-nics", "write-pools", "read-operations"} & {
            each.check for each in report.findings
        }
        roles.revoke("web-1", "Microsoft.Network/networkInterfaces/read")
        lacking = await run_doctor(bench, edit=only_closes)
        (fix,) = {line for each in lacking.findings for line in each.fix if "--role" in line}
        assert "'lb-drain readers " in fix


def events_unreadable(bench: InProcessSet) -> None:
    bench.fault(Service.IMDS, path_contains="scheduledevents", status=500)


def no_identity(bench: InProcessSet) -> None:
    body = '{"error":"invalid_request","error_description":"Identity not found"}'
    bench.fault(Service.IMDS, path_contains="/identity/", status=400, body=body)


def no_write(bench: InProcessSet) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Network/networkInterfaces/write")


def no_join(bench: InProcessSet) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Network/networkSecurityGroups/join/action")


def no_way_back(bench: InProcessSet) -> None:
    action = "Microsoft.Network/loadBalancers/backendAddressPools/join/action"
    bench.world.roles.revoke("web-1", action)


def no_network_join(bench: InProcessSet) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Network/virtualNetworks/joinLoadBalancer/action")


def no_operations(bench: InProcessSet) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Network/locations/operations/read")


def no_machines(bench: InProcessSet) -> None:
    bench.world.roles.revoke("web-1", "Microsoft.Compute/virtualMachines/read")


def basic(bench: InProcessSet) -> None:
    balancer = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert balancer is not None
    balancer["sku"] = {"name": "Basic", "tier": "Regional"}


def no_probe(bench: InProcessSet) -> None:
    balancer = bench.world.load_balancer_of(bench.world.pool_id("app"))
    assert balancer is not None
    del balancer["properties"]["loadBalancingRules"][0]["properties"]["probe"]


def no_blob_role(bench: InProcessSet) -> None:
    bench.world.blobs.denied_writes.add("web-1")


def firewall(bench: InProcessSet) -> None:
    headers = (("x-ms-error-code", "AuthorizationFailure"),)
    bench.fault(Service.BLOB, method="PUT", status=403, headers=headers)


def approves(bench: InProcessSet) -> None:
    yes = {"automaticallyApprove": True}
    # The second one is the default of Azure, and no cause for a warning.
    bench.world.scheduled_events_policy = {"userInitiatedReboot": yes, "allInstancesDown": yes}


def left_out(bench: InProcessSet) -> None:
    bench.world.remove_membership(bench.world.pool_id("app"), "web-2-nic")


def stopped(bench: InProcessSet) -> None:
    bench.world.set_vm_state("web-3", "deallocated")


def nothing(_bench: InProcessSet) -> None:
    """Leave Azure as it is."""


@pytest.mark.parametrize(
    ("plant", "edit", "check", "result", "fixes"),
    [
        (events_unreadable, None, "scheduled-events", Result.FAIL, ["scheduledevents", "web-1"]),
        (
            no_identity,
            None,
            "identity",
            Result.FAIL,
            [f"az vm identity assign --ids {PROVIDERS}/Microsoft.Compute/virtualMachines/web-1"],
        ),
        (
            no_write,
            None,
            "write-nics",
            Result.FAIL,
            [
                f"--role 'lb-drain NIC-based pools {SUBSCRIPTION}' --scope {GROUP}  # ",
                "object-id web-1",
                "Microsoft.Network/networkInterfaces/write",
            ],
        ),
        (
            no_join,
            None,
            "write-nics",
            Result.FAIL,
            [
                "Microsoft.Network/networkSecurityGroups/join/action",
                f"--role 'lb-drain NIC-based pools {SUBSCRIPTION}' --scope {GROUP}  # ",
            ],
        ),
        (
            no_way_back,
            None,
            "write-nics",
            Result.FAIL,
            [
                "Microsoft.Network/loadBalancers/backendAddressPools/join/action",
                f"--role 'lb-drain NIC-based pools {SUBSCRIPTION}' --scope {GROUP}  # ",
            ],
        ),
        (
            no_network_join,
            None,
            "write-pools",
            Result.FAIL,
            [
                "Microsoft.Network/virtualNetworks/joinLoadBalancer/action",
                f"--role 'lb-drain IP-based pools {SUBSCRIPTION}' --scope {GROUP}  # ",
            ],
        ),
        (
            no_operations,
            None,
            "read-operations",
            Result.FAIL,
            [
                "Microsoft.Network/locations/operations/read",
                f"--role 'lb-drain operations {SUBSCRIPTION}' "
                f"--scope /subscriptions/{SUBSCRIPTION}  # ",
            ],
        ),
        (
            no_machines,
            None,
            "set",
            Result.FAIL,
            [
                "Microsoft.Compute/virtualMachines/read",
                f"--role 'lb-drain NIC-based pools {SUBSCRIPTION}' --scope {GROUP}  # ",
            ],
        ),
        (
            nothing,
            ("backendAddressPools/app", "backendAddressPools/ap"),
            "pool",
            Result.FAIL,
            [f'id = "{NETWORK}/loadBalancers/web-lb/backendAddressPools/app"'],
        ),
        (
            nothing,
            ("loadBalancers/web-lb", "loadBalancers/web-ib"),
            "pool",
            Result.FAIL,
            ["az network lb list --resource-group web-rg", "loadBalancers/web-ib"],
        ),
        (
            basic,
            None,
            "pool",
            Result.FAIL,
            ["-ResourceGroupName web-rg -BasicLoadBalancerName web-lb"],
        ),
        (
            no_probe,
            None,
            "probe",
            Result.FAIL,
            ["rule update --resource-group web-rg --lb-name web-lb --name app-rule --probe-name"],
        ),
        (
            nothing,
            ("min_in_service = 1", "min_in_service = 3"),
            "min-in-service",
            Result.FAIL,
            [f"min_in_service = 2 in [[backend_pools]] of {NETWORK}/loadBalancers/web-lb"],
        ),
        (
            nothing,
            ("min_in_service = 1", 'min_in_service = "90%"'),
            "min-in-service",
            Result.FAIL,
            ['min_in_service = "66%"'],
        ),
        (
            nothing,
            (f"/{ACCOUNT}/{CONTAINER}", f"/{ACCOUNT}/missing"),
            "read-ledger",
            Result.FAIL,
            [f"container create --account-name {ACCOUNT} --name missing"],
        ),
        (
            no_blob_role,
            None,
            "write-ledger",
            Result.FAIL,
            [
                f"--role 'lb-drain ledger {SUBSCRIPTION}'",
                "'Storage Blob Data Contributor'",
                f"--name {ACCOUNT} ",
                f"/blobServices/default/containers/{CONTAINER}",
                "object-id web-1",
            ],
        ),
        (
            firewall,
            None,
            "write-ledger",
            Result.FAIL,
            [f"network-rule add --account-name {ACCOUNT} --subnet {SUBNET}"],
        ),
        (
            approves,
            None,
            "automatic-approval",
            Result.WARN,
            [
                f"{PROVIDERS}/Microsoft.Compute/availabilitySets/web?",
                '"scheduledEventsPolicy": {"userInitiatedReboot": {"automaticallyApprove": false}}',
            ],
        ),
        (
            left_out,
            None,
            "unmanaged-vms",
            Result.WARN,
            [
                "--nic-name web-2-nic --ip-config-name ipconfig1",
                f"--address-pool {NETWORK}/loadBalancers/web-lb/backendAddressPools/app",
            ],
        ),
        (
            stopped,
            None,
            "vms",
            Result.WARN,
            [f"az vm start --ids {PROVIDERS}/Microsoft.Compute/virtualMachines/web-3"],
        ),
        (
            nothing,
            ("[policy]", "[policy]\ndry_run = true"),
            "configuration",
            Result.WARN,
            ["fals"],
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
async def test_a_problem_is_reported_with_its_fix(
    open_set: OpenSet,
    plant: Callable[[InProcessSet], None],
    edit: tuple[str, str] | None,
    check: str,
    result: Result,
    fixes: list[str],
) -> None:
    """One problem is one finding, and its fix names the resource."""
    pools: dict[str, Any] = {"ip_pools": ("cache",)} if plant is no_network_join else {}
    async with open_set(**pools) as bench:
        allow_subnet_reads(bench)
        plant(bench)
        report = await run_doctor(bench, edit=lambda text: text.replace(*edit) if edit else text)
    found = of(report, check)
    assert found.result is result, found
    reported = "\n".join(found.fix)
    assert all(part.casefold() in reported.casefold() for part in fixes), reported
    assert report.failed is (result is Result.FAIL)
    worse = [each for each in report.findings if each.result is Result.FAIL]
    assert len(worse) <= 1, worse


@pytest.mark.parametrize(
    ("ahead_s", "result"),
    [(0.9, Result.PASS), (-20, Result.WARN), (20, Result.WARN), (-90, Result.FAIL)],
)
async def test_a_wrong_clock(bench: InProcessSet, ahead_s: float, result: Result) -> None:
    """A difference of seconds is a warning, of a minute a failure; the fix sets the clock."""
    began = time.monotonic()
    found = of(await run_doctor(bench, ahead_s=ahead_s), "clock")
    # The reply names a whole second and was under way for a while: that much may be read into it.
    slack_s = 1 + time.monotonic() - began
    assert found.result is result, found
    if result is Result.PASS:
        assert found.fix == ()
        return
    assert found.fix[-1] == "chronyc makestep"
    reported = re.match(r"(\d+) s (ahead of|behind) the clock of Azure", found.message)
    assert reported, found.message
    assert (reported[2] == "ahead of") is (ahead_s > 0)
    assert abs(int(reported[1]) - abs(ahead_s)) <= slack_s, found.message


async def test_vms_without_another_outbound_path(open_set: OpenSet) -> None:
    """VMs whose only outbound path is the pool are named; the fix adds a NAT gateway."""
    async with open_set(settings={"outbound_needs_public_pool": True}) as bench:
        allow_subnet_reads(bench)
        report = await run_doctor(bench)
        found = of(report, "outbound")
        assert (found.result, report.failed) == (Result.FAIL, True)
        assert "web-1, web-2, web-3" in found.message
        assert (
            "subnet update --resource-group web-rg --vnet-name web-vnet --name default "
            in found.fix[-1]
        )


async def test_the_subnets_of_members_by_address_are_read(open_set: OpenSet) -> None:
    """No NIC names an IP-based pool: its members are found by their addresses."""
    async with open_set(pools=(), ip_pools=("app",)) as bench:
        allow_subnet_reads(bench)
        settings = load(bench.config("web-1"), {}).settings
        facts = await collect(settings, environ={}, clock=bench.clock)
        assert list(facts.subnets) == [SUBNET.casefold()]


async def test_operations_in_the_subscription_of_a_pool(bench: InProcessSet) -> None:
    """Writes of an IP-based pool have their operations there, so the role is needed there too."""
    other = "99999999-2222-4333-8444-555555555555"
    pool = bench.world.pool_id("app").replace("11111111-2222-4333-8444-555555555555", other)
    text = f'[[backend_pools]]\nid = "{pool}"\n'
    found = of(await run_doctor(bench, edit=lambda before: text + before), "read-operations")
    assert found.result is Result.FAIL
    assert other in found.fix[0]


async def test_outbound_is_not_checked_when_a_pool_is_not_found(bench: InProcessSet) -> None:
    """A pool with a wrong id can be the only outbound path of a VM."""
    allow_subnet_reads(bench)
    report = await run_doctor(bench, edit=lambda text: text.replace("/app", "/ap"))
    assert of(report, "outbound").result is Result.SKIP


async def test_a_subnet_that_cannot_be_read_is_a_warning(bench: InProcessSet) -> None:
    """Without the permission to read subnets, the finding names the command that shows them."""
    found = of(await run_doctor(bench), "outbound")
    assert found.result is Result.WARN
    assert f"az network vnet subnet show --ids {SUBNET} " in found.fix[0]


async def test_a_public_address_is_an_outbound_path(open_set: OpenSet) -> None:
    """A VM with a public address on its NIC has another outbound path; its peers have not."""
    async with open_set(settings={"outbound_needs_public_pool": True}) as bench:
        allow_subnet_reads(bench)
        properties = bench.world.nic("web-1-nic")["properties"]["ipConfigurations"][0]["properties"]
        properties["publicIPAddress"] = {"id": f"{NETWORK}/publicIPAddresses/web-1-ip"}
        assert "web-2, web-3:" in of(await run_doctor(bench), "outbound").message


async def test_without_imds_the_other_checks_run(bench: InProcessSet) -> None:
    """A check that needs the failed read is skipped; the other checks run."""
    bench.fault(Service.IMDS, path_contains="/metadata/instance", status=503)
    report = await run_doctor(bench)
    assert of(report, "imds").result is Result.FAIL
    assert of(report, "set").result is Result.SKIP
    assert of(report, "members").result is Result.SKIP
    assert of(report, "pool").result is Result.PASS
    assert of(report, "read-ledger").result is Result.PASS
