"""One simulated VM: its identity and its state."""

from dataclasses import dataclass, field
from typing import Literal

from controller.simulator.world.access import Window
from controller.simulator.world.maintenance import PlannedMaintenance

VmState = Literal["running", "rebooting", "frozen", "stopped", "deallocated", "deleted"]


@dataclass(slots=True, kw_only=True)
class SimVm:
    """One VM. It has its base state unless an impact is active."""

    name: str
    resource_id: str
    vm_id: str
    computer_name: str
    nic_ids: list[str]
    in_set: bool
    """Whether it belongs to the availability set of the world."""
    fault_domain: int
    update_domain: int
    client_id: str
    created_at: float
    base_state: VmState = "running"
    impacts: dict[str, VmState] = field(default_factory=dict[str, VmState])
    maintenance: PlannedMaintenance | None = None
    closed: bool = False
    """Whether the application asks for no new work: each answer is the last on its connection."""
    other_set_id: str = ""
    """The availability set of a VM that belongs to another one; it sees the events of that set."""
    placement_group: int = 0
    """In a scale set: whose events its document shows."""
    etag: int = 1
    imds_last_call: float | None = None
    imds_ready_at: float = 0.0
    imds_events_at: float = 0.0
    """When events first appear in the document of this VM."""
    imds_incarnation_base: int = 0
    imds_window: Window = field(default_factory=Window)
    identity_window: Window = field(default_factory=Window)

    @property
    def state(self) -> VmState:
        """The present state; of several impacts, a reboot wins over a freeze."""
        if self.base_state != "running" or not self.impacts:
            return self.base_state
        return "rebooting" if "rebooting" in self.impacts.values() else "frozen"

    @property
    def power_state(self) -> str:
        """The power state that Microsoft.Compute reports; it does not report a freeze."""
        match self.state:
            case "rebooting":
                return "starting"
            case "frozen":
                return "running"
            case other:
                return other
