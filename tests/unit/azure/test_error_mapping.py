"""Every failure of the SDK or the connection becomes an error that names the next step."""

import asyncio
import json
import ssl
import zlib
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    IncompleteReadError,
    ResourceExistsError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from azure.core.polling.base_polling import BadResponse
from azure.identity import CredentialUnavailableError
from azure.identity._credentials.azure_cli import CLI_NOT_FOUND

from controller import errors
from controller.azure.http import error_body, request_labels
from controller.azure.http.call import Caller
from controller.azure.http.error_body import retry_after
from controller.azure.http.error_mapping import from_status, refused, translate
from controller.clock import SystemClock
from controller.core import printable

NIC = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkInterfaces/n"
POOL = NIC.replace("networkInterfaces/n", "loadBalancers/l/backendAddressPools/p")
CONNECTION = ConnectionKey("127.0.0.1", 443, True, True, None, None, None)


def envelope(code: str, message: str = "", *details: tuple[str, str]) -> bytes:
    return json.dumps(
        {
            "error": {
                "code": code,
                "message": message,
                "details": [{"code": c, "message": m} for c, m in details],
            }
        }
    ).encode()


def response(
    status: int, body: bytes = b"", url: str = "https://127.0.0.1/", **headers: str
) -> Any:
    return SimpleNamespace(
        status_code=status,
        reason="reason",
        headers={key.replace("_", "-"): value for key, value in headers.items()},
        text=body.decode,
        request=SimpleNamespace(url=url),
    )


IDENTITY = "http://127.0.0.1/metadata/identity/oauth2/token"

# Bodies: Microsoft's own, as published in issues (kubernetes-sigs/cloud-provider-azure#1999,
# hashicorp/terraform#7986, gardener/gardener#384) and recorded by cloud-provider-azure.
BUSY = envelope(
    "RetryableError",
    "A retryable error occured.",
    (
        "RetryableErrorDueToAnotherOperation",
        "Operation AllocateTenantNetworkResourcesOperation (guid) is updating resource guid. "
        "The call can be retried in 14 seconds.",
    ),
)
NOT_READY = envelope(
    "RetryableError", "", ("ReferencedResourceNotProvisioned", "in Updating state")
)
SUPERSEDED = envelope(
    "Canceled", "Operation was canceled.", ("CanceledAndSupersededDueToAnotherOperation", "x")
)
LINKED = envelope(
    "LinkedAuthorizationFailed",
    "The client 'c' with object id 'o' has permission to perform action "
    f"'Microsoft.Network/networkInterfaces/write' on scope '{NIC}'; however, it does not have "
    "permission to perform action 'Microsoft.Network/loadBalancers/backendAddressPools/join/action'"
    f" on the linked scope(s) '{POOL}' or the linked scope(s) are invalid.",
)
FORBIDDEN = envelope(
    "AuthorizationFailed",
    "The client 'c' with object id 'o' does not have authorization to perform action "
    f"'Microsoft.Network/networkInterfaces/read' over scope '{NIC}' or the scope is invalid. If "
    "access was recently granted, please refresh your credentials.",
)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, BUSY, errors.Busy),
        (409, BUSY, errors.Busy),
        (429, NOT_READY, errors.Busy),
        (409, envelope("AnotherOperationInProgress"), errors.Busy),
        (429, envelope("SubscriptionRequestsThrottled"), errors.Throttled),
        (429, b"", errors.Throttled),
        (409, envelope("Conflict"), errors.Conflict),
        (412, envelope("PreconditionFailed"), errors.Conflict),
        (404, envelope("ResourceNotFound"), errors.NotFound),
        (401, b"", errors.Denied),
        (403, FORBIDDEN, errors.Denied),
        (400, envelope("InvalidRequestFormat"), errors.ServiceFault),
        (400, b"", errors.ContractViolation),
        (302, b"", errors.ContractViolation),
        (410, b"", errors.ServiceFault),
        (500, b"", errors.ServiceFault),
        (503, b"<html>", errors.ServiceFault),
        (200, b'{"status":"Failed","error":{"code":"InternalServerError"}}', errors.ServiceFault),
        (200, b'{"status":"Canceled"}', errors.Conflict),
        (200, SUPERSEDED, errors.Conflict),
        (200, BUSY, errors.Busy),
        (200, LINKED, errors.Denied),
        (200, b'{"properties":{"provisioningState":"Failed"}}', errors.ServiceFault),
    ],
)
def test_status_and_body_decide(status: int, body: bytes, expected: type[Exception]) -> None:
    """The same status means different things, and the codes in the body decide."""
    assert type(from_status(status, {}, body, "x")) is expected


