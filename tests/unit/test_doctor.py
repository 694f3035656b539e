"""The doctor's findings about errors, this host and its set: nothing is asked of anybody."""

import base64
import io
import json
import shlex
from dataclasses import replace
from datetime import timedelta

import pytest
from clinic import (
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
from rich.console import Console

from controller.azure.compute import AvailabilitySet
from controller.azure.imds import Poll
from controller.azure.survey import principal_of
from controller.core.model import EventDocument
from controller.doctor.advice import az
from controller.doctor.examine import judge
from controller.doctor.facts import Failed, Unasked
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
from controller.settings import Settings


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


def test_a_slow_answer_is_no_proof_of_a_wrong_clock() -> None:
    """An answer that took ten seconds may be five off; ninety off is wrong all the same."""
    slow = {"asked_at": NOW + timedelta(seconds=0.5), "answered_at": NOW + timedelta(seconds=10.5)}
    found = judged("clock", **slow)
    assert (found.verdict, found.what) == (Verdict.PASS, "agrees with Azure's to 7 s")
    later = {name: at + timedelta(seconds=90) for name, at in slow.items()}
    assert judged("clock", **later).verdict is Verdict.FAIL


def test_a_hijacked_identity_is_told() -> None:
    """A variable that would lead the identity elsewhere is named, and ignored."""
    found = judged("identity", hijackers=("MSI_ENDPOINT",))
    assert found.verdict is Verdict.PASS
    assert "MSI_ENDPOINT is set and ignored" in found.what


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


def test_a_proxy_in_the_way_is_named() -> None:
    """Where requests go by way of a proxy, that is the first suspect."""
    unreached = Failed(NotSent("Cannot connect to host 127.0.0.1:9"))
    found = judged("identity", principal=unreached, proxies=("HTTPS_PROXY",))
    assert found.mend[0].startswith("unset HTTPS_PROXY  # or see to it")
    assert not judged("identity", principal=unreached).mend[0].startswith("unset")
