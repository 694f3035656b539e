"""The api-versions that Resource Manager knows, by resource type, and what each version shows.

Every resource type has its own list. Texts of the refusals: public issue threads
(Azure/azure-sdk-for-js#9297, Azure/azure-cli#28496, Azure/azure-powershell#10299). The versions of
properties: Microsoft's OpenAPI; they are approximate, what matters is that old versions have less.
"""

import re
from collections.abc import Mapping
from typing import Any, assert_never, cast

from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.world.settings import WorldSettings

NETWORK_VERSIONS = (
    "2015-06-15 2016-03-30 2016-06-01 2016-09-01 2016-12-01 2017-03-01 2017-06-01 2017-08-01 "
    "2017-09-01 2017-10-01 2017-11-01 2018-01-01 2018-02-01 2018-04-01 2018-06-01 2018-07-01 "
    "2018-08-01 2018-10-01 2018-11-01 2018-12-01 2019-02-01 2019-04-01 2019-06-01 2019-07-01 "
    "2019-08-01 2019-09-01 2019-11-01 2019-12-01 2020-03-01 2020-04-01 2020-05-01 2020-06-01 "
    "2020-07-01 2020-08-01 2020-11-01 2021-02-01 2021-03-01 2021-05-01 2021-08-01 2022-01-01 "
    "2022-05-01 2022-07-01 2022-09-01 2022-11-01 2023-02-01 2023-04-01 2023-05-01 2023-06-01 "
    "2023-09-01 2023-11-01 2024-01-01 2024-03-01 2024-05-01 2024-07-01 2024-10-01 2025-01-01 "
    "2025-03-01 2025-05-01 2025-07-01 2025-09-01 2026-03-01"
)
COMPUTE_VERSIONS = (
    "2015-06-15 2016-03-30 2016-08-30 2017-03-30 2017-12-01 2018-04-01 2018-06-01 2018-10-01 "
    "2019-03-01 2019-07-01 2019-12-01 2020-06-01 2020-12-01 2021-03-01 2021-04-01 2021-07-01 "
    "2021-11-01 2022-03-01 2022-08-01 2022-11-01 2023-03-01 2023-07-01 2023-09-01 2024-03-01 "
    "2024-07-01 2024-11-01 2025-04-01 2025-11-01 2026-04-01"
)
RESOURCE_GRAPH_VERSIONS = "2019-04-01 2021-03-01 2022-10-01 2024-04-01"
MAINTENANCE_VERSIONS = "2023-10-01-preview 2025-10-01-preview"
VERSIONS: Mapping[str, tuple[str, list[str]]] = {
    f"{namespace}/{kind}".casefold(): (kind, versions.split())
    for namespace, versions, kinds in (
        (
            "Microsoft.Network",
            NETWORK_VERSIONS,
            ("networkInterfaces", "loadBalancers", "virtualNetworks", "publicIPAddresses"),
        ),
        (
            "Microsoft.Compute",
            COMPUTE_VERSIONS,
            ("virtualMachines", "availabilitySets", "virtualMachineScaleSets"),
        ),
        ("Microsoft.ResourceGraph", RESOURCE_GRAPH_VERSIONS, ("resources",)),
        ("Microsoft.Maintenance", MAINTENANCE_VERSIONS, ("scheduledevents",)),
    )
    for kind in kinds
}
"""Versions by resource type (namespace and type, casefolded), and the spelling of the type."""

SINCE: Mapping[str, str] = {
    "adminState": "2021-05-01",
    "auxiliaryMode": "2021-08-01",
    "auxiliarySku": "2022-11-01",
    "backendAddressPools": "2021-02-01",
    "defaultOutboundConnectivityEnabled": "2024-07-01",
    "disableTcpStateTracking": "2022-09-01",
    "noHealthyBackendsBehavior": "2024-05-01",
    "probeThreshold": "2022-05-01",
    "scheduledEventsPolicy": "2024-07-01",
    "timeCreated": "2021-11-01",
    "virtualMachineScaleSet": "2019-12-01",
    "virtualMachineScaleSetMigrationInfo": "2024-11-01",
    "vnetEncryptionSupported": "2021-08-01",
}
"""The first version that shows a property, wherever it stands in a body."""
VM_ETAG_SINCE = "2024-07-01"
"""The first version in which VMs have an etag."""
COMPLETE_SINCE = max(*SINCE.values(), VM_ETAG_SINCE)


def check_version(settings: WorldSettings, location: str, path: str, version: str) -> None:
    """Refuse a version that the resource type of `path` does not know in this cloud."""
    namespace, kind = _resource_type(path)
    found = VERSIONS.get(f"{namespace}/{kind}".casefold())
    if found is None:
        return
    spelling, versions = found
    newest = settings.newest_api_version or "9999"
    supported = [each for each in versions if each <= newest]
    if version in supported:
        return
    listed = f"The supported api-versions are '{', '.join(supported)}'."
    status, code = 400, settings.api_version_refusal
    match code:
        case "NoRegisteredProviderFound":
            message = (
                f"No registered resource provider found for location '{location}' and API version "
                f"'{version}' for type '{spelling}'. {listed} The supported locations are "
                f"'{location}'."
            )
        case "InvalidApiVersionParameter":
            message = (
                f"The api-version '{version}' is invalid. The supported versions are "
                f"'{','.join(reversed(supported))}'."
            )
        case "InvalidResourceType":
            status = 404
            message = (
                f"The resource type '{spelling}' could not be found in the namespace "
                f"'{namespace}' for api version '{version}'. {listed}"
            )
        case _:
            assert_never(code)
    raise Refusal(status, error(code, message), gateway=True)


def _resource_type(path: str) -> tuple[str, str]:
    """Return namespace and top-level type in a path, "" if it has none.

    Of several the last one counts, because roles can be read at any scope.
    """
    found: list[tuple[str, str]] = re.findall(r"/providers/([^/]+)/([^/]+)", path, re.IGNORECASE)
    return found[-1] if found else ("", "")


def as_of(version: str, body: Any) -> Any:
    """Return a body with the properties that an api-version shows."""
    if version >= COMPLETE_SINCE or not version:
        return body
    if isinstance(body, list):
        return [as_of(version, part) for part in cast("list[object]", body)]
    if not isinstance(body, dict):
        return body
    parts = cast("dict[str, Any]", body)
    hidden = {name for name in parts if version < SINCE.get(name, "")}
    is_load_balancer = "frontendIPConfigurations" in parts
    if is_load_balancer:
        # Of a rule the list is new; the pools of a load balancer always had this name.
        hidden.discard("backendAddressPools")
    if "/virtualMachines/" in str(parts.get("id")) and version < VM_ETAG_SINCE:
        hidden.add("etag")
    return {name: as_of(version, part) for name, part in parts.items() if name not in hidden}
