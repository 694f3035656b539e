"""What the doctor advises about refusals that no retry ends."""

import json
from dataclasses import replace

import pytest

from controller.azure.http.error_mapping import from_status
from controller.azure.network_bodies import parse_nic
from controller.doctor.facts import DoctorFacts, Failed
from controller.doctor.obstacles import remove_obstacle
from controller.doctor.report import Finding, Result
from controller.doctor.run import run_checks
from controller.errors import Denied, Obstacle, ServiceFault
from tests.support.doctor_facts import APP, GROUP, NOW, healthy, nic_of

HUB = f"{GROUP}-hub/providers/Microsoft.Network"
ASSIGNMENT = (
    "/providers/Microsoft.Management/managementGroups/corp"
    "/providers/Microsoft.Authorization/policyAssignments/Deny"
)
LOCKED = (
    "The scope 'x' cannot perform write operation because following scope(s) are locked: "
    f"'{GROUP}'. Please remove the lock and try again."
)
DISALLOWED = (
    "Resource 'n' was disallowed by policy. Policy identifiers: "
    f'\'[{{"policyAssignment":{{"name":"Deny","id":"{ASSIGNMENT}"}}}}]\'.'
)
HTML = b"<!DOCTYPE html><html><body>Blocked by your organisation</body></html>"


def arm(code: str, message: str = "no") -> bytes:
    """Return the body of an error reply of Resource Manager."""
    return json.dumps({"error": {"code": code, "message": message}}).encode()


def judged(status: int, body: bytes, check: str, code: str = "") -> Finding:
    """Return the finding when requests of one check get this reply."""
    headers = {"x-ms-error-code": code} if code else {}
    failure = Failed(from_status(status, headers, body, "a request"))
    facts: DoctorFacts = {
        "write-nics": replace(healthy(), nic_writes=dict.fromkeys(healthy().nic_writes, failure)),
        "write-ledger": replace(healthy(), blob_write=failure),
        "read-ledger": replace(healthy(), lease=failure),
        "vms": replace(healthy(), vms=failure),
    }[check]
    return next(each for each in run_checks(facts).findings if each.check == check)


@pytest.mark.parametrize(
    ("status", "body", "fix"),
    [
        (409, arm("ScopeLocked", LOCKED), f"{GROUP}/providers/Microsoft.Authorization/locks"),
        (403, arm("RequestDisallowedByPolicy", DISALLOWED), f"--policy-assignment {ASSIGNMENT}"),
        (403, arm("RequestDisallowedByPolicy"), "az policy state list"),
        (409, arm("ReadOnlyDisabledSubscription"), "az account show --subscription 11111111-"),
        (409, arm("MissingSubscriptionRegistration"), "az provider register"),
        (401, arm("InvalidAuthenticationTokenTenant"), "in the tenant of the managed identity"),
        (407, b"", "curl"),
        (403, HTML, "curl"),
    ],
    ids=["lock", "policy", "unnamed policy", "disabled", "provider", "tenant", "407", "page"],
)
@pytest.mark.parametrize("check", ["write-nics", "vms"])
def test_resource_manager_refuses_lastingly(check: str, status: int, body: bytes, fix: str) -> None:
    """A refusal that never ends by itself is a failure, with what removes exactly that."""
    found = judged(status, body, check)
    assert found.result is Result.FAIL
    lines = "\n".join(found.fix)
    assert fix in lines
    assert "in a minute" not in lines
    assert "identity assign" not in lines
    assert "role assignment" not in lines


@pytest.mark.parametrize(
    ("status", "code", "fix"),
    [
        (403, "AccountIsDisabled", "the account is disabled because its subscription is"),
        (403, "AuthorizationFailure", "az storage account network-rule add"),
        (409, "BlobImmutableDueToPolicy", "immutability-policy show"),
        (409, "BlobArchived", "az storage blob set-tier"),
        (409, "InvalidBlobType", "az storage blob delete"),
        (403, "AuthenticationFailed", "timedatectl"),
        (403, "KeyBasedAuthenticationNotPermitted", "unset AZURE_STORAGE_CONNECTION_STRING"),
    ],
)
@pytest.mark.parametrize("check", ["write-ledger", "read-ledger"])
def test_storage_refuses_lastingly(check: str, status: int, code: str, fix: str) -> None:
    """What storage refuses for good is a failure, and no role is blamed."""
    found = judged(status, b"", check, code)
    assert found.result is Result.FAIL
    lines = "\n".join(found.fix)
    assert fix in lines
    assert "role assignment" not in lines


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_unknown_refusal_is_no_temporary_one(status: int) -> None:
    """Azure answers the same request with the same refusal, so waiting is no remedy."""
    found = judged(status, arm("SomethingNew", "the reason"), "write-nics")
    assert found.result is Result.FAIL
    assert "the reason" in found.message


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_unavailable_azure_is_temporary(status: int) -> None:
    """While Azure is unavailable the answer is to ask again, also when it answers with a page."""
    assert judged(status, HTML, "write-nics").result is Result.WARN


@pytest.mark.parametrize("obstacle", Obstacle)
def test_every_obstacle_has_a_remedy(obstacle: Obstacle) -> None:
    """No kind of refusal is left without advice."""
    assert remove_obstacle(healthy(), Denied("no", obstacle=obstacle))


def test_a_role_is_assigned_in_one_step() -> None:
    """Azure names one missing permission; what else the NICs refer to is assigned with it."""
    body = nic_of("web-1", APP)
    body["properties"]["networkSecurityGroup"] = {"id": f"{HUB}/networkSecurityGroups/web"}
    nic = parse_nic(body, NOW)
    error = Denied("403", action="Microsoft.Network/networkInterfaces/write", scope=nic.nic_id)
    facts = replace(
        healthy(),
        nics={**healthy().nics, nic.nic_id.casefold(): nic},
        nic_writes=dict.fromkeys(healthy().nic_writes, Failed(error)),
    )
    (found,) = (each for each in run_checks(facts).findings if each.check == "write-nics")
    scopes = [line.split("--scope ")[1].split("  #")[0] for line in found.fix]
    assert scopes == [GROUP, f"{HUB}/networkSecurityGroups/web"]


def test_a_service_fault_without_status_is_temporary() -> None:
    """An operation that Azure accepted and that failed can succeed when it is repeated."""
    facts = replace(healthy(), vms=Failed(ServiceFault("operation failed")))
    found = next(each for each in run_checks(facts).findings if each.check == "vms")
    assert found.result is Result.WARN
