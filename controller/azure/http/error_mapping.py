"""Map every failure of an Azure request to one of the errors in `controller.errors`.

The SDK's own classes do not show what the caller may do next: a failed operation arrives as an
error with status 200, a 409 as "resource exists", and a connection that was reset *after* the
request left as the same `ServiceRequestError` that means "never sent" (azure-core's aiohttp
transport turns every `aiohttp.ClientError` into it). So the mapping reads the cause, not the class.
"""

import json
import traceback
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
)
from azure.core.polling.base_polling import BadResponse

from controller import errors
from controller.azure.http.api_versions import REFUSALS, supported_versions
from controller.azure.http.denials import read_denial
from controller.azure.http.error_body import ErrorBody, retry_after
from controller.azure.http.refusals import (
    is_not_azure,
    names_several_identities,
    obstacle_of,
    scope_of,
)
from controller.core.printable import excerpt
from controller.errors import ControllerError, Obstacle

LIST_CHARACTERS = 4000
"""Limit for the actions or scopes that a refusal names: ids of some 200 characters each."""

_BUSY = {
    "anotheroperationinprogress",
    "referencedresourcenotprovisioned",
    "retryableerrordueanotheroperation",
    "retryableerrorduetoanotheroperation",
}
_SUPERSEDED = {"canceled", "canceledandsupersededduetoanotheroperation", "operationpreempted"}
_DENIED_CODES = {
    "authorizationfailed",
    "denyassignmentauthorizationfailed",
    "linkedaccesscheckfailed",
    "linkedauthorizationfailed",
}
# What Python raises when code that trusts its input receives something else.
_UNEXPECTED_INPUT = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    zlib.error,
)
# What aiohttp raises before a byte of the request has left; all else may have had its effect.
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)

_NO_CLI = "Azure CLI not found"
"""How azure-identity begins its message when there is no `az`."""


def translate(error: Exception, what: str) -> ControllerError | None:
    """Return the error in `controller.errors` for any exception; None for a bug of ours."""
    reason = excerpt(str(error) or repr(error))
    translated: ControllerError | None = None
    if isinstance(error, ControllerError):
        translated = error
    elif isinstance(error, aiohttp.ClientError):
        never_sent = isinstance(error, _NEVER_SENT)
        kind = errors.NotSent if never_sent else errors.OutcomeUnknown
        translated = kind(f"{what}: {reason}")
    elif isinstance(error, AzureError):
        translated = _from_azure(error, what)
    elif isinstance(error, TimeoutError):
        translated = errors.OutcomeUnknown(f"{what}: no answer within the deadline")
    elif isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        translated = errors.ContractViolation(f"{what}: the reply is not JSON ({reason})")
    elif isinstance(error, OSError):
        translated = errors.OutcomeUnknown(f"{what}: {reason}")
    elif isinstance(error, _UNEXPECTED_INPUT) and _raised_by_a_library(error):
        translated = errors.ContractViolation(f"{what}: the reply cannot be read ({reason})")
    return translated


def refused(error: ControllerError) -> bool:
    """Return whether the service refused the request, so that it had no effect.

    An operation that starts and then fails is not a refusal: its status code is 200.
    """
    return error.status in range(400, 500)


