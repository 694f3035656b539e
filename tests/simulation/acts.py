"""What people and the platform do to the simulated world: every `Act.what` there is."""

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from controller.core.model import Request
from controller.core.requests import Requests, decode, encode
from controller.simulator.bodies import Json, key
from controller.simulator.events import EventState
from controller.simulator.fleet import CONTAINER
from controller.simulator.server import ACCOUNT
from controller.simulator.wire import Service

from .scenario import Act

if TYPE_CHECKING:
    from .play import Simulation


FAR_AHEAD_S = 60.0
LEADER, STANDBY = "leader", "standby"
"""In the place of a VM's name: whoever leads when it is done, and one who does not."""


class Stage:
    """Performs the acts of a scenario, and knows when the play is over."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._last_act_s = max((act.at_s for act in simulation.scenario.acts), default=0.0)

    # --- looking

    @property
    def blob_path(self) -> str:
        """Where the ledger is."""
        group = self._world.resource_group
        return f"/{ACCOUNT}/{CONTAINER}/{self._world.subscription}/{group}/web.json"

    def ledger(self) -> Json:
        """Return what the ledger says; empty when it says nothing."""
        blob = self._world.blobs.find(self.blob_path)
        parsed: Json = json.loads(blob.body) if blob is not None and blob.body else {}
        return parsed

    def events_pending(self) -> bool:
        """Tell whether an event is announced, or is going to be."""
        over = EventState.GONE
        if self._requests().standing(self._now()):
            return True
        return self._simulation.loop.now < self._last_act_s or any(
            event.state is not over for event in self._world.events.events
        )

    def converged(self) -> bool:
        """Tell whether all is as it should be (law L1); without VMs nobody sees to it."""
        if not any(self._world.serving(vm) for vm in self._simulation.hosts):
            return True
        return (
            not any(self._open_entries())
            and not self._world.in_flight
            # Who waits for an answer that never comes says so at the end of its time.
            and not self._simulation.wires.awaited(Service.ARM)
            and all(host.settled for host in self._simulation.hosts.values())
            and sum(host.leading for host in self._simulation.hosts.values()) == 1
        )

    def _open_entries(self) -> list[Json]:
        """Return the entries that somebody still has to work on: their VM is there and runs."""
        return [
            entry
            for entry in self.ledger().get("entries", [])
            if (vm := self._world.find_vm(entry["vm"])) is not None and vm.state == "running"
        ]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._simulation.epoch(), UTC)

    def _requests(self) -> Requests:
        """Return what people have asked for."""
        blob = self._world.blobs.find(self._requests_path)
        return decode(blob.body if blob is not None else b"")

    @property
    def _requests_path(self) -> str:
        return f"{self.blob_path.removesuffix('.json')}.requests.json"

    # --- doing

    def perform(self, act: Act) -> None:
        """Do it; what cannot be done any more, because its object is gone, is left undone."""
        arguments: Any = dict(act.arguments)
        getattr(self, f"_{act.what}")(**arguments)

    def _event(self, event_type: str, vms: tuple[str, ...], **options: Any) -> None:
        vms = tuple(self._cast().get(vm, vm) for vm in vms)
        if all(self._world.find_vm(vm) is not None for vm in vms if vm.startswith("web-")):
            self._world.schedule_event(event_type, *vms, **options)

    def _cast(self) -> dict[str, str]:
        """Return who plays whom now."""
        hosts = [host for host in self._simulation.hosts.values() if self._world.serving(host.vm)]
        ordered = sorted(hosts, key=lambda host: not host.leading)
        return {role: host.vm for role, host in zip((LEADER, STANDBY), ordered, strict=False)}

    def _crash(self, vm: str, restart_s: float | None) -> None:
        self._simulation.hosts[vm].crash(restart_s)

    def _freeze(self, vm: str, for_s: float, *, clock_stands_still: bool) -> None:
        host = self._simulation.hosts[vm]
        if host.frozen or not host.running:
            return
        host.freeze()

        def thaw() -> None:
            found = self._world.find_vm(vm)
            if found is not None and found.state != "frozen":
                host.thaw(clock_stood_still=clock_stands_still)

        self._simulation.loop.call_later(for_s, thaw, context=self._simulation.wires.context)

    def _edit_tags(self, vm: str, value: str) -> None:
        for nic_id in self._nics(vm)[:1]:
            tags = self._world.nic(nic_id).get("tags", {})
            self._world.edit_tags(nic_id, {**tags, f"edit-{value}": "by hand"})

    def _leave_pool(self, vm: str, pool: str) -> None:
        """An operator takes a VM out of a pool."""
        pool_id = self._pool(pool)
        if pool_id is None:
            return
        if pool in self._simulation.scenario.ip_pools:
            self._change_addresses(pool_id, vm, present=False)
        else:
            for nic_id in self._nics(vm):
                self._world.remove_membership(pool_id, nic_id)

    def _join_pool(self, vm: str, pool: str) -> None:
        """An operator puts a VM into a pool."""
        pool_id = self._pool(pool)
        if pool_id is None:
            return
        if pool in self._simulation.scenario.ip_pools:
            self._change_addresses(pool_id, vm, present=True)
        else:
            for nic_id in self._nics(vm):
                self._world.add_membership(pool_id, nic_id)

    def _change_addresses(self, pool_id: str, vm: str, *, present: bool) -> None:
        pool = self._world.find_pool(pool_id)
        nics = self._nics(vm)
        if pool is None or not nics or key(pool_id) in self._world.in_flight:
            return
        configuration = self._world.nic(nics[0])["properties"]["ipConfigurations"][0]
        address = configuration["properties"]["privateIPAddress"]
        entries = copy.deepcopy(pool["properties"]["loadBalancerBackendAddresses"])
        others = [entry for entry in entries if entry["properties"]["ipAddress"] != address]
        if present and len(others) == len(entries):
            network = configuration["properties"]["subnet"]["id"].rpartition("/subnets/")[0]
            properties = {"ipAddress": address, "virtualNetwork": {"id": network}}
            others.append({"name": f"by-hand-{vm}", "properties": properties})
        elif present:
            return
        self._world.set_addresses(pool_id, others)

    def _add_address(self, pool: str, address: str) -> None:
        """An operator puts a machine that is none of ours into an IP-based pool."""
        pool_id = self._pool(pool)
        body = self._world.find_pool(pool_id) if pool_id else None
        if body is None or pool_id is None or key(pool_id) in self._world.in_flight:
            return
        entries = copy.deepcopy(body["properties"]["loadBalancerBackendAddresses"])
        if all(entry["properties"]["ipAddress"] != address for entry in entries):
            entries.append({"name": f"added-{address}", "properties": {"ipAddress": address}})
            self._world.set_addresses(pool_id, entries)

    def _delete_pool(self, pool: str) -> None:
        pool_id = self._pool(pool)
        if pool_id is not None:
            self._world.delete_pool(pool_id)

    def _delete_vm(self, vm: str) -> None:
        if self._world.find_vm(vm) is not None:
            self._world.delete_vm(vm)

    def _stop_vm(self, vm: str) -> None:
        if self._world.find_vm(vm) is not None:
            self._world.set_vm_state(vm, "stopped")

    def _start_vm(self, vm: str) -> None:
        found = self._world.find_vm(vm)
        if found is not None and found.state != "running":
            self._world.set_vm_state(vm, "running")

    def _fail_nic(self, vm: str) -> None:
        for nic_id in self._nics(vm)[:1]:
            self._world.fail_nic(nic_id)

    def _break_lease(self, period_s: int) -> None:
        blob = self._world.blobs.find(self.blob_path)
        if blob is not None and blob.lease.holder(self._simulation.epoch()) is not None:
            blob.lease.break_(period_s, self._simulation.epoch())
            self._world.record("lease_broken", self.blob_path, period=period_s)

    def _ask(self, vm: str, for_s: float, request_id: str) -> None:
        now = self._now()
        request = Request(
            request_id=request_id,
            vm=vm,
            reason="drawn",
            by="ann",
            at=now,
            until=now + timedelta(seconds=for_s),
        )
        self._put_requests(self._requests().adding(request))

    def _withdraw(self, vm: str) -> None:
        self._put_requests(self._requests().withdrawing(vm, at=self._now(), by="ben"))

    def _put_requests(self, requests: Requests) -> None:
        """Write as a person's command does; the blob is there as soon as an agent has started."""
        store = self._world.blobs
        blob = store.find(self._requests_path)
        if blob is not None:
            blob.body, blob.etag = encode(requests), store.next_etag()
            blob.modified_at = self._simulation.epoch()

    def mend(self) -> None:
        """End every trouble that does not end by itself."""
        for host in self._simulation.hosts.values():
            if host.frozen:
                found = self._world.find_vm(host.vm)
                if found is not None and found.state != "frozen":
                    host.thaw(clock_stood_still=False)
            host.boot()
        for nic in list(self._world.nics.values()):
            if nic["properties"]["provisioningState"] == "Failed":
                self._world.edit_tags(nic["id"], nic.get("tags", {}))
                nic["properties"]["provisioningState"] = "Succeeded"

    def take_back(self) -> None:
        """Let the platform think better of what lies far ahead: nobody waits a week for it."""
        for event in self._world.events.events:
            far = event.not_before > self._simulation.epoch() + FAR_AHEAD_S
            if event.state is EventState.SCHEDULED and far:
                self._world.cancel_event(event.event_id)

    def _nics(self, vm: str) -> list[str]:
        """Return the NICs of a VM that people may edit: those that nobody is writing now."""
        found, world = self._world.find_vm(vm), self._world
        return [
            nic_id
            for nic_id in (found.nic_ids if found else [])
            if key(nic_id) in world.nics and key(nic_id) not in world.in_flight
        ]

    def _pool(self, name: str) -> str | None:
        return next((p for p in self._world.pool_ids() if p.endswith(f"/{name}")), None)