@pytest.mark.parametrize(
    ("body", "action", "scope"),
    [
        (LINKED, "Microsoft.Network/loadBalancers/backendAddressPools/join/action", POOL),
        (FORBIDDEN, "Microsoft.Network/networkInterfaces/read", NIC),
    ],
)
def test_denied_names_what_is_missing(body: bytes, action: str, scope: str) -> None:
    """The message names the missing action and its scope, not the ones that were granted."""
    message = str(from_status(403, {}, body, "network nic_put"))
    assert f"lacks {action} on {scope}" in message
    assert "networkInterfaces/write" not in message


def dates(now: str, until: str, zone: str = "GMT") -> dict[str, str]:
    """Return the headers of a reply that asks to wait until an instant."""
    day = "Mon, 19 Sep 2016"
    return {"date": f"{day} {now} GMT", "retry-after": f"{day} {until} {zone}"}


@pytest.mark.parametrize(
    ("headers", "text", "expected"),
    [
        ({"retry-after": "7"}, "", 7),
        ({"retry-after": "7"}, "can be retried in 14 seconds", 7),
        ({}, "The call can be retried in 14 seconds.", 14),
        ({"retry-after": "soon"}, "can be retried in 3 seconds", 3),
        (dates("18:29:17", "18:29:47"), "", 30),
        (dates("18:29:17", "18:29:47"), "can be retried in 14 seconds", 30),
        (dates("18:29:47", "18:29:17"), "", 0),
        ({**dates("18:29:17", "18:29:47"), "retry-after": "7"}, "", 7),
        ({"retry-after": "Mon, 19 Sep 2016 18:29:47 GMT"}, "", None),
        ({"retry-after": "Mon, 19 Sep 2016 18:29:47 GMT"}, "retried after 3 seconds", 3),
        (dates("18:29:17", "18:29:47") | {"date": "today"}, "", None),
        (dates("18:29:17", "18:29:47", zone="-0000"), "", 30),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "-5"}, "", None),
        ({"retry-after": "1e300"}, "", error_body.MAX_RETRY_AFTER_S),
        ({}, "", None),
    ],
)
def test_retry_after(headers: dict[str, str], text: str, expected: float | None) -> None:
    """The header precedes the text, its date counts from the reply's date, waits are bounded."""
    assert retry_after(headers, text) == expected


