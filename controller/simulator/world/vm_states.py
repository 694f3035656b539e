"""The states of the VMs of a world: impacts of maintenance, edits by operators, deletion."""

from typing import Literal

from controller.simulator.world.bodies import key
from controller.simulator.world.operator_edits import OperatorEdits
from controller.simulator.world.vm import VmState


class VmStates(OperatorEdits):
    """VMs that go down and come back."""

    def serving(self, vm: str) -> bool:
        """Return whether a VM answers: it runs and is neither rebooting nor frozen."""
        found = self.find_vm(vm)
        return found is not None and found.state == "running"

    def reachable(self, vm: str) -> bool:
        """Return whether packets reach the VM: a frozen VM is reachable but does not answer."""
        found = self.find_vm(vm)
        return found is not None and found.state in ("running", "frozen")

    def closed(self, vm: str) -> bool:
        """Return whether the application on a VM asks for no new work."""
        found = self.find_vm(vm)
        return found is not None and found.closed

    def set_closed(self, vm: str, *, closed: bool) -> None:
        """Close or open the application on a VM, as its own agent or an operator would."""
        found = self.vm(vm)
        if found.closed != closed:
            found.closed = closed
            self.record("application_closed" if closed else "application_opened", found.name)

    def begin_impact(self, vm: str, cause: str, state: str) -> None:
        """Apply an impact of maintenance to a VM. A name without a VM is a VM of another owner."""
        found = self.find_vm(vm)
        if found is None:
            return
        match state:
            case "deleted":
                self.delete_vm(vm)
            case "deallocated":
                self.set_vm_state(vm, "deallocated")
            case "frozen" | "rebooting":
                found.impacts[cause] = state
                self.record("vm_down", found.name, state=found.state)
                if state == "rebooting":
                    # What closes an application is in memory (/run), and gone after a reboot.
                    self.set_closed(vm, closed=False)
            case _:
                raise ValueError(f"{state!r} is not an impact")

    def end_impact(self, vm: str, cause: str) -> None:
        """End one impact on a VM. It runs again when no other impact is left."""
        found = self.find_vm(vm)
        before = found.state if found is not None else ""
        if found is None or found.impacts.pop(cause, None) is None:
            return
        if found.state == "running":
            self.record("vm_up", found.name)
        elif found.state != before:
            self.record("vm_down", found.name, state=found.state)

    def set_vm_state(self, vm: str, state: VmState) -> None:
        """Stop, deallocate, start, freeze or reboot a VM; `running` ends every impact."""
        found = self.vm(vm)
        if state == "deleted":
            self.delete_vm(vm)
            return
        found.impacts.clear()
        if state in ("frozen", "rebooting"):
            found.base_state = "running"
            found.impacts["set state"] = state
        else:
            found.base_state = state
        found.etag += 1
        self.record("vm_state", found.name, state=state)
        if state == "running":
            self.record("vm_up", found.name)
            return
        self.record("vm_down", found.name, state=state)
        if state != "frozen":
            self.set_closed(vm, closed=False)

    def delete_vm(self, vm: str, *, nics: Literal["delete", "detach"] = "delete") -> None:
        """Delete a VM, and delete or keep its NICs."""
        found = self.vms.pop(vm.casefold())
        for nic_id in found.nic_ids:
            self.leave_all_pools(nic_id)
            if nics == "delete":
                self.nics.pop(key(nic_id), None)
            elif key(nic_id) in self.nics:
                self.nics[key(nic_id)]["properties"].pop("virtualMachine", None)
                self.stamp_nic(self.nics[key(nic_id)], "Succeeded")
        self.record("vm_down", found.name, state="deleted")
        self.record("vm_state", found.name, state="deleted")