def _raised_by_a_library(error: Exception) -> bool:
    """Return whether a library failed on the reply; otherwise the error is a bug of ours.

    The SDK trusts its services: a header that is not a number, or a body that is a list, ends in
    any exception that Python has for it. Such an exception was raised in or below the library
    that our innermost frame called. An exception from our own lines is a bug.
    """
    modules = [
        str(frame.f_globals.get("__name__", "")).partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    ours = [index for index, module in enumerate(modules) if module == __name__.partition(".")[0]]
    return bool(ours) and modules[ours[-1] + 1 : ours[-1] + 2] in (["azure"], ["aiohttp"])


def _from_azure(error: AzureError, what: str) -> ControllerError:
    reason = _message(error)
    if isinstance(error, ClientAuthenticationError):
        return _from_authentication(error, what)
    if isinstance(error, DecodeError) and not isinstance(error, IncompleteReadError):
        return errors.ContractViolation(f"{what}: the reply cannot be read ({reason})")
    if isinstance(error, HttpResponseError) and not isinstance(error, IncompleteReadError):
        return _from_response(error, what)
    if isinstance(error, ServiceRequestError):
        inner = cast("object", error.inner_exception)
        if isinstance(inner, aiohttp.ClientError):
            return translate(inner, what) or errors.OutcomeUnknown(f"{what}: {reason}")
        return errors.NotSent(f"{what}: {reason}")
    return errors.OutcomeUnknown(f"{what}: {reason}")


def _message(error: AzureError) -> str:
    """Return the SDK's `message`, which for a storage error can be any JSON value of the reply."""
    return excerpt(str(cast("object", error.message)))


def _from_authentication(error: ClientAuthenticationError, what: str) -> ControllerError:
    """Distinguish a refused identity from an identity service that is briefly unavailable.

    azure-identity reports both as the same class. While the service is unavailable no request of
    ours is sent. Azure documents 404, 410, 429 and 5xx of the token endpoint as temporary
    (Microsoft docs, Instance Metadata Service; managed identities, error handling).
    """
    response = _response_of(error)
    cause = error.__cause__
    if response is None and isinstance(cause, HttpResponseError):
        response = _response_of(cause)
    if response is None:
        if cause is not None:
            return _no_token(f"{what}: no token ({_message(error)})")
        reason = _message(error)
        if reason.startswith(_NO_CLI):
            reason += ": install it, and sign in with `az login`"
        return errors.Denied(f"{what}: {reason}")
    status = response.status
    unreachable = status == 403 and "unreachable" in _message(error)
    if response.is_identity and (status in {404, 410, 429} or status >= 500 or unreachable):
        return _no_token(f"{what}: no token, identity service answered {status}")
    if response.is_identity:
        return _without_identity(f"{response.body.decode(errors='replace')} {error.message}", what)
    return from_status(response.status, response.headers, response.body, what)


def _without_identity(text: str, what: str) -> errors.Denied:
    if names_several_identities(text):
        return errors.Denied(
            f"{what}: the VM has several user-assigned identities and azure.client_id is not set: "
            "set it to the client id of the one that has the roles",
            obstacle=Obstacle.IDENTITIES,
        )
    return errors.Denied(
        f"{what}: the VM has no usable managed identity ({excerpt(text)}). Assign one, "
        "or correct azure.client_id",
        obstacle=Obstacle.IDENTITY,
    )


def _no_token(message: str) -> errors.NotSent:
    """Return the error of a request that has no token, because IMDS did not issue one."""
    error = errors.NotSent(message)
    error.service = "imds"
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: bytes
    is_identity: bool


def _response_of(error: HttpResponseError) -> _Response | None:
    response = cast("Any", error.response)  # its annotation lacks half of the attributes
    if response is None:
        return None
    try:
        body = str(response.text()).encode()
    except (AzureError, UnicodeError, LookupError):
        body = b""  # never read, or not text
    url = str(getattr(response.request, "url", ""))
    return _Response(
        status=int(response.status_code or 0),
        headers={str(key).casefold(): str(value) for key, value in response.headers.items()},
        body=body,
        is_identity="/metadata/identity/" in url,
    )


def _from_response(error: HttpResponseError, what: str) -> ControllerError:
    response = _response_of(error)
    if response is None:
        return errors.OutcomeUnknown(f"{what}: {_message(error)}")
    if isinstance(error.inner_exception, BadResponse):
        return errors.ContractViolation(
            f"{what}: {_message(error)}: {excerpt(response.body.decode(errors='replace'))}"
        )
    return from_status(response.status, response.headers, response.body, what)


def from_status(status: int, headers: Mapping[str, str], body: bytes, what: str) -> ControllerError:
    """Return the error for an error reply. Header names are lower case."""
    error = _from_reply(status, headers, body, what)
    error.status = status
    error.codes = ErrorBody.read(body, headers).codes
    return error


def _from_reply(status: int, headers: Mapping[str, str], body: bytes, what: str) -> ControllerError:
    reply = ErrorBody.read(body, headers)
    text = f"{what}: {reply.summary(status)}"
    retry_after_s = retry_after(headers, reply.text)
    obstacle = obstacle_of(reply.codes)
    error: ControllerError
    if is_not_azure(status, body):
        error = errors.Denied(
            f"{what}: {status} from a proxy or firewall between this VM and Azure, which "
            f"answered in its place: {reply.summary(status)}",
            obstacle=Obstacle.PROXY,
        )
    elif obstacle is not None and 400 <= status < 500:
        scope = excerpt(scope_of(obstacle, reply.text), limit=LIST_CHARACTERS)
        error = errors.Denied(text, scope=scope, obstacle=obstacle)
    elif status < 300:
        error = _from_operation(reply, text, retry_after_s)
    elif reply.codes & REFUSALS and status in {400, 404}:
        error = errors.VersionRefused(text, supported=supported_versions(reply.text))
    elif reply.codes & _BUSY and status in {409, 429}:
        error = errors.Busy(text, retry_after_s=retry_after_s)
    elif status == 429:
        error = errors.Throttled(text, retry_after_s=retry_after_s)
    elif status in {409, 412}:
        error = errors.Conflict(text, retry_after_s=retry_after_s)
    elif status in {401, 403} or (status < 500 and reply.codes & _DENIED_CODES):
        error = _denied(reply, text)
    elif status == 404:
        error = errors.NotFound(text)
    elif status >= 500 or status in {408, 410} or reply.codes:
        # A 4xx with a code: Azure understood the request and refuses it in the present state.
        error = errors.ServiceFault(text, retry_after_s=retry_after_s)
    else:
        error = errors.ContractViolation(text)
    return error


def _from_operation(reply: ErrorBody, text: str, retry_after_s: float | None) -> ControllerError:
    """Return the error for a long-running operation that failed: its status code is 200."""
    if reply.codes & _BUSY:
        return errors.Busy(text, retry_after_s=retry_after_s)
    if reply.operation_status == "canceled" or reply.codes & _SUPERSEDED:
        return errors.Conflict(text, retry_after_s=retry_after_s)
    if reply.codes & _DENIED_CODES:
        return _denied(reply, text)
    return errors.ServiceFault(text, retry_after_s=retry_after_s)


def _denied(reply: ErrorBody, text: str) -> errors.Denied:
    denial = read_denial(reply.text)
    if denial is None:
        return errors.Denied(text)
    what = text.split(": ", 1)[0]
    action, scope = excerpt(denial.action), excerpt(denial.scope)
    match denial.obstacle:
        case Obstacle.ROLE:
            message = (
                f"{what}: the managed identity lacks {action} on {scope} (or that resource does "
                "not exist). Grant it; a new role assignment takes some minutes to apply"
            )
        case Obstacle.DENY_ASSIGNMENT:
            message = (
                f"{what}: a deny assignment forbids {action or 'this request'} on {scope}. No role "
                "overrides it: its owner must exclude the managed identity or remove it"
            )
        case Obstacle.TENANT:
            message = (
                f"{what}: the request refers to {scope}, which belongs to another tenant, so "
                f"{action or 'it'} is refused. No role helps: use resources of one tenant"
            )
        case _:
            message = text
    return errors.Denied(
        message,
        action=excerpt(denial.action, limit=LIST_CHARACTERS),
        scope=excerpt(denial.scope, limit=LIST_CHARACTERS),
        obstacle=denial.obstacle,
    )
