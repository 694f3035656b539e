"""The one call of Microsoft Graph that the Azure CLI makes: names of principals by id.

Azure has another host for it; here it is served beside Resource Manager, and a registered cloud
names this endpoint (`microsoftGraphResourceId`).
"""

from controller.simulator.services.arm_replies import Call, items, network_reply, not_allowed
from controller.simulator.services.arm_roles import principal_id
from controller.simulator.services.http_values import Reply
from controller.simulator.services.network_requests import json_body
from controller.simulator.world.bodies import Json, key

PATH = "/v1.0/directoryobjects/getbyids"


def serves(path: str) -> bool:
    """Return whether a path belongs to Graph."""
    return key(path) == PATH


def directory_objects(call: Call) -> Reply:
    """Answer the principals that a request names by id."""
    if call.request.method != "POST":
        raise not_allowed(call.request.method)
    wanted = {key(str(each)) for each in items(json_body(call).get("ids"))}
    found: list[Json] = []
    for principal in sorted(call.world.roles.assignments):
        object_id = principal_id(call.world, principal)
        if key(object_id) in wanted:
            found.append(
                {
                    "@odata.type": "#microsoft.graph.servicePrincipal",
                    "id": object_id,
                    "appId": object_id,
                    "displayName": principal,
                    "servicePrincipalNames": [object_id],
                }
            )
    return network_reply(call, {"value": found})