def connect_error() -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(CONNECTION, OSError(111, "refused"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServiceRequestError("x", error=connect_error()), errors.NotSent),
        (ServiceRequestTimeoutError("x", error=aiohttp.ConnectionTimeoutError()), errors.NotSent),
        (ServiceRequestError("Bearer token authentication is not permitted"), errors.NotSent),
        # azure-core reports these three as "request error" although the request had left.
        (ServiceRequestError("x", error=aiohttp.ServerDisconnectedError()), errors.OutcomeUnknown),
        (
            ServiceRequestError("x", error=aiohttp.ClientOSError(104, "reset")),
            errors.OutcomeUnknown,
        ),
        (ServiceRequestError("x", error=aiohttp.ClientPayloadError()), errors.OutcomeUnknown),
        (ServiceResponseError("x"), errors.OutcomeUnknown),
        (ServiceResponseTimeoutError("x"), errors.OutcomeUnknown),
        (IncompleteReadError("x"), errors.OutcomeUnknown),
        (AzureError("x"), errors.OutcomeUnknown),
        (DecodeError("x"), errors.ContractViolation),
        (json.JSONDecodeError("x", "", 0), errors.ContractViolation),
        (TimeoutError(), errors.OutcomeUnknown),
        (aiohttp.ServerTimeoutError(), errors.OutcomeUnknown),
        (aiohttp.ConnectionTimeoutError(), errors.NotSent),
        (connect_error(), errors.NotSent),
        (aiohttp.ServerDisconnectedError(), errors.OutcomeUnknown),
        (ConnectionResetError(), errors.OutcomeUnknown),
        (
            aiohttp.ClientConnectorCertificateError(CONNECTION, ssl.CertificateError("x")),
            errors.NotSent,
        ),
        (ResourceExistsError(response=response(409, BUSY)), errors.Busy),
        (HttpResponseError(response=response(412)), errors.Conflict),
        (HttpResponseError(response=response(429, Retry_After="3")), errors.Throttled),
        (HttpResponseError(message="no response"), errors.OutcomeUnknown),
        (
            HttpResponseError(response=response(200, b"{}"), error=BadResponse("no status")),
            errors.ContractViolation,
        ),
        (ClientAuthenticationError(response=response(401)), errors.Denied),
        (ClientAuthenticationError(response=response(404, url=IDENTITY)), errors.NotSent),
        (ClientAuthenticationError(response=response(429, url=IDENTITY)), errors.NotSent),
        (ClientAuthenticationError(response=response(400, url=IDENTITY)), errors.Denied),
        (CredentialUnavailableError("no identity"), errors.Denied),
        (errors.LeaseLost("x"), errors.LeaseLost),
    ],
)
def test_cause_decides_not_class(error: Exception, expected: type[Exception]) -> None:
    """NotSent means that no byte was sent, and Denied means that access is refused."""
    assert type(translate(error, "x")) is expected


def test_token_service_out_of_reach_is_not_sent() -> None:
    """A credential that cannot connect sends no request of ours."""
    error = CredentialUnavailableError("unavailable")
    error.__cause__ = ServiceRequestError("x", error=connect_error())
    assert isinstance(translate(error, "x"), errors.NotSent)


def test_a_missing_azure_cli_is_named_with_its_remedy() -> None:
    """Without `az`, the message states what to install, as azure-identity does not."""
    translated = translate(CredentialUnavailableError(CLI_NOT_FOUND), "container listing")
    assert isinstance(translated, errors.Denied)
    assert str(translated) == (
        "container listing: Azure CLI not found on path: install it, and sign in with `az login`"
    )


def test_bugs_are_not_disguised() -> None:
    """An exception that neither Azure nor the network causes stays unchanged."""
    assert translate(KeyError("x"), "x") is None


