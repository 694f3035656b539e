"""Simulated Azure Resource Manager: authentication, quotas, routing. Providers are beside it.

Order of checks: the network (a VM that is down reaches nothing), the bearer token, the quota, the
api-version, the subscription and resource group, the role, then the provider's own rules.
"""

import json
import re

from controller.simulator import arm_compute, arm_network
from controller.simulator.access import Bucket, same_audience
from controller.simulator.arm_replies import (
    Call,
    Refusal,
    compute_operation,
    error,
    missing_group,
    network_reply,
    not_allowed,
    page,
    refuse,
    unauthorized,
)
from controller.simulator.bodies import Json
from controller.simulator.operations import Operation
from controller.simulator.wire import Delivery, Reply, Request, Service
from controller.simulator.world import World

AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net")


def handle(world: World, request: Request, now: float) -> Reply:
    """Answer one request to Resource Manager."""
    world.advance(now)
    rate_headers: dict[str, str] = {}
    try:
        if request.method == "GET" and request.path == "/metadata/endpoints":
            return _endpoints(world)
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        sender = world.issuer.read(token)
        if sender is not None:
            delivery = world.connectivity(sender.principal, Service.ARM)
            if delivery is not Delivery.NORMAL:
                # The request never arrives, so it has no effect.
                return Reply(status=503, delivery=delivery)
        principal = _authenticate(world, token)
        world.request_counts["arm", principal, request.method] += 1
        _charge(world, principal, request.method, rate_headers)
        call = Call(world=world, request=request, principal=principal, rate_headers=rate_headers)
        return _route(call)
    except Refusal as refusal:
        return refuse(world, refusal, rate_headers)


def _endpoints(world: World) -> Reply:
    """Describe the cloud; needs no token, for it says where tokens come from."""
    endpoint = world.settings.arm_endpoint
    cloud = {
        "name": "AzureSimulated",
        "resourceManager": endpoint,
        "authentication": {
            "loginEndpoint": "https://login.microsoftonline.com/",
            "audiences": [f"{AUDIENCES[1]}/", f"{AUDIENCES[0]}/"],
            "tenant": world.tenant,
            "identityProvider": "AAD",
        },
        "graph": "https://graph.windows.net/",
        "graphAudience": "https://graph.windows.net/",
        "portal": "https://portal.azure.com/",
        "gallery": "https://gallery.azure.com/",
        "batch": "https://batch.core.windows.net/",
        "media": "https://rest.media.azure.net",
        "sqlManagement": f"{AUDIENCES[1]}:8443/",
        "suffixes": {
            "storage": "core.windows.net",
            "keyVaultDns": "vault.azure.net",
            "sqlServerHostname": "database.windows.net",
            "acrLoginServer": "azurecr.io",
        },
    }
    return Reply(
        status=200,
        headers={"content-type": "application/json; charset=utf-8"},
        body=json.dumps(cloud).encode(),
    )


def _authenticate(world: World, token: str) -> str:
    found = world.issuer.read(token)
    if not token:
        raise _unauthenticated(
            world,
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.",
        )
    if found is None:
        raise _unauthenticated(world, "InvalidAuthenticationToken", "The access token is invalid.")
    if found.expires_at <= world.now:
        raise _unauthenticated(
            world, "ExpiredAuthenticationToken", "The access token expiry UTC time has passed."
        )
    audiences = (*AUDIENCES, world.settings.arm_endpoint)
    if not any(same_audience(found.audience, audience) for audience in audiences):
        raise _unauthenticated(
            world,
            "InvalidAuthenticationTokenAudience",
            "The access token has been obtained for wrong audience or resource "
            f"'{found.audience}'.",
        )
    return found.principal


def _unauthenticated(world: World, code: str, message: str) -> Refusal:
    challenge = (
        f'Bearer authorization_uri="https://login.microsoftonline.com/{world.tenant}", '
        f'error="invalid_token", error_description="{message}"'
    )
    return Refusal(401, error(code, message), {"WWW-Authenticate": challenge}, gateway=True)


def _charge(world: World, principal: str, method: str, headers: dict[str, str]) -> None:
    """Take one token of the caller's bucket; Microsoft docs, Resource Manager throttling."""
    settings = world.settings
    reading = method in ("GET", "HEAD")
    kind = "reads" if reading else "writes"
    bucket = world.buckets.setdefault((principal, kind), Bucket(world.now))
    left, allowed = bucket.take(
        world.now,
        size=settings.read_bucket if reading else settings.write_bucket,
        refill_per_s=settings.read_refill_per_s if reading else settings.write_refill_per_s,
        enforced=settings.throttle,
    )
    headers[f"x-ms-ratelimit-remaining-subscription-{kind}"] = str(left)
    headers[f"x-ms-ratelimit-remaining-subscription-global-{kind}"] = str(left * 15)
    if not allowed:
        message = "Number of requests for the subscription and operation type exceeded the limit."
        retry = {"Retry-After": "1"} if settings.throttle_retry_after else {}
        raise Refusal(429, error("SubscriptionRequestsThrottled", message), retry)


