"""What people and the platform do to the simulated world: every `Act.what` there is."""

import copy
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from controller.azure.blob import MAX_BODY_BYTES
from controller.core.azure_names import fold
from controller.core.drain_requests import DrainRequest, DrainRequests
from controller.core.events import ScheduledEvent
from controller.core.forwarded_events import events_of
from controller.errors import ContractViolation
from controller.simulator.services.connectivity import connectivity
from controller.simulator.services.http_values import Delivery, Service
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.events import EventState
from controller.simulator.world.leases import LeaseState
from controller.storage.drain_requests_json import decode_requests, encode_requests
from controller.storage.forwarded_events_store import decode_forwarded, forwarded_blob_name
from tests.laws.ledger_document import parsed
from tests.simulation.harsh_acts import HarshActs
from tests.simulation.rolling_runs import RollingOperator
from tests.simulation.scenario import Act
from tests.simulation.worlds import ledger_path, sets_of

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.runner import Simulation


FAR_AHEAD_S = 60.0
FORWARDED_SOON = timedelta(minutes=30)
"""What is forwarded for later than that outlasts every play, if the agent cannot withdraw it."""
HOOK_REPORTED_S = 10.0
"""How long the report of a hook takes that has outlasted its stage."""
LED_FOR_S = 11.0
"""A new leader judges with its second pass what came and went without a leader."""
LEADER, STANDBY = "leader", "standby"
"""In the place of a VM's name: whoever leads when it is done, and one who does not."""


def _is_readable(body: bytes) -> bool:
    """Return whether a command can read the drain requests in a blob."""
    try:
        decode_requests(body)
    except ContractViolation:
        return False
    return len(body) <= MAX_BODY_BYTES


