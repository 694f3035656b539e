"""The blobs with the presence of the agents, beside the ledger: one writer each, the agent."""

import asyncio
from collections.abc import Callable, Iterable

from controller.azure.blob import StateBlob
from controller.core.agent_presence import AgentPresence, SeenAgent
from controller.core.azure_names import fold
from controller.errors import ContractViolation, ControllerError, NotFound
from controller.storage.own_blob import OwnBlob
from controller.storage.presence_json import encode_presence, presence_blob_name, seen_agent

MAX_AGENTS = 1000
"""How many presences are read: of the largest scale set (Microsoft docs, limits)."""
PARALLEL_READS = 8


class PresenceWriter:
    """Writes the presence of one agent."""

    def __init__(self, blob: StateBlob) -> None:
        self._own = OwnBlob(blob)

    async def write(self, presence: AgentPresence) -> None:
        """Replace the presence; raise as `OwnBlob.replace`."""
        await self._own.replace(encode_presence(presence))


async def read_agents(
    open_blob: Callable[[str], StateBlob], ledger_name: str, vms: Iterable[str]
) -> tuple[SeenAgent, ...]:
    """Return what is known of the agents of these VMs; one that cannot be read contains the reason.

    Args:
        open_blob: returns the client of the blob with this name.
        ledger_name: the name of the blob with the ledger.
        vms: names of the VMs; the same name in another spelling is read once.
    """
    names = tuple({fold(vm): vm for vm in vms}.values())[:MAX_AGENTS]
    free = asyncio.Semaphore(PARALLEL_READS)

    async def read(vm: str) -> SeenAgent:
        async with free:
            try:
                content = await open_blob(presence_blob_name(ledger_name, vm)).read()
            except NotFound:
                return seen_agent(None, vm)
            except ContractViolation as error:
                return SeenAgent(vm=vm, problem=f"its presence cannot be read: {error}")
            except ControllerError as error:
                return SeenAgent(vm=vm, problem=str(error))
        return seen_agent(content.body, vm)

    return tuple(await asyncio.gather(*map(read, names)))
