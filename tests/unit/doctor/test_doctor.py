"""The doctor's findings about errors, this host and its set, without any request."""

import base64
import io
import json
import shlex
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from rich.console import Console

from controller.azure.http.token_claims import principal_of
from controller.azure.imds import Poll
from controller.azure.topology import LoadBalancerDetails
from controller.azure.vm_set import VmSet
from controller.cli.doctor_table import show
from controller.config.schema import Settings
from controller.core.events import EventDocument
from controller.core.resources import PoolKind
from controller.doctor.facts import Failed, Skipped
from controller.doctor.remedies import az
from controller.doctor.report import Finding, Report, Result, failed, passed, skipped, warned
from controller.doctor.run import run_checks
from controller.errors import (
    ContractViolation,
    ControllerError,
    Denied,
    NotFound,
    NotSent,
    Obstacle,
    OutcomeUnknown,
    ServiceFault,
    SetupError,
    Throttled,
)
from tests.support.doctor_facts import (
    COMPUTE,
    GROUP,
    IDENTITY,
    LB,
    NETWORK,
    NOW,
    healthy,
    judged,
    of,
    settings,
)


def test_a_healthy_set_passes_every_check() -> None:
    """A healthy set has one finding per check, and each passes."""
    report = run_checks(healthy())
    assert {each.result for each in report.findings} == {Result.PASS}
    assert (report.worst, report.failed) == (Result.PASS, False)
    checks = [each.title for each in report.findings]
    assert len(set(checks)) == len(checks) == 21


# --- findings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "worst"),
    [
        ((), Result.PASS),
        ((passed("a", "."), skipped("b", "a")), Result.SKIP),
        ((warned("a", "."), skipped("b", "a")), Result.WARN),
        ((failed("a", ".", ("do",)), warned("b", ".")), Result.FAIL),
    ],
)
def test_the_worst_finding_decides(findings: tuple[Finding, ...], worst: Result) -> None:
    """A report has the result of its worst finding, and fails only with a failure."""
    report = Report(vm="", availability_set_id="", findings=findings)
    assert report.worst is worst
    assert report.failed is (worst is Result.FAIL)
    assert report.as_json()["result"] == worst.value


def test_a_failure_has_a_fix() -> None:
    """A failure without a fix is a bug of the doctor."""
    with pytest.raises(ValueError, match="disk"):
        failed("disk", "full", ())


def test_commands_are_quoted() -> None:
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


# --- failed and skipped reads ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "result", "fix"),
    [
        (Throttled("429"), Result.WARN, "in a minute"),
        (ServiceFault("503"), Result.WARN, "in a minute"),
        (NotSent("refused"), Result.FAIL, "https://management.azure.com/"),
        (OutcomeUnknown("no answer"), Result.FAIL, "account.blob.core.windows.net/lb-drain"),
        (Denied("401"), Result.FAIL, f"identity assign --ids {COMPUTE}/virtualMachines/web-1"),
        (
            Denied("403", action="Microsoft.Network/locations/operations/read", scope=f"{GROUP}/x"),
            Result.FAIL,
            f"--assignee-object-id {IDENTITY} ",
        ),
        (ContractViolation("?"), Result.FAIL, "in a minute"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ControllerError) else None,
)
def test_an_error_is_a_finding(error: ControllerError, result: Result, fix: str) -> None:
    """A temporary error is a warning; an error that an operator has to fix is a failure."""
    found = judged("read-operations", operations=Failed(error))
    assert found.result is result
    assert fix in "\n".join(found.fix)


JOIN = "Microsoft.Network/virtualNetworks/subnets/join/action"
HUB = f"{GROUP}-hub/providers/Microsoft.Network/virtualNetworks/hub/subnets/web"
"""In a resource group that holds nothing of the set."""


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (Denied("403", action=JOIN, scope=HUB), f"--scope {HUB}"),
        (
            Denied("403", action=JOIN, scope=HUB, obstacle=Obstacle.DENY_ASSIGNMENT),
            f"{HUB}/providers/Microsoft.Authorization/denyAssignments?",
        ),
        (
            Denied("403", scope="/subscriptions/s", obstacle=Obstacle.TENANT),
            "no role reaches across tenants",
        ),
    ],
    ids=["role", "deny assignment", "tenant"],
)
@pytest.mark.parametrize("check", ["write-nics", "read-operations", "write-ledger"])
def test_a_refusal_has_its_own_remedy(check: str, error: Denied, fix: str) -> None:
    """A role is assigned only where one is missing, and no remedy concerns the identity itself."""
    facts: dict[str, object] = {
        "write-nics": {"nic_writes": dict.fromkeys(healthy().nic_writes, Failed(error))},
        "read-operations": {"operations": Failed(error)},
        "write-ledger": {"blob_write": Failed(error)},
    }
    found = judged(check, **cast("dict[str, Any]", facts[check]))
    lines = "\n".join(found.fix)
    assert found.result is Result.FAIL
    assert "identity assign" not in lines
    is_role = error.obstacle is Obstacle.ROLE
    assert ("role assignment create" in lines) == is_role
    if not (is_role and check == "write-ledger"):  # the role for blobs is on the container
        assert fix in lines


