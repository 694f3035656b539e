"""Replies of Azure Resource Manager and of the two providers behind it: headers, errors, pages.

Texts and header sets follow recorded traffic (cassettes of kubernetes-sigs/cloud-provider-azure);
the 429 and 403 bodies follow public issue threads, misspelling included.
"""

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from hashlib import sha256
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from controller.simulator.services.api_versions import VM_ETAG_SINCE, as_of
from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.services.http_values import Reply, Request
from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json
from controller.simulator.world.operations import Operation
from controller.simulator.world.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authenticated request on its way through the services."""

    world: World
    request: Request
    principal: str
    rate_headers: dict[str, str]
    """Remaining quotas. Only replies of a resource provider contain them."""

    @property
    def version(self) -> str:
        """The api-version of the request."""
        return self.request.parameter("api-version")

    @property
    def base(self) -> str:
        """The origin that links in replies point to."""
        host = self.request.headers.get("host", "")
        return f"https://{host}" if host else self.world.settings.arm_endpoint.rstrip("/")


def common_headers(world: World) -> dict[str, str]:
    """Return what every reply of Resource Manager carries."""
    return {
        "Cache-Control": "no-cache",
        "Content-Type": "application/json; charset=utf-8",
        "Date": formatdate(world.now, usegmt=True),
        "Expires": "-1",
        "Pragma": "no-cache",
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
        "X-Cache": "CONFIG_NOCACHE",
        "X-Content-Type-Options": "nosniff",
        "x-ms-request-id": bodies.guid(world.random),
        "x-ms-correlation-request-id": bodies.guid(world.random),
    }


def refuse(world: World, refusal: Refusal, rate_headers: dict[str, str]) -> Reply:
    """Turn a refusal into a reply."""
    origin = {"x-ms-failure-cause": "gateway"} if refusal.gateway else rate_headers
    return Reply(
        status=refusal.status,
        headers={**common_headers(world), **origin, **refusal.headers},
        body=json.dumps(refusal.body, separators=(",", ":")).encode(),
    )


def network_reply(
    call: Call, body: Json, *, status: int = 200, headers: dict[str, str] | None = None
) -> Reply:
    """Return a reply of Microsoft.Network: compact JSON."""
    return Reply(
        status=status,
        headers={**common_headers(call.world), **call.rate_headers, **(headers or {})},
        body=json.dumps(as_of(call.version, body), separators=(",", ":")).encode(),
    )


def compute_reply(call: Call, body: Json, *, headers: dict[str, str] | None = None) -> Reply:
    """Return a reply of Microsoft.Compute: pretty-printed, with CRLF line ends."""
    text = json.dumps(as_of(call.version, body), indent=2).replace("\n", "\r\n")
    old = call.version < VM_ETAG_SINCE
    shown = {name: text for name, text in (headers or {}).items() if name != "ETag" or not old}
    if "value" not in body:
        shown["x-ms-need-to-refresh-epl-cache"] = "False"
    return Reply(
        status=200,
        headers={**common_headers(call.world), **call.rate_headers, **shown},
        body=text.encode(),
    )


def operation_headers(call: Call, operation: Operation) -> dict[str, str]:
    """Return the headers that announce an operation; its URL is long, because it is signed."""
    digest = sha256(operation.operation_id.encode()).hexdigest()
    url = (
        f"{call.base}/subscriptions/{call.world.subscription}/providers/Microsoft.Network/locations"
        f"/{operation.location}/operations/{operation.operation_id}?api-version={call.version}"
        f"&t={digest[:18]}&c={digest * 4}&s={digest[18:]}&h={digest[8:30]}"
    )
    headers = {"Azure-AsyncOperation": url, "Azure-AsyncNotification": "Enabled"}
    return headers | retry_after(call.world)


def retry_after(world: World) -> dict[str, str]:
    """Return the header with which an operation that is running asks for patience."""
    wait_s = world.settings.lro_retry_after_s
    return {} if wait_s is None else {"Retry-After": str(wait_s)}


def accepted(call: Call, operation: Operation) -> Reply:
    """Return Compute's 202: empty, with one URL for the state and one that answers 200 at the end.

    As public issue threads show them (Azure/azure-xplat-cli#3389).
    """
    url = (
        f"{call.base}/subscriptions/{call.world.subscription}/providers/Microsoft.Compute/locations"
        f"/{operation.location}/operations/{operation.operation_id}"
    )
    version = f"api-version={call.version}"
    headers = {
        "Azure-AsyncOperation": f"{url}?{version}",
        "Location": f"{url}?monitor=true&{version}",
    }
    return empty_reply(call, 202, headers | retry_after(call.world))


def compute_operation(call: Call, operation: Operation) -> Reply:
    """Answer a poll at either of the two URLs."""
    if call.request.parameter("monitor") == "true":
        return empty_reply(call, 202 if operation.status == "InProgress" else 200, {})
    body: Json = {
        "startTime": datetime.fromtimestamp(operation.started_at, UTC).isoformat(),
        "status": operation.status,
        "name": operation.operation_id,
    }
    if operation.ended_at is not None:
        body["endTime"] = datetime.fromtimestamp(operation.ended_at, UTC).isoformat()
    if operation.error is not None:
        body["error"] = operation.error
    waiting = operation.status == "InProgress"
    return compute_reply(call, body, headers=retry_after(call.world) if waiting else {})


def empty_reply(call: Call, status: int, headers: dict[str, str]) -> Reply:
    """Return a reply without a body."""
    common = common_headers(call.world)
    del common["Content-Type"]
    return Reply(status=status, headers={**common, **call.rate_headers, **headers}, body=b"")


def page(call: Call, entries: list[Json]) -> Json:
    """Return one page of a list, with nextLink if there are more."""
    size = call.world.settings.list_page_size
    token = call.request.parameter("$skiptoken", "0")
    start = int(token) if token.isdigit() else 0
    result: Json = {"value": entries[start : start + size]}
    if start + size < len(entries):
        query = [(k, v) for k, v in call.request.query if k.casefold() != "$skiptoken"]
        query.append(("$skiptoken", str(start + size)))
        result["nextLink"] = f"{_list_base(call)}{call.request.path}?{urlencode(query)}"
    return result


def _list_base(call: Call) -> str:
    """Return the origin of a next link: the same service, in either of two spellings."""
    port = urlsplit(call.base).port
    return f"{call.base}:443" if port is None and call.world.settings.next_link_port else call.base


# Refusals


def missing_group(group: str) -> Refusal:
    """404 for a resource group, as ARM answers it."""
    return Refusal(
        404,
        error("ResourceGroupNotFound", f"Resource group '{group}' could not be found."),
        gateway=True,
    )


def missing_resource(kind: str, name: str, group: str) -> Refusal:
    """404 for a top-level resource, as ARM answers it."""
    message = (
        f"The Resource '{kind}/{name}' under resource group '{group}' was not found. For more "
        "details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return Refusal(404, error("ResourceNotFound", message), gateway=True)


def missing_child(resource: str) -> Refusal:
    """404 for a child resource, as Microsoft.Network answers it."""
    return Refusal(404, error("NotFound", f"Resource {resource} not found.", []))


def bad_request(code: str, message: str) -> Refusal:
    """400 with the code of a rule that the body breaks."""
    return Refusal(400, error(code, message, []))


def not_allowed(method: str) -> Refusal:
    """405."""
    message = f"The http method '{method}' is not supported for this resource."
    return Refusal(405, error("HttpMethodNotSupported", message), gateway=True)


def require_action(call: Call, action: str, scope: str) -> None:
    """Refuse a caller without `action`, written with its provider, on `scope`."""
    settings, roles = call.world.settings, call.world.roles
    if settings.rbac_enforced and not roles.permit(call.principal, action, scope):
        raise unauthorized(call, action, scope)


def unauthorized(call: Call, action: str, scope: str) -> Refusal:
    """403 for an action on the resource itself."""
    client, object_id = _client(call)
    message = (
        f"The client '{client}' with object id '{object_id}' does not have authorization to "
        f"perform action '{action}' over scope '{scope}' or the scope is invalid. If access was "
        "recently granted, please refresh your credentials."
    )
    return Refusal(403, error("AuthorizationFailed", message), gateway=True)


def unauthorized_link(call: Call, action: str, scope: str, *, needs: str, linked: str) -> Refusal:
    """403 for a resource that the body refers to; also what a reference to nowhere gets."""
    client, object_id = _client(call)
    message = (
        f"The client '{client}' with object id '{object_id}' has permission to perform action "
        f"'{action}' on scope '{scope}'; however, it does not have permission to perform action "
        f"'{needs}' on the linked scope(s) '{linked}' or the linked scope(s) are invalid."
    )
    return Refusal(403, error("LinkedAuthorizationFailed", message), gateway=True)


def etag_mismatch(given: str, actual: str, resource: str) -> Refusal:
    """412 of Microsoft.Network; quoting of the given etag is normalised."""
    message = (
        f'Etag provided in if-match header W/"{bare(given)}" does not match etag {actual} of '
        f"resource {resource} in NRP data store."
    )
    detail: Json = {"code": "PreconditionFailedEtagMismatch", "message": message}
    return Refusal(412, error("PreconditionFailed", "Precondition failed.", [detail]))


def busy(call: Call, operation: Operation, wait_s: float) -> Refusal:
    """429 or 409 while another operation holds the resource. The wait is in the text."""
    settings = call.world.settings
    seconds = max(1, math.ceil(wait_s))
    message = (
        f"Operation {operation.kind} ({operation.operation_id}) is updating resource "
        f"{operation.resource}. The call can be retried in {seconds} seconds."
    )
    headers = {"Retry-After": str(seconds)} if settings.busy_retry_after else {}
    if settings.busy_status == 409:
        return Refusal(409, error("AnotherOperationInProgress", message, []), headers)
    detail: Json = {"code": "RetryableErrorDueToAnotherOperation", "message": message}
    return Refusal(429, error("RetryableError", "A retryable error occured.", [detail]), headers)


def not_provisioned(resource: str, user: str, state: str) -> Refusal:
    """429 while a NIC that the load balancer uses is Updating or Failed."""
    message = (
        f"Cannot proceed with operation because resource {resource} used by resource {user} is "
        f"not in Succeeded state. Resource is in {state} state and the last operation that "
        "updated/is updating the resource is PutNicOperation."
    )
    detail: Json = {"code": "ReferencedResourceNotProvisioned", "message": message}
    return Refusal(429, error("RetryableError", "A retryable error occured.", [detail]))


def bare(etag: str) -> str:
    """Return an etag without its weakness mark and quotes."""
    return etag.strip().removeprefix("W/").strip('"')


def _client(call: Call) -> tuple[str, str]:
    vm = call.world.find_vm(call.principal)
    return (vm.client_id, vm.vm_id) if vm is not None else (call.principal, call.principal)


def as_object(value: Any) -> Json:
    """Return a JSON object; refuse any other value."""
    if not isinstance(value, dict):
        raise bad_request("InvalidRequestFormat", "Cannot parse the request.")
    return cast("Json", value)


def items(value: Any) -> list[object]:
    """Return a JSON array; absent and null are empty, anything else is refused."""
    if value is not None and not isinstance(value, list):
        raise bad_request("InvalidRequestFormat", "Cannot parse the request.")
    return cast("list[object]", value or [])