LONG = "x" * 20_000


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-ms-request-id": LONG}, b""),
        ({"x-ms-error-code": LONG}, b""),
        ({}, json.dumps({"status": LONG}).encode()),
        ({}, json.dumps({"status": [LONG]}).encode()),
        ({}, envelope(LONG, LONG, (LONG, LONG))),
        (
            {},
            envelope(
                "AuthorizationFailed",
                f"does not have permission to perform action '{LONG}' over scope '{LONG}'",
            ),
        ),
        ({}, LONG.encode()),
    ],
)
@pytest.mark.parametrize("status", [200, 403, 409])
def test_no_part_of_a_reply_makes_a_message_long(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    """A message stays short if any part of an error reply is long."""
    assert len(str(from_status(status, headers, body, "arm nic_put"))) < 1000


def test_a_message_holds_no_control_characters() -> None:
    """The content of a reply cannot control a terminal or a log."""
    headers = {"x-ms-request-id": "\udcff\x1b[2J", "x-ms-error-code": "\x07Code"}
    text = str(from_status(409, headers, envelope("A", "b\x1b[31m\r\nc\u202e"), "arm nic_put"))
    assert text.isprintable()
    text.encode()


def called(caller: str, callee: str, raised: Exception) -> Exception:
    """Return what `raised` looks like when code of module `caller` called that of `callee`."""
    below: dict[str, Any] = {"__name__": callee, "raised": raised.with_traceback(None)}
    exec("def act():\n    raise raised", below)
    above: dict[str, Any] = {"__name__": caller, "act": below["act"]}
    exec("def act_above():\n    act()", above)
    try:
        above["act_above"]()
    except type(raised) as error:
        return error
    raise AssertionError


STUMBLES = (
    AttributeError("'str' object has no attribute 'get'"),
    IndexError("list index out of range"),
    KeyError("resource"),
    OverflowError("int too large to convert to float"),
    TypeError("object of type 'int' has no len()"),
    ValueError("Required Content-Range response header is missing or malformed."),
    zlib.error("Error -3 while decompressing data"),
)


@pytest.mark.parametrize("raised", STUMBLES, ids=lambda raised: type(raised).__name__)
def test_an_exception_of_a_library_is_not_a_bug_of_ours(raised: Exception) -> None:
    """An exception of the SDK about a reply is a contract violation; one of our code is a bug."""
    error = called("controller.azure.blob", "azure.storage.blob._download", raised)
    assert isinstance(translate(error, "blob read"), errors.ContractViolation)
    assert translate(called("azure.core", "controller.azure.http.arm_client", raised), "x") is None
    assert translate(called("controller.azure.http.arm_client", "json", raised), "x") is None
    assert translate(called("test", "azure.core", raised), "x") is None


@pytest.mark.parametrize("message", [None, 5, [""], {"a": "b"}])
def test_a_message_that_is_not_text_is_shown(message: Any) -> None:
    """The SDK's `message` can be any JSON value of a reply."""
    error = HttpResponseError(response=response(404))
    error.message = message
    assert isinstance(translate(error, "blob read"), errors.NotFound)
    away = ServiceResponseError("x")
    away.message = message
    assert str(message) in str(translate(away, "blob read"))


def test_excerpts_are_capped() -> None:
    """The message for a long reply is short and on one line."""
    message = str(from_status(500, {}, b"<html>\n" * 100_000, "x"))
    assert len(message) < 2 * printable.EXCERPT_CHARACTERS
    assert "\n" not in message


@pytest.mark.parametrize(
    "body", [b'{"error":[]}', b"[" * 100_000, b"\xff\xfe", b'{"error":{"details":5}}']
)
def test_unusable_error_bodies_do_not_break_the_mapping(body: bytes) -> None:
    """An error is classified by its status if its body cannot be used."""
    assert isinstance(from_status(503, {}, body, "x"), errors.ServiceFault)


FAILED = b'{"status":"Failed","error":{"code":"InternalServerError"}}'


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (HttpResponseError(response=response(409, BUSY)), True),
        (HttpResponseError(response=response(409, envelope("Conflict"))), True),
        (HttpResponseError(response=response(412)), True),
        (HttpResponseError(response=response(429)), True),
        (ClientAuthenticationError(response=response(403, FORBIDDEN)), True),
        (HttpResponseError(response=response(200, FAILED)), False),
        (HttpResponseError(response=response(200, SUPERSEDED)), False),
        (HttpResponseError(response=response(503)), False),
        (HttpResponseError(message="no response"), False),
        (ServiceRequestError("x", error=aiohttp.ServerDisconnectedError()), False),
        (TimeoutError(), False),
    ],
)
async def test_refused_means_that_the_service_refused(raised: Exception, expected: bool) -> None:
    """S3: only a 4xx proves that a request had no effect; a failed operation does not."""
    with pytest.raises(errors.ControllerError) as caught:
        async with Caller(service="network", clock=SystemClock()).call("nic_put", 5):
            raise raised
    assert refused(caught.value) is expected