def test_each_missing_action_gets_its_own_scope() -> None:
    """Actions and scopes that a refusal lists in pairs are assigned in pairs."""
    pool = f"{LB}-hub/backendAddressPools/app".replace("/web/", "/hub/")
    join_pool = "Microsoft.Network/loadBalancers/backendAddressPools/join/action"
    error = Denied("403", action=f"{JOIN},{join_pool}", scope=f"{HUB},{pool}")
    writes = dict.fromkeys(healthy().nic_writes, Failed(error))
    report = run_checks(replace(healthy(), nic_writes=writes))
    findings = [each for each in report.findings if each.check == "write-nics"]
    assigned = [line for each in findings for line in each.fix if "assignment create" in line]
    assert [JOIN in findings[0].message, join_pool in findings[1].message] == [True, True]
    assert [HUB in assigned[0], pool in assigned[1]] == [True, True]
    assert [pool in assigned[0], HUB in assigned[1]] == [False, False]


ROLE = f"'lb-drain NIC-based pools {GROUP.split('/')[2]}'"


@pytest.mark.parametrize(
    ("action", "scope", "assigned_on"),
    [
        ("Microsoft.Network/networkInterfaces/write", f"{NETWORK}/networkInterfaces/x", GROUP),
        (JOIN, f"{NETWORK}/virtualNetworks/net/subnets/default", GROUP),
        (JOIN, HUB, HUB),
        ("Microsoft.Network/networkInterfaces/read", GROUP, GROUP),
    ],
)
def test_a_missing_permission_has_one_command(action: str, scope: str, assigned_on: str) -> None:
    """The role from `deploy/roles` is named, on the group of the set or on the foreign resource."""
    error = Denied("403", action=action, scope=scope)
    writes = dict.fromkeys(healthy().nic_writes, Failed(error))
    (command,) = judged("write-nics", nic_writes=writes).fix
    assert command.startswith(f"az role assignment create --assignee-object-id {IDENTITY} ")
    assert f" --role {ROLE} --scope {assigned_on}  # deploy/roles/nic-pools.json " in command
    assert action in command


def test_ip_based_pools_have_their_own_role() -> None:
    """A set whose pools are all IP-based needs no permission to write NICs."""
    details = healthy().load_balancers[LB.casefold()]
    assert isinstance(details, LoadBalancerDetails)
    pools = tuple(replace(pool, kind=PoolKind.ADDRESS) for pool in details.load_balancer.pools)
    ip_based = replace(details, load_balancer=replace(details.load_balancer, pools=pools))
    denied = Failed(Denied("403", action=JOIN, scope=GROUP))
    found = judged(
        "write-pools",
        load_balancers={LB.casefold(): ip_based},
        pool_writes={pools[0].pool_id.casefold(): denied},
    )
    assert "--role 'lb-drain IP-based pools " in found.fix[0]


def test_one_failure_is_reported_once() -> None:
    """Without a token nothing else fails: a check that needs one is skipped."""
    away = Skipped("identity")
    report = run_checks(
        replace(
            healthy(),
            principal_id=Failed(Denied("no identity")),
            availability_set=away,
            vms=away,
            nic_list=away,
            nics={},
            load_balancers={LB.casefold(): away},
            subnets={},
            operations=away,
            lease=away,
            blob_write=away,
            nic_writes={},
        )
    )
    bad = [each.check for each in report.findings if each.result is Result.FAIL]
    assert bad == ["identity"]
    assert "skip" in {each.result.value for each in report.findings}
    assert "not checked: needs identity" in of(report, "pool").message


def test_a_client_id_is_looked_up() -> None:
    """A user-assigned identity is assigned by the resource id that belongs to its client id."""
    client_id = "77777777-2222-4333-8444-555555555555"
    chosen = Settings.model_validate(
        {**settings().model_dump(), "azure": {"client_id": client_id}}, strict=False
    )
    found = judged("identity", settings=chosen, principal_id=Failed(Denied("not found")))
    (line,) = found.fix
    assert f"[?clientId=='\"'\"'{client_id}'\"'\"'].id" in line


# --- this host -----------------------------------------------------------------------------------


def test_a_set_of_one_vm_is_a_warning() -> None:
    """A set that contains only this VM is a warning."""
    vm_ids = (f"{COMPUTE}/virtualMachines/web-1",)
    home = VmSet(set_id=f"{COMPUTE}/availabilitySets/set", vm_ids=vm_ids)
    found = judged("set", availability_set=home)
    assert found.result is Result.WARN
    assert "--availability-set set" in found.fix[0]


def test_a_vm_without_a_set() -> None:
    """A VM that is not in a set has to be created again in one."""
    found = judged("set", availability_set=Failed(SetupError("web-1 is not in a set")))
    assert found.result is Result.FAIL
    assert found.fix[0].startswith("az vm create --resource-group web --name web-1 ")


