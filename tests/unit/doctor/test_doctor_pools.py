"""The doctor's findings about pools, access and outbound connectivity, without any request."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.azure.imds_document import Instance
from controller.azure.network_bodies import parse_load_balancer
from controller.azure.topology import Subnet, parse_load_balancer_details
from controller.core.agent_presence import AgentPresence, SeenAgent
from controller.core.ledger import Ledger
from controller.doctor.facts import Failed
from controller.doctor.report import Finding, Result
from controller.doctor.run import run_checks
from controller.errors import ContractViolation, Denied, ServiceFault
from controller.status.ledger_view import LeaseStatus
from tests.support.doctor_facts import (
    APP,
    GROUP,
    LB,
    NETWORK,
    NOW,
    SPARE,
    SUBNET,
    VMS,
    balancer_of,
    entry,
    healthy,
    judged,
    nic_id,
    nic_of,
    of,
    read,
    settings,
    with_nics,
)

# --- pools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("floor", "members", "result", "room"),
    [
        (0, 1, Result.PASS, ""),
        (1, 1, Result.FAIL, "min_in_service = 0 "),
        (1, 2, Result.PASS, ""),
        (2, 2, Result.FAIL, "min_in_service = 1 "),
        (9, 3, Result.FAIL, "min_in_service = 2 "),
        ("50%", 2, Result.PASS, ""),
        ("51%", 2, Result.FAIL, 'min_in_service = "50%" '),
        ("100%", 3, Result.FAIL, 'min_in_service = "66%" '),
        ("66%", 3, Result.PASS, ""),
    ],
)
def test_min_in_service(floor: int | str, members: int, result: Result, room: str) -> None:
    """min_in_service must allow the removal of one VM; the fix is the highest value that does."""
    vms = VMS[:members]
    outside = [nic_of(vm) for vm in VMS[members:]]
    found = judged(
        "min-in-service",
        settings=settings(min_in_service=floor),
        load_balancers={LB.casefold(): read(balancer_of(*vms))},
        nics=with_nics(*outside),
    )
    assert found.result is result
    assert not room or found.fix[0].startswith(room)


def test_a_vm_that_is_out_counts_as_a_member() -> None:
    """A drained VM counts as a member and not as unmanaged."""
    ledger = Ledger(epoch=4, leader="web-2", leader_since=NOW, entries=(entry("web-3"),))
    facts: dict[str, Any] = {
        "load_balancers": {LB.casefold(): read(balancer_of("web-1", "web-2"))},
        "nics": with_nics(nic_of("web-3")),
        "settings": settings(min_in_service=2),
        "lease": LeaseStatus(lease_state="leased", ledger=ledger, at=NOW + timedelta(seconds=5)),
    }
    assert "2 of 3 must stay" in judged("min-in-service", **facts).message
    assert judged("unmanaged-vms", **facts).result is Result.PASS
    assert judged("agents", **facts).message == "web-2 leads for 5 s, in epoch 4; draining: web-3"


def test_a_pool_with_an_unknown_name() -> None:
    """For a pool name unlike any existing one, the fix creates the pool."""
    other = balancer_of(*VMS)
    other["properties"]["backendAddressPools"][0]["id"] = f"{LB}/backendAddressPools/frontends"
    found = judged("pool", load_balancers={LB.casefold(): read(other)})
    assert found.result is Result.FAIL
    assert found.fix[0].startswith(
        "az network lb address-pool create --resource-group web --lb-name lb --name app "
    )


def test_a_pool_without_vms_of_the_set() -> None:
    """A pool without a VM of the set is a warning, with the command that adds one."""
    facts: dict[str, Any] = {
        "load_balancers": {LB.casefold(): read(balancer_of())},
        "nics": with_nics(*(nic_of(vm) for vm in VMS)),
    }
    found = judged("members", **facts)
    assert found.result is Result.WARN
    assert found.fix[0].endswith(f"--address-pool {APP}")
    assert judged("min-in-service", **facts).result is Result.SKIP


def test_an_address_is_added_to_a_pool_of_addresses() -> None:
    """A VM is added to an IP-based pool by its address, not by its NIC."""
    body = balancer_of()
    body["properties"]["backendAddressPools"][0]["properties"] = {
        "loadBalancerBackendAddresses": [
            {"name": vm, "properties": {"ipAddress": f"10.0.0.{vm[-1]}"}} for vm in VMS[:2]
        ]
    }
    found = judged(
        "unmanaged-vms",
        load_balancers={LB.casefold(): read(body)},
        nics=with_nics(*(nic_of(vm) for vm in VMS)),
    )
    (line,) = found.fix
    assert "address-pool address add " in line
    assert f"--vnet {NETWORK}/virtualNetworks/net --ip-address 10.0.0.3" in line


def test_a_load_balancer_without_probes_gets_one() -> None:
    """If the load balancer has no probe, the first command creates one."""
    body = balancer_of(*VMS)
    body["properties"]["probes"] = []
    del body["properties"]["loadBalancingRules"][0]["properties"]["probe"]
    found = judged("probe", load_balancers={LB.casefold(): read(body)})
    assert found.result is Result.FAIL
    assert "lb probe create" in found.fix[0]
    assert "--port 8080 --interval 5 --probe-threshold 2" in found.fix[0]
    assert found.fix[1].endswith("--name rule --probe-name lb-drain")


def test_a_pool_without_a_rule() -> None:
    """A pool that no rule uses is a warning: it receives no traffic."""
    body = balancer_of(*VMS, loadBalancingRules=[])
    assert judged("probe", load_balancers={LB.casefold(): read(body)}).result is Result.WARN


# --- access --------------------------------------------------------------------------------------


def test_what_is_missing_for_several_nics_is_one_finding() -> None:
    """One missing action on several NICs is one finding; another action is another finding."""
    join = "Microsoft.Network/publicIPAddresses/join/action"
    write = "Microsoft.Network/networkInterfaces/write"
    addresses = f"{GROUP}-ips/providers/Microsoft.Network/publicIPAddresses"
    scopes = [f"{addresses}/{vm}-ip" for vm in VMS[:2]]
    denied = [Failed(Denied("403", action=join, scope=scope)) for scope in scopes]
    other = Failed(Denied("403", action=write, scope=nic_id("web-3")))
    writes = dict(zip(healthy().nic_writes, (*denied, other), strict=True))
    report = run_checks(replace(healthy(), nic_writes=writes))
    first, second = [each for each in report.findings if each.check == "write-nics"]
    assert [f"--scope {scope}" in "\n".join(first.fix) for scope in scopes] == [True, True]
    assert not [line for line in first.fix if "definition create" in line]
    assert f"--scope {GROUP}" in second.fix[0].split("  ")[0]
    assert nic_id("web-3") not in second.fix[0]


@pytest.mark.parametrize(
    ("state", "ledger", "result", "expected"),
    [
        ("available", Ledger(), Result.PASS, "no agent leads yet"),
        (
            "expired",
            Ledger(epoch=3, entries=(entry("web-2"),)),
            Result.WARN,
            "until one does: draining: web-2",
        ),
        ("leased", Ledger(epoch=3, leader="web-3"), Result.PASS, "web-3 leads, in epoch 3"),
        ("leased", Ledger(), Result.WARN, "no agent has recorded that it leads (lease leased"),
        (
            "leased",
            Ledger(entries=(entry("web-2"),)),
            Result.WARN,
            "that it leads (lease leased, epoch 0); draining: web-2",
        ),
    ],
)
def test_the_agents(state: str, ledger: Ledger, result: Result, expected: str) -> None:
    """A set without a leader passes, unless a VM waits, or another client holds the lease."""
    found = judged("agents", lease=LeaseStatus(lease_state=state, ledger=ledger, at=NOW))
    assert found.result is result
    assert expected in found.message


def presence(*, age_s: float, stopped: bool = False) -> SeenAgent:
    at = NOW - timedelta(seconds=age_s)
    published = AgentPresence(
        vm="web-3",
        release="1",
        configuration="",
        started_at=at,
        at=at,
        stopped_at=at if stopped else None,
    )
    return SeenAgent(vm="web-3", presence=published)


@pytest.mark.parametrize(
    ("agent", "result"),
    [
        (presence(age_s=60), Result.PASS),
        (presence(age_s=3600), Result.WARN),
        (presence(age_s=60, stopped=True), Result.WARN),
        (SeenAgent(vm="web-3"), Result.PASS),
        (SeenAgent(vm="web-3", problem="503"), Result.PASS),
        (None, Result.PASS),
    ],
)
def test_a_lease_that_outlives_its_leader(agent: SeenAgent | None, result: Result) -> None:
    """The ledger names the agent that led last: another client may hold the lease since then."""
    status = LeaseStatus(lease_state="leased", ledger=Ledger(epoch=3, leader="web-3"), at=NOW)
    found = judged("agents", lease=status, leader_agent=agent)
    assert found.result is result
    if result is Result.WARN:
        assert "web-3, which led last, does not run" in found.message
        assert found.fix[0] == "systemctl status lb-drain  # on web-3"
        assert found.fix[-1].startswith(
            "az storage blob lease break --account-name account --container-name lb-drain "
            "--blob-name s/web/set.json --auth-mode login"
        )


def test_a_ledger_that_cannot_be_read() -> None:
    """A blob that is not a ledger is a failure; the fix saves its content."""
    found = judged("read-ledger", lease=Failed(ContractViolation("not a ledger")))
    assert found.result is Result.FAIL
    assert found.fix[0].startswith("az storage blob download ")
    assert healthy().blob_url in found.fix[0]


def test_a_nic_that_cannot_be_read() -> None:
    """If one NIC cannot be read, every check that needs all NICs is skipped."""
    nics = {**healthy().nics, nic_id("web-2").casefold(): Failed(ServiceFault("503"))}
    report = run_checks(replace(healthy(), nics=nics))
    for check in ("members", "unmanaged-vms", "min-in-service", "outbound", "write-nics"):
        assert of(report, check).result is Result.SKIP
    assert of(report, "nics").result is Result.WARN


def test_a_nic_that_failed() -> None:
    """A NIC in provisioningState Failed is a warning, and a write fixes it."""
    body = nic_of("web-2", APP)
    body["properties"]["provisioningState"] = "Failed"
    found = judged("nics", nics=with_nics(body))
    assert found.result is Result.WARN
    assert found.fix == (f"az network nic update --ids {nic_id('web-2')}",)


def addresses() -> dict[str, Any]:
    """Return a load balancer whose pool app is IP-based."""
    body = balancer_of()
    body["properties"]["backendAddressPools"][0]["properties"] = {
        "loadBalancerBackendAddresses": [
            {"name": vm, "properties": {"ipAddress": f"10.0.0.{vm[-1]}"}} for vm in VMS
        ]
    }
    return {
        "load_balancers": {LB.casefold(): read(body)},
        "nics": with_nics(*(nic_of(vm) for vm in VMS)),
        "nic_writes": {},
    }


def test_drained_vms_are_not_probed() -> None:
    """If every VM that could be probed is drained, the result is a warning and not a pass."""
    entries = tuple(entry(vm) for vm in VMS)
    ledger = Ledger(epoch=1, leader="web-1", entries=entries)
    lease = LeaseStatus(lease_state="leased", ledger=ledger, at=NOW)
    assert judged("write-nics", lease=lease, nic_writes={}).result is Result.WARN
    assert judged("write-pools", lease=lease, **addresses()).result is Result.WARN


def test_pools_of_addresses_need_no_writes_to_nics() -> None:
    """With only IP-based pools there is no finding about writes to NICs."""
    report = run_checks(replace(healthy(), **addresses(), pool_writes={APP.casefold(): True}))
    assert "write-nics" not in [each.check for each in report.findings]
    assert of(report, "write-pools").result is Result.PASS


def test_pools_without_a_nic_to_probe() -> None:
    """If no NIC is in a pool, the check of write permissions is skipped."""
    assert judged("write-nics", nic_writes={}).result is Result.SKIP


def test_a_ledger_without_a_name() -> None:
    """Without the set, and so without the name of the blob, the check of agents is skipped."""
    facts: dict[str, Any] = {"availability_set": Failed(ServiceFault("503"))}
    assert "not known without the set" in judged("read-ledger", **facts).message
    assert judged("agents", **facts).result is Result.SKIP


def test_a_pool_that_failed() -> None:
    """A pool in provisioningState Failed is a warning."""
    body = balancer_of(*VMS)
    body["properties"]["backendAddressPools"][0]["properties"]["provisioningState"] = "Failed"
    found = judged("pool", load_balancers={LB.casefold(): read(body)})
    assert found.result is Result.WARN
    assert found.fix == (f"az resource update --ids {LB}",)


# --- outbound connectivity ---


def without_nat_gateway(**facts: Any) -> Finding:
    subnet = Subnet(subnet_id=SUBNET, nat_gateway_id="", route_table_id="")
    return judged("outbound", **{"subnets": {SUBNET.casefold(): subnet}, **facts})


def test_the_only_outbound_path() -> None:
    """A VM whose only outbound path is the managed pool is a failure."""
    found = without_nat_gateway()
    assert found.result is Result.FAIL
    assert "--vnet-name net --name default --nat-gateway" in found.fix[-1]


def test_a_second_nic_is_not_the_outbound_path() -> None:
    """A NIC that is in no pool, in a subnet of its own: the finding is about the pool's NIC."""
    second = {**nic_of("web-1"), "id": nic_id("web-1b")}
    second["properties"]["ipConfigurations"][0]["properties"] |= {
        "subnet": {"id": f"{NETWORK}/virtualNetworks/net/subnets/admin"},
        "privateIPAddress": "10.1.0.1",
    }
    first = healthy().known_vms[0]
    vms = (replace(first, nic_ids=(*first.nic_ids, nic_id("web-1b"))), *healthy().known_vms[1:])
    nics = with_nics(*(nic_of(vm, APP) for vm in VMS), second)
    subnet = Subnet(subnet_id=SUBNET, nat_gateway_id="", route_table_id="")
    facts = replace(healthy(), vms=vms, nics=nics, subnets={SUBNET.casefold(): subnet})
    found = [each for each in run_checks(facts).findings if each.check == "outbound"]
    assert [(each.subject, each.result) for each in found] == [("default", Result.FAIL)]


