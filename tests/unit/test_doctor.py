"""The doctor's judgements, from facts put together by hand: nothing is asked of anybody."""

import base64
import io
import json
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from controller.azure.bodies import parse_load_balancer, parse_nic
from controller.azure.compute import AvailabilitySet
from controller.azure.imds import Instance, Poll
from controller.azure.survey import Subnet, parse_balancer, principal_of
from controller.core.ledger import Entry, Ledger
from controller.core.model import EventDocument, NicMembership, PowerState, Vm
from controller.doctor.advice import az
from controller.doctor.examine import judge
from controller.doctor.facts import Facts, Failed, Unasked
from controller.doctor.findings import Finding, Report, Verdict, failed, passed, skipped, warned
from controller.doctor.show import show
from controller.errors import (
    ConfigError,
    ContractViolation,
    ControllerError,
    Denied,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
)
from controller.look import LeaseLook
from controller.settings import Settings

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web"
NETWORK = f"{GROUP}/providers/Microsoft.Network"
COMPUTE = f"{GROUP}/providers/Microsoft.Compute"
LB = f"{NETWORK}/loadBalancers/lb"
APP, SPARE = f"{LB}/backendAddressPools/app", f"{LB}/backendAddressPools/spare"
SUBNET = f"{NETWORK}/virtualNetworks/net/subnets/default"
NAT = f"{NETWORK}/natGateways/nat"
VMS = ("web-1", "web-2", "web-3")
IDENTITY = "99999999-2222-4333-8444-555555555555"


def settings(**pool: Any) -> Settings:
    return Settings.model_validate(
        {
            "backend_pools": [{"id": APP, **pool}],
            "election": {"container_url": "https://account.blob.core.windows.net/lb-drain"},
        }
    )


def nic_id(vm: str) -> str:
    return f"{NETWORK}/networkInterfaces/{vm}-nic"


def nic_of(vm: str, *pools: str) -> dict[str, Any]:
    order = int(vm[-1])
    properties: dict[str, Any] = {
        "privateIPAddress": f"10.0.0.{order}",
        "subnet": {"id": SUBNET},
        "loadBalancerBackendAddressPools": [{"id": pool} for pool in pools],
    }
    return {
        "id": nic_id(vm),
        "etag": "1",
        "properties": {
            "virtualMachine": {"id": f"{COMPUTE}/virtualMachines/{vm}"},
            "ipConfigurations": [{"name": "ipconfig1", "properties": properties}],
        },
    }


def balancer_of(*vms: str, **properties: Any) -> dict[str, Any]:
    """A public load balancer whose pool app holds these VMs and has one probed rule."""
    members = [{"id": f"{nic_id(vm)}/ipConfigurations/ipconfig1"} for vm in vms]
    rule = {
        "backendAddressPool": {"id": APP},
        "backendPort": 8080,
        "protocol": "Tcp",
        "probe": {"id": f"{LB}/probes/http"},
    }
    return {
        "id": LB,
        "sku": {"name": "Standard"},
        "properties": {
            "frontendIPConfigurations": [
                {"name": "front", "properties": {"publicIPAddress": {"id": "ip"}}}
            ],
            "backendAddressPools": [
                {"id": APP, "properties": {"backendIPConfigurations": members}},
                {"id": SPARE, "properties": {}},
            ],
            "loadBalancingRules": [{"name": "rule", "properties": rule}],
            "probes": [{"name": "http"}],
            **properties,
        },
    }


def read(balancer: dict[str, Any]) -> Any:
    return parse_balancer(balancer, parse_load_balancer(balancer, NOW))


def healthy() -> Facts:
    """Everything as it should be, before the first agent has started."""
    nics = {nic_id(vm).casefold(): parse_nic(nic_of(vm, APP), NOW) for vm in VMS}
    instance = Instance(
        name="web-1",
        vm_id=f"{COMPUTE}/virtualMachines/web-1",
        subscription_id="11111111-2222-4333-8444-555555555555",
        resource_group="web",
        location="westeurope",
        environment="AzurePublicCloud",
    )
    return Facts(
        settings=settings(),
        proxies=(),
        hijackers=(),
        instance=instance,
        poll=Poll(document=EventDocument(incarnation=1), date=NOW),
        polled_at=NOW + timedelta(seconds=0.5),
        principal=IDENTITY,
        home=AvailabilitySet(
            availability_set_id=f"{COMPUTE}/availabilitySets/set",
            vm_ids=tuple(f"{COMPUTE}/virtualMachines/{vm}" for vm in VMS),
        ),
        vms=tuple(
            Vm(
                name=vm,
                vm_id=f"{COMPUTE}/virtualMachines/{vm}",
                nic_ids=(nic_id(vm),),
                power=PowerState.RUNNING,
            )
            for vm in VMS
        ),
        nic_list=None,
        nics=nics,
        balancers={LB.casefold(): read(balancer_of(*VMS))},
        subnets={
            SUBNET.casefold(): Subnet(subnet_id=SUBNET, nat_gateway_id=NAT, route_table_id="")
        },
        operations=None,
        blob_url="https://account.blob.core.windows.net/lb-drain/s/web/set.json",
        lease=LeaseLook(lease_state="available", ledger=Ledger(), at=NOW),
        blob_write=None,
        nic_writes=dict.fromkeys(nics, True),
        pool_writes={},
    )


