"""A set whose pools show the adminState of their members, for tests of the planner."""

from dataclasses import dataclass, field, replace
from typing import Any

from controller.core.azure_names import fold
from controller.core.observation import Observation
from controller.core.planning.actions import Plan
from controller.core.planning.member_states import Refusal, view_of
from controller.core.planning.planner import plan
from controller.core.resources import (
    AdminMembership,
    HealthProbe,
    LoadBalancingRule,
    Pool,
    PoolMember,
)
from tests.support.planner_scenario import APP, PlannerScenario, at, ip_id, nic_id

PROBE = HealthProbe(probe_id="/probes/http", port=80, protocol="Http", interval_s=5, threshold=2)
PASSES = 8


@dataclass
class StateScenario(PlannerScenario):
    """The same set; `states` is what its pools show, by pool and VM or address.

    Every view is that of a write that has just ended, unless a test says otherwise.
    """

    states: dict[tuple[str, str], str] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    """What the pools refuse in this tenure, by pool."""
    unprobed: set[str] = field(default_factory=set)
    """Pools with a rule that has no probe, besides one that has."""
    ruleless: set[str] = field(default_factory=set)
    in_use: bool = True

    def __post_init__(self) -> None:
        self.policy = replace(self.policy, admin_state=self.in_use)

    def observe(self, **over: Any) -> Observation:
        rules = [self._rule(pool, PROBE) for pool in self.policy.pools if pool not in self.ruleless]
        rules += [self._rule(pool, None) for pool in self.unprobed]
        views = {view_of(pool): refusal for pool, refusal in self.refused.items()}
        ended = {fold(pool): at(self.now) for pool in self.policy.pools}
        known = {"rules": tuple(rules), "views": views, "ended_at": ended}
        return super().observe(**{**known, **over})

    def _rule(self, pool: str, probe: HealthProbe | None) -> LoadBalancingRule:
        return LoadBalancingRule(rule_id=f"{pool}/rule", pool_ids=(pool.upper(),), probe=probe)

    def _pool(self, pool_id: str) -> Pool:
        pool = super()._pool(pool_id)
        return replace(pool, members=tuple(self._member(pool_id, m) for m in pool.members))

    def _member(self, pool_id: str, member: PoolMember) -> PoolMember:
        places = {ip_id(name): name for name in self.inside}
        address = member.address.ip_address if member.address else ""
        name = places.get(member.ip_configuration_id, address)
        state = self.states.get((pool_id, name), "")
        return replace(member, admin_state=state, admin_down=fold(state) == "down")

    def settle(self, now: float, **over: Any) -> Plan:
        """Plan at `now` and make durable until the ledger says it all."""
        self.now = now
        for _ in range(PASSES):
            planned = plan(self.observe(**over), self.ledger, self.policy, at(now))
            if planned.ledger is None:
                return planned
            self.ledger = planned.ledger
        raise AssertionError("the ledger never says it all")


def state_of(name: str, pool_id: str = APP, *, state: str = "") -> AdminMembership:
    """Return the adminState of the member of a VM's NIC."""
    return AdminMembership(
        pool_id=pool_id, nic_id=nic_id(name), ip_configuration="ipconfig1", admin_state=state
    )


def state_of_address(ip: str, name: str, pool_id: str, *, state: str = "") -> AdminMembership:
    """Return the adminState of an address."""
    return AdminMembership(pool_id=pool_id, name=name, ip_address=ip, admin_state=state)