def test_the_only_outbound_path_of_members_by_address() -> None:
    """No NIC names an IP-based pool, and its members lose the path all the same."""
    body = balancer_of()
    body["properties"]["backendAddressPools"][0]["properties"] = {
        "loadBalancerBackendAddresses": [
            {"name": vm, "properties": {"ipAddress": f"10.0.0.{vm[-1]}"}} for vm in VMS
        ]
    }
    found = without_nat_gateway(
        load_balancers={LB.casefold(): read(body)}, nics=with_nics(*(nic_of(vm) for vm in VMS))
    )
    assert (found.result, "web-1, web-2" in found.message) == (Result.FAIL, True)


def test_an_outbound_rule_of_an_unmanaged_pool() -> None:
    """An outbound rule of a pool that is not managed is another outbound path."""
    rule = {"name": "out", "properties": {"backendAddressPool": {"id": SPARE}}}
    body = balancer_of(*VMS, outboundRules=[rule])
    found = without_nat_gateway(
        load_balancers={LB.casefold(): read(body)},
        nics=with_nics(*(nic_of(vm, APP, SPARE) for vm in VMS)),
    )
    assert found.result is Result.PASS


def test_a_pool_without_outbound_connectivity() -> None:
    """Internal load balancers and rules without SNAT are not an outbound path."""
    internal = balancer_of(*VMS, frontendIPConfigurations=[{"name": "f", "properties": {}}])
    assert without_nat_gateway(load_balancers={LB.casefold(): read(internal)}).result is Result.PASS
    silent = balancer_of(*VMS)
    silent["properties"]["loadBalancingRules"][0]["properties"]["disableOutboundSnat"] = True
    assert without_nat_gateway(load_balancers={LB.casefold(): read(silent)}).result is Result.PASS