class Stage:
    """Performs the acts of a scenario, and knows when the play is over."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._leading: dict[str, tuple[list[str], float]] = {}
        """By ledger: the agents that take themselves for the leader, and since when."""
        self.harsh = HarshActs(simulation, self.blob_path)
        self._last_act_s = max((act.at_s for act in simulation.scenario.acts), default=0.0)

    # --- looking

    @property
    def blob_path(self) -> str:
        """Where the ledger is."""
        return ledger_path(self._world.availability_set_id)

    def ledger(self, path: str = "") -> Json:
        """Return what a ledger says, by default that of the first set; empty when it is nothing."""
        blob = self._world.blobs.find(path or self.blob_path)
        return parsed(blob.body.decode(errors="replace")) if blob is not None else {}

    def events_pending(self) -> bool:
        """Tell whether an event is announced, or is going to be."""
        over = EventState.GONE
        rolling = any(operator.unfinished for operator in self._simulation.operators)
        if rolling or self._requests().active(self._now()) or self._forwarded_soon():
            return True
        return self._simulation.loop.now < self._last_act_s or any(
            event.state is not over for event in self._world.events.events
        )

    def converged(self) -> bool:
        """Return whether all is as it should be (law L1).

        A set whose VMs are deleted has no agent, or none that is able.
        """
        unable = self._simulation.scenario.unable
        served = {
            path: vms
            for path, vms in sets_of(self._world).items()
            if any(self._world.serving(vm) and vm not in unable for vm in vms)
        }
        if not served:
            return True
        led_for_s = [self._led_for_s(path, vms) for path, vms in served.items()]
        return (
            not any(self._unfinished(path) for path in served)
            and not self._world.writes.in_flight
            # Who waits for an answer that never comes says so at the end of its time.
            and not self._simulation.wires.awaited(
                Service.ARM, besides=self._simulation.scenario.unable
            )
            and all(host.settled and not self._closed(host) for host in self._able())
            and not any(
                machine.hook_ends_at + HOOK_REPORTED_S > self._simulation.loop.now
                for machine in self._simulation.machines.values()
            )
            and min(led_for_s) >= LED_FOR_S
        )

    def _led_for_s(self, path: str, vms: tuple[str, ...]) -> float:
        """Return how long the one agent that leads was seen leading; negative without one.

        An agent that remembers more than the ledger says ends its lease.
        """
        now, blob = self._simulation.loop.now, self._world.blobs.find(path)
        leased = (
            blob is not None and blob.lease.state(self._simulation.epoch()) is LeaseState.LEASED
        )
        leading = [vm for vm in vms if leased and self._simulation.hosts[vm].leading]
        before, since = self._leading.get(path, ([], 0.0))
        if before != leading:
            since = now
        self._leading[path] = leading, since
        return now - since if len(leading) == 1 else -1.0

    def _unfinished(self, path: str) -> bool:
        """Return whether a ledger has work.

        Each event still gets its verdict; the inventory that reads an unreadable VM is due, and one
        that shows what a read did not; a request that the floor holds is over some time, also one
        whose blob was deleted. An event that a dead agent has forwarded outlasts the play.
        """
        ledger = self.ledger(path)
        holds: list[Json] = ledger.get("holds", [])
        forwarded = self._forwarded()
        stay = {fold(vm) for event in forwarded for vm in event.resources}
        held = any(
            hold["reason"] == "unreadable_vm"
            or (hold["reason"] == "floor" and fold(hold["subject"]) not in stay)
            for hold in holds
        )
        unread = any(hold["message"].startswith("read ") for hold in holds)
        held = held or (unread and not self._simulation.scenario.unable)
        waits_for = {fold(each.event_id) for each in forwarded}
        watched = [e for e in ledger.get("events", []) if fold(e["event_id"]) not in waits_for]
        return bool(self._open_entries(ledger) or watched or held)

    def _closed(self, host: "Host") -> bool:
        """Return whether a VM that runs takes no new work."""
        return self._world.serving(host.vm) and self._world.closed(host.vm)

    def _able(self) -> list["Host"]:
        """Return the hosts whose agents have everything they need.

        A VM that is out can lack the outbound access that its pool gives.
        """
        unable = self._simulation.scenario.unable
        return [
            host
            for host in self._simulation.hosts.values()
            if host.vm not in unable
            if not self._world.serving(host.vm)
            or connectivity(self._world, host.vm, Service.BLOB) is Delivery.NORMAL
        ]

    def _open_entries(self, ledger: Json) -> list[Json]:
        """Return the entries that still need work: their VM is there and runs, and may come back.

        It may not while an event counts that a dead agent has forwarded, which outlasts the play.
        """
        stay = {fold(vm) for event in self._forwarded() for vm in event.resources}
        return [
            entry
            for entry in ledger.get("entries", [])
            if (vm := self._world.find_vm(entry["vm"])) is not None and vm.state == "running"
            if fold(entry["vm"]) not in stay
            if entry["memberships"] or self._can_return(entry, ledger)
        ]

    def _can_return(self, entry: Json, ledger: Json) -> bool:
        """Return whether the place of a lost membership exists and is the recorded one.

        A membership that lacks only its adminState is in its pool, and Azure refuses the rest.
        """
        reasons = " ".join(hold["message"] for hold in ledger.get("holds", []))
        for_good = ("created again", "not attached", "not one of", "does not list the member")
        if any(each in reasons for each in for_good):
            return False
        lost = [each for each in entry.get("lost", []) if not each.get("lacks")]
        return any(self._world.find_pool(each["pool_id"]) is not None for each in lost)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._simulation.epoch(), UTC)

    def _requests(self) -> DrainRequests:
        """Return what people have asked for."""
        blob = self._world.blobs.find(self._requests_path)
        try:
            return decode_requests(blob.body if blob is not None else b"")
        except ContractViolation:
            return DrainRequests()

    def _forwarded(self, *, by_able: bool = False) -> tuple[ScheduledEvent, ...]:
        """Return the events that agents of VMs of the set have forwarded, and that count.

        A VM that is out may not reach storage to withdraw its events.

        Args:
            by_able: only those that an agent can withdraw, because it runs and lacks nothing.
        """
        found: list[ScheduledEvent] = []
        able = {host.vm for host in self._able() if host.live_status is not None and host.forwards}
        for vm in self._world.peers():
            if by_able and vm.name not in able:
                continue
            name = forwarded_blob_name(self.blob_path, vm.name)
            blob = self._world.blobs.find(name)
            if blob is None:
                continue
            written_at = datetime.fromtimestamp(blob.modified_at, UTC)
            with suppress(ContractViolation):
                forwarded = decode_forwarded(blob.body, name)
                found += events_of(forwarded, written_at, self._now())
        return tuple(found)

    def _forwarded_soon(self) -> bool:
        """Return whether a forwarded event counts, and is not announced for days ahead."""
        soon = self._now() + FORWARDED_SOON
        announced = {
            key(event.event_id)
            for event in self._world.events.events
            if event.state is EventState.SCHEDULED
        }
        withdrawn = any(key(e.event_id) not in announced for e in self._forwarded(by_able=True))
        return withdrawn or any((e.not_before or soon) <= soon for e in self._forwarded())

    @property
    def _requests_path(self) -> str:
        return f"{self.blob_path.removesuffix('.json')}.requests.json"

    # --- doing

    def perform(self, act: Act) -> None:
        """Do it; what cannot be done any more, because its object is gone, is left undone."""
        arguments: Any = dict(act.arguments)
        own = getattr(self, f"_{act.what}", None)
        (own or getattr(self.harsh, act.what))(**arguments)

    def _event(self, event_type: str, vms: tuple[str, ...], **options: Any) -> None:
        vms = tuple(self._cast().get(vm, vm) for vm in vms)
        if all(self._world.find_vm(vm) is not None for vm in vms if vm in self._simulation.hosts):
            self._world.events.schedule(event_type, *vms, **options)

    def _cast(self) -> dict[str, str]:
        """Return who plays whom now."""
        peers = [self._simulation.hosts[vm.name] for vm in self._world.peers()]
        hosts = [host for host in peers if self._world.serving(host.vm)]
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
        if pool is None or not nics or key(pool_id) in self._world.writes.in_flight:
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
        if body is None or pool_id is None or key(pool_id) in self._world.writes.in_flight:
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

    def _ask(self, vm: str, for_s: float, request_id: str, by: str = "ann") -> None:
        now = self._now()
        request = DrainRequest(
            request_id=request_id,
            vm=vm,
            reason="drawn",
            by=by,
            at=now,
            until=now + timedelta(seconds=for_s),
        )
        self._put_requests(self._requests().adding(request))

    def _withdraw(self, vm: str, by: str = "ben") -> None:
        after = self._requests().withdrawing(vm, at=self._now(), by=by)
        self._end_requests(after)

    def withdraw_all(self, by: str) -> None:
        """End every drain request."""
        before, now = self._requests(), self._now()
        ids = [each.request_id for each in before.active(now)]
        self._end_requests(before.ending(ids, at=now, by=by))

    def _end_requests(self, after: DrainRequests) -> None:
        now = self._now()
        for request in self._requests().active(now):
            if not after.stands(request.request_id, now):
                self._simulation.record("withdrawn", request.request_id, vm=request.vm)
        self._put_requests(after)

    def _roll(self, vm: str, work_s: float, for_s: float) -> None:
        operator = RollingOperator(self._simulation, vm, work_s=work_s, for_s=for_s)
        self._simulation.operators.append(operator)
        operator.begin()

    def _kill_roll(self) -> None:
        for operator in self._simulation.operators:
            operator.kill()

    def _put_requests(self, requests: DrainRequests) -> None:
        """Write as a person's command does; the blob is there as soon as an agent has started.

        A command refuses content that it cannot read.
        """
        store = self._world.blobs
        blob = store.find(self._requests_path)
        if blob is not None and _is_readable(blob.body):
            blob.body, blob.etag = encode_requests(requests), store.next_etag()
            blob.modified_at = self._simulation.epoch()

    def _spoil_report(self, vm: str, how: str) -> None:
        """Something else writes the report of a VM: text, too much, or what an agent once wrote."""
        blob = self._world.blobs.find(f"{self.blob_path.removesuffix('.json')}.vms/{vm}.json")
        if blob is None:
            return
        document = parsed(blob.body.decode(errors="replace"))
        match how:
            case "garbage":
                body = b"\xff{no report"
            case "huge":
                body = json.dumps({**document, "padding": "x" * 300_000}).encode()
            case "another VM":
                body = json.dumps({**document, "vm": "stranger"}).encode()
            case _:
                # An earlier drain of an earlier boot, which ended well.
                at = self._now() - timedelta(hours=1)
                old = {"state": "closed", "drain": at.isoformat(), "boot_id": "earlier"}
                proof = {"counted": True, "quiet_since": at.isoformat(), "refused_probes": 99}
                now = {"at": self._now().isoformat(), "since": at.isoformat(), "probe_port": 80}
                body = json.dumps({**document, **old, **proof, **now}).encode()
        blob.body, blob.etag = body, self._world.blobs.next_etag()
        self._simulation.marks.add(f"spoilt report: {how}")

    def repair(self) -> None:
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
                self._world.events.cancel(event.event_id)

    def _nics(self, vm: str) -> list[str]:
        """Return the NICs of a VM that people may edit: those that nobody is writing now."""
        found, world = self._world.find_vm(vm), self._world
        return [
            nic_id
            for nic_id in (found.nic_ids if found else [])
            if key(nic_id) in world.nics and key(nic_id) not in world.writes.in_flight
        ]

    def _pool(self, name: str) -> str | None:
        return next((p for p in self._world.pool_ids() if p.endswith(f"/{name}")), None)
