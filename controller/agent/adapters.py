"""The adapters of the registered mechanisms. Adding a mechanism means registering its adapter here.

The names are those of the mechanisms in `core.planning.mechanisms`.
"""

from collections.abc import Callable

from controller.agent.address_pool_adapter import AddressPoolAdapter
from controller.agent.admin_state_adapter import AdminStateAdapter
from controller.agent.mechanism_adapter import Adapters
from controller.agent.nic_pool_adapter import NicPoolAdapter
from controller.agent.working_state import WorkingState
from controller.azure.network import Network
from controller.clock import Clock
from controller.core.planning.address_pool import AddressPool
from controller.core.planning.admin_state import AdminState
from controller.core.planning.nic_pool import NicPool

BuildAdapters = Callable[[Network, WorkingState, Clock], Adapters]


def build_adapters(network: Network, state: WorkingState, clock: Clock) -> Adapters:
    """Return the adapters of one agent, by the name of their mechanism."""
    return {
        NicPool().name: NicPoolAdapter(network=network, state=state, clock=clock),
        AddressPool().name: AddressPoolAdapter(network=network, state=state),
        AdminState().name: AdminStateAdapter(network=network, state=state),
    }