def test_a_route_table_can_be_an_outbound_path() -> None:
    """A route table is a warning: the operator has to check where it leads."""
    subnet = Subnet(subnet_id=SUBNET, nat_gateway_id="", route_table_id=f"{NETWORK}/routeTables/r")
    found = without_nat_gateway(subnets={SUBNET.casefold(): subnet})
    assert found.result is Result.WARN
    assert f"route-table show --ids {NETWORK}/routeTables/r " in found.fix[0]


def test_unmanaged_vms_are_not_reported_without_the_ledger() -> None:
    """Without the ledger a drained VM cannot be distinguished from an unmanaged VM."""
    assert judged("unmanaged-vms", lease=Failed(ServiceFault("503"))).result is Result.SKIP


def test_the_newest_view_decides_whether_a_pool_is_an_outbound_path() -> None:
    """A pool that has lost its members since the NICs were read is not an outbound path."""
    later = NOW + timedelta(seconds=60)
    body = balancer_of()
    emptied = parse_load_balancer_details(body, parse_load_balancer(body, later))
    found = without_nat_gateway(load_balancers={LB.casefold(): emptied})
    assert found.result is Result.PASS


# --- another subscription and another region -----------------------------------------------------


def test_commands_reach_another_subscription() -> None:
    """az is signed in to one subscription, which need not be that of the load balancer."""
    other = "99999999-2222-4333-8444-555555555555"
    balancer = balancer_of(*VMS, probes=[])
    balancer["properties"]["loadBalancingRules"][0]["properties"].pop("probe")
    instance = healthy().instance
    assert isinstance(instance, Instance)
    facts = replace(
        healthy(),
        instance=replace(instance, subscription_id=other),
        load_balancers={LB.casefold(): read(balancer)},
        subnets={SUBNET.casefold(): Subnet(subnet_id=SUBNET, nat_gateway_id="", route_table_id="")},
    )
    lines = [line for each in run_checks(facts).findings for line in each.fix]
    named = [line for line in lines if "--resource-group" in line]
    assert len(named) >= 5
    assert all(f"--subscription {GROUP.split('/')[2]}" in line for line in named)


def test_a_nat_gateway_is_in_the_region_of_the_vm() -> None:
    """By default az creates it in the region of its resource group, which can be another one."""
    created = [line for line in without_nat_gateway().fix if " create " in line]
    assert len(created) == 2
    assert all("--location westeurope" in line for line in created)