async def outcome_of(raised: BaseException | None) -> None:
    if raised is not None:
        raise raised


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (None, "ok"),
        (connect_error(), "not_sent"),
        (errors.LeaseHeld("x"), "lease_held"),
        (asyncio.CancelledError(), "cancelled"),
        (ZeroDivisionError(), "bug"),
    ],
)
async def test_every_call_is_observed(raised: BaseException | None, outcome: str) -> None:
    """The observer is called once for every call, whatever its outcome."""
    heard: list[tuple[str, str, str]] = []
    caller = Caller(
        service="network",
        clock=SystemClock(),
        observer=lambda service, call, result, _s: heard.append((service, call, result)),
    )
    with suppress(BaseException):
        async with caller.call("nic_get", 5):
            await outcome_of(raised)
    assert heard == [("network", "nic_get", outcome)]


async def test_deadline_is_an_unknown_outcome() -> None:
    """A call that does not end within its deadline is ended."""
    with pytest.raises(errors.OutcomeUnknown):
        async with Caller(service="x", clock=SystemClock()).call("y", 0.01):
            await asyncio.Event().wait()


def test_every_error_has_an_outcome() -> None:
    """Every error that a call can raise has an outcome label."""
    missing = set(errors.ControllerError.__subclasses__()) - set(request_labels.OUTCOMES)
    assert missing == {errors.InvariantViolation, errors.NotDone, errors.WaitOver}


def test_every_request_has_a_name_for_messages() -> None:
    """Messages name each request of an agent in words, and not by its label."""
    for service, operations in request_labels.OPERATIONS.items():
        for operation in operations:
            name = request_labels.request_name(service, operation)
            assert "_" not in name
            assert name != f"{service} {operation}" or service == "blob"


def test_a_refusal_is_an_answer() -> None:
    """A refusal shows that the service works; a failure, or a missing IMDS resource, does not."""
    known = ("ok", *request_labels.OUTCOMES.values())
    answers = {each for each in known if request_labels.service_answered("network", each)}
    assert answers == {"ok", "busy", "conflict", "lease_held", "lease_lost", "not_found"}
    assert answers - {each for each in known if request_labels.service_answered("imds", each)} == {
        "not_found"
    }


async def test_an_error_names_its_service() -> None:
    """An error names the service of the call, and IMDS when there is no token."""
    caller = Caller(service="compute", clock=SystemClock())
    for raised, service in (
        (aiohttp.ServerDisconnectedError(), "compute"),
        (errors.Conflict("changed"), "compute"),
        (translate(_no_token(), "compute vm_get"), "imds"),
    ):
        assert raised is not None
        with pytest.raises(errors.ControllerError) as caught:
            async with caller.call("vm_get", 1):
                raise raised
        assert caught.value.service == service


def _no_token() -> ClientAuthenticationError:
    error = ClientAuthenticationError("no answer")
    error.__cause__ = ServiceRequestError("refused")
    return error


SUBNET = NIC.replace("networkInterfaces", "virtualNetworks")
JOIN_SUBNET = "Microsoft.Network/virtualNetworks/subnets/join/action"
JOIN_POOL = "Microsoft.Network/loadBalancers/backendAddressPools/join/action"
WRITTEN = (
    "The client 'c' with object id 'o' has permission to perform action "
    f"'Microsoft.Network/networkInterfaces/write' on scope '{NIC}'; however, "
)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (
            f"it does not have permission to perform action(s) '{JOIN_SUBNET}' on the linked "
            f"scope(s) '{SUBNET}' (respectively) or the linked scope(s) are invalid.",
            ((JOIN_SUBNET, SUBNET),),
        ),
        (
            f"it does not have permission to perform action(s) '{JOIN_SUBNET},{JOIN_POOL}' on the "
            f"linked scope(s) '{SUBNET},{POOL}' (respectively) or the linked scope(s) are invalid.",
            ((JOIN_SUBNET, SUBNET), (JOIN_POOL, POOL)),
        ),
        (
            f"it does not have permission to perform action '{JOIN_POOL}' on the linked scope(s) "
            f"'{POOL},{POOL}-2' or the linked scope(s) are invalid.",
            ((JOIN_POOL, POOL), (JOIN_POOL, f"{POOL}-2")),
        ),
        (
            f"it does not have authorization to perform action(s) '{JOIN_SUBNET}' on the linked "
            f"scope(s) '{','.join([SUBNET] * 9)}' (respectively).",
            ((JOIN_SUBNET, SUBNET),) * 9,
        ),
    ],
    ids=["today", "respectively", "singular", "many"],
)
@pytest.mark.parametrize("status", [200, 403])
def test_a_linked_scope_is_named(
    status: int, text: str, lacks: tuple[tuple[str, str], ...]
) -> None:
    """Each text for a missing role on a linked scope gives every action with its whole scope."""
    error = from_status(
        status, {}, envelope("LinkedAuthorizationFailed", WRITTEN + text), "network nic_put"
    )
    assert isinstance(error, errors.Denied)
    assert (error.lacks, error.obstacle) == (lacks, errors.Obstacle.ROLE)
    action, scope = lacks[0]
    assert action in str(error)
    assert scope in str(error)


