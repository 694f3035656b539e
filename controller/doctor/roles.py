"""The roles in `deploy/roles`, and the role that contains a permission. Pure.

`tests/deploy/test_roles.py` compares this with the definitions, action by action.
"""

from enum import Enum

from controller.core.azure_names import fold

ACKNOWLEDGE = "Microsoft.Maintenance/scheduledevents/acknowledge/action"
OPERATIONS_READ = "Microsoft.Network/locations/operations/read"
_BLOBS = "microsoft.storage/storageaccounts/blobservices/containers/blobs/"
_IP_POOLS_ONLY = frozenset(
    {
        "microsoft.network/loadbalancers/backendaddresspools/read",
        "microsoft.network/loadbalancers/backendaddresspools/write",
        "microsoft.network/virtualnetworks/joinloadbalancer/action",
        "microsoft.network/virtualnetworks/subnets/joinloadbalancer/action",
    }
)
_READERS = frozenset(
    {
        "microsoft.compute/availabilitysets/read",
        "microsoft.compute/virtualmachines/read",
        "microsoft.compute/virtualmachines/instanceview/read",
        "microsoft.network/loadbalancers/read",
        "microsoft.network/networkinterfaces/read",
    }
)
_ADMIN_STATE = _READERS | {
    "microsoft.network/loadbalancers/backendaddresspools/read",
    "microsoft.network/loadbalancers/backendaddresspools/write",
}
_BOTH = _READERS | {"microsoft.network/virtualnetworks/subnets/join/action"}


class Role(Enum):
    """A role definition for the agents; the value is its file name without the extension."""

    NIC_POOLS = "nic-pools"
    IP_POOLS = "ip-pools"
    ADMIN_STATE = "admin-state"
    READERS = "readers"
    OPERATIONS = "operations"
    LEDGER = "ledger"
    ACKNOWLEDGEMENT = "acknowledgement"

    @property
    def label(self) -> str:
        """The name of the role, without the subscription id at its end."""
        return _LABELS[self]


_LABELS = {
    Role.NIC_POOLS: "lb-drain NIC-based pools",
    Role.IP_POOLS: "lb-drain IP-based pools",
    Role.ADMIN_STATE: "lb-drain admin state",
    Role.READERS: "lb-drain readers",
    Role.OPERATIONS: "lb-drain operations",
    Role.LEDGER: "lb-drain ledger",
    Role.ACKNOWLEDGEMENT: "lb-drain acknowledgement",
}


def role_for(
    action: str, *, has_only_ip_pools: bool, close_only: bool, admin_state: bool = False
) -> Role:
    """Return the role to assign for an action, by the mechanism and the configured pools.

    A NIC can refer to more kinds of resources than the roles know, so the role for NIC-based pools
    is also the one that an unknown action has to be added to.
    """
    key = fold(action)
    alone = {fold(OPERATIONS_READ): Role.OPERATIONS, fold(ACKNOWLEDGE): Role.ACKNOWLEDGEMENT}
    if key in alone:
        return alone[key]
    if key.startswith(_BLOBS):
        return Role.LEDGER
    if key in _READERS and close_only:
        return Role.READERS
    if key in _ADMIN_STATE and admin_state and not has_only_ip_pools:
        return Role.ADMIN_STATE
    if key in _IP_POOLS_ONLY or (key in _BOTH and has_only_ip_pools):
        return Role.IP_POOLS
    return Role.NIC_POOLS
