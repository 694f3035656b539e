"""Writes to NICs and pools, as Resource Manager carries them out: operations that take time.

A write changes the stored body at once, the data plane after a share of its latency, and the state
of its operation at the end. A plan decides how a later write ends.
"""

import copy
import math
from collections.abc import Callable

from controller.simulator.world import bodies
from controller.simulator.world.access import OPERATOR
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.network import Network, drop_pool
from controller.simulator.world.operations import (
    Operation,
    OperationStatus,
    Outcome,
    PlannedOutcome,
    failure,
    superseded,
)

NIC_WRITE = "PutNicOperation"
POOL_WRITE = "PutLoadBalancerBackendAddressPoolOperation"
LOAD_BALANCER_WRITE = "PutLoadBalancerOperation"


class Writes:
    """The operations of one network, running and ended."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.operations: dict[str, Operation] = {}
        """Every operation, by its id."""
        self.in_flight: dict[str, Operation] = {}
        """The running operation of each resource, by the key of the resource."""
        self._planned: dict[str, list[PlannedOutcome]] = {}
        self._stale: dict[str, tuple[float, Json]] = {}

    def plan(self, resource: str, outcome: Outcome, latency_s: float | None = None) -> None:
        """Decide how the next operation on a NIC or pool (id) ends, and how long it takes."""
        self._planned.setdefault(key(resource), []).append(
            PlannedOutcome(outcome=outcome, latency_s=latency_s)
        )

    def unplan(self, resource: str) -> None:
        """Withdraw the newest plan for a resource: the write that it was for was refused."""
        self._planned[key(resource)].pop()

    def put_nic(self, body: Json, by: str) -> Operation | None:
        """Store an accepted NIC body; None if it is synchronous, having no VM."""
        before = copy.deepcopy(self._network.nics[key(body["id"])])
        earlier = self.in_flight.get(key(body["id"]))
        self._network.nics[key(body["id"])] = body
        if self._network.owner(body["id"]) is None:
            self._network.stamp_nic(body, "Succeeded")
            self._network.record("write", body["id"], by=by, operation="")
            return None
        self._network.stamp_nic(body, "Updating")
        operation = self._begin(
            NIC_WRITE, body["id"], before, by, self._network.settings.operation_latency_s
        )
        if earlier is not None:
            self._supersede(earlier, operation)
        return operation

    def put_pool(
        self, body: Json, before: Json, by: str, on_apply: Callable[[], None] | None = None
    ) -> Operation:
        """Account for a pool body just stored; an earlier write on its LB is superseded."""
        earlier = self._load_balancer_writes(body["id"])
        latency_s = self._network.settings.pool_operation_latency_s
        operation = self._begin(POOL_WRITE, body["id"], before, by, latency_s)
        operation.on_apply = on_apply
        for loser in earlier:
            self._supersede(loser, operation)
        self._network.stamp_load_balancer(body["id"])
        return operation

    def put_load_balancer(self, body: Json, before: Json, by: str) -> Operation:
        """Account for a load balancer just stored; earlier writes on it are superseded."""
        earlier = self._load_balancer_writes(body["id"])
        latency_s = self._network.settings.pool_operation_latency_s
        operation = self._begin(LOAD_BALANCER_WRITE, body["id"], before, by, latency_s)
        for loser in earlier:
            self._supersede(loser, operation)
        self._network.stamp_load_balancer(body["id"])
        return operation

    def rewrite_nic(
        self, nic_id: str, by: str = OPERATOR, *, stale: bool = False
    ) -> Operation | None:
        """Let another client PUT a NIC as it read it; a running write of ours is superseded.

        With `stale` it read the NIC before our write, and so undoes that.
        """
        body = self._network.nic(nic_id)
        running = self.in_flight.get(key(body["id"]))
        return self.put_nic(copy.deepcopy(running.before if stale and running else body), by)

    def rewrite_load_balancer(
        self, load_balancer_id: str, by: str = OPERATOR, *, stale: bool = False
    ) -> Operation:
        """Let another client PUT a load balancer as it read it; running writes are superseded.

        With `stale` it read it before those writes to pools, and so undoes them.
        """
        for running in self._load_balancer_writes(load_balancer_id) if stale else ():
            self._revert(running)
        body = self._network.load_balancers[key(load_balancer_id)]
        return self.put_load_balancer(body, copy.deepcopy(body), by)

    def stick(self, nic_id: str, by: str = OPERATOR) -> Operation | None:
        """Begin a write of a NIC that does not end: the NIC stays in state Updating."""
        self.plan(self._network.nic(nic_id)["id"], "no_effect", math.inf)
        return self.rewrite_nic(nic_id, by)

    def release(self, nic_id: str) -> None:
        """End the running write of a NIC, such as one that does not end."""
        operation = self.in_flight.get(key(self._network.nic(nic_id)["id"]))
        if operation is not None:
            for timer in operation.timers:
                timer.cancel()
            self._end(operation)

    def forget_pool(self, pool_id: str) -> None:
        """Let no write of a NIC that fails bring back the reference to a deleted pool."""
        for running in self.in_flight.values():
            for each in (*running.carried, running):
                for entry in each.before["properties"].get("ipConfigurations", ()):
                    drop_pool(entry["properties"], pool_id)

    def _load_balancer_writes(self, resource: str) -> list[Operation]:
        """Return the running writes on the load balancer that a pool belongs to, or is."""
        load_balancer = self._network.load_balancer_of(resource)
        return [
            operation
            for operation in self.in_flight.values()
            if operation.kind in (POOL_WRITE, LOAD_BALANCER_WRITE)
            and self._network.load_balancer_of(operation.resource) is load_balancer
        ]

    def _begin(self, kind: str, resource: str, before: Json, by: str, latency: float) -> Operation:
        queue = self._planned.get(key(resource))
        planned = queue.pop(0) if queue else PlannedOutcome(outcome="succeeded")
        operation = Operation(
            operation_id=bodies.guid(self._network.random),
            kind=kind,
            resource=resource,
            location=self._network.location,
            started_at=self._network.now,
            before=before,
            outcome=planned.outcome,
        )
        latency += self._network.random.uniform(0.0, self._network.settings.operation_jitter_s)
        latency = latency if planned.latency_s is None else planned.latency_s
        self.operations[operation.operation_id] = operation
        # A later pool write takes this slot; the loser's own timers are cancelled by then.
        self.in_flight[key(resource)] = operation
        self._network.record("write", resource, by=by, operation=operation.operation_id)
        if self._network.settings.read_lag_s > 0:
            self._stale[key(resource)] = (
                self._network.now + self._network.settings.read_lag_s,
                before,
            )
        visible = self._network.now + latency * self._network.settings.membership_visible_after
        if planned.outcome == "succeeded":
            operation.timers.append(
                self._network.scheduler.at(visible, lambda: self._apply(operation))
            )
        if math.isfinite(latency):
            ends_at = self._network.now + latency
            operation.timers.append(
                self._network.scheduler.at(ends_at, lambda: self._end(operation))
            )
        return operation

    def lagging(self, resource: Json) -> Json:
        """Return the body that a GET shows now: for a while after a write, the body before it."""
        until, before = self._stale.get(key(resource["id"]), (0.0, resource))
        return before if self._network.now < until else resource

    def remaining_s(self, operation: Operation) -> float:
        """Return how long an operation in flight will still take."""
        return (
            max((timer.at for timer in operation.timers), default=self._network.now)
            - self._network.now
        )

    def _apply(self, operation: Operation) -> None:
        operation.applied = True
        if operation.kind == NIC_WRITE:
            self._network.apply_nic(operation.resource)
            return
        # The later of two writes carries the whole load balancer, the superseded one included.
        load_balancer = self._network.load_balancer_of(operation.resource)
        for pool in load_balancer["properties"]["backendAddressPools"] if load_balancer else ():
            self._network.apply_pool(pool["id"])
        # Of two writes of one pool the later one replaces what the earlier one would have done.
        for last in {key(each.resource): each for each in (*operation.carried, operation)}.values():
            if last.on_apply is not None:
                last.on_apply()

    def _end(self, operation: Operation) -> None:
        statuses: dict[Outcome, OperationStatus] = {"failed": "Failed", "canceled": "Canceled"}
        status = statuses.get(operation.outcome, "Succeeded")
        if status != "Succeeded":
            operation.error = failure(operation)
        if operation.outcome != "succeeded" and not (
            status == "Failed" and self._network.settings.failed_write_keeps_body
        ):
            self._revert(operation)
        self._finish(operation, status)
        nic = self._network.nics.get(key(operation.resource))
        if nic is not None:
            self._network.stamp_nic(nic, "Failed" if status == "Failed" else "Succeeded")
        if operation.kind in (POOL_WRITE, LOAD_BALANCER_WRITE):
            self._settle(operation, status)

    def _settle(self, operation: Operation, status: OperationStatus) -> None:
        """Give the pools of a load balancer the state that they have after its only write."""
        load_balancer = self._network.load_balancer_of(operation.resource)
        for pool in load_balancer["properties"]["backendAddressPools"] if load_balancer else ():
            failed = status == "Failed" and key(pool["id"]) == key(operation.resource)
            pool["properties"]["provisioningState"] = "Failed" if failed else "Succeeded"
        self._network.stamp_load_balancer(operation.resource)

    def _supersede(self, loser: Operation, winner: Operation) -> None:
        for timer in loser.timers:
            timer.cancel()
        loser.error = superseded(loser, winner)
        same = key(loser.resource) == key(winner.resource)
        if not loser.applied:
            if same or self._network.settings.superseded_write_survives:
                winner.carried.append(loser)
            else:
                self._revert(loser)
        self._finish(loser, "Canceled")

    def _finish(self, operation: Operation, status: OperationStatus) -> None:
        operation.status = status
        operation.ended_at = self._network.now
        if self.in_flight.get(key(operation.resource)) is operation:
            del self.in_flight[key(operation.resource)]
        self._network.record(
            "operation_ended", operation.operation_id, resource=operation.resource, status=status
        )

    def _revert(self, operation: Operation) -> None:
        if operation.kind == NIC_WRITE and key(operation.resource) in self._network.nics:
            self._network.nics[key(operation.resource)] = copy.deepcopy(operation.before)
        elif operation.kind == LOAD_BALANCER_WRITE:
            self._network.load_balancers[key(operation.resource)] = copy.deepcopy(operation.before)
        elif (pool := self._network.find_pool(operation.resource)) is not None:
            pool["properties"] = copy.deepcopy(operation.before["properties"])
        for carried in reversed(operation.carried):
            self._revert(carried)