@pytest.mark.parametrize(
    ("vms", "unread", "result", "words"),
    [
        (3, "", Result.PASS, "flex (scale set) with web-1, web-2, web-3"),
        (1, "", Result.WARN, "contains only this VM"),
        (3, "403 lacks it", Result.WARN, "without its scheduledEventsPolicy: 403 lacks it"),
        (23, "", Result.PASS, "web-20 and 3 more"),
    ],
    ids=["whole", "one VM", "the policy is not allowed", "large"],
)
def test_a_flexible_scale_set(vms: int, unread: str, result: Result, words: str) -> None:
    """A scale set is judged as an availability set is, and named as what it is."""
    home = VmSet(
        set_id=f"{COMPUTE}/virtualMachineScaleSets/flex",
        vm_ids=tuple(f"{COMPUTE}/virtualMachines/web-{n}" for n in range(1, vms + 1)),
        unread=unread,
    )
    found = judged("set", availability_set=home)
    assert found.result is result
    assert words in found.message
    if vms == 1:
        assert found.fix[0].startswith("az vmss scale ")


def test_a_set_that_is_migrated_to_a_scale_set() -> None:
    """Before a conversion the doctor warns, and states how to cancel it."""
    set_id = f"{COMPUTE}/availabilitySets/set"
    home = VmSet(
        set_id=set_id,
        vm_ids=tuple(f"{COMPUTE}/virtualMachines/web-{n}" for n in (1, 2, 3)),
        migrates_to=f"{COMPUTE}/virtualMachineScaleSets/flex",
    )
    found = judged("set", availability_set=home)
    assert found.result is Result.WARN
    assert "being migrated to the scale set flex" in found.message
    assert f"{set_id}/cancelMigrationToVirtualMachineScaleSet" in found.fix[0]


def test_a_set_that_lags_behind() -> None:
    """A set that does not list this VM, or is not found, has to be checked again."""
    vm_ids = (f"{COMPUTE}/virtualMachines/web-2", f"{COMPUTE}/virtualMachines/web-3")
    home = VmSet(set_id=f"{COMPUTE}/availabilitySets/set", vm_ids=vm_ids)
    assert judged("set", availability_set=home).result is Result.WARN
    gone = Failed(NotFound("404"))
    assert judged("set", availability_set=gone).result is Result.WARN


def test_a_poll_without_a_date() -> None:
    """Without the time of IMDS the clock cannot be checked."""
    poll = Poll(document=EventDocument(incarnation=1), date=None)
    assert judged("clock", poll=poll).result is Result.WARN


def test_a_slow_reply_does_not_prove_a_wrong_clock() -> None:
    """After a reply that took ten seconds, five seconds prove nothing; ninety prove an error."""
    slow = {
        "poll_sent_at": NOW + timedelta(seconds=0.5),
        "poll_answered_at": NOW + timedelta(seconds=10.5),
    }
    found = judged("clock", **slow)
    assert (found.result, found.message) == (
        Result.PASS,
        "agrees with the clock of Azure to within 7 s",
    )
    later = {name: at + timedelta(seconds=90) for name, at in slow.items()}
    assert judged("clock", **later).result is Result.FAIL


def test_an_identity_override_is_reported() -> None:
    """A variable that would send token requests elsewhere is named, and ignored."""
    found = judged("identity", identity_overrides=("MSI_ENDPOINT",))
    assert found.result is Result.PASS
    assert "MSI_ENDPOINT is set and ignored" in found.message


# --- what is printed ---


def test_what_is_printed() -> None:
    """Notes are above their commands, equal fixes are printed once, and escapes are not printed."""
    findings = (
        failed("pool", "a\x1b[2Jb", ("az lb list  # look",), subject="x"),
        failed("pool", "gone", ("az lb list  # look",), subject="y"),
        passed("clock", "[red]fine[/red]"),
    )
    console = Console(width=300, record=True, file=io.StringIO())
    show(console, Report(vm="", availability_set_id="", findings=findings))
    output = console.export_text()
    assert r"a\x1b[2Jb" in output
    assert "[red]fine[/red]" in output
    assert "FAIL pool x\nFAIL pool y\n    # look\n    az lb list\n" in output
    assert output.count("az lb list") == 1
    assert output.endswith("1 pass, 2 fail: fix the failures before you start the service\n")


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
def test_the_object_id_of_a_token(text: str, found: str) -> None:
    """The object id is read if there is one, and any other token is not an error."""
    assert principal_of(text) == found


def test_an_unknown_identity_is_looked_up() -> None:
    """When the token has no object id, the command contains a lookup."""
    denied = Failed(Denied("403", action="Microsoft.Network/x/read", scope=f"{NETWORK}/x"))
    found = judged("read-operations", principal_id="", operations=denied)
    assert f'"$(az vm show --ids {COMPUTE}/virtualMachines/web-1 ' in found.fix[0]


def test_a_proxy_is_named() -> None:
    """When requests use a proxy, the first fix concerns the proxy."""
    unreached = Failed(NotSent("Cannot connect to host 127.0.0.1:9"))
    found = judged("identity", principal_id=unreached, proxies=("HTTPS_PROXY",))
    assert found.fix[0].startswith("unset HTTPS_PROXY  # or configure this proxy")
    assert not judged("identity", principal_id=unreached).fix[0].startswith("unset")