def _route(call: Call) -> Reply:
    version = call.request.parameter("api-version")
    if not version:
        message = "The api-version query parameter (?api-version=) is required for all requests."
        raise Refusal(400, error("MissingApiVersionParameter", message), gateway=True)
    if not re.fullmatch(r"20\d\d-\d\d-\d\d(-preview)?", version):
        message = f"The api-version '{version}' is invalid."
        raise Refusal(400, error("InvalidApiVersionParameter", message), gateway=True)
    segments = call.request.path.strip("/").split("/")
    match [segment.casefold() for segment in segments]:
        case ["tenants"]:
            return network_reply(call, page(call, [_tenant(call.world)]))
        case ["subscriptions"]:
            return network_reply(call, page(call, [_subscription(call.world)]))
        case ["subscriptions", subscription, *rest]:
            if subscription != call.world.subscription.casefold():
                message = f"The subscription '{segments[1]}' could not be found."
                raise Refusal(404, error("SubscriptionNotFound", message), gateway=True)
            return _in_subscription(call, rest, segments[2:])
        case _:
            raise Refusal(404, error("InvalidResourceType", "No such resource."), gateway=True)


def _in_subscription(call: Call, lower: list[str], segments: list[str]) -> Reply:
    match lower:
        case []:
            _only_get(call)
            return network_reply(call, _subscription(call.world))
        case [
            "providers",
            "microsoft.network" | "microsoft.compute",
            "locations",
            _,
            "operations",
            _,
        ]:
            if lower[1] == "microsoft.compute":
                return _compute_operation(call, segments[5])
            return _operation(call, segments[5])
        case ["resourcegroups"]:
            groups = [_group(call.world, name) for name in call.world.resource_groups]
            return network_reply(call, page(call, groups))
        case ["resourcegroups", group, *rest]:
            names = {name.casefold(): name for name in call.world.resource_groups}
            if group not in names:
                raise missing_group(segments[1])
            return _in_group(call, names[group], rest, segments[2:])
        case _:
            raise Refusal(404, error("InvalidResourceType", "No such resource."), gateway=True)


def _in_group(call: Call, group: str, lower: list[str], segments: list[str]) -> Reply:
    match lower:
        case []:
            _only_get(call)
            return network_reply(call, _group(call.world, group))
        case ["providers", "microsoft.network", "networkinterfaces", *_]:
            return arm_network.network_interfaces(call, group, segments[3:])
        case ["providers", "microsoft.network", "loadbalancers", *_]:
            return arm_network.load_balancers(call, group, segments[3:])
        case ["providers", "microsoft.network", "virtualnetworks", _, "subnets", _]:
            return arm_network.subnet(call, group, segments[3], segments[5])
        case ["providers", "microsoft.compute", "virtualmachines", *_]:
            return arm_compute.virtual_machines(call, group, segments[3:])
        case ["providers", "microsoft.compute", "availabilitysets", *_]:
            return arm_compute.availability_sets(call, group, segments[3:])
        case _:
            raise Refusal(404, error("InvalidResourceType", "No such resource."), gateway=True)


def _only_get(call: Call) -> None:
    if call.request.method != "GET":
        raise not_allowed(call.request.method)


def _compute_operation(call: Call, operation_id: str) -> Reply:
    """Answer a poll of an operation on a VM.

    It takes rights on the resource group (Microsoft docs, Track asynchronous Azure operations).
    """
    _only_get(call)
    world = call.world
    operation = _find_operation(world, operation_id, "/microsoft.compute/")
    scope = operation.resource.rpartition("/providers/")[0]
    _check_reader(call, "Microsoft.Compute/locations/operations/read", scope)
    return compute_operation(call, operation)


def _find_operation(world: World, operation_id: str, provider: str) -> Operation:
    operation = world.operations.get(operation_id.casefold())
    if operation is None or provider not in operation.resource.casefold():
        raise Refusal(404, error("NotFound", f"Operation {operation_id} was not found.", []))
    return operation


def _check_reader(call: Call, action: str, scope: str) -> None:
    world = call.world
    if world.settings.rbac_enforced and not world.roles.permit(call.principal, action, scope):
        raise unauthorized(call, action, call.request.path)


def _operation(call: Call, operation_id: str) -> Reply:
    """Answer a poll: HTTP 200 whatever the operation came to."""
    _only_get(call)
    world = call.world
    scope = f"/subscriptions/{world.subscription}"
    _check_reader(call, "Microsoft.Network/locations/operations/read", scope)
    operation = _find_operation(world, operation_id, "/microsoft.network/")
    body: Json = {"status": operation.status}
    if operation.error is not None:
        body["error"] = operation.error
    waiting = operation.status == "InProgress" and world.settings.lro_retry_after
    return network_reply(call, body, headers={"Retry-After": "10"} if waiting else {})


def _tenant(world: World) -> Json:
    return {
        "id": f"/tenants/{world.tenant}",
        "tenantId": world.tenant,
        "tenantCategory": "Home",
        "displayName": "Simulated",
    }


def _subscription(world: World) -> Json:
    return {
        "id": f"/subscriptions/{world.subscription}",
        "authorizationSource": "RoleBased",
        "subscriptionId": world.subscription,
        "tenantId": world.tenant,
        "displayName": "Simulated",
        "state": "Enabled",
        "subscriptionPolicies": {"quotaId": "Internal_2014-09-01", "spendingLimit": "Off"},
    }


def _group(world: World, name: str) -> Json:
    return {
        "id": f"/subscriptions/{world.subscription}/resourceGroups/{name}",
        "name": name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": world.location,
        "properties": {"provisioningState": "Succeeded"},
    }
