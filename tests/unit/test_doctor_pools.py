"""The doctor's findings about pools, access and the way out: nothing is asked of anybody."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from clinic import (
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

from controller.azure.survey import Subnet
from controller.core.ledger import Ledger
from controller.doctor.examine import judge
from controller.doctor.facts import Failed
from controller.doctor.findings import Finding, Verdict
from controller.errors import (
    ContractViolation,
    Denied,
    ServiceFault,
)
from controller.look import LeaseLook

# --- pools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("floor", "members", "verdict", "room"),
    [
        (0, 1, Verdict.PASS, ""),
        (1, 1, Verdict.FAIL, "min_in_service = 0 "),
        (1, 2, Verdict.PASS, ""),
        (2, 2, Verdict.FAIL, "min_in_service = 1 "),
        (9, 3, Verdict.FAIL, "min_in_service = 2 "),
        ("50%", 2, Verdict.PASS, ""),
        ("51%", 2, Verdict.FAIL, 'min_in_service = "50%" '),
        ("100%", 3, Verdict.FAIL, 'min_in_service = "66%" '),
        ("66%", 3, Verdict.PASS, ""),
    ],
)
def test_the_floor(floor: int | str, members: int, verdict: Verdict, room: str) -> None:
    """A floor has to leave room for one VM; the highest that does is told."""
    vms = VMS[:members]
    outside = [nic_of(vm) for vm in VMS[members:]]
    found = judged(
        "floor",
        settings=settings(min_in_service=floor),
        balancers={LB.casefold(): read(balancer_of(*vms))},
        nics=with_nics(*outside),
    )
    assert found.verdict is verdict
    assert not room or found.mend[0].startswith(room)


def test_a_vm_that_is_out_counts_as_a_member() -> None:
    """What agents have taken out is neither left out, nor does it lower the full size."""
    ledger = Ledger(epoch=4, leader="web-2", leader_since=NOW, entries=(entry("web-3"),))
    facts: dict[str, Any] = {
        "balancers": {LB.casefold(): read(balancer_of("web-1", "web-2"))},
        "nics": with_nics(nic_of("web-3")),
        "settings": settings(min_in_service=2),
        "lease": LeaseLook(lease_state="leased", ledger=ledger, at=NOW + timedelta(seconds=5)),
    }
    assert "2 of 3 must stay" in judged("floor", **facts).what
    assert judged("left-out", **facts).verdict is Verdict.PASS
    assert (
        judged("agents", **facts).what == "web-2 leads for 5 s, in epoch 4; out of rotation: web-3"
    )


def test_a_pool_that_nobody_can_mean() -> None:
    """A pool unlike any there is gets the command that creates it."""
    other = balancer_of(*VMS)
    other["properties"]["backendAddressPools"][0]["id"] = f"{LB}/backendAddressPools/frontends"
    found = judged("pool", balancers={LB.casefold(): read(other)})
    assert found.verdict is Verdict.FAIL
    assert found.mend[0].startswith(
        "az network lb address-pool create --resource-group web --lb-name lb --name app "
    )


def test_a_pool_without_vms_of_the_set() -> None:
    """A pool with no VM of the set is a warning, with the command that puts one in."""
    facts: dict[str, Any] = {
        "balancers": {LB.casefold(): read(balancer_of())},
        "nics": with_nics(*(nic_of(vm) for vm in VMS)),
    }
    found = judged("members", **facts)
    assert found.verdict is Verdict.WARN
    assert found.mend[0].endswith(f"--address-pool {APP}")
    assert judged("floor", **facts).verdict is Verdict.SKIP


def test_an_address_is_added_to_a_pool_of_addresses() -> None:
    """A VM left out of an IP-based pool is put in by its address, not by its NIC."""
    body = balancer_of()
    body["properties"]["backendAddressPools"][0]["properties"] = {
        "loadBalancerBackendAddresses": [
            {"name": vm, "properties": {"ipAddress": f"10.0.0.{vm[-1]}"}} for vm in VMS[:2]
        ]
    }
    found = judged(
        "left-out",
        balancers={LB.casefold(): read(body)},
        nics=with_nics(*(nic_of(vm) for vm in VMS)),
    )
    (line,) = found.mend
    assert "address-pool address add " in line
    assert f"--vnet {NETWORK}/virtualNetworks/net --ip-address 10.0.0.3" in line


def test_a_load_balancer_without_probes_gets_one() -> None:
    """Where there is no probe to refer to, the first command creates it."""
    body = balancer_of(*VMS)
    body["properties"]["probes"] = []
    del body["properties"]["loadBalancingRules"][0]["properties"]["probe"]
    found = judged("probe", balancers={LB.casefold(): read(body)})
    assert found.verdict is Verdict.FAIL
    assert "lb probe create" in found.mend[0]
    assert "--port 8080" in found.mend[0]
    assert found.mend[1].endswith("--name rule --probe-name lb-drain")


def test_a_pool_without_a_rule() -> None:
    """A pool that no rule uses is a warning: nobody comes through it."""
    body = balancer_of(*VMS, loadBalancingRules=[])
    assert judged("probe", balancers={LB.casefold(): read(body)}).verdict is Verdict.WARN


# --- access --------------------------------------------------------------------------------------


def test_what_is_missing_for_several_nics_is_one_finding() -> None:
    """One missing action is one finding, whatever it was found on; another is another."""
    join = "Microsoft.Network/publicIPAddresses/join/action"
    write = "Microsoft.Network/networkInterfaces/write"
    scopes = [f"{NETWORK}/publicIPAddresses/{vm}-ip" for vm in VMS[:2]]
    denied = [Failed(Denied("403", action=join, scope=scope)) for scope in scopes]
    other = Failed(Denied("403", action=write, scope=nic_id("web-3")))
    writes = dict(zip(healthy().nic_writes, (*denied, other), strict=True))
    report = judge(replace(healthy(), nic_writes=writes))
    first, second = [each for each in report.findings if each.check == "write-nics"]
    assert [f"--scope {scope}" in "\n".join(first.mend) for scope in scopes] == [True, True]
    assert len([line for line in first.mend if "definition create" in line]) == 1
    assert f"--scope {GROUP}" in second.mend[1].split("  ")[0]
    assert nic_id("web-3") not in second.mend[1]


@pytest.mark.parametrize(
    ("state", "ledger", "verdict", "said"),
    [
        ("available", Ledger(), Verdict.PASS, "nobody leads yet"),
        ("expired", Ledger(epoch=3, entries=(entry("web-2"),)), Verdict.WARN, "web-2 is out"),
        ("leased", Ledger(epoch=3, leader="web-3"), Verdict.PASS, "web-3 leads, in epoch 3"),
    ],
)
def test_the_agents(state: str, ledger: Ledger, verdict: Verdict, said: str) -> None:
    """Nobody leading is fine, unless a VM waits for somebody to put it back."""
    found = judged("agents", lease=LeaseLook(lease_state=state, ledger=ledger, at=NOW))
    assert found.verdict is verdict
    assert said in found.what


def test_a_ledger_that_cannot_be_read() -> None:
    """A blob that holds no ledger is a failure; what it holds is to be saved first."""
    found = judged("read-ledger", lease=Failed(ContractViolation("not a ledger")))
    assert found.verdict is Verdict.FAIL
    assert found.mend[0].startswith("az storage blob download ")
    assert healthy().blob_url in found.mend[0]


def test_a_nic_that_cannot_be_read() -> None:
    """One NIC that is away leaves unchecked what would be wrong without it."""
    nics = {**healthy().nics, nic_id("web-2").casefold(): Failed(ServiceFault("503"))}
    report = judge(replace(healthy(), nics=nics))
    for check in ("members", "left-out", "floor", "way-out", "write-nics"):
        assert of(report, check).verdict is Verdict.SKIP
    assert of(report, "nics").verdict is Verdict.WARN


def test_a_nic_that_failed() -> None:
    """A NIC in provisioningState Failed blocks its load balancer, and a write mends it."""
    body = nic_of("web-2", APP)
    body["properties"]["provisioningState"] = "Failed"
    found = judged("nics", nics=with_nics(body))
    assert found.verdict is Verdict.WARN
    assert found.mend == (f"az network nic update --ids {nic_id('web-2')}",)


def addresses() -> dict[str, Any]:
    """Return a load balancer whose pool app is IP-based."""
    body = balancer_of()
    body["properties"]["backendAddressPools"][0]["properties"] = {
        "loadBalancerBackendAddresses": [
            {"name": vm, "properties": {"ipAddress": f"10.0.0.{vm[-1]}"}} for vm in VMS
        ]
    }
    return {
        "balancers": {LB.casefold(): read(body)},
        "nics": with_nics(*(nic_of(vm) for vm in VMS)),
        "nic_writes": {},
    }


def test_what_agents_have_out_is_not_tried() -> None:
    """While agents work on all that could be tried, that is a warning and no all-clear."""
    entries = tuple(entry(vm) for vm in VMS)
    ledger = Ledger(epoch=1, leader="web-1", entries=entries)
    lease = LeaseLook(lease_state="leased", ledger=ledger, at=NOW)
    assert judged("write-nics", lease=lease, nic_writes={}).verdict is Verdict.WARN
    assert judged("write-pools", lease=lease, **addresses()).verdict is Verdict.WARN


def test_pools_of_addresses_need_no_writes_to_nics() -> None:
    """With IP-based pools alone there is nothing to say about writes to NICs."""
    report = judge(replace(healthy(), **addresses(), pool_writes={APP.casefold(): True}))
    assert "write-nics" not in [each.check for each in report.findings]
    assert of(report, "write-pools").verdict is Verdict.PASS


def test_pools_in_which_nothing_can_be_tried() -> None:
    """Where no NIC is in a pool, permissions stay unchecked and that is said."""
    assert judged("write-nics", nic_writes={}).verdict is Verdict.SKIP


def test_a_ledger_without_a_name() -> None:
    """Without the set, and so without the blob's name, nothing is said about agents."""
    facts: dict[str, Any] = {"home": Failed(ServiceFault("503"))}
    assert "which is ours the set would tell" in judged("read-ledger", **facts).what
    assert judged("agents", **facts).verdict is Verdict.SKIP


