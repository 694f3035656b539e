"""Simulated Azure Resource Manager: authentication, quotas, routing. Providers are beside it.

Order of checks: the network (a VM that is down reaches nothing), the bearer token, the quota, the
api-version, the subscription and resource group, the role, then the provider's own rules.
"""

import json
import re
from collections.abc import Callable, Mapping

from controller.simulator.services import (
    arm_compute,
    arm_load_balancers,
    arm_networks,
    arm_nics,
    arm_resources,
    arm_roles,
    event_acknowledgements,
    graph,
    resource_graph,
    rule_health,
)
from controller.simulator.services.api_versions import check_version
from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.services.arm_replies import (
    Call,
    compute_operation,
    missing_group,
    network_reply,
    not_allowed,
    page,
    refuse,
    retry_after,
    unauthorized,
)
from controller.simulator.services.connectivity import connectivity
from controller.simulator.services.http_values import Delivery, Reply, Request, Service
from controller.simulator.services.throttling import charge
from controller.simulator.world.access import same_audience
from controller.simulator.world.bodies import Json
from controller.simulator.world.operations import Operation
from controller.simulator.world.world import World

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
            delivery = connectivity(world, sender.principal, Service.ARM)
            if delivery is not Delivery.NORMAL:
                # The request never arrives, so it has no effect.
                return Reply(status=503, delivery=delivery)
        principal = _authenticate(world, token)
        world.request_counts["arm", principal, request.method] += 1
        charge(world, principal, request, rate_headers)
        call = Call(world=world, request=request, principal=principal, rate_headers=rate_headers)
        if graph.serves(request.path):
            return graph.directory_objects(call)
        return _route(call)
    except Refusal as refusal:
        return refuse(world, refusal, rate_headers)


def _endpoints(world: World) -> Reply:
    """Describe the cloud. Needs no token, because it contains the URL that issues tokens."""
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


def _route(call: Call) -> Reply:
    version = call.version
    if not version:
        message = "The api-version query parameter (?api-version=) is required for all requests."
        raise Refusal(400, error("MissingApiVersionParameter", message), gateway=True)
    if not re.fullmatch(r"20\d\d-\d\d-\d\d(-preview)?", version):
        message = f"The api-version '{version}' is invalid."
        raise Refusal(400, error("InvalidApiVersionParameter", message), gateway=True)
    check_version(call.world.settings, call.world.location, call.request.path, version)
    segments = call.request.path.strip("/").split("/")
    authorization = _authorization(call, segments)
    if authorization is not None:
        return authorization
    match [segment.casefold() for segment in segments]:
        case ["providers", "microsoft.resourcegraph", "resources"]:
            return resource_graph.query(call)
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


def _authorization(call: Call, segments: list[str]) -> Reply | None:
    """Answer roles at any scope; None for another path."""
    lower = [segment.casefold() for segment in segments]
    if "microsoft.authorization" not in lower:
        return None
    at = lower.index("microsoft.authorization")
    scope = "/".join(["", *segments[: at - 1]])
    match lower[at + 1 :]:
        case ["roleassignments", *_]:
            return arm_roles.role_assignments(call, scope, segments[at + 2 :])
        case ["roledefinitions", *_]:
            return arm_roles.role_definitions(call, scope, segments[at + 2 :])
        case _:
            return None


def _in_subscription(call: Call, lower: list[str], segments: list[str]) -> Reply:
    match lower:
        case []:
            _only_get(call)
            return network_reply(call, _subscription(call.world))
        case ["resourcegroups"]:
            groups = [_group(call.world, name) for name in call.world.resource_groups]
            return network_reply(call, page(call, groups))
        case ["resourcegroups", group, *rest]:
            names = {name.casefold(): name for name in call.world.resource_groups}
            if group not in names:
                raise missing_group(segments[1])
            return _in_group(call, names[group], rest, segments[2:])
        case ["resources"]:
            return arm_resources.resources(call, "")
        case ["providers", *_]:
            return _of_provider(call, lower, segments)
        case _:
            raise Refusal(404, error("InvalidResourceType", "No such resource."), gateway=True)


def _of_provider(call: Call, lower: list[str], segments: list[str]) -> Reply:
    """Answer operations, providers, and the resources of a type in the whole subscription."""
    match lower[1:]:
        case ["microsoft.compute", "locations", _, "operations", _]:
            return _compute_operation(call, segments[5])
        case ["microsoft.network", "locations", _, "operations", _]:
            return _operation(call, segments[5])
        case ["microsoft.network", "locations", _, "operationresults", _]:
            _only_get(call)
            return rule_health.result(call, segments[5])
        case [namespace]:
            return arm_resources.provider(call, namespace)
        case [_, _]:
            return _resources_of(call, "", lower, segments)
        case _:
            raise Refusal(404, error("InvalidResourceType", "No such resource."), gateway=True)


def _in_group(call: Call, group: str, lower: list[str], segments: list[str]) -> Reply:
    match lower:
        case []:
            _only_get(call)
            return network_reply(call, _group(call.world, group))
        case ["resources"]:
            return arm_resources.resources(call, group)
        case ["providers", "microsoft.compute", _, _, *_] if event_acknowledgements.serves(lower):
            return event_acknowledgements.acknowledge(call, group, lower, segments)
        case ["providers", _, _, *_]:
            return _resources_of(call, group, lower, segments)
        case _:
            raise Refusal(404, error("InvalidResourceType", "No such resource."), gateway=True)


def _resources_of(call: Call, group: str, lower: list[str], segments: list[str]) -> Reply:
    """Answer the resources of a type, in a group or, if that is "", in the subscription."""
    service = _TYPES.get("/".join(lower[1:3]))
    if service is None:
        raise Refusal(404, error("InvalidResourceType", "No such resource."), gateway=True)
    return service(call, group, segments[3:])


_TYPES: Mapping[str, Callable[[Call, str, list[str]], Reply]] = {
    "microsoft.network/networkinterfaces": arm_nics.network_interfaces,
    "microsoft.network/loadbalancers": arm_load_balancers.load_balancers,
    "microsoft.network/virtualnetworks": arm_networks.virtual_networks,
    "microsoft.network/publicipaddresses": arm_networks.public_addresses,
    "microsoft.compute/virtualmachines": arm_compute.virtual_machines,
    "microsoft.compute/availabilitysets": arm_compute.availability_sets,
    "microsoft.compute/virtualmachinescalesets": arm_compute.scale_sets,
}


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
    operation = world.writes.operations.get(operation_id.casefold())
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
    waiting = operation.status == "InProgress"
    return network_reply(call, body, headers=retry_after(world) if waiting else {})


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