def of(report: Report, check: str) -> Finding:
    (found,) = [each for each in report.findings if each.check == check]
    return found


def judged(check: str, **facts: Any) -> Finding:
    """Return the finding of a check when some facts are other than healthy."""
    return of(judge(replace(healthy(), **facts)), check)


def with_nics(*bodies: dict[str, Any]) -> dict[str, Any]:
    nics = {body["id"].casefold(): parse_nic(body, NOW) for body in bodies}
    return {**healthy().nics, **nics}


def test_nothing_to_mend() -> None:
    """A healthy set has one finding per check, all of them passes."""
    report = judge(healthy())
    assert {each.verdict for each in report.findings} == {Verdict.PASS}
    assert (report.worst, report.failed) == (Verdict.PASS, False)
    checks = [each.title for each in report.findings]
    assert len(set(checks)) == len(checks) == 20


# --- findings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "worst"),
    [
        ((), Verdict.PASS),
        ((passed("a", "."), skipped("b", "a")), Verdict.SKIP),
        ((warned("a", "."), skipped("b", "a")), Verdict.WARN),
        ((failed("a", ".", ("do",)), warned("b", ".")), Verdict.FAIL),
    ],
)
def test_the_worst_counts(findings: tuple[Finding, ...], worst: Verdict) -> None:
    """A report is as bad as the worst of its findings, and fails with a failure only."""
    report = Report(vm="", availability_set_id="", findings=findings)
    assert report.worst is worst
    assert report.failed is (worst is Verdict.FAIL)
    assert report.as_json()["verdict"] == worst.value


def test_a_failure_says_what_mends_it() -> None:
    """A failure without advice is a bug of the doctor."""
    with pytest.raises(ValueError, match="disk"):
        failed("disk", "full", ())


def test_what_is_copied_into_a_shell_is_quoted() -> None:
    """A name with a space, a quote or a command in it stays one word."""
    line = az("group show", name="a b'; $(rm)", ids=("x y", "z"))
    assert shlex.split(line) == [
        "az",
        "group",
        "show",
        "--name",
        "a b'; $(rm)",
        "--ids",
        "x y",
        "z",
    ]


# --- what could not be asked ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "verdict", "mend"),
    [
        (Throttled("429"), Verdict.WARN, "in a minute"),
        (ServiceFault("503"), Verdict.WARN, "in a minute"),
        (NotSent("refused"), Verdict.FAIL, "https://management.azure.com/"),
        (OutcomeUnknown("no answer"), Verdict.FAIL, "account.blob.core.windows.net/lb-drain"),
        (Denied("401"), Verdict.FAIL, f"identity assign --ids {COMPUTE}/virtualMachines/web-1"),
        (
            Denied("403", action="Microsoft.Network/locations/operations/read", scope=f"{GROUP}/x"),
            Verdict.FAIL,
            f"--assignee-object-id {IDENTITY} ",
        ),
        (ContractViolation("?"), Verdict.FAIL, "in a minute"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ControllerError) else None,
)
def test_an_error_is_a_finding(error: ControllerError, verdict: Verdict, mend: str) -> None:
    """What passes by itself is a warning, what somebody has to change is a failure."""
    found = judged("follow-operations", operations=Failed(error))
    assert found.verdict is verdict
    assert mend in "\n".join(found.mend)


def test_one_failure_is_told_once() -> None:
    """Without a token nothing else fails: what needs it was not checked, and says so."""
    away = Unasked("identity")
    report = judge(
        replace(
            healthy(),
            principal=Failed(Denied("no identity")),
            home=away,
            vms=away,
            nic_list=away,
            nics={},
            balancers={LB.casefold(): away},
            subnets={},
            operations=away,
            lease=away,
            blob_write=away,
            nic_writes={},
        )
    )
    bad = [each.check for each in report.findings if each.verdict is Verdict.FAIL]
    assert bad == ["identity"]
    assert "skip" in {each.verdict.value for each in report.findings}
    assert "not checked: needs identity" in of(report, "pool").what


