"""The commands that operators of a set use, and what their output must contain.

`{group}`, `{subscription}`, `{container}` and the like are filled in by the runner.
"""

from dataclasses import dataclass

from controller.simulator.world.access import OPERATOR_CLIENT_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One command, without `az` and `--output json`."""

    command: str
    shows: str
    """Text that the output must contain."""
    count: int | None = None
    """Number of entries in the list that it prints; None if it prints no list."""


VMS = 3
SIGN_IN = f"login --identity --client-id {OPERATOR_CLIENT_ID}"
SET_NAME = "web"

CASES = (
    # The account
    Case(command="account show", shows="{subscription}"),
    Case(command="account list", shows="{subscription}", count=1),
    Case(command="group list", shows="web-rg", count=1),
    Case(command="group show --name web-rg", shows="web-rg"),
    Case(command="resource list", shows="web-1-nic", count=11),
    Case(command="resource list --resource-group web-rg", shows="web-vnet", count=11),
    Case(
        command="resource list --resource-type Microsoft.Compute/virtualMachines",
        shows="web-3",
        count=VMS,
    ),
    Case(command="resource show --ids {set}", shows="platformFaultDomainCount"),
    Case(command="resource show --ids {vm} --api-version 2024-07-01", shows="vmId"),
    # Compute
    Case(command="vm list", shows="web-2", count=VMS),
    Case(command="vm list --resource-group web-rg", shows="web-2", count=VMS),
    Case(command="vm list --show-details", shows="VM running", count=VMS),
    Case(command="vm show --resource-group web-rg --name web-1", shows="vmId"),
    Case(command="vm show --resource-group web-rg --name web-1 --show-details", shows="VM running"),
    Case(
        command="vm get-instance-view --resource-group web-rg --name web-1",
        shows="PowerState/running",
    ),
    Case(command="vm availability-set list", shows=SET_NAME, count=1),
    Case(command="vm availability-set list --resource-group web-rg", shows=SET_NAME, count=1),
    Case(command="vm availability-set show --resource-group web-rg --name web", shows="web-1"),
    Case(command="vmss list", shows="[]", count=0),
    # Network
    Case(command="network nic list", shows="web-1-nic", count=VMS),
    Case(command="network nic list --resource-group web-rg", shows="web-1-nic", count=VMS),
    Case(command="network nic show --resource-group web-rg --name web-1-nic", shows="resourceGuid"),
    Case(
        command="network nic ip-config list --resource-group web-rg --nic-name web-1-nic",
        shows="loadBalancerBackendAddressPools",
        count=1,
    ),
    Case(
        command="network nic ip-config show --resource-group web-rg --nic-name web-1-nic "
        "--name ipconfig1",
        shows="privateIPAddress",
    ),
    Case(command="network lb list", shows="web-lb", count=2),
    Case(command="network lb list --resource-group web-rg", shows="web-lb", count=2),
    Case(command="network lb show --resource-group web-rg --name web-lb", shows="app-rule"),
    Case(
        command="network lb address-pool list --resource-group web-rg --lb-name web-lb",
        shows="app",
        count=1,
    ),
    Case(
        command="network lb address-pool show --resource-group web-rg --lb-name web-lb --name app",
        shows="backendIPConfigurations",
    ),
    Case(
        command="network lb address-pool address list --resource-group web-rg "
        "--lb-name web-internal --pool-name api",
        shows="ipAddress",
        count=VMS,
    ),
    Case(
        command="network lb rule list --resource-group web-rg --lb-name web-lb",
        shows="app-rule",
        count=1,
    ),
    Case(
        command="network lb rule show --resource-group web-rg --lb-name web-lb --name app-rule",
        shows="loadDistribution",
    ),
    Case(
        command="network lb probe list --resource-group web-rg --lb-name web-lb",
        shows="/healthz",
        count=1,
    ),
    Case(
        command="network lb frontend-ip list --resource-group web-rg --lb-name web-lb",
        shows="publicIPAddress",
        count=1,
    ),
    Case(command="network vnet list", shows="web-vnet", count=1),
    Case(command="network vnet show --resource-group web-rg --name web-vnet", shows="addressSpace"),
    Case(
        command="network vnet subnet list --resource-group web-rg --vnet-name web-vnet",
        shows="natGateway",
        count=1,
    ),
    Case(
        command="network vnet subnet show --resource-group web-rg --vnet-name web-vnet "
        "--name default",
        shows="natGateway",
    ),
    Case(command="network public-ip list", shows="web-ip", count=1),
    Case(command="network public-ip show --resource-group web-rg --name web-ip", shows="203.0.113"),
    # Roles
    Case(command="role assignment list --all", shows="{principal}"),
    Case(command="role assignment list --scope {vm} --include-inherited", shows="{principal}"),
    Case(
        command="role assignment list --all --assignee-object-id {principal}", shows="{principal}"
    ),
    Case(command="role definition list --custom-role-only true", shows="CustomRole"),
    Case(command="role definition list --name Owner", shows="Owner", count=1),
    # Storage
    Case(
        command="storage container list --auth-mode login --blob-endpoint {blobs}",
        shows="lb-drain",
        count=1,
    ),
    Case(
        command="storage container show --name lb-drain --auth-mode login --blob-endpoint {blobs}",
        shows="lb-drain",
    ),
    Case(
        command="storage container exists --name lb-drain --auth-mode login "
        "--blob-endpoint {blobs}",
        shows="true",
    ),
    Case(
        command="storage blob upload --container-name lb-drain --name notes/a.json --file {file} "
        "--auth-mode login --blob-endpoint {blobs} --no-progress",
        shows="etag",
    ),
    Case(
        command="storage blob list --container-name lb-drain --auth-mode login "
        "--blob-endpoint {blobs}",
        shows="notes/a.json",
        count=1,
    ),
    Case(
        command="storage blob list --container-name lb-drain --prefix other/ --auth-mode login "
        "--blob-endpoint {blobs}",
        shows="[]",
        count=0,
    ),
    Case(
        command="storage blob show --container-name lb-drain --name notes/a.json --auth-mode login "
        "--blob-endpoint {blobs}",
        shows="notes/a.json",
    ),
    # Changes
    Case(
        command="network nic update --resource-group web-rg --name web-1-nic --set tags.owner=ops",
        shows="ops",
    ),
    Case(
        command="network nic ip-config address-pool remove --resource-group web-rg "
        "--nic-name web-2-nic --ip-config-name ipconfig1 --lb-name web-lb --address-pool app",
        shows="",
    ),
    Case(
        command="network nic ip-config address-pool add --resource-group web-rg "
        "--nic-name web-2-nic --ip-config-name ipconfig1 --lb-name web-lb --address-pool app",
        shows="backendAddressPools/app",
    ),
    Case(
        command="network lb rule update --resource-group web-rg --lb-name web-lb --name app-rule "
        "--load-distribution SourceIP",
        shows="SourceIP",
    ),
    Case(
        command="network lb address-pool address update --resource-group web-rg "
        "--lb-name web-internal --pool-name api --name web-2 --admin-state Down",
        shows="Down",
    ),
    Case(
        command="network lb address-pool address remove --resource-group web-rg "
        "--lb-name web-internal --pool-name api --name web-3",
        shows="",
    ),
    Case(command="vm restart --resource-group web-rg --name web-2", shows=""),
    Case(command="vm redeploy --resource-group web-rg --name web-3", shows=""),
    Case(command="vm deallocate --resource-group web-rg --name web-3", shows=""),
    Case(command="vm start --resource-group web-rg --name web-3", shows=""),
)
