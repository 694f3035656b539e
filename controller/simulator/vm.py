"""One simulated VM: what it is, and what maintenance makes of it."""

from dataclasses import dataclass, field
from typing import Literal

from controller.simulator.access import Window
from controller.simulator.maintenance import PlannedMaintenance

VmState = Literal["running", "rebooting", "frozen", "stopped", "deallocated", "deleted"]


@dataclass(slots=True, kw_only=True)
class SimVm:
    """One VM. It is what its base state says unless an impact is upon it."""

    name: str
    resource_id: str
    vm_id: str
    computer_name: str
    nic_ids: list[str]
    in_set: bool
    fault_domain: int
    update_domain: int
    client_id: str
    base_state: VmState = "running"
    impacts: dict[str, VmState] = field(default_factory=dict[str, VmState])
    maintenance: PlannedMaintenance | None = None
    etag: int = 1
    imds_last_call: float | None = None
    imds_ready_at: float = 0.0
    imds_incarnation_base: int = 0
    imds_window: Window = field(default_factory=Window)
    identity_window: Window = field(default_factory=Window)

    @property
    def state(self) -> VmState:
        """What the VM is now; of several impacts the reboot wins over the freeze."""
        if self.base_state != "running" or not self.impacts:
            return self.base_state
        return "rebooting" if "rebooting" in self.impacts.values() else "frozen"

    @property
    def power_state(self) -> str:
        """What Microsoft.Compute reports; it does not notice a freeze."""
        match self.state:
            case "rebooting":
                return "starting"
            case "frozen":
                return "running"
            case other:
                return other