def test_a_client_id_is_looked_up() -> None:
    """A user-assigned identity is assigned by the id that its client id leads to."""
    client_id = "77777777-2222-4333-8444-555555555555"
    chosen = Settings.model_validate(
        {**settings().model_dump(), "azure": {"client_id": client_id}}, strict=False
    )
    found = judged("identity", settings=chosen, principal=Failed(Denied("not found")))
    (line,) = found.mend
    assert f"[?clientId=='\"'\"'{client_id}'\"'\"'].id" in line


# --- this host -----------------------------------------------------------------------------------


def test_a_set_of_one_has_nobody_to_hand_over_to() -> None:
    """A set that holds this VM only is a warning."""
    vm_ids = (f"{COMPUTE}/virtualMachines/web-1",)
    home = AvailabilitySet(availability_set_id=f"{COMPUTE}/availabilitySets/set", vm_ids=vm_ids)
    found = judged("availability-set", home=home)
    assert found.verdict is Verdict.WARN
    assert "--availability-set set" in found.mend[0]


def test_a_vm_without_a_set() -> None:
    """A VM in no set has to be created anew in one."""
    found = judged("availability-set", home=Failed(ConfigError("web-1 is not in a set")))
    assert found.verdict is Verdict.FAIL
    assert found.mend[0].startswith("az vm create --resource-group web --name web-1 ")


def test_a_set_that_lags_behind() -> None:
    """A set that does not list this VM, or cannot be found, is looked at again."""
    vm_ids = (f"{COMPUTE}/virtualMachines/web-2", f"{COMPUTE}/virtualMachines/web-3")
    home = AvailabilitySet(availability_set_id=f"{COMPUTE}/availabilitySets/set", vm_ids=vm_ids)
    assert judged("availability-set", home=home).verdict is Verdict.WARN
    gone = Failed(NotFound("404"))
    assert judged("availability-set", home=gone).verdict is Verdict.WARN


def test_a_poll_without_a_date() -> None:
    """Without the time of IMDS nothing is said about the clock."""
    poll = Poll(document=EventDocument(incarnation=1), date=None)
    assert judged("clock", poll=poll).verdict is Verdict.WARN


def test_a_hijacked_identity_is_told() -> None:
    """A variable that would lead the identity elsewhere is named, and ignored."""
    found = judged("identity", hijackers=("MSI_ENDPOINT",))
    assert found.verdict is Verdict.PASS
    assert "MSI_ENDPOINT is set and ignored" in found.what


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


def entry(vm: str) -> Entry:
    membership = NicMembership(pool_id=APP, nic_id=nic_id(vm), ip_configuration="ipconfig1")
    return Entry(vm=vm, vm_id="", events=(), memberships=(membership,), recorded_at=NOW)


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


# --- what is printed ---


def test_what_is_printed() -> None:
    """Notes stand above their commands, one advice stands once, and no escape gets out."""
    findings = (
        failed("pool", "a\x1b[2Jb", ("az lb list  # look",), subject="x"),
        failed("pool", "gone", ("az lb list  # look",), subject="y"),
        passed("clock", "[red]fine[/red]"),
    )
    console = Console(width=300, record=True, file=io.StringIO())
    show(console, Report(vm="", availability_set_id="", findings=findings))
    said = console.export_text()
    assert "a?[2Jb" in said
    assert "[red]fine[/red]" in said
    assert "FAIL pool x\nFAIL pool y\n    # look\n    az lb list\n" in said
    assert said.count("az lb list") == 1
    assert said.endswith("1 pass, 2 fail: mend what failed before the service is started\n")


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


# --- tokens --------------------------------------------------------------------------------------


def token(claims: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{middle}.x"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (token({"oid": IDENTITY}), IDENTITY),
        (token({"oid": 7}), ""),
        (token({"oid": "a\nb"}), ""),
        (token({"sub": IDENTITY}), ""),
        (token([IDENTITY]), ""),
        ("opaque", ""),
        ("a.!.c", ""),
        ("", ""),
    ],
)
def test_whose_a_token_is(text: str, found: str) -> None:
    """The object id is read where there is one, and a token that is anything else is no error."""
    assert principal_of(text) == found


def test_an_unknown_identity_is_looked_up() -> None:
    """When the token does not say whose it is, the command finds out."""
    denied = Failed(Denied("403", action="Microsoft.Network/x/read", scope=f"{NETWORK}/x"))
    found = judged("follow-operations", principal="", operations=denied)
    assert f'"$(az vm show --ids {COMPUTE}/virtualMachines/web-1 ' in found.mend[1]