@pytest.mark.parametrize(
    ("code", "text", "action", "scope", "obstacle"),
    [
        (
            "LinkedAuthorizationFailed",
            f"{WRITTEN}it does not have permission to perform action '{JOIN_SUBNET}' on the '0' "
            "linked scope(s) '' or the linked scope(s) are invalid and is blocked by deny "
            f"assignments on the '1' linked scope(s) '{SUBNET}'.",
            JOIN_SUBNET,
            SUBNET,
            errors.Obstacle.DENY_ASSIGNMENT,
        ),
        (
            "DenyAssignmentAuthorizationFailed",
            f"{WRITTEN}the access is denied because of the deny assignment with name 'locked' and "
            f"Id 'd' at scope '/subscriptions/s'.",
            "Microsoft.Network/networkInterfaces/write",
            NIC,
            errors.Obstacle.DENY_ASSIGNMENT,
        ),
        (
            "LinkedAccessCheckFailed",
            "The client has permission to perform action "
            f"'Microsoft.Network/networkInterfaces/write' on scope '{NIC}', however the current "
            "tenant 't' is not authorized to access linked subscription 's'.",
            "Microsoft.Network/networkInterfaces/write",
            "/subscriptions/s",
            errors.Obstacle.TENANT,
        ),
    ],
    ids=["linked deny", "deny", "tenant"],
)
@pytest.mark.parametrize("status", [200, 401, 403])
def test_no_role_helps(
    status: int, code: str, text: str, action: str, scope: str, obstacle: errors.Obstacle
) -> None:
    """A deny assignment and another tenant differ from a missing role, with action and scope."""
    error = from_status(status, {}, envelope(code, text), "network nic_put")
    assert isinstance(error, errors.Denied)
    assert (error.action, error.scope, error.obstacle) == (action, scope, obstacle)
    assert action in str(error)
    assert scope in str(error)
    assert "Grant it" not in str(error)


@pytest.mark.parametrize(
    ("text", "obstacle"),
    [
        (
            "Multiple user assigned identities exist, please specify the clientId / resourceId of "
            "the identity in the token request",
            errors.Obstacle.IDENTITIES,
        ),
        ("Identity not found", errors.Obstacle.IDENTITY),
    ],
)
def test_the_token_endpoint_names_the_identity(text: str, obstacle: errors.Obstacle) -> None:
    """Several identities, and none, are different faults with different cures."""
    body = json.dumps({"error": "invalid_request", "error_description": text}).encode()
    url = "http://127.0.0.1/metadata/identity/oauth2/token"
    cause = HttpResponseError("400", response=response(400, body, url))
    error = CredentialUnavailableError(message="ManagedIdentityCredential")
    error.__cause__ = cause
    translated = translate(error, "a token")
    assert isinstance(translated, errors.Denied)
    assert translated.obstacle is obstacle