def test_a_pool_that_failed() -> None:
    """A pool in provisioningState Failed is a warning."""
    body = balancer_of(*VMS)
    body["properties"]["backendAddressPools"][0]["properties"]["provisioningState"] = "Failed"
    found = judged("pool", balancers={LB.casefold(): read(body)})
    assert found.verdict is Verdict.WARN
    assert found.mend == (f"az resource update --ids {LB}",)


# --- the way out ---------------------------------------------------------------------------------


def captive(**facts: Any) -> Finding:
    subnet = Subnet(subnet_id=SUBNET, nat_gateway_id="", route_table_id="")
    return judged("way-out", **{"subnets": {SUBNET.casefold(): subnet}, **facts})


def test_the_only_way_out() -> None:
    """A VM that goes out through the managed pool alone is a captive."""
    found = captive()
    assert found.verdict is Verdict.FAIL
    assert "--vnet-name net --name default --nat-gateway" in found.mend[-1]


def test_a_pool_of_its_own_for_the_way_out() -> None:
    """An outbound rule on a pool that nobody manages leaves the VMs their way out."""
    rule = {"name": "out", "properties": {"backendAddressPool": {"id": SPARE}}}
    body = balancer_of(*VMS, outboundRules=[rule])
    found = captive(
        balancers={LB.casefold(): read(body)},
        nics=with_nics(*(nic_of(vm, APP, SPARE) for vm in VMS)),
    )
    assert found.verdict is Verdict.PASS


