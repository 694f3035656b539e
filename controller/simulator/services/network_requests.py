"""What all requests to Microsoft.Network share: permissions, conditions, bodies and replies."""

import json

from controller.simulator.services.arm_replies import (
    Call,
    as_object,
    bad_request,
    bare,
    etag_mismatch,
    network_reply,
    operation_headers,
    require_action,
    unauthorized_link,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.world.bodies import Json
from controller.simulator.world.operations import Operation

NETWORK = "Microsoft.Network"


def require(call: Call, action: str, scope: str) -> None:
    """Refuse a caller without `action` (below Microsoft.Network) on `scope`."""
    require_action(call, f"{NETWORK}/{action}", scope)


def list_scope(call: Call, group: str) -> str:
    """Return the scope of a list: a resource group, or the subscription if `group` is empty."""
    subscription = f"/subscriptions/{call.world.subscription}"
    return f"{subscription}/resourceGroups/{group}" if group else subscription


def require_link(call: Call, action: str, scope: str, needs: str, linked: str) -> None:
    """Refuse a caller of `action` on `scope` without `needs` on the resource that it refers to."""
    settings, roles = call.world.settings, call.world.roles
    full = f"{NETWORK}/{needs}"
    if settings.rbac_enforced and not roles.permit(call.principal, full, linked):
        raise unauthorized_link(call, f"{NETWORK}/{action}", scope, needs=full, linked=linked)


def json_body(call: Call) -> Json:
    """Return the body of a request as a JSON object."""
    try:
        return as_object(json.loads(call.request.body))
    except ValueError:
        raise bad_request("InvalidRequestContent", "The request content was invalid.") from None


def check_etag(call: Call, resource_id: str, old: Json | None, *, honoured: bool) -> None:
    """Refuse a condition that does not hold. No condition holds for a resource that is absent."""
    given = call.request.headers.get("if-match", "")
    if not given or not honoured or (old is not None and given.strip() == "*"):
        return
    etag = "" if old is None else str(old["etag"])
    if not etag or bare(given).casefold() != bare(etag).casefold():
        raise etag_mismatch(given, etag, resource_id if old is None else str(old["id"]))


def written(call: Call, body: Json, operation: Operation | None, status: int) -> Reply:
    """Return the reply to an accepted write."""
    headers = {} if operation is None else operation_headers(call, operation)
    return network_reply(call, body, status=status, headers=headers)


def mixed_pool(pool_id: str) -> Exception:
    """Return the refusal of NIC members and addresses in one pool."""
    return bad_request(
        "CannotMixIPBasedAddressesAndIPConfigurationsOnLoadBalancerBackendAddressPool",
        f"Mixing backend ipconfigs and IPAddresses in backend pool {pool_id} is not allowed.",
    )