def test_a_pool_that_leads_nowhere() -> None:
    """Who does not go out through the pools loses nothing: internal ones, rules without SNAT."""
    internal = balancer_of(*VMS, frontendIPConfigurations=[{"name": "f", "properties": {}}])
    assert captive(balancers={LB.casefold(): read(internal)}).verdict is Verdict.PASS
    silent = balancer_of(*VMS)
    silent["properties"]["loadBalancingRules"][0]["properties"]["disableOutboundSnat"] = True
    assert captive(balancers={LB.casefold(): read(silent)}).verdict is Verdict.PASS


def test_a_route_table_may_lead_out() -> None:
    """A route table is looked at by the operator: the doctor does not know the firewall."""
    subnet = Subnet(subnet_id=SUBNET, nat_gateway_id="", route_table_id=f"{NETWORK}/routeTables/r")
    found = captive(subnets={SUBNET.casefold(): subnet})
    assert found.verdict is Verdict.WARN
    assert f"route-table show --ids {NETWORK}/routeTables/r " in found.mend[0]


def test_who_is_out_is_no_warning_while_the_ledger_cannot_be_read() -> None:
    """A VM that the controller has taken out must not be put back on the doctor's word."""
    assert judged("left-out", lease=Failed(ServiceFault("503"))).verdict is Verdict.SKIP
